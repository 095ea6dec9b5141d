import { IDBDatabase, IDBFactory, IDBKeyRange, IDBObjectStore } from "fake-indexeddb";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Memory, type Remembered } from "../src/memory.js";
import { remembered as members } from "./remembered.js";

const endpoint = "https://files.example.com";
const remembered = (more: Partial<Remembered>): Remembered => members({ endpoint, ...more });

beforeEach(() => {
	vi.stubGlobal("indexedDB", new IDBFactory());
	vi.stubGlobal("IDBKeyRange", IDBKeyRange);
});
afterEach(() => {
	vi.unstubAllGlobals();
	vi.restoreAllMocks();
	vi.useRealTimers();
});

/** What a page that is opened later finds. */
async function later(): Promise<Remembered[]> {
	const memory = Memory.open(endpoint);
	const all = await memory.all();
	memory.close();
	return all;
}

it("keeps everything for the next page, in the order of adding", async () => {
	const memory = Memory.open(endpoint);
	const first = remembered({ id: "b", addedAt: 1, hash: { at: 5, state: Uint8Array.of(1, 2) }, metadata: { camera: "x100" } });
	const second = remembered({ id: "a", addedAt: 2, blob: new Blob(["pasted"]) });
	void memory.put(second);
	void memory.put(first);
	memory.close(); // stores these first
	const all = await later();
	expect(all.map(({ id }) => id)).toEqual(["b", "a"]);
	expect(all[0]).toEqual(first);
	expect(await all[1]?.blob?.text()).toBe("pasted");
});

it("changes some members and keeps the others, the blob too", async () => {
	const memory = Memory.open(endpoint);
	await memory.put(remembered({ id: "a", name: "a.png", blob: new Blob(["pasted"]) }));
	await Promise.all([memory.update("a", { uploadId: "u1" }), memory.update("a", { sha1: "s" })]);
	const [found] = await later();
	expect(found).toMatchObject({ uploadId: "u1", sha1: "s", name: "a.png" });
	expect(await found?.blob?.text()).toBe("pasted");
});

it("does not bring back what another tab has deleted", async () => {
	const [one, other] = [Memory.open(endpoint), Memory.open(endpoint)];
	await one.put(remembered({ id: "a", blob: new Blob(["pasted"]) }));
	await other.delete("a");
	await one.update("a", { uploadId: "u1" });
	await one.delete("a");
	expect(await later()).toEqual([]);
});

it("keeps uploads to other servers apart", async () => {
	const other = Memory.open("https://other.example.com");
	await other.put(remembered({ id: "a", endpoint: "https://other.example.com" }));
	expect(await later()).toEqual([]);
	expect(await other.all()).toHaveLength(1);
});

it("lets a later version change the database, and goes on in memory", async () => {
	const memory = Memory.open(endpoint);
	await memory.put(remembered({ id: "a" }));
	await new Promise<void>((resolve, reject) => {
		const request = indexedDB.open("gantry-uploader", 2);
		request.onsuccess = () => resolve();
		request.onerror = () => reject(request.error);
	});
	await memory.put(remembered({ id: "b" }));
	expect((await memory.all()).map(({ id }) => id)).toEqual(["b"]);
});

it("opens the database again when the browser has closed it", async () => {
	const databases: IDBDatabase[] = [];
	const open = indexedDB.open.bind(indexedDB);
	vi.spyOn(indexedDB, "open").mockImplementation((...args) => {
		const request = open(...args);
		request.addEventListener("success", () => databases.push(request.result));
		return request;
	});
	const memory = Memory.open(endpoint);
	await memory.all();
	databases[0]?.close(); // as Safari does: no event, and the next transaction throws
	await memory.put(remembered({ id: "a" }));
	expect(databases).toHaveLength(2);
	databases[1]?.onclose?.(new Event("close")); // as Chromium does when the site's data is deleted
	await memory.put(remembered({ id: "b" }));
	expect(databases).toHaveLength(3);
	expect(await later()).toHaveLength(2);
});

