// By what a file that is chosen again is known.

import type { Remembered } from "./memory.js";

/** Bytes, at either end. */
const EDGE = 64 << 10;

/**
 * Tells whether a file that was chosen again is likely the one of before: FNV-1a (32 bits) of its first and last
 * 64 KiB, in hex. Nobody deceives but themselves here, so this needs no cryptography, and no worker. Rejects with a
 * NotReadableError if the file is gone or was changed since it was chosen.
 */
export async function edges(source: Blob): Promise<string> {
	const ends = new Blob([source.slice(0, EDGE), source.slice(Math.max(EDGE, source.size - EDGE))]);
	let hash = 0x811c9dc5;
	for (const byte of new Uint8Array(await ends.arrayBuffer())) {
		hash = Math.imul(hash ^ byte, 0x01000193);
	}
	return (hash >>> 0).toString(16);
}

/**
 * Whether file is the one that r remembers. Its name may have changed, its time may not: of a file that was written to
 * in the middle the edges tell nothing, and the upload would become a mixture of old and new.
 */
export async function sameFile(r: Remembered, file: File): Promise<boolean> {
	return !changed(file, r) && (await edges(file)) === r.edges;
}

/** Whether the file on disk is not what it was: its size or its time differ. Takes what handle.getFile() gives now. */
export function changed(file: File, r: { size: number; lastModified: number }): boolean {
	return file.size !== r.size || file.lastModified !== r.lastModified;
}
