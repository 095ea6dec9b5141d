import "fake-indexeddb/auto";
import { createHash, randomBytes } from "node:crypto";
import { createSHA1 } from "hash-wasm";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Memory } from "../src/memory.js";
import { Remembering } from "../src/remembering.js";
import { Turns } from "../src/turns.js";
import type { Phase, UploaderOptions } from "../src/types.js";
import type { Uploader } from "../src/uploader.js";
import { FakeServer, problem } from "./fake.js";
import { eventually } from "./eventually.js";
import { uploader, until } from "./page.js";
import { remembered } from "./remembered.js";
import { refuseWebAssembly } from "./worker.js";

const MiB = 1 << 20;
let server: FakeServer;
let endpoint = 0;

beforeEach(() => {
	endpoint++; // each test remembers for itself
	server = new FakeServer();
	server.install();
});

afterEach(() => {
	vi.unstubAllGlobals();
	vi.restoreAllMocks();
});

const page = (options: Partial<UploaderOptions> = {}): Uploader =>
	uploader({ endpoint: `http://server${endpoint}`, remember: true, chunkSize: MiB, ...options });

const file = (size: number, name = "a.bin"): File => new File([randomBytes(size)], name, { lastModified: 1000 });

async function arrived(f: File): Promise<void> {
	expect(Buffer.compare(server.content(f.name)!, Buffer.from(await f.arrayBuffer()))).toBe(0);
}

/** Sends until the chunk hangs, and leaves. */
async function interrupted(f: File, chunk: number): Promise<void> {
	const up = page({ parallelUploads: 1 });
	server.fault = ({ name }, n) => (name.endsWith(`chunks ${chunk}`) && n === 0 ? "hang" : undefined);
	await up.add(f);
	await eventually(() => expect(server.names().at(-1)).toContain(`chunks ${chunk}`));
	up.close();
	await eventually(async () => expect(await stored()).toMatchObject([{ uploadId: "u1", edges: expect.stringMatching(/./) }]));
}

async function stored(): Promise<unknown[]> {
	const memory = Memory.open(`http://server${endpoint}`);
	const all = await memory.all();
	memory.close();
	return all;
}

it("opens no upload whose key is not stored; small files do not wait", async () => {
	await stored(); // makes the database
	let open = () => {};
	const openDatabase = indexedDB.open.bind(indexedDB);
	vi.spyOn(indexedDB, "open").mockImplementationOnce(() => {
		const request = {} as IDBOpenDBRequest;
		open = () => {
			const real = openDatabase("gantry-uploader", 1);
			real.onsuccess = (e) => {
				Object.defineProperty(request, "result", { value: real.result });
				request.onsuccess?.(e);
			};
		};
		return request;
	});
	const up = page({ instant: false });
	const [large] = await up.add(file(2 * MiB, "large.bin"));
	const [small] = await up.add(file(10, "small.bin"));
	await until(up, small!.id, "done");
	expect(server.count("POST /v1/uploads")).toBe(0);
	open();
	await until(up, large!.id, "done");
});

it("stores the key of a new upload too, where the old one is gone", async () => {
	const keys: [string | null, unknown][] = [];
	server.fault = async ({ name, headers }, n) => {
		if (name !== "POST /v1/uploads") {
			return undefined;
		}
		keys.push([headers.get("Idempotency-Key"), ((await stored()) as { key: string }[])[0]?.key]);
		return n === 0 ? problem(410, "gone") : undefined;
	};
	const up = page({ instant: false });
	const [u] = await up.add(file(2 * MiB));
	await until(up, u!.id, "done");
	expect(keys.map(([sent, kept]) => sent === kept)).toEqual([true, true]);
	expect(keys[0]![0]).not.toBe(keys[1]![0]);
});

