import { createHash, randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Hasher, type HashState } from "../src/hasher.js";
import { prove, TreeHasher } from "../src/merkle.js";
import { oneByOne } from "../src/sha256.js";
import { noWebAssembly, refuseWebAssembly, useInlineWorkers, workers } from "./worker.js";

vi.setConfig({ testTimeout: 60_000 });

const MiB = 1 << 20;
const data = randomBytes(20 * MiB + 12_345);
const source = new Blob([data]);
const sha1 = createHash("sha1").update(data).digest("hex");
const challenge = { id: "c1", leaves: [0, 300, 5123, 17], leaf_size: 4096, expires_at: "2026-11-20T09:05:00Z" };

let hasher: Hasher;
const never = (): AbortSignal => new AbortController().signal;
const ignore = (): void => {};

/** A large file whose bytes do not come. */
function endless(pull: (controller: ReadableStreamDefaultController<Uint8Array>) => void = ignore): Blob {
	const blob = new Blob([data]);
	blob.slice = () => ({ stream: () => new ReadableStream({ pull }) }) as unknown as Blob;
	return blob;
}

beforeEach(() => {
	useInlineWorkers();
	hasher = new Hasher("/hash.worker.js");
});

afterEach(() => {
	hasher.close();
	vi.unstubAllGlobals();
	vi.useRealTimers();
	vi.restoreAllMocks();
});

describe.each([
	["WebAssembly", ignore],
	["no WebAssembly", noWebAssembly],
	["WebAssembly refused", refuseWebAssembly],
])("with %s", (_, begin) => {
	beforeEach(() => begin());

	it("a hash is the SHA-1 of all, and reports at least every 8 MiB", async () => {
		const seen: number[] = [];
		expect(await hasher.hash(source, { signal: never(), progress: (hashed) => seen.push(hashed) })).toBe(sha1);
		expect(seen).toEqual([8 * MiB, 16 * MiB, data.length]);
	});

	it("the hash of a file that follows an aborted one is right", async () => {
		const abort = new AbortController();
		const aborted = hasher.hash(source, { signal: abort.signal, progress: () => abort.abort() });
		await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
		expect(await hasher.hash(source, { signal: never(), progress: ignore })).toBe(sha1);
	});

	it("hashing begins anew when the state is another implementation's", async () => {
		const from = { at: 8 * MiB, state: new Uint8Array(96).fill(7) };
		const seen: number[] = [];
		expect(await hasher.hash(source, { from, signal: never(), progress: (hashed) => seen.push(hashed) })).toBe(sha1);
		expect(seen[0]).toBe(8 * MiB);
	});

	it("proofs have the leaves and paths", async () => {
		const tree = new TreeHasher(oneByOne, data.length);
		tree.update(data);
		const expected = await prove(oneByOne, source, tree.blocks(), challenge.leaves);
		expect(await hasher.prove(source, challenge, never())).toEqual({ challenge: "c1", leaves: expected });
	});
});

describe("a saved state", () => {
	const saved = async (): Promise<HashState[]> => {
		const states: HashState[] = [];
		await hasher.hash(source, { signal: never(), progress: (_, state) => states.push(state!) });
		hasher = new Hasher("/hash.worker.js"); // of the page after a reload
		return states;
	};

	it("is gone on from", async () => {
		const states = await saved();
		expect(states.map(({ at }) => at)).toEqual([8 * MiB, 16 * MiB, data.length]);
		for (const from of states) {
			const seen: number[] = [];
			expect(await hasher.hash(source, { from, signal: never(), progress: (at) => seen.push(at) })).toBe(sha1);
			expect(seen[0]).toBe(Math.min(from.at + 8 * MiB, data.length));
		}
	});

	it.each([
		["is missing", noWebAssembly],
		["is refused", refuseWebAssembly],
	])("is dropped where WebAssembly %s after a reload, and hashing begins anew", async (_, begin) => {
		const states = await saved();
		begin();
		for (const from of states) {
			const seen = vi.fn();
			expect(await hasher.hash(source, { from, signal: never(), progress: seen })).toBe(sha1);
			expect(seen.mock.calls).toEqual([[8 * MiB, null], [16 * MiB, null], [data.length, null]]);
		}
	});
});

