import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Removal, Removals } from "../../../page/removals.js";

const a: Removal = { kind: "files", id: "a", name: "a" };
const b: Removal = { kind: "uploads", id: "b", name: "b" };

describe("Removals", () => {
	const send = vi.fn((_: Removal, _keepalive: boolean) => Promise.resolve());
	const hide = vi.fn();
	const pending = vi.fn();
	const failed = vi.fn();
	let removals: Removals;

	beforeEach(() => {
		vi.useFakeTimers();
		for (const mock of [send, hide, pending, failed]) mock.mockClear();
		removals = new Removals({ send, hide, pending, failed });
	});
	afterEach(() => void vi.useRealTimers());

	it("hides at once, and sends after 6 s", async () => {
		removals.add(a);
		expect(hide).toHaveBeenLastCalledWith([a], true);
		await vi.advanceTimersByTimeAsync(5999);
		expect(send).not.toHaveBeenCalled();
		await vi.advanceTimersByTimeAsync(1);
		expect(send).toHaveBeenCalledExactlyOnceWith(a, false);
		expect(pending).toHaveBeenLastCalledWith([]);
		expect(hide).toHaveBeenCalledTimes(1);
	});

	it("sends nothing after an undo, of all that waited", async () => {
		removals.add(a);
		await vi.advanceTimersByTimeAsync(5000);
		removals.add(b);
		await vi.advanceTimersByTimeAsync(5000);
		removals.undo();
		expect(hide).toHaveBeenLastCalledWith([a, b], false);
		await vi.advanceTimersByTimeAsync(60_000);
		expect(send).not.toHaveBeenCalled();
	});

	it("sends at once, outliving the page, when it goes; and not a second time", async () => {
		removals.add(a);
		removals.add(a);
		await removals.flush(true);
		await vi.advanceTimersByTimeAsync(60_000);
		expect(send).toHaveBeenCalledExactlyOnceWith(a, true);
	});

	it("stands still while it is held", async () => {
		removals.add(a);
		removals.hold();
		await vi.advanceTimersByTimeAsync(60_000);
		expect(send).not.toHaveBeenCalled();
		removals.release();
		await vi.advanceTimersByTimeAsync(6000);
		expect(send).toHaveBeenCalledTimes(1);
	});

	it("brings back what could not be deleted", async () => {
		const error = new Error("no");
		send.mockRejectedValueOnce(error);
		removals.add(a);
		await vi.advanceTimersByTimeAsync(6000);
		expect(hide).toHaveBeenLastCalledWith([a], false);
		expect(failed).toHaveBeenCalledExactlyOnceWith(a, error);
	});
});
