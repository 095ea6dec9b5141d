import { createHash, randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Rate } from "../src/rate.js";
import type { Phase, UploadView } from "../src/types.js";
import type { Uploader } from "../src/uploader.js";
import { FakeServer, problem } from "./fake.js";
import { eventually } from "./eventually.js";
import { uploader as make, until } from "./page.js";
import { workers } from "./worker.js";

const MiB = 1 << 20;
let server: FakeServer;

beforeEach(() => {
	server = new FakeServer();
	server.install();
});

afterEach(() => {
	vi.unstubAllGlobals();
	vi.restoreAllMocks();
});

const file = (size: number, name = "a.bin"): File => new File([randomBytes(size)], name, { lastModified: 1000 });
const bytes = async (f: Blob): Promise<Buffer> => Buffer.from(await f.arrayBuffer());
const sha1 = async (f: Blob): Promise<string> => createHash("sha1").update(await bytes(f)).digest("hex");

/** Makes the server know content, as if somebody had uploaded it. */
async function know(f: Blob): Promise<void> {
	server.known.set(await sha1(f), await bytes(f));
}

async function send(up: Uploader, f: Blob, phase: Phase = "done"): Promise<UploadView> {
	const [added] = await up.add(f);
	return until(up, added!.id, phase);
}

async function arrived(f: File): Promise<void> {
	expect(Buffer.compare(server.content(f.name)!, await bytes(f))).toBe(0);
}

/** A promise and what resolves it. */
function gate(): { passed: Promise<void>; open: () => void } {
	let open!: () => void;
	return { passed: new Promise((resolve) => (open = resolve)), open };
}

describe("a file", () => {
	it("goes up in chunks and arrives as it was", async () => {
		const up = make({ chunkSize: MiB });
		const f = file(5 * MiB + 17);
		const u = await send(up, f);
		expect(u).toMatchObject({ sent: f.size, sending: f.size, saved: 0, error: null, hashed: f.size, speed: 0 });
		expect(u.file?.sha1).toBe(await sha1(f));
		await arrived(f);
		expect(server.mostRunning).toBeLessThanOrEqual(4);
		expect(server.calls.at(-1)?.json).toHaveProperty("sha1", u.file?.sha1);
	});

	it("is one call if it is small", async () => {
		const up = make();
		const f = file(200_000);
		await send(up, f);
		await arrived(f);
		expect(server.names()).toEqual(["POST /v1/files"]);
		expect(server.calls[0]!.query.get("sha1")).toBe(await sha1(f));
	});

	it("is three calls if it has one chunk", async () => {
		const up = make();
		await send(up, file(600_000));
		expect(server.names()).toEqual(["POST /v1/uploads", "PUT /v1/uploads/{id}/chunks 0", "POST /v1/uploads/{id}/complete"]);
	});

	it("may be empty", async () => {
		const u = await send(make(), file(0));
		expect(u.file).toMatchObject({ size: 0 });
	});

	it("keeps its metadata, name, folder and type", async () => {
		const up = make({ metadata: { a: "1", b: "1" } });
		const [u] = await up.add(new File(["x"], "名前.txt", { type: "text/plain" }), { path: "p/q", metadata: { b: "2" } });
		await until(up, u!.id, "done");
		expect(server.calls[0]!.json).toMatchObject({ name: "名前.txt", path: "p/q", content_type: "text/plain", metadata: { a: "1", b: "2" } });
	});

	it("is not added twice while it is under way", async () => {
		const up = make({ autoStart: false });
		const f = file(10);
		const [[a], [b]] = [await up.add(f), await up.add(f)];
		expect(b!.id).toBe(a!.id);
		expect(up.uploads).toHaveLength(1);
		up.start();
		await until(up, a!.id, "done");
		expect((await up.add(f))[0]!.id).not.toBe(a!.id);
	});
});

