// The calls of the HTTP API that "my files" needs.

import { UploadError } from "../uploader/src/problem.js";
import type { ServerFile } from "../uploader/src/types.js";
import type { Session } from "./session.js";

export type Sort = "name" | "-name" | "size" | "-size" | "created_at" | "-created_at";

export interface Page<T> {
	items: T[];
	next_cursor: string | null;
}

/** What the server knows of an open upload: `GET /v1/uploads/{id}`. Sizes in bytes; null while the size is not known. */
export interface OpenUpload {
	id: string;
	name: string;
	path: string;
	size: number | null;
	received_bytes: number;
	updated_at: string;
	expires_at: string;
}

export interface FilesQuery {
	sort: Sort;
	/** Part of the name. */
	name: string;
	cursor: string | null;
	limit: number;
}

export class API {
	constructor(
		private readonly session: Session,
		private readonly get: typeof fetch = (input, init) => fetch(input, init),
	) {}

	/** Sends a request with the token there is; after a 401 once more for each token that the person enters. Throws UploadError. */
	async request(method: string, path: string, init: RequestInit & { json?: unknown } = {}): Promise<Response> {
		const { json, ...rest } = init;
		for (;;) {
			const token = this.session.token;
			const headers = new Headers(rest.headers);
			if (token !== null) headers.set("Authorization", `Bearer ${token}`);
			if (json !== undefined) headers.set("Content-Type", "application/json");
			let answer: Response;
			try {
				answer = await this.get(path, {
					...rest,
					method,
					headers,
					...(json === undefined ? {} : { body: JSON.stringify(json) }),
				});
			} catch (error) {
				if (rest.signal?.aborted) throw error;
				throw new UploadError(
					"network",
					"The server does not answer",
					"Check the network; the page tries again by itself.",
					{ retryable: true },
				);
			}
			if (answer.ok) return answer;
			if (answer.status !== 401 || rest.keepalive || (await this.session.renew(token)) === null)
				throw await problem(answer);
		}
	}

	async files(query: FilesQuery, signal: AbortSignal): Promise<Page<ServerFile>> {
		const q = new URLSearchParams({ sort: query.sort, limit: String(query.limit) });
		if (query.name) q.set("name", query.name);
		if (query.cursor) q.set("cursor", query.cursor);
		return (await (await this.request("GET", `/v1/files?${q}`, { signal })).json()) as Page<ServerFile>;
	}

	async rename(id: string, name: string): Promise<ServerFile> {
		return (await (await this.request("PATCH", `/v1/files/${id}`, { json: { name } })).json()) as ServerFile;
	}

	/** Deletes a file or cancels an upload; one that is gone already is fine. With keepalive it outlives the page. */
	async delete(kind: "files" | "uploads", id: string, keepalive: boolean): Promise<void> {
		try {
			await this.request("DELETE", `/v1/${kind}/${id}`, { keepalive });
		} catch (error) {
			if (!(error instanceof UploadError && (error.code === "not_found" || error.code === "gone"))) throw error;
		}
	}

	/** All open uploads, up to the thousand that one page of the list has: nobody reads more. */
	async uploads(): Promise<OpenUpload[]> {
		return ((await (await this.request("GET", "/v1/uploads?limit=1000")).json()) as Page<OpenUpload>).items;
	}
}

/** The error of an answer: its problem document (RFC 9457), or what can be said without one. */
async function problem(answer: Response): Promise<UploadError> {
	const requestId = answer.headers.get("X-Request-Id");
	try {
		const { code, title, detail } = (await answer.json()) as { code: string; title: string; detail: string };
		return new UploadError(code, title, detail, { status: answer.status, requestId });
	} catch {
		return new UploadError(
			"bad_answer",
			`Answer ${answer.status}`,
			"The answer is not the server's. Is there a proxy in between?",
			{ status: answer.status, requestId },
		);
	}
}
