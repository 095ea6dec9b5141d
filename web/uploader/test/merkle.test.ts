import { createHash, randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { blockSize, type Leaf, leafSize, prove, TreeHasher } from "../src/merkle.js";
import { fourLanes, oneByOne } from "../src/sha256.js";

const digest = fourLanes();

function sha256(...parts: Uint8Array[]): Buffer {
	const hash = createHash("sha256");
	parts.forEach((part) => hash.update(part));
	return hash.digest();
}

/** RFC 6962, section 2.1, as it stands there. */
function mth(leaves: Uint8Array[]): Buffer {
	if (leaves.length === 1) {
		return sha256(Uint8Array.of(0), leaves[0]!);
	}
	let k = 1;
	while (2 * k < leaves.length) {
		k *= 2;
	}
	return sha256(Uint8Array.of(1), mth(leaves.slice(0, k)), mth(leaves.slice(k)));
}

/** RFC 9162, section 2.1.3.2: where a leaf and its path lead. */
function rootOf(leaf: Leaf, size: number): string | null {
	let [fn, sn] = [leaf.index, Math.ceil(size / leafSize) - 1];
	const path = Buffer.from(leaf.path, "base64");
	let hash = sha256(Uint8Array.of(0), Buffer.from(leaf.data, "base64"));
	for (let at = 0; at < path.length; at += 32) {
		const sibling = path.subarray(at, at + 32);
		if (sn === 0) {
			return null;
		}
		if (fn % 2 === 1 || fn === sn) {
			hash = sha256(Uint8Array.of(1), sibling, hash);
			while (fn % 2 === 0 && fn !== 0) {
				[fn, sn] = [fn >> 1, sn >> 1];
			}
		} else {
			hash = sha256(Uint8Array.of(1), hash, sibling);
		}
		[fn, sn] = [fn >> 1, sn >> 1];
	}
	return sn === 0 ? hash.toString("hex") : null;
}

function blocksOf(data: Uint8Array, piece: number): Uint8Array {
	const tree = new TreeHasher(digest, data.length);
	for (let at = 0; at < data.length; at += piece) {
		tree.update(data.subarray(at, at + piece));
	}
	return tree.blocks();
}

describe.each([
	1,
	leafSize,
	leafSize + 1,
	3 * leafSize,
	blockSize - 1,
	blockSize,
	blockSize + 1,
	2 * blockSize,
	3 * blockSize + 5 * leafSize + 7,
	5 * blockSize,
	7 * blockSize + 1,
])("content of %i bytes", (size) => {
	const data = randomBytes(size);
	const leaves: Uint8Array[] = [];
	for (let at = 0; at < size; at += leafSize) {
		leaves.push(data.subarray(at, at + leafSize));
	}
	const root = mth(leaves).toString("hex");

	it("has leaves whose paths lead to RFC 6962's root", async () => {
		const asked = new Set([0, 1, 255, 256, 257, 511, 512, leaves.length >> 1, leaves.length - 2, leaves.length - 1]);
		const indexes = [...asked].filter((i) => i >= 0 && i < leaves.length).reverse();
		const proven = await prove(digest, new Blob([data]), blocksOf(data, 65_536), indexes);
		expect(proven.map(({ index }) => index)).toEqual(indexes);
		for (const leaf of proven) {
			expect(Buffer.from(leaf.data, "base64").equals(leaves[leaf.index]!)).toBe(true);
			expect(rootOf(leaf, size)).toBe(root);
		}
	});

	it("has the same blocks however it comes", () => {
		const blocks = blocksOf(data, size);
		expect(blocks.length).toBe(Math.ceil(size / blockSize) * 32);
		expect(blocksOf(data, 777_777)).toEqual(blocks);
		const slow = new TreeHasher(oneByOne, size);
		slow.update(data);
		expect(slow.blocks()).toEqual(blocks);
	});
});

it("does not prove a file that changed meanwhile", async () => {
	const data = randomBytes(2 * blockSize);
	const blocks = blocksOf(data, blockSize);
	data[blockSize + 5]! ^= 1;
	await expect(prove(digest, new Blob([data]), blocks, [0])).resolves.toHaveLength(1);
	await expect(prove(digest, new Blob([data]), blocks, [0, 256])).rejects.toMatchObject({ name: "NotReadableError" });
	await expect(prove(digest, new Blob([data.subarray(0, blockSize)]), blocks, [256])).rejects.toMatchObject({
		name: "NotReadableError",
	});
});