describe("instant upload", () => {
	it("sends nothing of what the server has", async () => {
		const f = file(3 * MiB);
		await know(f);
		const up = make({ chunkSize: MiB });
		const phases: Phase[] = [];
		const told: string[] = [];
		up.on("change", (u) => phases.push(u.phase));
		up.on("instant", () => told.push("instant"));
		up.on("complete", () => told.push("complete"));
		const u = await send(up, f, "instant");
		expect(u).toMatchObject({ saved: f.size, sent: 0 });
		expect(phases).toContain("checking");
		expect(phases).not.toContain("uploading");
		expect(server.names().filter((n) => n.includes("chunks"))).toEqual([]);
		expect(told).toEqual(["instant", "complete"]);
		expect(up.totals).toMatchObject({ done: 1, saved: f.size, sent: f.size, bytes: f.size });
	});

	it("sends what the server does not have after all", async () => {
		const f = file(3 * MiB);
		const other = Buffer.from(await bytes(f));
		other[2 * MiB]! ^= 1; // the same beginning, and another end
		await know(new Blob([other]));
		await send(make({ chunkSize: MiB }), f);
		await arrived(f);
		expect(server.count("POST /v1/uploads/{id}/instant")).toBe(2);
	});

	it("is not asked for if it is switched off", async () => {
		const f = file(2 * MiB);
		await know(f);
		await send(make({ instant: false }), f);
		expect(server.calls[0]!.json).not.toHaveProperty("hint");
		await arrived(f);
	});

	it("ends an upload that is under way", async () => {
		const f = file(8 * MiB);
		const up = make({ chunkSize: MiB });
		server.fault = ({ name }) => (/chunks [5-7]/.test(name) ? "hang" : undefined);
		// The server gets the content from elsewhere while the first chunks are on their way.
		up.on("chunk", () => void know(f));
		// The speed is known after three seconds; that long the test does not wait.
		vi.spyOn(Rate.prototype, "timeLeft").mockReturnValue(600);
		const u = await send(up, f, "instant");
		expect(u).toMatchObject({ saved: 3 * MiB, sent: 5 * MiB });
	});

	it("is told as that even if the chunks that are under way hear of it first", async () => {
		const f = file(8 * MiB);
		const up = make({ chunkSize: MiB });
		const [proved, told] = [gate(), gate()];
		server.fault = async ({ name, json }) => {
			if (json.proof) {
				proved.open();
				return told;
			}
			if (/chunks [5-7]/.test(name)) {
				await proved.passed;
				await new Promise((resolve) => setImmediate(resolve));
			}
			return undefined;
		};
		up.on("chunk", () => void know(f));
		vi.spyOn(Rate.prototype, "timeLeft").mockReturnValue(600);
		const [added] = await up.add(f);
		await proved.passed;
		await eventually(() => expect(server.running).toBe(1)); // the chunks have had their answer
		told.open();
		expect(await until(up, added!.id, "instant")).toMatchObject({ saved: 3 * MiB });
	});

	it("takes an answer that was lost", async () => {
		const f = file(2 * MiB);
		await know(f);
		server.fault = ({ name, json }, before) => (name.endsWith("/instant") && json.proof && before < 2 ? "lost" : undefined);
		await send(make(), f, "instant");
	});

	it("does without a worker", async () => {
		const up = make({ chunkSize: MiB });
		workers.forEach((worker) => worker.onerror?.({ message: "The CSP refuses it." }));
		vi.stubGlobal("Worker", class {
			constructor() {
				throw new Error("The CSP refuses it.");
			}
		});
		for (const f of [file(2 * MiB), file(1000, "small.bin")]) {
			await know(f);
			await send(up, f);
			await arrived(f);
		}
		const [init, direct] = server.calls.filter(({ name }) => name === "POST /v1/uploads" || name === "POST /v1/files");
		expect(init!.json).not.toHaveProperty("hint");
		expect(direct!.query.has("sha1")).toBe(false);
	});
});

