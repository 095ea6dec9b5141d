// The public types. Names and units of what the server tells are those of the HTTP API (docs/api/openapi.yaml).

import type { UploadError } from "./problem.js";

export type Source = File | Blob;

/** What the server knows a file as: `GET /v1/files/{id}` of the HTTP API. */
export interface ServerFile {
	id: string;
	name: string;
	path: string;
	/** Bytes. */
	size: number;
	/** Lower-case hex; null while the server has not read a direct upload yet. */
	sha1: string | null;
	content_type: string;
	metadata: Record<string, string>;
	/** RFC 3339, UTC. */
	created_at: string;
	updated_at: string;
	location: "staging" | "store" | "lost";
	/** Its way to the store; null if none is needed. */
	transfer: ServerTransfer | null;
}

export interface ServerTransfer {
	id: string;
	state: "queued" | "running" | "verifying" | "stored" | "retrying" | "dead" | "cancelled";
	bytes: number;
	size: number;
	attempts: number;
	next_at?: string;
	last_error?: string;
}

/** Where an upload is. It has ended in done, instant, failed and cancelled. */
export type Phase =
	| "queued" // waits for its turn
	| "checking" // hashes first: the server may have it
	| "uploading"
	| "finishing" // all sent, complete is on its way
	| "done"
	| "instant" // done without (all) bytes having been sent
	| "paused"
	| "waiting" // will try again by itself at retryAt, or when online
	| "conflict" // a file of that name is there: resolve() decides
	| "needs-file" // after a reload: the file has to be chosen again, see rejoin()
	| "elsewhere" // another tab is sending it
	| "failed" // error says why; retry() tries again
	| "cancelled";

/** What to do with a file whose name is taken in its folder. "allow": nothing, names need not be unique. */
export type ConflictRule = "ask" | "skip" | "replace" | "keep-both" | "allow";

export interface UploaderOptions {
	/** "https://files.example.com", or "" for the page's own origin; "/v1/…" is appended. */
	endpoint: string;
	/** Asked before the first request; its answer is kept until the server says 401. null: no token. */
	token?: () => string | null | Promise<string | null>;
	/**
	 * The server said 401: fetch a fresh token. Called once for all requests that wait. null gives up: what waits
	 * fails with code "unauthorized". Without it `token` is asked again, once.
	 */
	onUnauthorized?: () => Promise<string | null>;
	/** Sent with every request. */
	headers?: Record<string, string>;
	/** Kept beside the file by the server. AddOptions.metadata wins. */
	metadata?: Record<string, string> | ((file: Source) => Record<string, string>);
	/** Bytes, a wish: the server takes powers of two from 1 MiB. Default: 8 MiB, 16 for files over 1 GiB, adapted to the speed. */
	chunkSize?: number;
	/** Requests at a time for the whole page. Default 4; on HTTP/1.1 more would make the page's other requests wait. */
	parallelUploads?: number;
	/** Milliseconds before each further try; then it fails. Default: exponential with jitter up to 30 s, for ever. */
	retryDelays?: number[];
	/** Default true: hint, hashing and proof, so that what the server has need not be sent. false: no worker is started. */
	instant?: boolean;
	/** Address of hash.worker.js; default: beside the script. */
	workerURL?: string | URL;
	/** Default "allow". */
	conflict?: ConflictRule;
	/** Keep in IndexedDB what is not finished, for restore(). Default true. */
	remember?: boolean;
	/** Default true; false: start() begins. */
	autoStart?: boolean;
	/** Milliseconds without a byte before a request is given up and made again. Default 15000. */
	stallTimeout?: number;
}

/** An immutable snapshot of an upload; each change makes a new object. */
export interface UploadView {
	/** Local and random, survives a reload. */
	readonly id: string;
	readonly name: string;
	readonly path: string;
	/** Bytes. */
	readonly size: number;
	/** The media type. */
	readonly type: string;
	readonly phase: Phase;
	/** Acknowledged bytes. Shrinks only if the server lost them or the upload had to begin anew. */
	readonly sent: number;
	/** sent, and the bytes on their way. */
	readonly sending: number;
	/** Bytes hashed. */
	readonly hashed: number;
	/** Bytes a second, smoothed, of acknowledged and moving bytes; 0 while nothing is sent. */
	readonly speed: number;
	/** Seconds, smoothed; null: not known. */
	readonly timeLeft: number | null;
	/** Bytes that need not be sent (instant). */
	readonly saved: number;
	/** When it is tried again (Date.now()); null also while it waits for the network. */
	readonly retryAt: number | null;
	/** How often it failed since something last worked. */
	readonly attempt: number;
	/** Why it failed, or is waiting. */
	readonly error: UploadError | null;
	/** In phase "conflict": the file that has the name. */
	readonly conflictWith: ServerFile | null;
	/** In phases "done" and "instant". */
	readonly file: ServerFile | null;
	/** The server's id of the upload. */
	readonly uploadId: string | null;
}

/** All uploads of the list together; cancelled ones do not count. */
export interface Totals {
	files: number;
	/** Files done or instant. */
	done: number;
	failed: number;
	/** Files that are checking, uploading, finishing or waiting. */
	active: number;
	/** Bytes of all files. */
	bytes: number;
	/** Bytes acknowledged or saved; never goes backwards while files are in the list. */
	sent: number;
	/** sent, and the bytes on their way; never goes backwards either. */
	sending: number;
	saved: number;
	/** Bytes a second. */
	speed: number;
	/** Seconds; null: not known. */
	timeLeft: number | null;
	online: boolean;
}

export interface UploaderEvents {
	added: (u: UploadView) => void;
	/** Any change; for progress at most ten a second. */
	change: (u: UploadView, before: UploadView) => void;
	removed: (u: UploadView) => void;
	/** Bytes, speed or time left changed. */
	progress: (u: UploadView) => void;
	/** The server has this chunk. */
	chunk: (u: UploadView, index: number) => void;
	instant: (u: UploadView) => void;
	paused: (u: UploadView) => void;
	retrying: (u: UploadView, reason: UploadError) => void;
	/** Done or instant. */
	complete: (u: UploadView) => void;
	error: (u: UploadView) => void;
	totals: (t: Totals) => void;
}

export interface AddOptions {
	/** Default: the file's; of a Blob "untitled". Counts only if a single file is added. */
	name?: string;
	/** The folder, before the relative paths of files in folders. */
	path?: string;
	metadata?: Record<string, string>;
	/** With it the upload goes on after a reload without the file being chosen again. */
	handle?: FileSystemFileHandle;
	/** The id of the server's file whose content this becomes. */
	replaces?: string;
	/** The id of an open upload of the server, such as another device's: the file goes on there. Its size has to be the same. */
	uploadId?: string;
	conflict?: ConflictRule;
}
