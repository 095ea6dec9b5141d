import { describe, expect, it } from "vitest";
import { Counts, Gauge } from "../../src/element/gauge.js";

describe("Gauge", () => {
	it("tells the fraction of all bytes", () => {
		const gauge = new Gauge();
		expect(gauge.update({ bytes: 1000, sending: 0 })).toBe(0);
		expect(gauge.update({ bytes: 1000, sending: 250 })).toBe(0.25);
		expect(gauge.update({ bytes: 1000, sending: 1000 })).toBe(1);
	});

	it("begins with what is there already", () => {
		expect(new Gauge().update({ bytes: 1000, sending: 700 })).toBe(0.7);
	});

	it("stays where it is when files are added, and still fills to the end", () => {
		const gauge = new Gauge();
		gauge.update({ bytes: 1000, sending: 500 });
		expect(gauge.update({ bytes: 11_000, sending: 500 })).toBe(0.5);
		expect(gauge.update({ bytes: 11_000, sending: 5750 })).toBeCloseTo(0.75);
		expect(gauge.update({ bytes: 11_000, sending: 11_000 })).toBe(1);
	});

	it("never goes backwards, whatever the bytes do", () => {
		const gauge = new Gauge();
		let before = 0;
		let [bytes, sending] = [1000, 0];
		// A fixed sequence of pseudo-random steps: sent, added, lost, taken off the list.
		let seed = 7;
		const random = (): number => (seed = (seed * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
		for (let i = 0; i < 10_000; i++) {
			const r = random();
			if (r < 0.8) {
				sending = Math.min(bytes - 1, sending + Math.floor(random() * 100));
			} else if (r < 0.9) {
				bytes += Math.floor(random() * 1000);
			} else if (r < 0.95) {
				sending = Math.max(0, sending - 50);
			} else {
				const gone = Math.floor(random() * Math.min(sending, bytes - sending));
				[bytes, sending] = [bytes - gone, sending - gone];
			}
			const now = gauge.update({ bytes, sending });
			expect(now).toBeGreaterThanOrEqual(before);
			expect(now).toBeLessThan(1);
			before = now;
		}
	});

	it("begins anew when files are added after all were finished", () => {
		const gauge = new Gauge();
		gauge.update({ bytes: 1000, sending: 1000 });
		expect(gauge.update({ bytes: 3000, sending: 1000 })).toBe(0);
		expect(gauge.update({ bytes: 3000, sending: 2000 })).toBe(0.5);
	});

	it("is empty without bytes", () => {
		expect(new Gauge().update({ bytes: 0, sending: 0 })).toBe(0);
	});
});

describe("Counts", () => {
	it("counts what goes on by itself, and what asks", () => {
		const counts = new Counts();
		for (const phase of [
			"queued",
			"uploading",
			"waiting",
			"paused",
			"conflict",
			"needs-file",
			"done",
			"failed",
		] as const) {
			counts.add(phase, 1);
		}
		expect([counts.going, counts.asking, counts.of("done", "failed")]).toEqual([3, 2, 2]);
		counts.add("waiting", -1);
		expect(counts.going).toBe(2);
	});
});