describe("failures that pass", () => {
	const harm: [string, (server: FakeServer) => void][] = [
		["500", (s) => (s.fault = (_, n) => (n < 2 ? problem(500, "internal") : undefined))],
		["503 with Retry-After", (s) => (s.fault = (_, n) => (n < 1 ? problem(503, "unavailable", {}, { "Retry-After": "0" }) : undefined))],
		["502 of a proxy", (s) => (s.fault = (_, n) => (n < 1 ? new Response("<html>", { status: 502 }) : undefined))],
		["broken connections", (s) => (s.fault = (_, n) => (n < 2 ? "reset" : undefined))],
		["lost answers", (s) => (s.fault = (_, n) => (n < 2 ? "lost" : undefined))],
		["an answer of something else", (s) => (s.fault = (c, n) => (n < 1 && c.method === "POST" ? new Response("<html>welcome to the hotel") : undefined))],
		["chunks altered on their way", (s) => (s.fault = (c, n) => (c.method === "PUT" && n < 2 ? problem(422, "digest_mismatch") : undefined))],
		["507", (s) => (s.fault = (_, n) => (n < 1 ? problem(507, "insufficient_storage") : undefined))],
	];
	it.each(harm)("%s", async (_, befall) => {
		befall(server);
		const f = file(3 * MiB + 1);
		const small = file(1000, "small.bin");
		const up = make({ chunkSize: MiB });
		const retrying: string[] = [];
		up.on("retrying", (__, reason) => retrying.push(reason.code));
		const [a, b] = await up.add([f, small]);
		await Promise.all([until(up, a!.id, "done"), until(up, b!.id, "done")]);
		await arrived(f);
		await arrived(small);
		expect(server.files).toHaveLength(2);
		expect(server.uploads.size).toBe(1);
		expect(retrying).not.toEqual([]);
		expect(up.uploads.every((u) => u.error === null && u.attempt === 0)).toBe(true);
	});

	it("are told while they last", async () => {
		const hold = gate();
		server.fault = async (_, n) => (n === 0 ? problem(507, "insufficient_storage") : hold.passed);
		const up = make({ retryDelays: [60_000] });
		const [added] = await up.add(file(1000));
		const u = await until(up, added!.id, "waiting");
		expect(u.error).toMatchObject({ code: "insufficient_storage", message: "The title of insufficient_storage", requestId: "r1" });
		expect(u.retryAt).toBeGreaterThan(Date.now());
		expect(u.attempt).toBe(1);
		hold.open();
		up.retry(u.id); // at once
		await until(up, u.id, "done");
	});

	it("end when retryDelays do", async () => {
		server.fault = () => problem(503, "unavailable");
		const up = make({ retryDelays: [0, 0] });
		const u = await send(up, file(1000), "failed");
		expect(u.error?.code).toBe("unavailable");
		expect(server.calls).toHaveLength(3);
		server.fault = () => undefined;
		up.retry(u.id);
		await until(up, u.id, "done");
	});

	it("without a network wait for it and do not count", async () => {
		let online = false;
		vi.stubGlobal("navigator", { get onLine() { return online; } });
		const target = new EventTarget();
		vi.stubGlobal("addEventListener", target.addEventListener.bind(target));
		server.fault = () => (online ? undefined : "reset");
		const up = make({ retryDelays: [] });
		const [added] = await up.add(file(1000));
		const u = await until(up, added!.id, "waiting");
		expect(u).toMatchObject({ retryAt: null, attempt: 0, error: { code: "network" } });
		expect(up.totals.online).toBe(false);
		online = true;
		target.dispatchEvent(new Event("online"));
		await until(up, u.id, "done");
	});
});

describe("failures for good", () => {
	it("are told in the server's words", async () => {
		server.fault = () => problem(400, "invalid_name");
		const up = make();
		const errors: UploadView[] = [];
		up.on("error", (u) => errors.push(u));
		const u = await send(up, file(MiB), "failed");
		expect(u.error).toMatchObject({ code: "invalid_name", detail: "What to do about invalid_name.", status: 400, retryable: false });
		expect(server.calls).toHaveLength(1);
		expect(errors).toEqual([u]);
		expect(up.totals).toMatchObject({ failed: 1, done: 0 });
	});

	it("tell a file that was changed on the disk", async () => {
		const f = file(3 * MiB);
		const up = make({ chunkSize: MiB });
		server.fault = ({ method }) => {
			if (method === "PUT") {
				const unreadable = () => Promise.reject(new DOMException("changed", "NotReadableError"));
				f.slice = () => Object.assign(new Blob(), { arrayBuffer: unreadable });
				return "reset"; // what the browser makes of it
			}
			return undefined;
		};
		expect((await send(up, f, "failed")).error?.code).toBe("file_changed");
	});

	it("tell a file that was changed when all was sent", async () => {
		const f = file(3 * MiB);
		const up = make({ chunkSize: MiB });
		let chunks = 0;
		up.on("chunk", () => {
			if (++chunks === 3) {
				f.slice = () => Object.assign(new Blob(), { arrayBuffer: () => Promise.reject(new DOMException("", "NotReadableError")) });
			}
		});
		expect((await send(up, f, "failed")).error?.code).toBe("file_changed");
		expect(server.files).toEqual([]);
	});

	it("tell content that twice is not what it was when it was read", async () => {
		server.fault = ({ method, body }) => void (method === "PUT" && body.fill(0));
		const up = make();
		const u = await send(up, file(2 * MiB), "failed");
		expect(u.error).toMatchObject({ code: "digest_mismatch", status: 422 });
		expect(server.uploads.size).toBe(2);
	});
});

