// @vitest-environment happy-dom
import Uppy, { type Meta } from "@uppy/core";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { UploadError } from "../src/problem.js";
import type { ServerFile } from "../src/types.js";
import Gantry from "../src/uppy.js";
import { FakeUploader } from "./fake-uploader.js";

type Result = Record<string, unknown>;

let fake: FakeUploader;
let uppy: Uppy<Meta, Result>;
const serverFile = { id: "f1", name: "a.txt", size: 3 } as ServerFile;

beforeEach(() => {
	fake = new FakeUploader();
	uppy = new Uppy<Meta, Result>({ logger: { debug() {}, warn() {}, error() {} } }).use(Gantry, {
		endpoint: "https://files.example.com/",
		uploader: fake,
	});
});

afterEach(() => uppy.destroy());

const add = (name = "a.txt", meta: Meta = {}): string => uppy.addFile({ name, data: new File(["abc"], name), meta });
/** Begins to upload; resolves when the uploader has all files. */
async function begin(n = 1): Promise<{ result: ReturnType<typeof uppy.upload> }> {
	const result = uppy.upload();
	await vi.waitFor(() => expect(fake.uploads).toHaveLength(n));
	await Promise.resolve();
	return { result };
}

it("uploads what Uppy has, with names, folders and metadata", async () => {
	const id = add("a.txt", { relativePath: "photos/2026/a.txt", camera: "x100", empty: null });
	uppy.setFileMeta(id, { name: "renamed.txt" });
	const added = vi.spyOn(fake, "add");
	const { result } = await begin();
	expect(added).toHaveBeenCalledWith(uppy.getFile(id).data, {
		name: "renamed.txt",
		path: "photos/2026",
		metadata: { camera: "x100" },
	});
	fake.set("0", { phase: "done", file: serverFile });
	const { successful, failed } = (await result) ?? {};
	expect(failed).toEqual([]);
	expect(successful?.[0]).toMatchObject({
		uploadURL: "https://files.example.com/v1/files/f1/content",
		response: { status: 200, body: { id: "f1" } },
	});
	expect(uppy.getFile(id).progress).toMatchObject({ uploadComplete: true, percentage: 100, bytesUploaded: 3 });
});

it("tells how far each file is, and all", async () => {
	const id = add();
	const { result } = await begin();
	fake.set("0", { phase: "uploading", size: 200, sent: 50, sending: 84 });
	expect(uppy.getFile(id).progress).toMatchObject({ bytesUploaded: 84, bytesTotal: 200, percentage: 42 });
	fake.set("0", { phase: "instant", saved: 116, file: serverFile });
	await result;
});

it("tells that a file is being checked", async () => {
	const id = add();
	const { result } = await begin();
	fake.set("0", { phase: "checking", size: 200, hashed: 50 });
	expect(uppy.getFile(id).progress.preprocess).toEqual({
		mode: "determinate",
		message: "Checking whether the server has it",
		value: 0.25,
	});
	fake.set("0", { phase: "uploading" });
	expect(uppy.getFile(id).progress.preprocess).toBeUndefined();
	fake.set("0", { phase: "done", file: serverFile });
	await result;
});

it("pauses and goes on with one and with all", async () => {
	const [a, b] = [add("a.txt"), add("b.txt")];
	const { result } = await begin(2);
	uppy.pauseResume(a);
	expect(fake.get("0")?.phase).toBe("paused");
	uppy.pauseResume(a);
	uppy.pauseAll();
	expect(fake.uploads.map((u) => u.phase)).toEqual(["paused", "paused"]);
	expect(uppy.getFile(b).isPaused).toBe(true);
	uppy.resumeAll();
	expect(fake.uploads.map((u) => u.phase)).toEqual(["uploading", "uploading"]);
	fake.set("0", { phase: "done", file: serverFile });
	fake.set("1", { phase: "done", file: serverFile });
	expect((await result)?.successful).toHaveLength(2);
});

it("tells errors in words, and tries the same upload again", async () => {
	const id = add();
	const { result } = await begin();
	fake.set("0", {
		phase: "failed",
		error: new UploadError("too_large", "Too large", "The limit is 2 GB.", { status: 413, requestId: "q7" }),
	});
	expect((await result)?.failed).toHaveLength(1);
	expect(uppy.getFile(id).error).toBe("Too large. The limit is 2 GB. Request q7");
	expect(uppy.getFile(id).response?.status).toBe(413);
	const again = uppy.retryUpload(id);
	await vi.waitFor(() => expect(fake.calls).toEqual(["retry 0"]));
	fake.set("0", { phase: "done", file: serverFile });
	expect((await again)?.successful).toHaveLength(1);
	expect(fake.uploads).toHaveLength(1);
});

it("retries all that failed", async () => {
	add("a.txt");
	add("b.txt");
	const { result } = await begin(2);
	const error = new UploadError("network", "", "");
	fake.set("0", { phase: "failed", error });
	fake.set("1", { phase: "failed", error });
	await result;
	const again = uppy.retryAll();
	await vi.waitFor(() => expect(fake.calls).toEqual(["retry 0", "retry 1"]));
	fake.set("0", { phase: "done", file: serverFile });
	fake.set("1", { phase: "done", file: serverFile });
	expect((await again)?.successful).toHaveLength(2);
});

it("cancels what is removed, and does not keep Uppy waiting", async () => {
	const id = add();
	const { result } = await begin();
	uppy.removeFile(id);
	await result;
	expect(fake.calls).toEqual(["cancel 0", "remove 0"]);
});

it("cancels all", async () => {
	add("a.txt");
	add("b.txt");
	const { result } = await begin(2);
	uppy.cancelAll();
	await result;
	expect(fake.calls).toEqual(["cancel 0", "remove 0", "cancel 1", "remove 1"]);
	expect(uppy.getFiles()).toEqual([]);
});

it("takes off Uppy's list what is cancelled elsewhere", async () => {
	add();
	const { result } = await begin();
	fake.set("0", { phase: "cancelled" });
	await result;
	expect(uppy.getFiles()).toEqual([]);
});

it("does not upload again what is there", async () => {
	add("a.txt");
	const first = await begin();
	fake.set("0", { phase: "done", file: serverFile });
	await first.result;
	add("b.txt");
	const second = await begin(2);
	fake.set("1", { phase: "done", file: serverFile });
	await second.result;
	expect(fake.given).toHaveLength(2);
});

it("says of files that are not on this device that it cannot", async () => {
	const remote = {
		name: "r",
		isRemote: true as const,
		data: { size: 3 },
		remote: { companionUrl: "", requestClientId: "", url: "" },
	};
	const id = uppy.addFile(remote);
	expect((await uppy.upload())?.failed).toHaveLength(1);
	expect(uppy.getFile(id).error).toBe("This file is not on this device. Download it, then add it from here.");
});

it("tells Uppy that uploads can be paused, until it is taken out", () => {
	expect(uppy.getState().capabilities.resumableUploads).toBe(true);
	const plugin = uppy.getPlugin("Gantry");
	expect(plugin?.type).toBe("uploader");
	if (plugin) {
		uppy.removePlugin(plugin);
	}
	expect(uppy.getState().capabilities.resumableUploads).toBe(false);
	expect(fake.listeners).toBe(0);
	expect(fake.closed).toBe(false);
});
