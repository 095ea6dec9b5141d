import { expect, it } from "vitest";
import { Rate } from "../src/rate.js";

const MB = 1e6;

/** Sends for so many seconds, in steps of 100 ms; tells the times left. */
function send(rate: Rate, from: { now: number; bytes: number }, seconds: number, speed: number, size: number): (number | null)[] {
	const told: (number | null)[] = [];
	for (let i = 0; i < seconds * 10; i++) {
		from.now += 100;
		from.bytes += speed / 10;
		rate.feed(from.now, from.bytes);
		told.push(rate.timeLeft(from.now, size - from.bytes));
	}
	return told;
}

const begin = (bytes = 0) => ({ rate: new Rate(), from: { now: 5000, bytes } });

it("tells the speed, and a time after three seconds", () => {
	const { rate, from } = begin();
	rate.feed(from.now, 0);
	const told = send(rate, from, 10, 2 * MB, 100 * MB);
	expect(rate.speed).toBeCloseTo(2 * MB, -3);
	expect(told.slice(0, 29)).toEqual(Array(29).fill(null));
	expect(told.at(-1)).toBeCloseTo(40, 0);
});

it("does not count what was there before", () => {
	const { rate, from } = begin(50 * MB);
	rate.feed(from.now, from.bytes);
	send(rate, from, 5, MB, 100 * MB);
	expect(rate.speed).toBeCloseTo(MB, -3);
});

it("counts nothing twice", () => {
	const { rate, from } = begin();
	rate.feed(from.now, 0);
	send(rate, from, 10, MB, 100 * MB);
	from.bytes -= 5 * MB; // chunks broke off, and are sent again
	send(rate, from, 5, MB, 100 * MB);
	expect(rate.speed).toBeLessThan(0.4 * MB);
});

it("does not let the time left jump", () => {
	const { rate, from } = begin();
	rate.feed(from.now, 0);
	const told = send(rate, from, 8, 10 * MB, 1000 * MB);
	told.push(...send(rate, from, 6, 0, 1000 * MB), ...send(rate, from, 6, 30 * MB, 1000 * MB), ...send(rate, from, 6, MB, 1000 * MB));
	const times = told.filter((t) => t !== null);
	for (let i = 1; i < times.length; i++) {
		expect(Math.abs(times[i]! - times[i - 1]!)).toBeLessThanOrEqual(0.1 + Math.max(0.15 * times[i - 1]!, 1) * 0.1 + 1e-9);
	}
});

it("freezes the time while nothing is sent, and the speed is 0", () => {
	const { rate, from } = begin();
	rate.feed(from.now, 0);
	const before = send(rate, from, 5, MB, 50 * MB).at(-1);
	rate.stop();
	expect(rate.speed).toBe(0);
	from.now += 60_000;
	expect(rate.timeLeft(from.now, 45 * MB)).toBe(before);
	const after = send(rate, from, 5, MB, 50 * MB);
	expect(after[0]).toBe(before);
	expect(after.at(-1)).toBeLessThan(before!);
});

it("does not count the hours that a computer slept", () => {
	const { rate, from } = begin();
	rate.feed(from.now, 0);
	send(rate, from, 5, MB, 50 * MB);
	from.now += 3_600_000;
	send(rate, from, 1, MB, 50 * MB);
	expect(rate.speed).toBeCloseTo(MB, -4);
});

it("is 0 at the end", () => {
	expect(new Rate().timeLeft(0, 0)).toBe(0);
});