describe("a chunk that is altered on its way", () => {
	/** The server takes it for another file, so that it is hashed before it is sent. */
	async function hashedFirst(): Promise<File> {
		const f = file(6 * MiB);
		const other = Buffer.from(await bytes(f));
		other[3 * MiB]! ^= 1;
		await know(new Blob([other]));
		return f;
	}

	it("is sent again, and no other", async () => {
		const f = await hashedFirst();
		server.fault = ({ name, body }, n) => void (name.endsWith("chunks 3") && n < 2 && (body[5]! ^= 1));
		await send(make({ chunkSize: MiB }), f);
		await arrived(f);
		expect(server.uploads.size).toBe(1);
		expect(server.count("PUT /v1/uploads/{id}/chunks 3")).toBe(3);
		expect(server.count("PUT /v1/uploads/{id}/chunks 2")).toBe(1);
		expect(server.calls.filter((c) => c.method === "PUT").every((c) => c.headers.has("Content-Digest"))).toBe(true);
	});

	it("is found at the end, if it was sent before it was hashed", async () => {
		const f = file(6 * MiB);
		server.fault = ({ method, body, headers }, n) => {
			if (method === "PUT" && n === 0 && !headers.has("Content-Digest")) {
				body[5]! ^= 1;
			}
		};
		await send(make({ chunkSize: MiB }), f);
		await arrived(f);
	});
});

describe("what the server has", () => {
	it("is begun anew if it has expired", async () => {
		const f = file(4 * MiB);
		server.fault = ({ name }, n) => {
			if (name.endsWith("chunks 3") && n === 0) {
				server.uploads.get("u1")!.state = "cancelled";
			}
		};
		const u = await send(make({ chunkSize: MiB }), f);
		expect(u.uploadId).toBe("u2");
		await arrived(f);
	});

	it("is sent again if complete finds that it is missing", async () => {
		const f = file(4 * MiB);
		server.fault = ({ name }, n) => {
			if (name.endsWith("/complete") && n === 0) {
				server.uploads.get("u1")!.chunks.delete(2);
			}
		};
		await send(make({ chunkSize: MiB }), f);
		expect(server.count("PUT /v1/uploads/{id}/chunks 2")).toBe(2);
		expect(server.count("PUT /v1/uploads/{id}/chunks 1")).toBe(1);
		await arrived(f);
	});

	it("is not sent again after a pause", async () => {
		const f = file(6 * MiB);
		const up = make({ chunkSize: MiB, parallelUploads: 1 });
		server.fault = ({ name }, n) => (name.endsWith("chunks 3") && n === 0 ? "hang" : undefined);
		const [added] = await up.add(f);
		await eventually(() => expect(server.names().at(-1)).toContain("chunks 3"));
		up.pause();
		expect(up.get(added!.id)).toMatchObject({ phase: "paused", sent: 3 * MiB, sending: 3 * MiB, speed: 0 });
		up.resume();
		await until(up, added!.id, "done");
		for (const index of [0, 1, 2, 4, 5]) {
			expect(server.count(`PUT /v1/uploads/{id}/chunks ${index}`)).toBe(1);
		}
		await arrived(f);
	});

	it("stays one upload if it is paused before init is answered", async () => {
		const hold = gate();
		server.fault = ({ name }, n) => (name === "POST /v1/uploads" && n === 0 ? hold.passed : undefined);
		const up = make();
		const [added] = await up.add(file(MiB));
		await eventually(() => expect(server.calls).toHaveLength(1));
		up.pause(added!.id);
		up.resume(added!.id);
		hold.open();
		await until(up, added!.id, "done");
		expect(server.uploads.size).toBe(1);
	});

	it("is deleted when it is cancelled, also before init is answered", async () => {
		const hold = gate();
		server.fault = ({ name }) => (name === "POST /v1/uploads" ? hold.passed : undefined);
		const up = make();
		const [added] = await up.add(file(MiB));
		await eventually(() => expect(server.calls).toHaveLength(1));
		const cancelled = up.cancel(added!.id);
		expect(up.get(added!.id)?.phase).toBe("cancelled");
		hold.open();
		await cancelled;
		expect(server.uploads.get("u1")?.state).toBe("cancelled");
	});

	it("may be an upload of another device", async () => {
		const f = file(3 * MiB);
		await fetch("/v1/uploads", { method: "POST", body: JSON.stringify({ name: "a.bin", path: "", size: f.size, chunk_size: MiB }), headers: { "Content-Type": "application/json" } });
		const chunk = { method: "PUT", body: f.slice(0, MiB), headers: { "Chunk-Index": "0" } };
		await fetch("/v1/uploads/u1/chunks", chunk);
		const up = make();
		const [added] = await up.add(f, { uploadId: "u1" });
		await until(up, added!.id, "done");
		expect(server.count("PUT /v1/uploads/{id}/chunks 0")).toBe(1);
		await arrived(f);
		const [other] = await up.add(file(MiB, "other.bin"), { uploadId: "u1" });
		await until(up, other!.id, "done");
	});

	it("is not mixed with a file of another size", async () => {
		await fetch("/v1/uploads", { method: "POST", body: JSON.stringify({ name: "a", path: "", size: 5, chunk_size: MiB }), headers: { "Content-Type": "application/json" } });
		const up = make();
		const [added] = await up.add(file(MiB), { uploadId: "u1" });
		expect((await until(up, added!.id, "failed")).error?.code).toBe("other_file");
	});
});

