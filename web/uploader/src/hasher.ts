// Hashing beside the page's own thread: the SHA-1 of large files in one worker, the proof's tree, which takes longer, in a second one
// at the same time; and in a third one what must not wait for a large file: hints, small files, and proofs, since a challenge
// expires. Each does one job at a time, in the order in which they were asked for.

import type { FromWorker, HashState, Job, Results, ToWorker } from "./jobs.js";
import { type Leaf, leafSize } from "./merkle.js";

export type { HashState } from "./jobs.js";

/** The server asks for these leaves of the content. */
export interface Challenge {
	id: string;
	leaves: number[];
	/** Bytes. */
	leaf_size: number;
	/** RFC 3339. */
	expires_at: string;
}

/** The answer to a challenge, as the API takes it. */
export interface Proof {
	challenge: string;
	leaves: Leaf[];
}

export interface HashOptions {
	/** Goes on from there, if it can. The caller knows that the file is still the same. */
	from?: HashState | null;
	/**
	 * Also makes the tree for prove(), at the same time on a second thread: worth it where a challenge is likely to come. Both
	 * read the file, the second time mostly from the system's cache.
	 */
	tree?: boolean;
	/** Also makes the CRC-32C of the chunks of this size, in bytes, where there is WebAssembly. */
	chunk?: number | null;
	/** The CRC-32C of a chunk, see ChunkSums. */
	chunkDone?(index: number, crc32c: string): void;
	signal: AbortSignal;
	/**
	 * Called at least every 8 MiB, and at the end. The state is good for `from`, now or after a reload; null without WebAssembly:
	 * then hashing begins anew.
	 */
	progress(hashed: number, state: HashState | null): void;
}

/** Bytes. The API's hint is of so many. */
const HINT = 128 << 10;
/** Bytes. Files below this need not wait for larger ones. */
const SMALL = 1 << 20;
/** Milliseconds that a worker may take to start. */
const START = 3000;
/** Milliseconds before a worker that did not start is tried again. */
const AGAIN = 10_000;

/** The tree of one source, made once: a challenge that expired meanwhile is not another reading. */
interface Tree {
	blocks: Promise<Uint8Array>;
	abort: AbortController;
}

/**
 * Hashes files. Rejections: the signal's reason; a NotReadableError (DOMException) if the file changed on disk, or may not be
 * read any more; an Error if there is no worker: then the file has to be sent without being hashed.
 */
export class Hasher {
	readonly #hashLane: Lane;
	readonly #treeLane: Lane;
	readonly #quickLane: Lane;
	readonly #trees = new WeakMap<Blob, Tree>();

	/** workerURL: of hash.worker.js. If that is on another origin, the origin must allow the page's (CORS). */
	constructor(workerURL: string | URL) {
		this.#hashLane = new Lane(workerURL);
		this.#treeLane = new Lane(workerURL);
		this.#quickLane = new Lane(workerURL);
	}

	/** Starts the worker for hints and small files, which are waited for, before there is a file. */
	start(): void {
		this.hint(new Blob()).catch(() => {}); // the first file tells
	}

	/** SHA-1 of the first 128 KiB (of all, if shorter), lower-case hex: the API's `hint`. */
	hint(source: Blob): Promise<string> {
		const job = { kind: "hash", source: source.slice(0, HINT), from: null, chunk: null } as const;
		return this.#quickLane.run(job, new AbortController().signal);
	}

	/** SHA-1 of all, lower-case hex. */
	hash(source: Blob, { from = null, tree = false, chunk = null, chunkDone, signal, progress }: HashOptions): Promise<string> {
		if (tree && !signal.aborted) {
			this.#tree(source, signal).catch(() => {}); // prove() tells
		}
		const job = { kind: "hash", source, from, chunk } as const;
		const lane = source.size < SMALL ? this.#quickLane : this.#hashLane;
		return lane.run(job, signal, progress, chunkDone);
	}

	/**
	 * Answers a challenge. Reads the file once for the tree, unless hash() made it, or an earlier prove() of the same object;
	 * and up to 32 MiB of it for the leaves.
	 */
	async prove(source: Blob, challenge: Challenge, signal: AbortSignal): Promise<Proof> {
		if (challenge.leaf_size !== leafSize) {
			throw new Error(`The server asks for leaves of ${challenge.leaf_size} bytes. Update the uploader.`);
		}
		signal.throwIfAborted();
		const blocks = await this.#tree(source, signal);
		const leaves = await this.#quickLane.run({ kind: "prove", source, blocks, leaves: challenge.leaves }, signal);
		return { challenge: challenge.id, leaves };
	}