it("hashes nothing too", async () => {
	expect(await hasher.hash(new Blob([]), { signal: never(), progress: ignore })).toBe(createHash("sha1").digest("hex"));
});

describe("hints and small files", () => {
	it.each([0, 1, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, MiB])("a hint of %i bytes is SHA-1 of the first 128 KiB", async (size) => {
		const content = data.subarray(0, size);
		const expected = createHash("sha1").update(content.subarray(0, 128 << 10)).digest("hex");
		expect(await hasher.hint(new Blob([content]))).toBe(expected);
	});

	it("do not wait for large files", async () => {
		vi.stubGlobal("structuredClone", (value: unknown) => value);
		const hash = hasher.hash(endless(), { tree: true, signal: never(), progress: ignore });
		const small = new Blob([data.subarray(0, MiB - 1)]);
		expect(await hasher.hash(small, { signal: never(), progress: ignore })).toHaveLength(40);
		expect(await hasher.hint(source)).toHaveLength(40);
		hasher.close();
		await expect(hash).rejects.toMatchObject({ name: "AbortError" });
	});

	it("have their worker started before", async () => {
		hasher.start();
		expect(workers).toHaveLength(1);
		await hasher.hint(source);
		expect(workers).toHaveLength(1);
	});
});

it("does one job after the other, in one worker", async () => {
	const order: string[] = [];
	const done = await Promise.all(
		["a", "b", "c"].map(async (text) => {
			const digest = await hasher.hash(new Blob([text]), { signal: never(), progress: ignore });
			order.push(text);
			return digest;
		}),
	);
	expect(done).toEqual(["a", "b", "c"].map((text) => createHash("sha1").update(text).digest("hex")));
	expect(order).toEqual(["a", "b", "c"]);
	expect(workers).toHaveLength(1);
});

describe("abort", () => {
	const other = new Blob([data.subarray(0, MiB)]); // not small: in the same worker

	it("ends what runs, and the next job gets its own answer", async () => {
		const abort = new AbortController();
		const seen = vi.fn();
		const first = hasher.hash(source, {
			signal: abort.signal,
			progress: () => {
				seen();
				abort.abort(new Error("paused"));
			},
		});
		const second = hasher.hash(other, { signal: never(), progress: ignore });
		await expect(first).rejects.toThrow("paused");
		expect(await second).toBe(createHash("sha1").update(data.subarray(0, MiB)).digest("hex"));
		expect(seen).toHaveBeenCalledTimes(1);
		expect(workers[0]?.received.map(({ kind }) => kind)).toEqual(["hash", "abort", "hash"]);
	});

	it("ends the reading too", async () => {
		vi.stubGlobal("structuredClone", (value: unknown) => value);
		const longer = endless((controller) => controller.enqueue(new Uint8Array(9 * MiB)));
		const abort = new AbortController();
		const first = hasher.hash(longer, { signal: abort.signal, progress: () => abort.abort() });
		const second = hasher.hash(other, { signal: never(), progress: ignore });
		await expect(first).rejects.toMatchObject({ name: "AbortError" });
		expect(await second).toBe(createHash("sha1").update(data.subarray(0, MiB)).digest("hex"));
	});

	it("of one who wants a tree does not end that of the next", async () => {
		const abort = new AbortController();
		const first = hasher.prove(source, challenge, abort.signal);
		abort.abort();
		const second = hasher.prove(source, challenge, never());
		await expect(first).rejects.toMatchObject({ name: "AbortError" });
		expect((await second).leaves).toHaveLength(4);
	});

	it("takes what waits out of the line", async () => {
		const abort = new AbortController();
		const first = hasher.hash(source, { signal: never(), progress: ignore });
		const second = hasher.hash(other, { signal: abort.signal, progress: ignore });
		abort.abort();
		await expect(second).rejects.toMatchObject({ name: "AbortError" });
		expect(await first).toBe(sha1);
		expect(workers[0]?.received).toHaveLength(1);
	});

	it("does not begin when it comes before", async () => {
		await expect(hasher.hash(source, { signal: AbortSignal.abort(), progress: ignore })).rejects.toMatchObject({ name: "AbortError" });
		await expect(hasher.prove(source, challenge, AbortSignal.abort())).rejects.toMatchObject({ name: "AbortError" });
		expect(workers).toHaveLength(0);
	});

	it("of a proof leaves no half tree behind", async () => {
		const abort = new AbortController();
		const first = hasher.prove(source, challenge, abort.signal);
		await hasher.hint(source); // meanwhile the tree is begun
		abort.abort();
		await expect(first).rejects.toMatchObject({ name: "AbortError" });
		expect((await hasher.prove(source, challenge, never())).leaves).toHaveLength(4);
	});
});