describe("a token", () => {
	it("is asked for anew in the middle, once for all requests", async () => {
		server.token = "1";
		let fresh = 0;
		server.fault = ({ name }) => void (name.endsWith("chunks 3") && (server.token = "2"));
		const up = make({ chunkSize: MiB, token: () => "1", onUnauthorized: async () => (fresh++, "2") });
		const f = file(8 * MiB);
		await send(up, f);
		await arrived(f);
		expect(fresh).toBe(1);
	});

	it("that is not to be had ends it, until somebody retries", async () => {
		server.token = "1";
		let token: string | null = null;
		const up = make({ token: () => token, onUnauthorized: async () => null });
		const u = await send(up, file(MiB), "failed");
		expect(u.error).toMatchObject({ code: "unauthorized", status: 401 });
		token = "1";
		up.retry();
		await until(up, u.id, "done");
	});
});

describe("names that are taken", () => {
	const old = () => server.addFile("a.bin", "p", new Uint8Array(3));

	it("are not looked at by default", async () => {
		old();
		const up = make();
		const [u] = await up.add(file(10), { path: "p" });
		await until(up, u!.id, "done");
		expect(server.names()).toEqual(["POST /v1/files"]);
	});

	it.each([10, MiB])("are asked about, and replaced (%i bytes)", async (size) => {
		const taken = old();
		const up = make({ conflict: "ask" });
		const f = file(size);
		const [added] = await up.add(f, { path: "p" });
		const u = await until(up, added!.id, "conflict");
		expect(u.conflictWith).toEqual(taken);
		up.resolve(u.id, "replace");
		expect((await until(up, u.id, "done")).file?.id).toBe(taken.id);
		expect(server.files).toHaveLength(1);
		await arrived(f);
	});

	it("are skipped", async () => {
		old();
		const up = make({ conflict: "skip" });
		const [u] = await up.add(file(10), { path: "p" });
		expect(await until(up, u!.id, "cancelled")).toMatchObject({ conflictWith: { name: "a.bin" } });
		expect(server.files).toHaveLength(1);
	});

	it("get a number, which no other file has", async () => {
		old();
		server.addFile("a (2).bin", "p", new Uint8Array(3));
		const up = make({ conflict: "keep-both" });
		const [u] = await up.add(file(10), { path: "p" });
		expect(await until(up, u!.id, "done")).toMatchObject({ name: "a (3).bin", file: { name: "a (3).bin" } });
	});

	it("are decided for all at once", async () => {
		const up = make({ conflict: "ask" });
		const files = Array.from({ length: 30 }, (_, i) => file(10, `${i}.bin`));
		files.forEach((f) => server.addFile(f.name, "", new Uint8Array(1)));
		const views = await up.add(files);
		await until(up, views[0]!.id, "conflict");
		up.resolve(views[0]!.id, "keep-both", true);
		await Promise.all(views.map((u) => until(up, u.id, "done")));
		expect(server.files).toHaveLength(60);
		expect(server.count("GET /v1/files")).toBe(1);
	});

	it("are free again if the file to be replaced is gone", async () => {
		const up = make();
		const [u] = await up.add(file(MiB), { replaces: "f99" });
		await until(up, u!.id, "done");
	});
});

