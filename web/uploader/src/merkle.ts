// The Merkle tree by which the server knows content, and proofs from it: upload/merkle.go in TypeScript. RFC 6962, section 2.1:
// SHA-256, leaves of 4 KiB. What is kept is one hash per MiB (3 MB for 100 GB); a proof reads the asked leaf's MiB again.

import { base64 } from "./base64.js";
import { type DigestMany, hashSize } from "./sha256.js";

export const leafSize = 4 << 10;
/** Bytes under one kept hash: 256 leaves, a power of two, so that each but the last is a full subtree. */
export const blockSize = 1 << 20;

const leafPrefix = 0;
const nodePrefix = 1;

/** One leaf as the API has it in a proof: its bytes and the hashes beside its way to the root, nearest first; both base64. */
export interface Leaf {
	index: number;
	data: string;
	path: string;
}

/** Takes content in pieces of any length, in order, and gives the hashes of its blocks. */
export class TreeHasher {
	readonly #digest: DigestMany;
	readonly #block = new Uint8Array(blockSize);
	readonly #blocks: Uint8Array;
	#size = 0;

	/** size: of all the content, in bytes. */
	constructor(digest: DigestMany, size: number) {
		this.#digest = digest;
		this.#blocks = new Uint8Array(Math.ceil(size / blockSize) * hashSize);
	}

	update(data: Uint8Array): void {
		while (data.length > 0) {
			const filled = this.#size % blockSize;
			const piece = data.subarray(0, blockSize - filled);
			this.#block.set(piece, filled);
			this.#size += piece.length;
			data = data.subarray(piece.length);
			if (this.#size % blockSize === 0) {
				this.#add(this.#block);
			}
		}
	}

	/** The hashes of all blocks, one after the other. Ends the hasher. */
	blocks(): Uint8Array {
		const rest = this.#size % blockSize;
		if (rest > 0) {
			this.#add(this.#block.subarray(0, rest));
		}
		return this.#blocks;
	}

	#add(block: Uint8Array): void {
		this.#blocks.set(root(blockLevels(this.#digest, block)), Math.floor((this.#size - 1) / blockSize) * hashSize);
	}
}

/**
 * Proves leaves of source whose tree has these blocks. Memory: the blocks twice, and one MiB. Rejects with a
 * NotReadableError, as the browser does, if the content is not what it was when the tree was made.
 */
export async function prove(digest: DigestMany, source: Blob, blocks: Uint8Array, leaves: readonly number[]): Promise<Leaf[]> {
	const upper = levels(digest, blocks);
	const proven: Leaf[] = [];
	for (const index of leaves) {
		const block = Math.floor((index * leafSize) / blockSize);
		const start = block * blockSize;
		const data = new Uint8Array(await source.slice(start, start + blockSize).arrayBuffer());
		const lower = blockLevels(digest, data);
		if (!equal(root(lower), blocks.subarray(block * hashSize, (block + 1) * hashSize))) {
			throw new DOMException("The file changed while it was being read.", "NotReadableError");
		}
		const at = index * leafSize - start;
		proven.push({
			index,
			data: base64(data.subarray(at, at + leafSize)),
			path: base64(joined([...path(lower, at / leafSize), ...path(upper, block)])),
		});
	}
	return proven;
}

function blockLevels(digest: DigestMany, block: Uint8Array): Uint8Array[] {
	return levels(digest, digest(leafPrefix, leafSize, block));
}

/**
 * All levels of the tree over hashes, these first and the root last. A hash without a neighbour goes up as it is, which
 * gives the tree that RFC 6962 defines by splitting at the largest power of two.
 */
function levels(digest: DigestMany, hashes: Uint8Array): Uint8Array[] {
	const all = [hashes];
	while (hashes.length > hashSize) {
		const pairs = hashes.length - (hashes.length % (2 * hashSize));
		hashes = joined([digest(nodePrefix, 2 * hashSize, hashes.subarray(0, pairs)), hashes.subarray(pairs)]);
		all.push(hashes);
	}
	return all;
}

function root(all: Uint8Array[]): Uint8Array {
	return all[all.length - 1]!;
}

/** The neighbours of hash index and of what is above it, nearest first. */
function path(all: Uint8Array[], index: number): Uint8Array[] {
	return all.map((level, height) => {
		const neighbour = ((index >> height) ^ 1) * hashSize;
		return level.subarray(neighbour, neighbour + hashSize); // empty where there is none
	});
}

function joined(pieces: Uint8Array[]): Uint8Array {
	const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
	let at = 0;
	for (const piece of pieces) {
		all.set(piece, at);
		at += piece.length;
	}
	return all;
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
	return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