	/** Ends the workers. What is not done is rejected with an AbortError. */
	close(): void {
		const reason = new DOMException("The hasher was closed.", "AbortError");
		[this.#hashLane, this.#treeLane, this.#quickLane].forEach((lane) => lane.close(reason));
	}

	/** The tree of source, begun if it is not there. It ends when any of those who asked for it gives up. */
	#tree(source: Blob, signal: AbortSignal): Promise<Uint8Array> {
		let tree = this.#trees.get(source);
		if (!tree || tree.abort.signal.aborted) {
			const abort = new AbortController();
			tree = { blocks: this.#treeLane.run({ kind: "tree", source }, abort.signal), abort };
			tree.blocks.catch(() => abort.abort()); // the next one begins anew
			this.#trees.set(source, tree);
		}
		const { abort, blocks } = tree;
		const give = (): void => abort.abort(signal.reason);
		const forget = (): void => signal.removeEventListener("abort", give);
		signal.addEventListener("abort", give);
		blocks.then(forget, forget);
		return blocks;
	}
}

interface Task {
	job: Job;
	signal: AbortSignal;
	progress: ((read: number, state: HashState | null) => void) | undefined;
	chunkDone: ((index: number, crc32c: string) => void) | undefined;
	resolve(result: Results[Job["kind"]]): void;
	reject(reason: unknown): void;
}

/** A worker, started when it is first needed, and what waits for it. */
class Lane {
	readonly #url: string | URL;
	readonly #waiting: Task[] = [];
	#worker: Worker | null = null;
	#running: Task | null = null;
	#starting: ReturnType<typeof setTimeout> | undefined;
	#failure: { error: Error; until: number } | null = null;

	constructor(url: string | URL) {
		this.#url = url;
	}

	run<K extends Job["kind"]>(job: Job & { kind: K }, signal: AbortSignal, progress?: Task["progress"], chunkDone?: Task["chunkDone"]): Promise<Results[K]> {
		return new Promise<Results[K]>((resolve, reject) => {
			if (signal.aborted) {
				reject(signal.reason);
				return;
			}
			const task: Task = { job, signal, progress, chunkDone, resolve: resolve as Task["resolve"], reject };
			signal.addEventListener("abort", () => this.#abort(task), { once: true });
			this.#waiting.push(task);
			this.#next();
		});
	}

	close(reason: unknown): void {
		clearTimeout(this.#starting);
		this.#worker?.terminate();
		this.#worker = null;
		for (const task of [this.#running, ...this.#waiting.splice(0)]) {
			task?.reject(reason);
		}
		this.#running = null;
	}

	#abort(task: Task): void {
		task.reject(task.signal.reason);
		const at = this.#waiting.indexOf(task);
		if (at >= 0) {
			this.#waiting.splice(at, 1);
		} else if (task === this.#running) {
			this.#post({ kind: "abort" }); // the next job waits for its answer
		}
	}

	#next(): void {
		const task = this.#running ? undefined : this.#waiting.shift();
		if (!task) {
			return;
		}
		this.#running = task;
		if (this.#failure && performance.now() < this.#failure.until) {
			this.close(this.#failure.error); // ten thousand small files do not ask the server for it each
			return;
		}
		try {
			this.#worker ??= this.#start();
			this.#post(task.job);
		} catch (error) {
			this.#broken(error instanceof Error ? error.message : String(error));
		}
	}

	#start(): Worker {
		const worker = new Worker(trusted(startable(this.#url)), { type: "module", name: "gantry-hash" });
		worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#heard(data);
		this.#starting = setTimeout(() => this.#broken("It does not answer."), START);
		worker.onerror = ({ message }) => this.#broken(message || "It was not found, or the page's CSP refuses it.");
		return worker;
	}

	#post(message: ToWorker): void {
		this.#worker?.postMessage(message);
	}

	#heard(message: FromWorker): void {
		clearTimeout(this.#starting);
		const task = this.#running;
		if (!task || message.kind === "ready") {
			return;
		}
		if (message.kind === "chunk") {
			task.chunkDone?.(message.index, message.crc32c);
			return;
		}
		if (message.kind === "progress") {
			if (!task.signal.aborted) {
				task.progress?.(message.read, message.state);
			}
			return;
		}
		if (message.kind === "result") {
			task.resolve(message.result);
		} else {
			task.reject(new DOMException(message.message, message.name));
		}
		this.#running = null;
		this.#next();
	}

	#broken(why: string): void {
		const error = new Error(`The worker ${String(this.#url)} does not run. ${why}`);
		this.#failure = { error, until: performance.now() + AGAIN };
		this.close(error);
	}
}

/**
 * An address of which a worker can be started. Browsers start none from another origin, but a worker of the page's own may import a
 * module of another, if that allows it (CORS) and the page's CSP has blob: and the other origin in worker-src.
 */
function startable(url: string | URL): string {
	const address = String(url);
	const page = (globalThis as { location?: Location }).location;
	if (!page || new URL(address, page.href).origin === page.origin) {
		return address;
	}
	return URL.createObjectURL(new Blob([`import ${JSON.stringify(address)};`], { type: "text/javascript" }));
}

interface TrustedTypes {
	createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): string };
}

/** Where the page requires Trusted Types, the worker's address needs a policy; it may be made only once. */
let policy: ReturnType<TrustedTypes["createPolicy"]> | undefined;

function trusted(url: string | URL): string {
	const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypes };
	try {
		policy ??= trustedTypes?.createPolicy("gantry-uploader", { createScriptURL: (address) => address });
	} catch {
		// Not in the CSP's list: new Worker() says so if it is needed.
	}
	return policy?.createScriptURL(String(url)) ?? String(url);
}