describe("many files", () => {
	it("go up together, small ones first, at most four requests at a time", async () => {
		const up = make({ chunkSize: MiB, instant: false });
		const big = file(9 * MiB, "big");
		const small = Array.from({ length: 200 }, (_, i) => file(10, `${i}`));
		const views = await up.add([big, ...small]);
		await Promise.all(views.map((u) => until(up, u.id, "done")));
		expect(server.mostRunning).toBe(4);
		expect(server.files).toHaveLength(201);
		// The large one had its lane all the time, though small ones waited.
		const names = server.names();
		expect(names.indexOf("PUT /v1/uploads/{id}/chunks 0")).toBeLessThan(names.lastIndexOf("POST /v1/files"));
		expect(up.totals).toMatchObject({ files: 201, done: 201, active: 0, failed: 0, timeLeft: 0 });
	});

	it("add up to totals that never go backwards", async () => {
		const up = make({ chunkSize: MiB, instant: false });
		const shares: number[] = [];
		server.fault = (call, n) => {
			const { bytes: all, sent, sending } = up.totals;
			shares.push(sent / Math.max(all, 1), sending / Math.max(all, 1));
			return call.method === "PUT" && n === 0 ? "lost" : undefined;
		};
		const views = await up.add([file(4 * MiB, "a"), file(4 * MiB, "b"), file(4 * MiB, "c")]);
		up.on("chunk", (u, index) => u.id === views[1]!.id && index === 2 && void up.cancel(u.id));
		await Promise.all(views.map((u) => until(up, u.id, "done", "cancelled")));
		for (const kind of [0, 1]) {
			const of = shares.filter((_, i) => i % 2 === kind);
			expect(of).toEqual([...of].sort((a, b) => a - b));
		}
		expect(up.totals).toMatchObject({ files: 2, done: 2 });
		expect(up.totals.sent).toBe(up.totals.bytes);
	});

	it("are listed without holding up the page", async () => {
		const up = make({ autoStart: false });
		const files = Array.from({ length: 2_000 }, (_, i) => new File(["x"], `${i}`));
		let turns = 0;
		const watch = setInterval(() => turns++, 0);
		expect(await up.add(files)).toHaveLength(2_000);
		clearInterval(watch);
		expect(up.uploads).toHaveLength(2_000);
		expect(turns).toBeGreaterThan(1); // the page came to other things in between; see turns.test.ts
	});

	it("can be taken off the list when they have ended", async () => {
		const up = make();
		const removed: string[] = [];
		up.on("removed", (u) => removed.push(u.id));
		const u = await send(up, file(10));
		up.remove(u.id);
		expect(removed).toEqual([u.id]);
		expect(up.uploads).toEqual([]);
		expect(up.totals).toMatchObject({ files: 0, bytes: 0, sent: 0 });
	});
});

it("a listener that throws stops nothing", async () => {
	const thrown = new Promise((resolve) => process.once("uncaughtException", resolve));
	const before = process.listeners("uncaughtException").slice(0, -1);
	before.forEach((listener) => process.off("uncaughtException", listener));
	const up = make();
	const off = up.on("change", () => {
		off();
		throw new Error("the page's");
	});
	await send(up, file(10));
	expect(await thrown).toMatchObject({ message: "the page's" });
	before.forEach((listener) => process.on("uncaughtException", listener));
});
