// A server in memory that speaks the part of the API that the uploader uses, and does harm when told to.

import { createHash } from "node:crypto";
import { createCRC32 } from "hash-wasm";
import { vi } from "vitest";
import { castagnoli } from "../src/chunksums.js";
import type { ServerFile } from "../src/types.js";
import { FetchXHR } from "./xhr.js";

export interface Call {
	method: string;
	/** Without the query. */
	path: string;
	query: URLSearchParams;
	headers: Headers;
	body: Uint8Array;
	json: Record<string, unknown>;
	/** "POST /v1/uploads", ids as {id}; with the index of a chunk. */
	name: string;
}

/**
 * What befalls a call: an answer instead of the server's; "reset": the connection breaks before the server has it; "lost": after
 * that; "hang": nothing ever comes back; a gate: the answer comes when that is passed.
 */
export type Fault = Response | "reset" | "lost" | "hang" | { passed: Promise<void> } | undefined | void;

interface ServerUpload {
	id: string;
	name: string;
	path: string;
	size: number;
	chunkSize: number;
	chunks: Map<number, Uint8Array>;
	replaces: string | null;
	sha1: string | null;
	state: "open" | "complete" | "cancelled";
	file: ServerFile | null;
	instant: boolean;
	hint: string | null;
}

interface Init {
	name: string;
	path: string;
	size: number;
	chunk_size: number;
	hint?: string;
	sha1?: string;
	replaces?: string;
}

export function problem(status: number, code: string, more: object = {}, headers: Record<string, string> = {}): Response {
	const document = { type: `/problems/${code}`, title: `The title of ${code}`, status, detail: `What to do about ${code}.`, code, request_id: "r1", ...more };
	return new Response(JSON.stringify(document), { status, headers: { "Content-Type": "application/problem+json", ...headers } });
}

const crc = await createCRC32(castagnoli);
const crc32c = (data: Uint8Array): string => `crc32c=:${Buffer.from(crc.init().update(data).digest(), "hex").toString("base64")}:`;
const sha1 = (data: Uint8Array): string => createHash("sha1").update(data).digest("hex");

export class FakeServer {
	readonly files: ServerFile[] = [];
	readonly contents = new Map<string, Uint8Array>(); // by file id
	readonly uploads = new Map<string, ServerUpload>();
	readonly calls: Call[] = [];
	/** Asked for each call, with how often a call of that name came before. */
	fault: (call: Call, before: number) => Fault | Promise<Fault> = () => undefined;
	/** Content that may be had instantly, by SHA-1. */
	readonly known = new Map<string, Uint8Array>();
	minChunk = 1 << 20;
	token: string | null = null;
	running = 0;
	mostRunning = 0;
	#keys = new Map<string, string>();
	#ids = 0;

	/** From here on fetch and XMLHttpRequest end here. */
	install(): void {
		vi.stubGlobal("fetch", (url: string, init?: RequestInit) => this.fetch(url, init));
		vi.stubGlobal("XMLHttpRequest", FetchXHR);
	}

	names(): string[] {
		return this.calls.map((call) => call.name);
	}

	count(name: string): number {
		return this.names().filter((n) => n === name).length;
	}

	content(name: string): Uint8Array | undefined {
		const file = this.files.find((f) => f.name === name);
		return file && this.contents.get(file.id);
	}