describe.each<[string, () => void]>([
	["missing", () => vi.stubGlobal("indexedDB", undefined)],
	[
		"forbidden",
		() =>
			vi.stubGlobal("indexedDB", {
				open: () => {
					throw new DOMException("The operation is insecure.", "SecurityError");
				},
			}),
	],
	[
		"refused later",
		() =>
			vi.stubGlobal("indexedDB", {
				open: () => {
					const request = { error: new DOMException("private", "InvalidStateError"), onerror: (): void => {} };
					queueMicrotask(() => request.onerror());
					return request;
				},
			}),
	],
	[
		"silent",
		() => {
			vi.useFakeTimers({ toFake: ["setTimeout"] });
			vi.stubGlobal("indexedDB", {
				open: () => {
					queueMicrotask(() => vi.advanceTimersByTime(10_000));
					return {};
				},
			});
		},
	],
	[
		"full",
		() =>
			vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
				throw new DOMException("No room", "QuotaExceededError");
			}),
	],
])("where IndexedDB is %s", (_, refuse) => {
	it("everything is kept in memory", async () => {
		refuse();
		const memory = Memory.open(endpoint);
		const put = memory.put(remembered({ id: "a", addedAt: 1, blob: new Blob(["pasted"]) }));
		await Promise.all([put, memory.update("a", { uploadId: "u1" }), memory.put(remembered({ id: "b", addedAt: 2 }))]);
		await memory.update("a", { sha1: "s" });
		await memory.update("nobody", { sha1: "s" });
		await memory.delete("b");
		const all = await memory.all();
		expect(all).toHaveLength(1);
		expect(all[0]).toMatchObject({ id: "a", uploadId: "u1", sha1: "s" });
		expect(await all[0]?.blob?.text()).toBe("pasted");
		memory.close();
		await memory.put(remembered({ id: "c" }));
	});
});

