// Files to upload: random, so that no two are alike by chance, and quick to make.
import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/** Bytes of "1GiB", "256MiB" or a number. */
export function parseSize(text) {
	const [, number, unit] = text.match(/^(\d+)(KiB|MiB|GiB)?$/) ?? [];
	if (number === undefined) throw new Error(`"${text}" is not a size: write it as 256MiB`);
	return Number(number) * { KiB, MiB, GiB }[unit] || Number(number);
}

/** Makes a file of random content, with folders on the way to it. */
export async function makeFile(dir, name, size) {
	const file = path.join(dir, name);
	await fs.mkdir(path.dirname(file), { recursive: true });
	const handle = await fs.open(file, "w");
	const block = randomBytes(Math.min(size, 4 * MiB));
	for (let at = 0; at < size; at += block.length) {
		for (let i = 0; i + 8 <= block.length; i += 64 * KiB) block.writeDoubleLE(at + i, i); // no two blocks are the same
		await handle.write(block, 0, Math.min(block.length, size - at));
	}
	await handle.close();
	return { path: file, name: path.basename(name), size };
}

export async function sha256(file) {
	const hash = createHash("sha256");
	await pipeline(createReadStream(file.path, { highWaterMark: MiB }), hash);
	return hash.digest("hex");
}

/** Gives a file other content from its first byte on, without writing all of it again. */
export async function renew(file) {
	const handle = await fs.open(file.path, "r+");
	await handle.write(randomBytes(Math.min(file.size, 4 * KiB)), 0, undefined, 0);
	await handle.close();
}
