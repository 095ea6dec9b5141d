import { describe, expect, it, vi } from "vitest";
import { type DownloadOptions, toDisk } from "../../../page/download.js";
import type { ServerFile } from "../../src/types.js";

const file = { id: "a", name: "film.mov", size: 6 } as ServerFile;

/** A place on the disk, as the File System Access API has it. */
function disk() {
	const pieces: string[] = [];
	const state = { closed: false, aborted: false };
	const target = new WritableStream<Uint8Array>({
		write: (piece) => void pieces.push(new TextDecoder().decode(piece)),
		close: () => void (state.closed = true),
		abort: () => void (state.aborted = true),
	});
	const handle = { createWritable: () => Promise.resolve(target) } as unknown as FileSystemFileHandle;
	return { pieces, state, pick: vi.fn(() => Promise.resolve(handle)) };
}

function content(...steps: (string | Error)[]): Response {
	const left = [...steps];
	return new Response(
		new ReadableStream<Uint8Array>({
			pull(out) {
				const next = left.shift();
				if (next === undefined) out.close();
				else if (next instanceof Error) out.error(next);
				else out.enqueue(new TextEncoder().encode(next));
			},
		}),
	);
}

describe("toDisk", () => {
	const options = (answer: Response, progress: DownloadOptions["progress"] = () => {}): DownloadOptions => ({
		get: () => Promise.resolve(answer),
		signal: new AbortController().signal,
		progress,
	});

	it("streams piece by piece, and tells how much", async () => {
		const to = disk();
		const progress = vi.fn();
		await toDisk(file, to.pick, options(content("abc", "def"), progress));
		expect(to.pick).toHaveBeenCalledExactlyOnceWith({ suggestedName: "film.mov" });
		expect(to.pieces).toEqual(["abc", "def"]);
		expect(progress.mock.calls).toEqual([[3], [6]]);
		expect(to.state).toEqual({ closed: true, aborted: false });
	});

	it("leaves nothing half under the name when the connection breaks", async () => {
		const to = disk();
		await expect(toDisk(file, to.pick, options(content("abc", new TypeError("broken"))))).rejects.toThrow("broken");
		expect(to.state).toEqual({ closed: false, aborted: true });
	});

	it("asks the server for nothing if nobody says where to", async () => {
		const get = vi.fn();
		const pick = () => Promise.reject(new DOMException("", "AbortError"));
		await expect(toDisk(file, pick, { ...options(content()), get })).rejects.toMatchObject({ name: "AbortError" });
		expect(get).not.toHaveBeenCalled();
	});
});
