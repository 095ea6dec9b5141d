// The bytes of one file on the disk: reading and hashing them, and whether they are still what they were.

import { changed, edges } from "./fingerprint.js";
import { permitted } from "./handles.js";
import type { Challenge, HashState, Hasher, Proof } from "./hasher.js";
import type { Remembered } from "./memory.js";
import { localError } from "./problem.js";
import type { Source } from "./types.js";

/** Bytes. The server takes no instant uploads below this. */
const MIN_INSTANT = 1 << 20;
/** Milliseconds between two writes of the hash's state. */
const SAVE_EVERY = 1000;

/** Everything here that reads fails with "file_changed" or "file_unreadable" if the file is not what it was. */
export class Content {
	/** Bytes hashed. */
	hashed: number;
	#chunk: number | null = null; // bytes, of the chunks that #crcs are of
	readonly #crcs = new Map<number, string>();
	#savedAt = Number.NEGATIVE_INFINITY;

	constructor(
		private readonly record: Remembered,
		/** null: it has to be chosen again. */
		public source: Source | null,
		/** null: nothing is hashed. */
		private readonly hasher: Hasher | null,
		private readonly remember: (change: Partial<Remembered>) => void,
	) {
		this.hashed = record.sha1 === null ? (record.hash?.at ?? 0) : record.size;
	}

	get file(): Source {
		if (!this.source) {
			throw localError("file_unreadable");
		}
		return this.source;
	}

	/** Whether asking for instant upload makes sense. */
	get instantPossible(): boolean {
		return this.hasher !== null && this.record.size >= MIN_INSTANT;
	}

	/** Fails if the file on the disk is not what it was. */
	async probe(): Promise<void> {
		await guarded(async () => {
			const { handle, size } = this.record;
			// The handle of a file that was chosen again is an earlier page's: perhaps nobody has allowed it yet.
			if (handle && (await permitted(handle, false)) && changed(await handle.getFile(), this.record)) {
				throw localError("file_changed");
			}
			if (size > 0) {
				await this.file.slice(0, 1).arrayBuffer(); // browsers compare the time of what they read
			}
		});
	}

	/** What lets the server say at init whether it may have the content. */
	async hint(): Promise<{ hint?: string; sha1?: string }> {
		if (!this.hasher || !this.instantPossible) {
			return {};
		}
		const { hasher, record } = this;
		if (record.sha1 !== null) {
			return { sha1: record.sha1 };
		}
		const hint = await byWorker(() => hasher.hint(this.file));
		return hint === null ? {} : { hint };
	}

	/** Remembers by what the file is known again. */
	async remarkEdges(): Promise<void> {
		if (this.record.edges === "") {
			this.remember({ edges: await guarded(() => edges(this.file)) });
		}
	}

	/** The Content-Digest of a chunk (RFC 9530); null if the hashing has not come to it. */
	digest(index: number): string | null {
		const crc32c = this.#crcs.get(index);
		return crc32c === undefined ? null : `crc32c=:${crc32c}:`;
	}

	/**
	 * SHA-1 of all, and on the way the checksums of chunks of so many bytes, if there are any. null: it cannot be hashed here.
	 * tree: a challenge is likely to come.
	 */
	async sha1(signal: AbortSignal, chunk: number | null, tree: boolean): Promise<string | null> {
		const { record, hasher } = this;
		if (record.sha1 === null && hasher) {
			const sha1 = await this.#hash(hasher, signal, chunk, tree);
			if (sha1 !== null) {
				this.remember({ sha1, hash: null });
			}
		}
		this.hashed = record.sha1 === null ? this.hashed : record.size;
		return record.sha1;
	}

	#hash(hasher: Hasher, signal: AbortSignal, chunk: number | null, tree: boolean): Promise<string | null> {
		const { record } = this;
		if (chunk !== this.#chunk) {
			this.#chunk = chunk;
			this.#crcs.clear();
		}
		const chunkDone = (index: number, crc32c: string) => void this.#crcs.set(index, crc32c);
		const progress = (hashed: number, state: HashState | null) => {
			this.hashed = hashed;
			record.hash = state;
			if (performance.now() - this.#savedAt > SAVE_EVERY) {
				this.#savedAt = performance.now();
				this.remember({ hash: state });
			}
		};
		return byWorker(() => hasher.hash(this.file, { from: record.hash, signal, tree, chunk, chunkDone, progress }), signal);
	}

	/** Answers a challenge. */
	prove(challenge: Challenge, signal: AbortSignal): Promise<Proof> {
		return guarded(() => this.hasher!.prove(this.file, challenge, signal), signal);
	}
}

/** What a worker says of a file; null: there is no worker. */
async function byWorker(ask: () => Promise<string>, signal?: AbortSignal): Promise<string | null> {
	try {
		return await guarded(ask, signal);
	} catch (e) {
		if (e instanceof Error && e.name === "Error") {
			return null;
		}
		throw e;
	}
}

/** What a DOMException of reading a file means for its upload. */
async function guarded<T>(read: () => Promise<T>, signal?: AbortSignal): Promise<T> {
	try {
		return await read();
	} catch (e) {
		signal?.throwIfAborted();
		if (e instanceof DOMException) {
			throw localError(e.name === "NotReadableError" ? "file_changed" : "file_unreadable");
		}
		throw e;
	}
}
