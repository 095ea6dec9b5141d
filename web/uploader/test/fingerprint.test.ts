import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { changed, edges, sameFile } from "../src/fingerprint.js";
import type { Remembered } from "../src/memory.js";
import { remembered } from "./remembered.js";

const KiB = 1024;

describe("edges", () => {
	it.each([["", "811c9dc5"], ["a", "e40c292c"], ["foobar", "bf9cf968"]])('of "%s" are FNV-1a', async (text, expected) => {
		expect(await edges(new Blob([text]))).toBe(expected);
	});

	it.each([10, 64 * KiB, 100 * KiB, 128 * KiB, 500 * KiB])("of %i bytes are the first and last 64 KiB", async (size) => {
		const data = randomBytes(size);
		const before = await edges(new Blob([data]));
		for (const at of [0, Math.min(64 * KiB, size) - 1, Math.max(size - 64 * KiB, 0), size - 1]) {
			data[at]! ^= 1;
			expect(await edges(new Blob([data]))).not.toBe(before);
			data[at]! ^= 1;
		}
		if (size > 128 * KiB) {
			data.fill(0, 64 * KiB, size - 64 * KiB);
		}
		expect(await edges(new Blob([data]))).toBe(before);
	});
});

describe("sameFile", () => {
	const data = randomBytes(300 * KiB);
	const file = (bytes: Uint8Array<ArrayBuffer>, name: string, lastModified: number): File => new File([bytes], name, { lastModified });
	const was = async (): Promise<Remembered> =>
		remembered({ name: "a.bin", size: data.length, lastModified: 1000, edges: await edges(new Blob([data])) });

	it("knows it, also by another name", async () => {
		expect(await sameFile(await was(), file(data, "a.bin", 1000))).toBe(true);
		expect(await sameFile(await was(), file(data, "renamed.bin", 1000))).toBe(true);
	});

	it.each([
		["begins otherwise", 0],
		["ends otherwise", data.length - 1],
	])("does not take one that %s", async (_, at) => {
		const other = Buffer.from(data);
		other[at]! ^= 1;
		expect(await sameFile(await was(), file(other, "a.bin", 1000))).toBe(false);
	});

	it("does not take one that was written to since, or is longer", async () => {
		expect(await sameFile(await was(), file(data, "a.bin", 1001))).toBe(false);
		expect(await sameFile(await was(), file(Buffer.concat([data, data]), "a.bin", 1000))).toBe(false);
	});
});

it("a file has changed when its size or its time has", () => {
	const file = new File(["abc"], "a", { lastModified: 5 });
	expect(changed(file, { size: 3, lastModified: 5 })).toBe(false);
	expect(changed(file, { size: 4, lastModified: 5 })).toBe(true);
	expect(changed(file, { size: 3, lastModified: 6 })).toBe(true);
});
