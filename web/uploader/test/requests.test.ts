import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Backoff, Network } from "../src/backoff.js";
import { Lanes, Owner } from "../src/lanes.js";
import { localError, UploadError } from "../src/problem.js";
import { child, Requests } from "../src/requests.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const never = new AbortController().signal;

function make(lanes = new Lanes(1)) {
	const reasons: UploadError[] = [];
	const requests = new Requests(lanes, new Owner(false), new Backoff(new Network(), [5000, 5000]), () => {}, (e) => reasons.push(e));
	return { requests, reasons };
}

it("one that gets its lane while the others wait for their next try waits too", async () => {
	const { requests } = make();
	let fail!: () => void;
	const first = requests.make(never, false, vi.fn().mockReturnValueOnce(new Promise((_, no) => (fail = () => no(localError("network"))))).mockResolvedValue(1));
	const send = vi.fn().mockResolvedValue(2);
	const second = requests.make(never, false, send);
	await vi.advanceTimersByTimeAsync(10);
	fail();
	await vi.advanceTimersByTimeAsync(4000);
	expect(send).not.toHaveBeenCalled();
	expect(requests.waiting).toBe(true);
	await vi.advanceTimersByTimeAsync(2000);
	expect(await Promise.all([first, second])).toEqual([1, 2]);
});

it("has no lane while it waits", async () => {
	const lanes = new Lanes(1);
	const { requests } = make(lanes);
	void requests.make(never, false, vi.fn().mockRejectedValueOnce(localError("network")).mockResolvedValue(1));
	await vi.advanceTimersByTimeAsync(10);
	expect(await make(lanes).requests.make(never, false, async () => "other")).toBe("other");
});

it("tells each reason once, and fails with what is for good", async () => {
	const { requests, reasons } = make(new Lanes(4));
	const bad = new UploadError("invalid_name", "", "");
	const send = () => vi.fn().mockRejectedValueOnce(localError("network")).mockResolvedValue(1);
	const all = Promise.all([send(), send(), send()].map((s) => requests.make(never, false, s)));
	await vi.advanceTimersByTimeAsync(6000);
	expect(await all).toEqual([1, 1, 1]);
	expect(reasons.map((e) => e.code)).toEqual(["network"]);
	await expect(requests.make(never, false, () => Promise.reject(bad))).rejects.toBe(bad);
	expect(requests.running).toBe(0);
});

it("ends with its signal, in the middle and in the queue", async () => {
	const stop = new AbortController();
	const { requests } = make();
	const sent = requests.make(stop.signal, false, () => new Promise((_, no) => stop.signal.addEventListener("abort", () => no(localError("network")))));
	const queued = requests.make(stop.signal, false, async () => 1);
	await vi.advanceTimersByTimeAsync(10);
	stop.abort("why");
	expect(await Promise.allSettled([sent, queued])).toMatchObject([{ reason: "why" }, { reason: "why" }]);
});

it("a child aborts with its parent, and the parent not with its child", () => {
	const parent = new AbortController();
	const [a, b] = [child(parent.signal), child(parent.signal)];
	a.abort();
	expect(parent.signal.aborted).toBe(false);
	parent.abort("why");
	expect(b.signal.reason).toBe("why");
	expect(child(parent.signal).signal.aborted).toBe(true);
});
