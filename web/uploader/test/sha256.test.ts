import { createHash, randomBytes } from "node:crypto";
import { describe, expect, it, vi } from "vitest";
import { type DigestMany, digester, fourLanes, hashSize, oneByOne } from "../src/sha256.js";

function expected(prefix: number, length: number, data: Uint8Array): string[] {
	const found: string[] = [];
	for (let at = 0; at < data.length; at += length) {
		found.push(createHash("sha256").update(Uint8Array.of(prefix)).update(data.subarray(at, at + length)).digest("hex"));
	}
	return found;
}

function got(digest: DigestMany, prefix: number, length: number, data: Uint8Array): string[] {
	const digests = Buffer.from(digest(prefix, length, data));
	return Array.from({ length: digests.length / hashSize }, (_, i) => digests.toString("hex", i * hashSize, (i + 1) * hashSize));
}

describe.each([
	["one by one", oneByOne],
	["four lanes", fourLanes()],
])("%s", (_, digest) => {
	it.each([
		[0, 4096, 0],
		[0, 4096, 1],
		[0, 4096, 4096],
		[0, 4096, 4 * 4096],
		[0, 4096, 7 * 4096 + 4095],
		[0, 4096, 256 * 4096],
		[1, 64, 64],
		[1, 64, 5 * 64],
		[1, 64, 128 * 64],
		[255, 54, 999],
		[7, 55, 999],
		[7, 56, 999],
	])("is what Node's crypto says: prefix %i, length %i, of %i bytes", (prefix, length, size) => {
		const data = randomBytes(size);
		expect(got(digest, prefix, length, data)).toEqual(expected(prefix, length, data));
	});

	it.each([
		// FIPS 180-2, appendix B; the first byte is the prefix.
		["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
		["abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"],
	])("gives the standard's example", (message, digest256) => {
		const [prefix, ...data] = new TextEncoder().encode(message);
		expect(got(digest, prefix!, data.length, Uint8Array.from(data))).toEqual([digest256]);
	});

	it("keeps nothing from one call to the next", () => {
		const data = randomBytes(10_000);
		for (const [prefix, length] of [[0, 4096], [1, 64], [0, 64], [0, 4096]] as const) {
			expect(got(digest, prefix, length, data)).toEqual(expected(prefix, length, data));
		}
	});
});

it("does without WebAssembly where that is refused", () => {
	vi.stubGlobal("WebAssembly", {
		Module: class {
			constructor() {
				throw new WebAssembly.CompileError("refused by the Content Security Policy");
			}
		},
	});
	try {
		expect(digester()).toBe(oneByOne);
		vi.stubGlobal("WebAssembly", undefined);
		expect(digester()).toBe(oneByOne);
	} finally {
		vi.unstubAllGlobals();
	}
	expect(digester()).not.toBe(oneByOne);
});
