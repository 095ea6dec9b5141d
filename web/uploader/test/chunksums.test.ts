import { createCRC32 } from "hash-wasm";
import { expect, it } from "vitest";
import { castagnoli, ChunkSums } from "../src/chunksums.js";

const digits = new TextEncoder().encode("123456789");

/** Feeds the digits so many at a time, from the byte `at` on. */
async function sums(chunk: number, at: number, pieces: number): Promise<[number, string][]> {
	const done: [number, string][] = [];
	const s = new ChunkSums(await createCRC32(castagnoli), chunk, digits.length, at, (index, crc) => done.push([index, crc]));
	for (let i = at; i < digits.length; i += pieces) {
		s.update(digits.subarray(i, i + pieces));
	}
	return done;
}

it("is CRC-32C", async () => {
	expect(await sums(9, 0, 9)).toEqual([[0, "4waSgw=="]]); // e3069283, the check value of that
});

it.each([1, 2, 3, 4, 9])("does not depend on how the bytes come (%i at a time)", async (pieces) => {
	const whole = await sums(4, 0, 9);
	expect(whole.map(([index]) => index)).toEqual([0, 1, 2]);
	expect(await sums(4, 0, pieces)).toEqual(whole);
	expect(await sums(4, 4, pieces)).toEqual(whole.slice(1));
});

it("leaves out a chunk whose beginning it has not seen", async () => {
	expect(await sums(4, 2, 3)).toEqual((await sums(4, 0, 9)).slice(1));
});
