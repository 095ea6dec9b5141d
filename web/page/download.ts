// Downloads where a token has to be sent: a link cannot do that, so the page fetches the bytes itself.

import { UploadError } from "../uploader/src/problem.js";
import type { ServerFile } from "../uploader/src/types.js";

/** Bytes that a browser without access to the disk can be trusted to hold: it is all in memory until the end. */
export const memoryLimit = 1_000_000_000;

type Picker = (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;

/** Asks where to save a file, where browsers let pages write to the disk: Chromium's, on https and localhost. */
export function savePicker(): Picker | null {
	return (window as { showSaveFilePicker?: Picker }).showSaveFilePicker?.bind(window) ?? null;
}

export interface DownloadOptions {
	/** GET of the content, with the token. Its answer is not a redirect: a store must not get the token. */
	get: (signal: AbortSignal) => Promise<Response>;
	signal: AbortSignal;
	progress: (bytes: number) => void;
}

/** Streams a file to where the person says; at no time is more of it in memory than a piece. Rejects with an AbortError if they do not say. */
export async function toDisk(file: ServerFile, pick: Picker, options: DownloadOptions): Promise<void> {
	// First: a picker opens only right after a click.
	const handle = await pick({ suggestedName: file.name });
	const answer = await options.get(options.signal);
	const target = await handle.createWritable();
	// Where the stream breaks, pipeTo aborts the target: nothing half is left under the name.
	await body(answer).pipeThrough(counter(options.progress)).pipeTo(target, { signal: options.signal });
}

/** Fetches a file into memory, and hands it to the browser to save. */
export async function toMemory(file: ServerFile, options: DownloadOptions): Promise<void> {
	const answer = await options.get(options.signal);
	const blob = await new Response(body(answer).pipeThrough(counter(options.progress))).blob();
	if (blob.size !== file.size)
		throw new UploadError("network", "The connection broke", "Download it again.", { retryable: true });
	const address = URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" }));
	const link = document.createElement("a");
	link.href = address;
	link.download = file.name;
	link.click();
	// The browser has taken it by then; it goes on with its own reference.
	setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function body(answer: Response): ReadableStream<Uint8Array<ArrayBuffer>> {
	return answer.body ?? new Blob().stream();
}

function counter(progress: (bytes: number) => void): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
	let bytes = 0;
	return new TransformStream({
		transform(piece, out) {
			bytes += piece.byteLength;
			progress(bytes);
			out.enqueue(piece);
		},
	});
}