describe("the next page", () => {
	it("goes on when the file was chosen again, and knows the hash", async () => {
		const f = file(20 * MiB);
		await interrupted(f, 12);
		const up = page();
		const [u] = await up.restore();
		expect(u).toMatchObject({ phase: "needs-file", name: "a.bin", size: f.size });
		expect(u!.hashed).toBeGreaterThan(0);
		const same = new File([f], f.name, { lastModified: f.lastModified });
		const another = file(20 * MiB);
		const other = file(5, "b.bin");
		expect(await up.rejoin([another, other, same])).toEqual([another, other]);
		await until(up, u!.id, "done");
		expect(server.count("PUT /v1/uploads/{id}/chunks 11")).toBe(1);
		expect(server.count("POST /v1/uploads")).toBe(1);
		await arrived(f);
		await eventually(async () => expect(await stored()).toEqual([]));
		expect(await page().restore()).toEqual([]);
	});

	it("hashes anew where WebAssembly is refused after the reload", async () => {
		const f = file(20 * MiB);
		await interrupted(f, 12);
		const content = new Uint8Array(await f.arrayBuffer());
		const state = (await createSHA1()).init().update(content.subarray(0, 8 * MiB)).save();
		const memory = Memory.open(`http://server${endpoint}`);
		const [record] = await memory.all();
		await memory.update(record!.id, { sha1: null, hash: { at: 8 * MiB, state } });
		memory.close();
		refuseWebAssembly();
		const up = page();
		const [u] = await up.add(f);
		expect((await until(up, u!.id, "done")).file?.sha1).toBe(createHash("sha1").update(content).digest("hex"));
		expect(server.calls.find(({ name }) => name.endsWith("/complete"))?.json.sha1).toBeTruthy();
		expect(server.count("POST /v1/uploads")).toBe(1);
		await arrived(f);
	});

	it.each([true, false])("goes on when the same file is added (restored before: %s)", async (before) => {
		const f = file(6 * MiB);
		await interrupted(f, 4);
		const up = page();
		if (before) {
			await up.restore();
		}
		const [u] = await up.add(f);
		await until(up, u!.id, "done");
		expect(up.uploads).toHaveLength(1);
		expect(server.count("POST /v1/uploads")).toBe(1);
		expect(server.count("PUT /v1/uploads/{id}/chunks 3")).toBe(1);
	});

	it("has files that were waiting for their turn, in their order", async () => {
		const up = page({ autoStart: false });
		await up.add(Array.from({ length: 20 }, (_, i) => file(10, `${i}`)));
		up.close();
		await eventually(async () => expect(await stored()).toHaveLength(20));
		expect((await page().restore()).map((u) => u.name)).toEqual(Array.from({ length: 20 }, (_, i) => `${i}`));
	});

	it("needs nobody for what was pasted", async () => {
		const up = page({ autoStart: false });
		await up.add(new Blob(["pasted"]), { name: "p.txt" });
		up.close();
		await eventually(async () => expect(await stored()).toHaveLength(1));
		const next = page();
		const [u] = await next.restore();
		expect(await until(next, u!.id, "done")).toMatchObject({ name: "p.txt", size: 6 });
	});

	const handle = (f: File, permission: string) => ({
		kind: "file" as const,
		getFile: async () => f,
		queryPermission: async () => permission,
		requestPermission: async () => "granted",
	});

	it.each([
		["granted", false, "queued"],
		["prompt", false, "needs-file"],
		["prompt", true, "queued"],
	])("reads files by their handles: %s, in a click: %s", async (permission, isActive, phase) => {
		const f = file(100);
		const record = remembered({ size: 100, lastModified: 1000, handle: handle(f, permission) as unknown as FileSystemFileHandle });
		vi.spyOn(Memory.prototype, "all").mockResolvedValue([record]);
		vi.stubGlobal("navigator", { userActivation: { isActive } });
		const up = page({ autoStart: false });
		expect(await up.restore()).toMatchObject([{ phase }]);
	});

	it("needs no permission for the old handle of a file that was chosen again", async () => {
		const f = file(2 * MiB); // larger than what goes in one request
		const refused = { ...handle(f, "prompt"), getFile: () => Promise.reject(new DOMException("no", "NotAllowedError")) };
		const record = remembered({ name: f.name, size: f.size, lastModified: f.lastModified, handle: refused as unknown as FileSystemFileHandle });
		vi.spyOn(Memory.prototype, "all").mockResolvedValue([record]);
		const up = page();
		const [u] = await up.restore();
		expect(u).toMatchObject({ phase: "needs-file" });
		expect(await up.rejoin([f])).toEqual([]);
		await until(up, u!.id, "done");
	});

	it("tells a file that was changed since, and takes it as it is on retry", async () => {
		const f = file(200);
		const record = remembered({ size: 100, lastModified: 1000, handle: handle(f, "granted") as unknown as FileSystemFileHandle });
		vi.spyOn(Memory.prototype, "all").mockResolvedValue([record]);
		const up = page();
		const [u] = await up.restore();
		expect(u).toMatchObject({ phase: "failed", error: { code: "file_changed" } });
		up.retry();
		await until(up, u!.id, "done", "failed").catch(() => {});
		expect(await until(up, u!.id, "done")).toMatchObject({ size: 200 });
		await arrived(f);
	});

	it("leaves paused what was paused", async () => {
		const up = page({ autoStart: false });
		const [added] = await up.add(new Blob(["pasted"]));
		up.pause();
		up.close();
		await eventually(async () => expect(await stored()).toMatchObject([{ pausedByUser: true }]));
		const next = page();
		expect(await next.restore()).toMatchObject([{ id: added!.id, phase: "paused" }]);
		next.resume();
		await until(next, added!.id, "done");
	});
});