	async fetch(url: string, init: RequestInit = {}): Promise<Response> {
		const { pathname: path, searchParams: query } = new URL(url, "http://server");
		const body = new Uint8Array(await new Response(init.body).arrayBuffer());
		const headers = new Headers(init.headers);
		const json = headers.get("Content-Type") === "application/json" ? JSON.parse(new TextDecoder().decode(body)) : {};
		const method = init.method ?? "GET";
		const chunk = headers.get("Chunk-Index");
		const name = `${method} ${path.replace(/u\d+/, "{id}")}${chunk === null ? "" : ` ${chunk}`}`;
		const call: Call = { method, path, query, headers, body, json, name };
		const before = this.count(name);
		this.calls.push(call);
		this.running++;
		this.mostRunning = Math.max(this.mostRunning, this.running);
		try {
			return await Promise.race([this.#answer(call, before), aborted(init.signal)]);
		} finally {
			this.running--;
		}
	}

	async #answer(call: Call, before: number): Promise<Response> {
		await new Promise((resolve) => setImmediate(resolve));
		const fault = await this.fault(call, before);
		if (fault === "reset") {
			throw new TypeError("reset");
		}
		if (fault === "hang") {
			return new Promise(() => {});
		}
		if (fault instanceof Response) {
			return fault;
		}
		if (this.token !== null && call.headers.get("Authorization") !== `Bearer ${this.token}`) {
			return problem(401, "unauthenticated");
		}
		const response = this.#serve(call);
		if (fault === "lost") {
			throw new TypeError("lost");
		}
		if (typeof fault === "object") {
			await fault.passed;
		}
		return response;
	}

	#serve(call: Call): Response {
		const [, , kind, id, what] = call.path.split("/");
		if (kind === "files") {
			return call.method === "POST" ? this.#postFile(call) : this.#listFiles(call);
		}
		if (id === undefined) {
			return this.#init(call);
		}
		const upload = this.uploads.get(id);
		if (!upload) {
			return problem(404, "not_found");
		}
		switch (`${call.method} ${what ?? ""}`) {
			case "GET ":
				return upload.state === "cancelled" ? problem(410, "gone", { state: "expired" }) : Response.json(this.#view(upload));
			case "DELETE ":
				if (upload.state === "complete") {
					return problem(409, "not_open");
				}
				upload.state = "cancelled";
				return new Response(null, { status: 204 });
			case "PUT chunks":
				return this.#chunk(upload, call);
			case "POST instant":
				return this.#instant(upload, call);
			case "POST complete":
				return this.#complete(upload, call);
		}
		return problem(404, "not_found");
	}

	#view(u: ServerUpload): object {
		if (u.state === "complete") {
			return { id: u.id, state: "complete", instant: u.instant, file: u.file };
		}
		const missing = this.#missing(u);
		const received = [...u.chunks.values()].reduce((n, c) => n + c.length, 0);
		return { id: u.id, state: "open", name: u.name, size: u.size, chunk_size: u.chunkSize, received_bytes: received, missing };
	}