describe("changes are written together", () => {
	const transactions = () => vi.spyOn(IDBDatabase.prototype, "transaction");
	const written = (spy: ReturnType<typeof transactions>) => spy.mock.calls.filter(([, mode]) => mode === "readwrite").length;

	it("in one transaction for a thousand, which is seen before", async () => {
		const spy = transactions();
		const memory = Memory.open(endpoint);
		const all = Array.from({ length: 1000 }, (_, i) => memory.put(remembered({ id: `${i}`, addedAt: i })));
		expect(await memory.all()).toHaveLength(1000);
		expect(written(spy)).toBe(0);
		await Promise.all(all);
		expect(written(spy)).toBe(1);
		await Promise.all(Array.from({ length: 1000 }, (_, i) => memory.delete(`${i}`)));
		expect(written(spy)).toBe(2);
		expect(await later()).toEqual([]);
	});

	it("in the order of each upload", async () => {
		const memory = Memory.open(endpoint);
		await memory.put(remembered({ id: "replaced", blob: new Blob(["old"]) }));
		await memory.put(remembered({ id: "changed", sha1: "s" }));
		const changes = [
			...[memory.put(remembered({ id: "deleted", blob: new Blob(["pasted"]) })), memory.delete("deleted")],
			...[memory.delete("replaced"), memory.put(remembered({ id: "replaced" })), memory.update("replaced", { sha1: "new" })],
			...[memory.update("changed", { uploadId: "u1" }), memory.update("changed", { uploadId: "u2" })],
			...[memory.put(remembered({ id: "gone" })), memory.delete("gone"), memory.update("gone", { uploadId: "u3" })],
		];
		const expected = [
			{ id: "replaced", sha1: "new", blob: null },
			{ id: "changed", sha1: "s", uploadId: "u2" },
		];
		const byId = (rows: Remembered[]) => expected.map(({ id }) => rows.find((row) => row.id === id));
		const before = await memory.all();
		expect(before).toHaveLength(2);
		expect(byId(before)).toMatchObject(expected);
		await Promise.all(changes);
		const after = await later();
		expect(after).toHaveLength(2);
		expect(byId(after)).toMatchObject(expected);
	});

	it("as they were when they were made", async () => {
		const memory = Memory.open(endpoint);
		const record = remembered({ id: "a", sha1: "s" });
		const put = memory.put(record);
		record.sha1 = "other";
		await put;
		expect(await later()).toMatchObject([{ sha1: "s" }]);
	});

	it("in slices between which the page reacts", async () => {
		let now = 0;
		vi.spyOn(performance, "now").mockImplementation(() => (now += 3));
		const slices = vi.spyOn(IDBObjectStore.prototype, "getKey");
		const spy = transactions();
		const memory = Memory.open(endpoint);
		await Promise.all(Array.from({ length: 20 }, (_, i) => memory.put(remembered({ id: `${i}` }))));
		expect(slices).toHaveBeenCalledTimes(10); // of two, which take 6 ms
		expect(written(spy)).toBe(1);
		expect(await later()).toHaveLength(20);
	});

	it("at once, if somebody waits for one", async () => {
		vi.useFakeTimers({ toFake: ["setTimeout"] });
		const memory = Memory.open(endpoint);
		void memory.put(remembered({ id: "a" }));
		void memory.put(remembered({ id: "b" }));
		await memory.stored("a");
		expect(await later()).toHaveLength(2);
		await memory.stored("b");
		await memory.stored("nobody");
	});

	it("in transactions of a thousand at most", async () => {
		const spy = transactions();
		const memory = Memory.open(endpoint);
		await Promise.all(Array.from({ length: 2001 }, (_, i) => memory.delete(`${i}`)));
		expect(written(spy)).toBe(3);
	});

	it("at once if the page is left, and what was deleted stays so if that is lost", async () => {
		const page = new EventTarget();
		const notes = new Map<string, string>();
		vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
		vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
		vi.stubGlobal("localStorage", {
			getItem: (key: string) => notes.get(key) ?? null,
			setItem: (key: string, value: string) => notes.set(key, value),
			removeItem: (key: string) => notes.delete(key),
		});
		vi.useFakeTimers({ toFake: ["setTimeout"] });
		const memory = Memory.open(endpoint);
		const puts = ["a", "b", "c"].map((id) => memory.put(remembered({ id })));
		page.dispatchEvent(new Event("pagehide"));
		await Promise.all(puts); // at once: there are no timers here
		expect(notes.size).toBe(0);
		vi.spyOn(IDBObjectStore.prototype, "delete").mockImplementation(function (this: IDBObjectStore) {
			throw new DOMException("The page is gone", "AbortError");
		});
		void memory.delete("a");
		page.dispatchEvent(new Event("pagehide"));
		void memory.delete("b");
		page.dispatchEvent(new Event("pagehide"));
		await memory.stored("b");
		vi.mocked(IDBObjectStore.prototype.delete).mockRestore();
		expect((await later()).map(({ id }) => id)).toEqual(["c"]);
		expect(notes.size).toBe(0);
		await vi.waitFor(async () => expect((await later()).map(({ id }) => id)).toEqual(["c"]));
	});
});

