// The bytes of one file: its chunks, several at a time, and how many of them are where.

import type { API } from "./api.js";
import type { Content } from "./content.js";
import { asUploadError, type Ranges, UploadError } from "./problem.js";
import { child, type Requests } from "./requests.js";
import type { ChunkWish } from "./wish.js";

/** The bytes were altered on their way; sent again they may arrive as they are. */
const altered = new Set(["digest_mismatch", "short_body"]);

/** What the sender needs. */
export interface Sending {
	readonly api: API;
	readonly requests: Requests;
	/** Requests at a time. */
	readonly lanes: number;
	readonly content: Content;
	readonly wish: ChunkWish;
	acknowledged(index: number): void;
}

export class Sender {
	/** Acknowledged bytes. */
	acked = 0;
	/** The upload takes no more chunks: it was completed elsewhere, or is instant. */
	ended = false;
	#chunkSize = 0;
	#flight = new Map<number, number>(); // bytes on their way, by chunk
	#stalls = 0; // in a row

	constructor(private readonly use: Sending) {}

	/** Acknowledged bytes and those on their way. */
	get sending(): number {
		let bytes = this.acked;
		for (const n of this.#flight.values()) {
			bytes += n;
		}
		return bytes;
	}

	/** What was on its way is not any more. */
	stop(): void {
		this.#flight.clear();
	}

	/** Begins with, or corrects to, what the server says is missing: that is the truth, whatever was acknowledged. */
	missing(size: number, chunkSize: number, ranges: Ranges): number[] {
		this.#chunkSize = chunkSize;
		this.ended = false;
		this.acked = size;
		const indexes: number[] = [];
		for (const [first, last] of ranges) {
			for (let i = Math.max(first, 0); i <= last && i * chunkSize < size; i++) {
				indexes.push(i);
				this.acked -= Math.min(chunkSize, size - i * chunkSize);
			}
		}
		return indexes;
	}

	/** Sends these chunks to the upload of that id. Ends early if the upload takes no more. */
	async chunks(file: Blob, id: string, indexes: readonly number[], signal: AbortSignal): Promise<void> {
		const left = [...indexes].reverse();
		const stop = child(signal);
		const lane = async () => {
			for (let index = left.pop(); index !== undefined && !this.ended; index = left.pop()) {
				await this.#chunk(file, id, index, stop.signal);
			}
		};
		const lanes = Array.from({ length: Math.min(this.use.lanes, left.length) }, lane);
		try {
			await Promise.all(lanes);
		} catch (e) {
			stop.abort(e);
			await Promise.allSettled(lanes);
			throw e;
		} finally {
			stop.abort();
		}
	}

	async #chunk(file: Blob, id: string, index: number, signal: AbortSignal): Promise<void> {
		const at = index * this.#chunkSize;
		const body = file.slice(at, at + this.#chunkSize);
		const digest = this.use.content.digest(index);
		const headers = { "Chunk-Index": String(index), ...(digest === null ? {} : { "Content-Digest": digest }) };
		try {
			await this.body("PUT", `/v1/uploads/${id}/chunks`, headers, body, index, signal);
		} catch (e) {
			if (!(e instanceof UploadError) || e.code !== "not_open") {
				throw e;
			}
			this.ended = true; // complete tells how
			return;
		}
		this.acked += body.size;
		this.use.acknowledged(index);
	}

	/** Sends one body until it is acknowledged. index: which chunk it is. */
	body<T>(
		method: "PUT" | "POST",
		path: string,
		headers: Record<string, string>,
		body: Blob,
		index: number,
		signal: AbortSignal,
	): Promise<T> {
		return this.use.requests.make(signal, false, async () => {
			const began = performance.now();
			const progress = (bytes: number) => void this.#flight.set(index, Math.min(bytes, body.size));
			try {
				// A link that is slow enough to seem stalled gets more time, so that it gets on at all.
				const patience = 2 ** Math.min(this.#stalls, 3);
				const answer = await this.use.api.send<T>({ method, path, headers, body, signal, progress, patience });
				this.#stalls = 0;
				this.use.wish.learned(body.size, performance.now() - began);
				return answer;
			} catch (e) {
				signal.throwIfAborted();
				const error = asUploadError(e);
				this.#stalls += error.code === "stalled" ? 1 : 0;
				if (error.code === "network") {
					await this.use.content.probe(); // to a request, a file that cannot be read is a broken connection
				}
				throw altered.has(error.code) ? error.again() : error;
			} finally {
				this.#flight.delete(index);
			}
		});
	}
}