	#missing(u: ServerUpload): [number, number][] {
		const missing: [number, number][] = [];
		for (let i = 0; i * u.chunkSize < u.size; i++) {
			const last = missing.at(-1);
			if (!u.chunks.has(i)) {
				if (last?.[1] === i - 1) {
					last[1] = i;
				} else {
					missing.push([i, i]);
				}
			}
		}
		return missing;
	}

	#init(call: Call): Response {
		const key = call.headers.get("Idempotency-Key") ?? "";
		let upload: ServerUpload | undefined = this.uploads.get(this.#keys.get(key) ?? "");
		const { name, path, size, chunk_size: wish, hint, sha1: sum, replaces } = call.json as unknown as Init;
		if (upload?.state === "cancelled") {
			return problem(410, "gone", { state: "cancelled" });
		}
		if (replaces && !this.files.some((f) => f.id === replaces)) {
			return problem(404, "not_found");
		}
		if (!upload) {
			const chunkSize = Math.max(2 ** Math.ceil(Math.log2(wish)), this.minChunk);
			const id = `u${++this.#ids}`;
			upload = {
				...{ id, name, path, size, chunkSize, chunks: new Map(), replaces: replaces ?? null, sha1: null },
				...{ state: "open", file: null, instant: false, hint: hint ?? null },
			};
			this.uploads.set(id, upload);
			this.#keys.set(key, id);
		}
		const maybe = [...this.known.values()].some((c) => c.length === size && sha1(c.subarray(0, 131072)) === hint);
		const challenge = sum ? { challenge: this.#challenge() } : {};
		return Response.json({ ...this.#view(upload), known: maybe || sum ? "maybe" : "no", ...challenge }, { status: 201 });
	}

	#challenge(): object {
		return { id: "c", leaves: [0, 1], leaf_size: 4096, expires_at: "2099-01-01T00:00:00Z" };
	}

	#chunk(u: ServerUpload, call: Call): Response {
		const index = Number(call.headers.get("Chunk-Index"));
		if (u.state !== "open") {
			return u.state === "complete" ? problem(409, "not_open") : problem(410, "gone");
		}
		const expected = Math.min(u.chunkSize, u.size - index * u.chunkSize);
		if (call.body.length !== expected) {
			return problem(400, "short_body");
		}
		const digest = call.headers.get("Content-Digest");
		if (digest !== null && digest !== crc32c(call.body)) {
			return problem(422, "digest_mismatch");
		}
		u.chunks.set(index, call.body);
		return new Response(null, { status: 204 });
	}

	#instant(u: ServerUpload, call: Call): Response {
		if (u.state === "complete") {
			return Response.json({ status: "complete", instant: u.instant, file: u.file });
		}
		if (!call.json.proof) {
			return Response.json({ status: "challenge", challenge: this.#challenge() });
		}
		const content = this.known.get(String(call.json.sha1));
		if (!content) {
			return Response.json({ status: "continue" });
		}
		u.instant = true;
		return Response.json({ status: "complete", instant: true, file: this.#store(u, content) });
	}

	#complete(u: ServerUpload, call: Call): Response {
		if (u.state === "cancelled") {
			return problem(410, "gone");
		}
		if (u.file) {
			return Response.json(u.file, { status: 201 });
		}
		const missing = this.#missing(u);
		if (missing.length > 0) {
			return problem(409, "incomplete", { missing });
		}
		const content = Buffer.concat([...u.chunks.entries()].sort(([a], [b]) => a - b).map(([, c]) => c));
		if (call.json.sha1 && call.json.sha1 !== sha1(content)) {
			u.state = "cancelled";
			return problem(422, "digest_mismatch", { expected: call.json.sha1, actual: sha1(content) });
		}
		return Response.json(this.#store(u, content), { status: 201 });
	}

	#store(u: ServerUpload, content: Uint8Array): ServerFile {
		u.state = "complete";
		u.file = this.addFile(u.name, u.path, content, u.replaces);
		return u.file;
	}

	addFile(name: string, path: string, content: Uint8Array, replaces: string | null = null): ServerFile {
		const at = "2026-11-20T09:00:00Z";
		const file: ServerFile = {
			...{ id: replaces ?? `f${++this.#ids}`, name, path, size: content.length, sha1: sha1(content), content_type: "", metadata: {} },
			...{ created_at: at, updated_at: at, location: "staging", transfer: null },
		};
		const old = this.files.findIndex((f) => f.id === replaces);
		this.files.splice(old < 0 ? this.files.length : old, old < 0 ? 0 : 1, file);
		this.contents.set(file.id, content);
		return file;
	}

	#postFile(call: Call): Response {
		const key = call.headers.get("Idempotency-Key") ?? "";
		const before = this.files.find((f) => f.id === this.#keys.get(key));
		const sum = call.query.get("sha1");
		if (!before && sum && sum !== sha1(call.body)) {
			return problem(422, "digest_mismatch");
		}
		const file = before ?? this.addFile(call.query.get("name")!, call.query.get("path") ?? "", call.body, call.query.get("replaces"));
		this.#keys.set(key, file.id);
		return Response.json(file, { status: 201 });
	}

	#listFiles(call: Call): Response {
		const [name, path] = [call.query.get("name") ?? "", call.query.get("path")];
		const limit = Number(call.query.get("limit") ?? 100);
		const from = Number(call.query.get("cursor") ?? 0);
		const all = this.files.filter((f) => f.path === path && f.name.toLowerCase().includes(name.toLowerCase()));
		const next = from + limit < all.length ? String(from + limit) : null;
		return Response.json({ items: all.slice(from, from + limit), next_cursor: next });
	}
}

function aborted(signal: AbortSignal | null | undefined): Promise<never> {
	return new Promise((_, reject) => {
		const abort = () => reject(new DOMException("aborted", "AbortError"));
		if (signal?.aborted) {
			abort();
		}
		signal?.addEventListener("abort", abort);
	});
}