describe("prove", () => {
	it("shows the leaves that are asked for, in that order", async () => {
		const proof = await hasher.prove(source, challenge, never());
		expect(proof.challenge).toBe("c1");
		expect(proof.leaves.map(({ index }) => index)).toEqual(challenge.leaves);
		for (const { index, data: leaf, path } of proof.leaves) {
			expect(Buffer.from(leaf, "base64").equals(data.subarray(index * 4096, index * 4096 + 4096))).toBe(true);
			expect(Buffer.from(path, "base64").length % 32).toBe(0);
		}
	});

	it("reads for the tree once, whether hash() made it or an earlier challenge", async () => {
		const kinds = (): string[] => workers.flatMap((worker) => worker.received.map(({ kind }) => kind));
		expect(await hasher.hash(source, { tree: true, signal: never(), progress: ignore })).toBe(sha1);
		const first = await hasher.prove(source, challenge, never());
		expect(await hasher.prove(source, challenge, never())).toEqual(first);
		expect(kinds().sort()).toEqual(["hash", "prove", "prove", "tree"]);
		const other = new Hasher("/hash.worker.js");
		expect(await other.prove(source, challenge, never())).toEqual(first);
		other.close();
	});

	it("is right for a file that follows an aborted one", async () => {
		const abort = new AbortController();
		const aborted = hasher.hash(source, { tree: true, signal: abort.signal, progress: () => abort.abort() });
		const content = new Blob([data.subarray(5 * MiB)]);
		const next = hasher.hash(content, { tree: true, signal: never(), progress: ignore });
		await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
		await next;
		const asked = { ...challenge, leaves: [0, 3000] };
		const other = new Hasher("/hash.worker.js");
		expect(await hasher.prove(content, asked, never())).toEqual(await other.prove(content, asked, never()));
		other.close();
	});

	it("of a file that hash() is asked for again after a pause is right too", async () => {
		const abort = new AbortController();
		let from: HashState | undefined;
		const pause = (_: number, state: HashState | null): void => {
			from = state!;
			abort.abort();
		};
		await expect(hasher.hash(source, { tree: true, signal: abort.signal, progress: pause })).rejects.toThrow();
		expect(await hasher.hash(source, { from: from!, tree: true, signal: never(), progress: ignore })).toBe(sha1);
		const other = new Hasher("/hash.worker.js");
		expect(await hasher.prove(source, challenge, never())).toEqual(await other.prove(source, challenge, never()));
		other.close();
	});

	it("does not wait while other files are read", async () => {
		const content = new Blob([data.subarray(0, MiB)]);
		await hasher.hash(content, { tree: true, signal: never(), progress: ignore });
		vi.stubGlobal("structuredClone", (value: unknown) => value);
		const hash = hasher.hash(endless(), { tree: true, signal: never(), progress: ignore });
		const proof = await hasher.prove(content, { ...challenge, leaves: [0] }, never());
		expect(proof.leaves).toHaveLength(1);
		hasher.close();
		await expect(hash).rejects.toMatchObject({ name: "AbortError" });
	});

	it("refuses leaves of another size", async () => {
		await expect(hasher.prove(source, { ...challenge, leaf_size: 8192 }, never())).rejects.toThrow(/Update the uploader/);
	});
});

