import { expect, it } from "vitest";
import { id } from "../src/random.js";

it("makes ids of 130 bits that are all different and use the whole alphabet", () => {
	const ids = Array.from({ length: 1000 }, id);
	expect(new Set(ids).size).toBe(1000);
	expect(ids.every((one) => /^[0-9a-v]{26}$/.test(one))).toBe(true);
	expect(new Set(ids.flatMap((one) => [...one])).size).toBe(32);
	expect(new Set(ids.map((one) => one[25])).size).toBe(32);
	expect(new Set(ids.map((one) => one[0])).size).toBe(32);
});