it("what has ended is forgotten, whatever is still told of it", async () => {
	const past = new Remembering(`http://server${endpoint}`, new Turns(), () => {});
	past.add(remembered({ id: "x", endpoint: `http://server${endpoint}` }));
	expect(await past.all()).toHaveLength(1);
	past.forget("x");
	past.update("x", { sha1: "late" });
	expect(await past.all()).toEqual([]);
	await past.close();
});

describe("another tab", () => {
	it("sends nothing that this one does, sees how far it is, and goes on when this one is gone", async () => {
		const f = file(6 * MiB);
		const first = page({ parallelUploads: 1 });
		server.fault = ({ name }, n) => (name.endsWith("chunks 4") && n === 0 ? "hang" : undefined);
		const [added] = await first.add(f);
		await eventually(() => expect(server.names().at(-1)).toContain("chunks 4"));
		const second = page();
		expect(await second.restore()).toMatchObject([{ phase: "elsewhere" }]);
		expect(await second.add(f)).toMatchObject([{ id: added!.id, phase: "elsewhere" }]);
		await eventually(() => expect(second.get(added!.id)?.sent).toBe(4 * MiB));
		expect(server.count("POST /v1/uploads")).toBe(1);
		first.close();
		await until(second, added!.id, "done");
		expect(server.count("POST /v1/uploads")).toBe(1);
		expect(server.count("PUT /v1/uploads/{id}/chunks 3")).toBe(1);
		await arrived(f);
	});

	it("takes off its list what this one has finished", async () => {
		const first = page({ autoStart: false });
		const [added] = await first.add(file(MiB));
		const second = page();
		await eventually(async () => expect(await stored()).toHaveLength(1));
		expect(await second.restore()).toMatchObject([{ phase: "elsewhere" }]);
		first.start();
		await until(first, added!.id, "done");
		await eventually(() => expect(second.uploads).toEqual([]));
	});

	it("has what waits here as elsewhere, without a claim for each", async () => {
		const first = page({ autoStart: false });
		await first.add(Array.from({ length: 30 }, (_, i) => file(10, `${i}`)));
		await eventually(async () => expect(await stored()).toHaveLength(30));
		const phases: Phase[] = (await page().restore()).map((u) => u.phase);
		expect(new Set(phases)).toEqual(new Set(["elsewhere"]));
	});
});