describe("a file that cannot be read", () => {
	const broken = (error: DOMException): Blob => {
		const blob = new Blob(["x"]);
		blob.slice = () => ({ stream: () => new ReadableStream({ pull: (c) => c.error(error) }) }) as unknown as Blob;
		return blob;
	};

	it("is told by the error's name, and does not hold up the next one", async () => {
		vi.stubGlobal("structuredClone", (value: unknown) => value); // a clone would be readable again
		const error = new DOMException("The file could not be read.", "NotReadableError");
		const options = { signal: never(), progress: ignore };
		await expect(hasher.hash(broken(error), options)).rejects.toMatchObject({ name: "NotReadableError", message: error.message });
		await expect(hasher.hash(broken(error), { ...options, tree: true })).rejects.toMatchObject({ name: "NotReadableError" });
		expect(await hasher.hash(source, options)).toBe(sha1);
	});

	it("has its tree made anew when it can be read again", async () => {
		vi.stubGlobal("structuredClone", (value: unknown) => value);
		const blob = broken(new DOMException("The disk is away.", "NotReadableError"));
		await expect(hasher.prove(blob, challenge, never())).rejects.toMatchObject({ name: "NotReadableError" });
		blob.slice = (...range) => new Blob(["x"]).slice(...range);
		expect((await hasher.prove(blob, { ...challenge, leaves: [0] }, never())).leaves).toHaveLength(1);
	});

	it("is one that became shorter", async () => {
		vi.stubGlobal("structuredClone", (value: unknown) => value);
		const blob = new Blob(["abc"]);
		blob.slice = () => new Blob(["ab"]);
		await expect(hasher.hash(blob, { signal: never(), progress: ignore })).rejects.toMatchObject({ name: "NotReadableError" });
	});
});

describe("a worker that does not run", () => {
	it("is told to all that wait, and to those who come soon after; later it is tried again", async () => {
		const jobs = [1, 2].map(() => hasher.hash(source, { signal: never(), progress: ignore }));
		workers[0]?.onerror?.({ message: "" });
		for (const job of jobs) {
			await expect(job).rejects.toThrow(/hash\.worker\.js does not run/);
		}
		await expect(hasher.hash(source, { signal: never(), progress: ignore })).rejects.toThrow(/hash\.worker\.js does not run/);
		expect(workers).toHaveLength(1);
		vi.spyOn(performance, "now").mockReturnValue(performance.now() + 10_001);
		expect(await hasher.hash(source, { signal: never(), progress: ignore })).toBe(sha1);
		expect(workers).toHaveLength(2);
	});

	it("is one that does not answer", async () => {
		vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
		vi.stubGlobal("Worker", class {
			postMessage = ignore;
			terminate = ignore;
		});
		const hint = hasher.hint(source);
		vi.advanceTimersByTime(3000);
		await expect(hint).rejects.toThrow(/does not answer/);
	});

	it("is not one that has long to read", async () => {
		vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
		const abort = new AbortController();
		vi.stubGlobal("structuredClone", (value: unknown) => value);
		let reading = ignore;
		const begun = new Promise<void>((resolve) => (reading = resolve));
		const hash = hasher.hash(endless(() => reading()), { signal: abort.signal, progress: ignore });
		await begun;
		vi.advanceTimersByTime(60_000);
		abort.abort(new Error("paused"));
		await expect(hash).rejects.toThrow("paused");
	});

	it("is told where browsers have none, or refuse it", async () => {
		vi.stubGlobal("Worker", class {
			constructor() {
				throw new DOMException("Script at 'https://elsewhere/' cannot be accessed", "SecurityError");
			}
		});
		await expect(hasher.hash(source, { signal: never(), progress: ignore })).rejects.toThrow(/cannot be accessed/);
		hasher = new Hasher("/hash.worker.js");
		vi.stubGlobal("Worker", undefined);
		await expect(hasher.hash(source, { signal: never(), progress: ignore })).rejects.toThrow(/does not run/);
	});
});

it("close() ends the workers and rejects what waits", async () => {
	const job = hasher.hash(source, { tree: true, signal: never(), progress: ignore });
	hasher.close();
	await expect(job).rejects.toMatchObject({ name: "AbortError" });
	expect(workers.every(({ ended }) => ended)).toBe(true);
});
