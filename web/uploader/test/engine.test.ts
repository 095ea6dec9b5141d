import { randomBytes } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import type { ServerFile } from "../src/types.js";
import { type Server, startServer } from "./gantry.js";
import { uploader, until } from "./page.js";
import { FetchXHR } from "./xhr.js";

// The engine against the real server.

const MiB = 1 << 20;
let server: Server;

beforeAll(async () => {
	server = await startServer();
}, 600_000);

afterAll(() => server.stop());
beforeEach(() => vi.stubGlobal("XMLHttpRequest", FetchXHR));
afterEach(() => vi.unstubAllGlobals());

const page = (options = {}) => uploader({ endpoint: server.url, chunkSize: MiB, ...options });
const file = (size: number, name: string): File => new File([randomBytes(size)], name, { lastModified: 1000, type: "video/mp4" });

async function arrived(f: File, stored: ServerFile | null): Promise<void> {
	const response = await fetch(`${server.url}/v1/files/${stored!.id}/content`);
	expect(Buffer.compare(Buffer.from(await response.arrayBuffer()), Buffer.from(await f.arrayBuffer()))).toBe(0);
}

it.each([0, 1, 200_000, 300_000, MiB, MiB + 1, 9 * MiB + 5])("takes %i bytes", async (size) => {
	const up = page();
	const f = file(size, `名前 & ${size}?.mp4`);
	const [added] = await up.add(f, { path: "a/b" });
	const u = await until(up, added!.id, "done");
	expect(u.file).toMatchObject({ name: f.name, path: "a/b", size, content_type: "video/mp4" });
	await arrived(f, u.file);
});

it("keeps metadata", async () => {
	const up = page({ metadata: { camera: "x100" } });
	const [added] = await up.add(file(10, "m"));
	expect((await until(up, added!.id, "done")).file?.metadata).toEqual({ camera: "x100" });
});

it("has instantly what it has", async () => {
	const up = page();
	const f = file(5 * MiB + 3, "first");
	const [first] = await up.add(f);
	const { file: stored } = await until(up, first!.id, "done");
	const url = `${server.url}/v1/files/${stored!.id}`;
	await vi.waitFor(async () => expect(await (await fetch(url)).json()).toMatchObject({ location: "store" }), 30_000);
	const again = new File([f], "again");
	const [second] = await up.add(again);
	const u = await until(up, second!.id, "instant");
	expect(u).toMatchObject({ saved: f.size, sent: 0, file: { name: "again" } });
	await arrived(f, u.file);
}, 60_000);

it("goes on after a pause, and deletes what is cancelled", async () => {
	const up = page({ parallelUploads: 1 });
	const [a] = await up.add(file(6 * MiB, "paused"));
	await new Promise<void>((resolve) => up.on("chunk", (u, index) => u.id === a!.id && index === 1 && resolve()));
	up.pause(a!.id);
	const { uploadId, sent } = up.get(a!.id)!;
	expect(sent).toBeGreaterThanOrEqual(2 * MiB);
	const [b] = await up.add(file(6 * MiB, "cancelled"));
	await new Promise<void>((resolve) => up.on("chunk", (u) => u.id === b!.id && resolve()));
	await up.cancel(b!.id);
	expect((await fetch(`${server.url}/v1/uploads/${up.get(b!.id)!.uploadId}`)).status).toBe(410);
	up.resume(a!.id);
	expect((await until(up, a!.id, "done")).uploadId).toBe(uploadId);
});

it("replaces a file, or keeps both", async () => {
	const up = page({ conflict: "ask" });
	const [first] = await up.add(file(100, "n.txt"), { conflict: "allow", path: "c" });
	const { file: old } = await until(up, first!.id, "done");
	const f = file(2 * MiB, "n.txt");
	const [second] = await up.add(f, { path: "c" });
	await until(up, second!.id, "conflict");
	up.resolve(second!.id, "replace");
	const u = await until(up, second!.id, "done");
	expect(u.file?.id).toBe(old!.id);
	await arrived(f, u.file);
	const [third] = await up.add(file(100, "n.txt"), { path: "c", conflict: "keep-both" });
	expect((await until(up, third!.id, "done")).file?.name).toBe("n (2).txt");
});

it("says what is wrong with a name", async () => {
	const up = page();
	const [added] = await up.add(new Blob(["x"]), { name: "a/b" });
	expect((await until(up, added!.id, "failed")).error).toMatchObject({ code: "invalid_name", requestId: expect.stringMatching(/./) });
});
