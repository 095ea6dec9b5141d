// Errors: what the server says (RFC 9457 problem documents), and what goes wrong on the way to it.

/** Codes that the uploader itself gives; all others are the server's, see ErrorCode in the HTTP API. */
export type LocalCode =
	| "network" // no answer: the server is away, or the network
	| "stalled" // nothing moved for stallTimeout
	| "unauthorized" // no token that the server takes
	| "bad_answer" // the answer is not the server's: a proxy, or another program
	| "file_changed" // the file is not what it was when it was added
	| "file_unreadable" // the file was deleted or moved, or may not be read any more
	| "other_file"; // the server's upload is of a file of another size

interface More {
	status?: number;
	requestId?: string | null;
	retryable?: boolean;
	retryAfter?: number | null;
	missing?: Ranges | null;
}

/** Runs of chunks, first and last, both included. */
export type Ranges = readonly (readonly [number, number])[];

/** An error with a stable code for programs, and words for people. */
export class UploadError extends Error {
	override readonly name = "UploadError";
	/** What went wrong, for programs: the server's code, or a LocalCode. */
	readonly code: string;
	/** What is wrong here and what to do, for people, in English. */
	readonly detail: string;
	/** HTTP status; 0 if there was no answer. */
	readonly status: number;
	/** Names the request in the server's log. */
	readonly requestId: string | null;
	/** The same again may work later, without anybody doing anything. */
	readonly retryable: boolean;
	/** Milliseconds that the server asked to wait; null if it did not. */
	readonly retryAfter: number | null;
	/** Of "incomplete": the chunks to send. */
	readonly missing: Ranges | null;

	constructor(code: string, title: string, detail: string, more: More = {}) {
		super(title);
		this.code = code;
		this.detail = detail;
		this.status = more.status ?? 0;
		this.requestId = more.requestId ?? null;
		this.retryable = more.retryable ?? false;
		this.retryAfter = more.retryAfter ?? null;
		this.missing = more.missing ?? null;
	}

	/** The same, to be tried again. */
	again(): UploadError {
		return new UploadError(this.code, this.message, this.detail, { ...this, retryable: true });
	}
}

const local: Record<LocalCode, { title: string; detail: string; retryable?: true }> = {
	network: {
		title: "The server cannot be reached",
		detail: "The upload goes on by itself as soon as the server answers again. Look at your network if this lasts.",
		retryable: true,
	},
	stalled: {
		title: "The connection stalled",
		detail: "Nothing has moved for a while. What was on its way is sent again.",
		retryable: true,
	},
	unauthorized: {
		title: "Signing in is needed",
		detail: "The server does not take the token. Sign in again, then retry.",
	},
	bad_answer: {
		title: "The answer cannot be understood",
		detail: "Something between here and the server answers in its place. Ask whoever runs it.",
		retryable: true,
	},
	file_changed: {
		title: "The file has changed",
		detail: "It was changed on the disk since it was added. Add it again to upload it as it is now.",
	},
	file_unreadable: {
		title: "The file cannot be read",
		detail: "It was deleted or moved, or may not be read any more. Put it back and add it again.",
	},
	other_file: {
		title: "This is another file",
		detail: "The upload to go on with is of a file of another size. Choose that file, or begin a new upload.",
	},
};

export function localError(code: LocalCode, more: More = {}): UploadError {
	const { title, detail, retryable } = local[code];
	return new UploadError(code, title, detail, { retryable, ...more });
}

/** An answer, however it came. */
export interface Answer {
	status: number;
	body: string;
	header(name: string): string | null;
}

/** Statuses after which the same request may work later (RFC 9110); 507 when somebody has made room. */
const temporary = new Set([408, 425, 429, 500, 502, 503, 504, 507]);

/** The error that an answer tells of. One without a problem document is not from the server: a proxy's, mostly. */
export function problem(answer: Answer): UploadError {
	const more = {
		status: answer.status,
		requestId: answer.header("X-Request-Id"),
		retryable: temporary.has(answer.status),
		retryAfter: retryAfter(answer.header("Retry-After"), Date.now()),
	};
	const document = parse(answer.body);
	if (typeof document?.code !== "string") {
		// A proxy that has lost its server says 502, 503 or 504: that is an outage like any other.
		const code = more.retryable && answer.status > 500 ? "network" : "bad_answer";
		return localError(code, more);
	}
	return new UploadError(document.code, document.title ?? document.code, document.detail ?? "", {
		...more,
		requestId: document.request_id ?? more.requestId,
		missing: document.missing ?? null,
	});
}

interface ProblemDocument {
	code?: string;
	title?: string;
	detail?: string;
	request_id?: string;
	missing?: Ranges;
}

function parse(body: string): ProblemDocument | null {
	try {
		return JSON.parse(body) as ProblemDocument | null;
	} catch {
		return null;
	}
}

/** Milliseconds: seconds or a date (RFC 9110, 10.2.3); null if there is none that makes sense. */
export function retryAfter(header: string | null, now: number): number | null {
	if (!header) {
		return null;
	}
	const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
	return Number.isFinite(ms) ? Math.max(ms, 0) : null;
}

/** What failed, as an UploadError: a defect here is told as itself, and not tried again. */
export function asUploadError(e: unknown): UploadError {
	if (e instanceof UploadError) {
		return e;
	}
	const detail = e instanceof Error ? e.message : String(e);
	return new UploadError("internal", "Something went wrong here", detail);
}
