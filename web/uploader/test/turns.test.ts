import { expect, it } from "vitest";
import { Turns } from "../src/turns.js";

it("lets the page come to other things, whoever works", async () => {
	const turns = new Turns();
	const busy = (ms: number) => {
		const end = performance.now() + ms;
		while (performance.now() < end);
	};
	let others = 0;
	const other = setInterval(() => others++, 0);
	const work = async () => {
		for (let i = 0; i < 10; i++) {
			await turns.turn();
			busy(4);
		}
	};
	await Promise.all([work(), work(), work()]);
	clearInterval(other);
	expect(others).toBeGreaterThanOrEqual(5); // 120 ms in slices of 10
});
