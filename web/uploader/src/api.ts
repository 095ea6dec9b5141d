// The HTTP API: requests, their token, and what can go wrong with them.

import type { Challenge } from "./hasher.js";
import { type Answer, localError, problem } from "./problem.js";
import { child } from "./requests.js";
import type { ServerFile, UploaderOptions } from "./types.js";

/** `POST /v1/uploads` and `GET /v1/uploads/{id}`. */
export type ServerUpload = OpenUpload | CompleteUpload;

export interface OpenUpload {
	id: string;
	state: "open";
	name: string;
	size: number | null;
	chunk_size: number;
	received_bytes: number;
	missing: [number, number][];
	/** Only of POST. */
	known?: "no" | "maybe";
	challenge?: Challenge;
}

interface CompleteUpload {
	id: string;
	state: "complete";
	instant: boolean;
	file: ServerFile;
}

/** `POST /v1/uploads/{id}/instant`. */
export type InstantAnswer =
	| { status: "challenge"; challenge: Challenge }
	| { status: "complete"; instant: boolean; file: ServerFile }
	| { status: "continue" };

export interface FilePage {
	items: ServerFile[];
	next_cursor: string | null;
}

export interface Request {
	method: "GET" | "POST" | "PUT" | "DELETE";
	/** From "/v1" on. */
	path: string;
	headers?: Record<string, string>;
	signal: AbortSignal;
}

export interface BodyRequest extends Request {
	body: Blob;
	/** Bytes on their way so far. */
	progress: (bytes: number) => void;
	/** How many times stallTimeout this request may stall: for links that have stalled before. */
	patience: number;
}

/** How much longer than between two bytes an answer may take: the server may have to write, or to wait for a disk. */
const ANSWER = 4;

export class API {
	readonly #options: UploaderOptions;
	readonly #stall: number;
	#token: string | null | undefined; // undefined: not asked for
	#asking: Promise<string | null> | null = null;

	constructor(options: UploaderOptions) {
		this.#options = options;
		this.#stall = options.stallTimeout ?? 15_000;
	}

	/** A request whose body, if any, is JSON. Fails with an UploadError, or the signal's reason. */
	async call<T>(request: Request & { json?: object }): Promise<T> {
		return decode<T>(await this.#authorized((headers) => this.#fetch(request, headers)));
	}

	/** A request with bytes of a file, whose progress can be seen. Fails as call does. */
	async send<T>(request: BodyRequest): Promise<T> {
		return decode<T>(await this.#authorized((headers) => this.#xhr(request, headers)));
	}

	async #authorized(send: (headers: Record<string, string>) => Promise<Answer>): Promise<Answer> {
		let token = await this.#current();
		let answer = await send(this.#headers(token));
		if (answer.status !== 401) {
			return answer;
		}
		token = await this.#fresh(token);
		if (token !== null) {
			answer = await send(this.#headers(token));
			if (answer.status !== 401) {
				return answer;
			}
		}
		this.#token = undefined; // a retry asks again
		throw localError("unauthorized", { status: 401, requestId: answer.header("X-Request-Id") });
	}

	#headers(token: string | null): Record<string, string> {
		return { ...this.#options.headers, ...(token === null ? {} : { Authorization: `Bearer ${token}` }) };
	}

	async #current(): Promise<string | null> {
		return this.#token !== undefined ? this.#token : this.#ask(this.#options.token);
	}

	/** A token other than the refused one; all that were refused with it wait for the same. */
	async #fresh(refused: string | null): Promise<string | null> {
		if (this.#asking === null && this.#token !== undefined && this.#token !== refused) {
			return this.#token; // another request has asked meanwhile
		}
		return this.#ask(this.#options.onUnauthorized ?? this.#options.token);
	}

	#ask(how: UploaderOptions["token"]): Promise<string | null> {
		this.#asking ??= (async () => {
			try {
				this.#token = (await how?.()) ?? null;
				return this.#token;
			} finally {
				this.#asking = null;
			}
		})();
		return this.#asking;
	}

	async #fetch(request: Request & { json?: object }, headers: Record<string, string>): Promise<Answer> {
		// fetch has no progress: all that can be seen is how long it takes.
		const stop = child(request.signal);
		const watch = stallWatch(this.#stall * ANSWER, () => stop.abort(localError("stalled")));
		try {
			const response = await fetch(this.#options.endpoint + request.path, {
				method: request.method,
				headers: { ...headers, ...request.headers, ...(request.json ? { "Content-Type": "application/json" } : {}) },
				body: request.json ? JSON.stringify(request.json) : null,
				signal: stop.signal,
				cache: "no-store",
			});
			return { status: response.status, body: await response.text(), header: (name) => response.headers.get(name) };
		} catch {
			throw stop.signal.aborted ? stop.signal.reason : localError("network");
		} finally {
			watch.stop();
			stop.abort();
		}
	}

	async #xhr(request: BodyRequest, headers: Record<string, string>): Promise<Answer> {
		let body: Blob | ArrayBuffer = request.body;
		if (safari) {
			body = await request.body.arrayBuffer().catch(() => Promise.reject(localError("file_unreadable")));
		}
		return new Promise((resolve, reject) => {
			request.signal.throwIfAborted();
			const xhr = new XMLHttpRequest();
			const end = () => {
				watch.stop();
				request.signal.removeEventListener("abort", abort);
			};
			const giveUp = (reason: unknown) => {
				end();
				xhr.abort();
				reject(reason);
			};
			const abort = () => giveUp(request.signal.reason);
			const patience = this.#stall * request.patience;
			let watch = stallWatch(patience, () => giveUp(localError("stalled")));
			request.signal.addEventListener("abort", abort);
			xhr.open(request.method, this.#options.endpoint + request.path);
			for (const [name, value] of Object.entries({ ...headers, ...request.headers })) {
				xhr.setRequestHeader(name, value);
			}
			xhr.upload.onprogress = (event) => {
				watch.moved();
				request.progress(event.loaded);
			};
			xhr.upload.onload = () => {
				// The browser has handed over all bytes. Some are still in buffers on the way.
				watch.stop();
				watch = stallWatch(patience * ANSWER, () => giveUp(localError("stalled")));
			};
			xhr.onload = () => {
				end();
				resolve({ status: xhr.status, body: xhr.responseText, header: (name) => xhr.getResponseHeader(name) });
			};
			xhr.onerror = () => {
				end();
				reject(localError("network"));
			};
			xhr.send(body);
		});
	}
}

function decode<T>(answer: Answer): T {
	if (answer.status < 200 || answer.status > 299) {
		throw problem(answer);
	}
	try {
		return (answer.body === "" ? undefined : JSON.parse(answer.body)) as T;
	} catch {
		throw localError("bad_answer", { status: answer.status });
	}
}

/**
 * Calls stalled when nothing has moved for so many milliseconds. It counts ticks and not the clock's time: a computer
 * that slept, or a tab whose timers are slowed down, has not seen what moved meanwhile.
 */
function stallWatch(limit: number, stalled: () => void): { moved(): void; stop(): void } {
	const every = Math.min(limit, 1000);
	let idle = 0;
	const timer = setInterval(() => {
		idle += every;
		if (idle >= limit) {
			clearInterval(timer);
			stalled();
		}
	}, every);
	return { moved: () => void (idle = 0), stop: () => clearInterval(timer) };
}

/** In Safari a request whose body is a slice of a file may never end, see unraid/webgui#2645. */
const safari = globalThis.navigator?.vendor?.startsWith("Apple") ?? false;