describe("where the browser is slow to open", () => {
	/** open() is answered when the answer is called. */
	function slow(): { answer: () => void; request: Partial<IDBOpenDBRequest> } {
		const request: Partial<IDBOpenDBRequest> = {};
		const open = indexedDB.open.bind(indexedDB);
		vi.spyOn(indexedDB, "open").mockImplementationOnce(() => request as IDBOpenDBRequest);
		const answer = () => {
			const real = open("gantry-uploader", 1);
			for (const event of ["onupgradeneeded", "onsuccess"] as const) {
				real[event] = (e: Event) => {
					Object.defineProperty(request, "result", { value: real.result, configurable: true });
					(request[event] as ((e: Event) => void) | null)?.(e);
				};
			}
		};
		return { answer, request };
	}

	it("writes late what was collected, and tells then", async () => {
		const { answer } = slow();
		const memory = Memory.open(endpoint);
		let told = false;
		const put = memory.put(remembered({ id: "a" })).then(() => (told = true));
		void memory.put(remembered({ id: "b" }));
		void memory.delete("b");
		const all = memory.all();
		await new Promise((resolve) => setImmediate(resolve));
		expect(told).toBe(false);
		answer();
		expect(await all).toHaveLength(1);
		await put;
		expect(await later()).toMatchObject([{ id: "a" }]);
	});

	it.each(["silent", "blocked"])("goes on in memory while it is %s, and writes that later", async (how) => {
		vi.useFakeTimers({ toFake: ["setTimeout"] });
		const { answer, request } = slow();
		const memory = Memory.open(endpoint);
		const put = memory.put(remembered({ id: "a" }));
		if (how === "silent") {
			vi.advanceTimersByTime(10_000);
		} else {
			request.onblocked?.call(request as IDBOpenDBRequest, new Event("blocked") as IDBVersionChangeEvent);
		}
		await put;
		await memory.update("a", { sha1: "s" });
		expect(await memory.all()).toMatchObject([{ id: "a", sha1: "s" }]);
		const stored = memory.stored("a");
		answer();
		await stored;
		await vi.waitFor(async () => expect(await later()).toMatchObject([{ id: "a", sha1: "s" }]));
	});

	it("writes also what a page has closed before", async () => {
		const { answer } = slow();
		const memory = Memory.open(endpoint);
		void memory.put(remembered({ id: "a" }));
		memory.close();
		answer();
		await vi.waitFor(async () => expect(await later()).toHaveLength(1));
	});
});

it("stores the others where one cannot be stored", async () => {
	const memory = Memory.open(endpoint);
	const odd = remembered({ id: "odd", handle: (() => {}) as unknown as FileSystemFileHandle });
	await Promise.all([memory.put(remembered({ id: "a" })), memory.put(odd), memory.put(remembered({ id: "b" }))]);
	expect((await later()).map(({ id }) => id)).toEqual(["a", "b"]);
	expect(await memory.all()).toHaveLength(3);
});

it("stores the others where there is no room for the bytes of one", async () => {
	const put = IDBObjectStore.prototype.put;
	vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(function (this: IDBObjectStore, ...args) {
		const request = put.apply(this, args);
		if (this.name === "blobs") {
			request.onsuccess = () => this.transaction.abort(); // as at the commit
		}
		return request;
	});
	const memory = Memory.open(endpoint);
	await Promise.all([memory.put(remembered({ id: "a" })), memory.put(remembered({ id: "b", blob: new Blob(["pasted"]) }))]);
	expect((await later()).map(({ id }) => id)).toEqual(["a"]);
	expect(await memory.all()).toHaveLength(2);
});

it("stores nothing of an upload whose bytes there is no room for", async () => {
	const put = IDBObjectStore.prototype.put;
	vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(function (this: IDBObjectStore, ...args) {
		if (this.name === "blobs") {
			throw new DOMException("No room", "QuotaExceededError");
		}
		return put.apply(this, args);
	});
	const memory = Memory.open(endpoint);
	await memory.put(remembered({ id: "a", blob: new Blob(["pasted"]) }));
	expect(await memory.all()).toHaveLength(1);
	expect(await later()).toEqual([]);
});

it("stores again what there was no room for", async () => {
	const memory = Memory.open(endpoint);
	const full = vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(() => {
		throw new DOMException("No room", "QuotaExceededError");
	});
	await memory.put(remembered({ id: "a" }));
	expect(await later()).toEqual([]);
	full.mockRestore();
	await memory.put(remembered({ id: "a", uploadId: "u1" }));
	await memory.update("a", { sha1: "s" });
	expect(await later()).toMatchObject([{ uploadId: "u1", sha1: "s" }]);
	expect(await memory.all()).toHaveLength(1);
});
