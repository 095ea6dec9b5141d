import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Backoff, Network } from "../src/backoff.js";
import { localError, UploadError } from "../src/problem.js";

const events = new EventTarget();
let online = true;
const never = new AbortController().signal;

beforeEach(() => {
	vi.useFakeTimers();
	online = true;
	vi.stubGlobal("navigator", { get onLine() { return online; } });
	vi.stubGlobal("addEventListener", events.addEventListener.bind(events));
	vi.stubGlobal("removeEventListener", events.removeEventListener.bind(events));
});

afterEach(() => {
	vi.useRealTimers();
	vi.unstubAllGlobals();
	vi.restoreAllMocks();
});

const network = localError("network");

/** Whether it is ready by now. */
async function isReady(backoff: Backoff): Promise<boolean> {
	let ready = false;
	void backoff.ready(never).then(() => (ready = true), () => {});
	await vi.advanceTimersByTimeAsync(0);
	return ready;
}

function failing(backoff: Backoff, error = network): boolean {
	return backoff.failed(error, backoff.failures);
}

describe("the wait", () => {
	it("doubles up to 30 s, and is any part of that", () => {
		const random = vi.spyOn(Math, "random");
		const backoff = new Backoff(new Network(), undefined);
		const waits = [1, 0.5, 1, 1, 1, 1, 1, 1, 1].map((jitter) => {
			random.mockReturnValue(jitter);
			failing(backoff);
			return backoff.retryAt! - Date.now();
		});
		expect(waits).toEqual([500, 500, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
	});

	it("ends in its time, not before", async () => {
		const backoff = new Backoff(new Network(), [5000]);
		failing(backoff);
		await vi.advanceTimersByTimeAsync(4990);
		expect(await isReady(backoff)).toBe(false);
		await vi.advanceTimersByTimeAsync(20);
		expect(await isReady(backoff)).toBe(true);
		expect(backoff.retryAt).toBeNull();
	});

	it("is at least what the server asks for", () => {
		const backoff = new Backoff(new Network(), [0]);
		failing(backoff, new UploadError("unavailable", "", "", { retryable: true, retryAfter: 7000 }));
		expect(backoff.retryAt! - Date.now()).toBe(7000);
	});

	it("is over when the computer wakes", async () => {
		const backoff = new Backoff(new Network(), [30_000]);
		failing(backoff);
		await vi.advanceTimersByTimeAsync(1000);
		vi.setSystemTime(Date.now() + 3_600_000); // the clock went on, the timers did not
		await vi.advanceTimersByTimeAsync(1000);
		expect(await isReady(backoff)).toBe(true);
	});

	it("does not last longer for a clock that is set back", async () => {
		const backoff = new Backoff(new Network(), [3000]);
		failing(backoff);
		vi.setSystemTime(Date.now() - 3_600_000);
		await vi.advanceTimersByTimeAsync(4000);
		expect(await isReady(backoff)).toBe(true);
	});

	it("is over when something works, or somebody says so", async () => {
		for (const end of ["succeeded", "hurry"] as const) {
			const backoff = new Backoff(new Network(), [30_000]);
			failing(backoff);
			const ready = backoff.ready(never);
			backoff[end]();
			await ready;
			expect(backoff.waiting).toBe(false);
		}
	});

	it("can be left", async () => {
		const backoff = new Backoff(new Network(), [30_000]);
		failing(backoff);
		const leave = new AbortController();
		const ready = backoff.ready(leave.signal);
		leave.abort(new Error("left"));
		await expect(ready).rejects.toThrow("left");
	});
});

describe("it is tried again", () => {
	it("for ever if it is an outage, some times if it is a defect, not at all if it is for good", () => {
		const outage = new Backoff(new Network(), undefined);
		const defect = new Backoff(new Network(), undefined);
		const tries = (backoff: Backoff, error: UploadError) => Array.from({ length: 50 }, () => failing(backoff, error)).filter(Boolean).length;
		expect(tries(outage, network)).toBe(50);
		expect(tries(defect, new UploadError("internal", "", "", { retryable: true }))).toBe(8);
		expect(failing(defect, new UploadError("invalid_name", "", ""))).toBe(false);
	});

	it("from the beginning after something worked", () => {
		const backoff = new Backoff(new Network(), [0, 0]);
		expect([failing(backoff), failing(backoff), failing(backoff)]).toEqual([true, true, false]);
		backoff.succeeded();
		expect(failing(backoff)).toBe(true);
	});

	it("once for requests that were under way together", () => {
		const backoff = new Backoff(new Network(), [1000]);
		expect([1, 2, 3, 4].map(() => backoff.failed(network, 0))).toEqual([true, true, true, true]);
		expect(backoff).toMatchObject({ attempt: 1, failures: 1 });
	});

	it("when the network is back, and does not count till then", async () => {
		online = false;
		const backoff = new Backoff(new Network(), [1000]);
		expect([1, 2, 3].map(() => failing(backoff))).toEqual([true, true, true]);
		expect(backoff).toMatchObject({ attempt: 0, retryAt: null, waiting: true });
		await vi.advanceTimersByTimeAsync(29_000);
		expect(await isReady(backoff)).toBe(false);
		online = true;
		events.dispatchEvent(new Event("online"));
		expect(await isReady(backoff)).toBe(true);
	});

	it("now and then without a network: the server may be near", async () => {
		online = false;
		const backoff = new Backoff(new Network(), undefined);
		failing(backoff);
		await vi.advanceTimersByTimeAsync(30_000);
		expect(await isReady(backoff)).toBe(true);
	});
});
