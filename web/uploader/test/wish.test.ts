import { expect, it } from "vitest";
import { ChunkWish } from "../src/wish.js";

const MiB = 1 << 20;
const GiB = 1024 * MiB;

/** After many requests of this speed, bytes a second. */
function after(speed: number, fixed?: number): ChunkWish {
	const wish = new ChunkWish(fixed);
	for (let i = 0; i < 50; i++) {
		wish.learned(8 * MiB, ((8 * MiB) / speed) * 1000);
	}
	return wish;
}

it("is 8 MiB, and 16 for files over 1 GiB, while nothing is known", () => {
	expect(new ChunkWish(undefined).of(GiB)).toBe(8 * MiB);
	expect(new ChunkWish(undefined).of(GiB + 1)).toBe(16 * MiB);
});

it.each([0.3, 0.7, 1, 1.5, 2, 3, 5, 8].map((mib) => mib * MiB))("at %f bytes a second a chunk takes 2 to 8 s", (speed) => {
	const seconds = after(speed).of(10 * GiB) / speed;
	expect(seconds).toBeGreaterThanOrEqual(2);
	expect(seconds).toBeLessThanOrEqual(8);
});

it("stays within 1 and 64 MiB, and leaves chunks for all lanes", () => {
	expect(after(MiB / 100).of(GiB)).toBe(MiB);
	expect(after(100 * MiB).of(10 * GiB)).toBe(64 * MiB);
	expect(after(100 * MiB).of(100 * MiB)).toBe(8 * MiB);
	expect(after(100 * MiB).of(300 * MiB)).toBe(32 * MiB);
	expect(after(100 * MiB).of(0)).toBe(8 * MiB);
});

it("learns nothing from bodies that are all round trip", () => {
	const wish = new ChunkWish(undefined);
	wish.learned(1000, 1000);
	expect(wish.of(GiB)).toBe(8 * MiB);
});

it("is what the options say", () => {
	expect(after(MiB, 3 * MiB).of(GiB)).toBe(3 * MiB);
});
