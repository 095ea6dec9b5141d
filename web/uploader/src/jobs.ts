// What the worker does for hasher.ts, and the messages between the two.

import { ChunkSums } from "./chunksums.js";
import { Digests, type SHA1 } from "./digests.js";
import { type Leaf, prove, TreeHasher } from "./merkle.js";

/** A saved SHA-1: what it was at byte `at`. */
export interface HashState {
	at: number;
	state: Uint8Array;
}

/** A job for the worker, which does one at a time. */
export type Job =
	/** SHA-1 of all, from a saved state on; and CRC-32C of the chunks of so many bytes. */
	| { kind: "hash"; source: Blob; from: HashState | null; chunk: number | null }
	/** The hashes of the blocks of the Merkle tree. */
	| { kind: "tree"; source: Blob }
	/** Leaves with their paths. */
	| { kind: "prove"; source: Blob; blocks: Uint8Array; leaves: number[] };

/** What each kind of job gives. */
export interface Results {
	hash: string;
	tree: Uint8Array;
	prove: Leaf[];
}

export type ToWorker = Job | { kind: "abort" };

export type FromWorker =
	/** It runs. The first message. */
	| { kind: "ready" }
	| { kind: "progress"; read: number; state: HashState | null }
	| { kind: "chunk"; index: number; crc32c: string }
	| { kind: "result"; result: Results[Job["kind"]] }
	| { kind: "failed"; name: string; message: string };

/** The part of a worker's global scope that is used here. */
export interface WorkerPort {
	onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
	postMessage(message: FromWorker): void;
}

/** How many bytes are read between two reports. */
const reportEvery = 8 << 20;

/** Takes jobs from port. A job that is aborted is answered with "failed" and AbortError. */
export function serve(port: WorkerPort): void {
	const digests = new Digests();
	let abort = new AbortController();
	port.onmessage = async ({ data }) => {
		if (data.kind === "abort") {
			abort.abort();
			return;
		}
		abort = new AbortController();
		try {
			port.postMessage({ kind: "result", result: await run(data, abort.signal, port, digests) });
		} catch (error) {
			const { name, message } = error as Error;
			port.postMessage({ kind: "failed", name, message });
		}
	};
	port.postMessage({ kind: "ready" });
}

async function run(job: Job, signal: AbortSignal, port: WorkerPort, digests: Digests): Promise<Results[Job["kind"]]> {
	switch (job.kind) {
		case "hash": {
			const sha1 = await digests.sha1;
			const from = resume(sha1, job.from);
			const crc = job.chunk === null ? null : await digests.crc;
			const done = (index: number, crc32c: string) => port.postMessage({ kind: "chunk", index, crc32c });
			const sums = crc && new ChunkSums(crc, job.chunk!, job.source.size, from, done);
			const into = (data: Uint8Array) => {
				sha1.update(data);
				sums?.update(data);
			};
			await read(job.source, from, { update: into }, signal, (at) => {
				const state = sha1.save();
				port.postMessage({ kind: "progress", read: at, state: state && { at, state } });
			});
			return sha1.digest();
		}
		case "tree": {
			const tree = new TreeHasher(digests.sha256, job.source.size);
			await read(job.source, 0, tree, signal, () => {});
			return tree.blocks();
		}
		case "prove":
			return prove(digests.sha256, job.source, job.blocks, job.leaves);
	}
}

/** Loads a saved state and returns from where to go on: 0 if another implementation saved it. */
function resume(sha1: SHA1, from: HashState | null): number {
	sha1.init();
	if (from !== null) {
		try {
			sha1.load(from.state);
			return from.at;
		} catch {
			// The digest is as it was before: at the beginning.
		}
	}
	return 0;
}

/** Reads source from byte `at` on. A stream is a third faster than slices that are awaited one after the other. */
async function read(
	source: Blob,
	at: number,
	into: { update(data: Uint8Array): unknown },
	signal: AbortSignal,
	report: (at: number) => void,
): Promise<void> {
	const reader = source.slice(at).stream().getReader();
	let due = at + reportEvery;
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (done) {
				break;
			}
			// Of a file the pieces are small, of bytes in memory there may be one piece.
			for (let rest: Uint8Array = value; rest.length > 0; ) {
				const piece = rest.subarray(0, due - at);
				rest = rest.subarray(piece.length);
				into.update(piece);
				at += piece.length;
				if (at === due) {
					due += reportEvery;
					report(at);
					await turn();
					signal.throwIfAborted();
				}
			}
		}
	} finally {
		await reader.cancel();
	}
	if (at !== source.size) {
		throw new DOMException("The file is shorter than it was.", "NotReadableError");
	}
	report(at);
}

/** Lets messages in: while a disk is faster than the digest, promises alone would keep out the one that aborts, up to the end. */
function turn(): Promise<void> {
	const { port1, port2 } = new MessageChannel();
	return new Promise((resolve) => {
		port1.onmessage = () => {
			port1.close();
			resolve();
		};
		port2.postMessage(null);
	});
}
