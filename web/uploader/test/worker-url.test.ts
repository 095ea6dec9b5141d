import { afterEach, describe, expect, it, vi } from "vitest";
import { Hasher } from "../src/hasher.js";

/** The addresses of the workers that were started. */
function startOn(page: string, worker: string): { started: string[]; made: Blob[] } {
	const started: string[] = [];
	const made: Blob[] = [];
	vi.stubGlobal("location", new URL(page));
	vi.stubGlobal(
		"Worker",
		class {
			constructor(url: string) {
				started.push(url);
			}
			postMessage(): void {}
			terminate(): void {}
		},
	);
	vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => {
		made.push(blob as Blob);
		return "blob:made";
	});
	const { signal } = new AbortController();
	void new Hasher(worker).hash(new Blob(["x"]), { signal, progress: () => {} }).catch(() => {});
	return { started, made };
}

describe("the worker's address", () => {
	afterEach(() => {
		vi.unstubAllGlobals();
		vi.restoreAllMocks();
	});

	it("is used as it is on the page's own origin", () => {
		expect(startOn("http://nas.local/", "/hash.worker.js").started).toContain("/hash.worker.js");
		expect(startOn("http://nas.local/x/", "http://nas.local/hash.worker.js").made).toEqual([]);
	});

	it("is imported by a worker of the page's own if it is on another origin", async () => {
		const { started, made } = startOn("http://app.example/", "http://nas.local/hash.worker.js");
		expect(started.every((url) => url === "blob:made")).toBe(true);
		expect(await made[0]?.text()).toBe('import "http://nas.local/hash.worker.js";');
	});
});
