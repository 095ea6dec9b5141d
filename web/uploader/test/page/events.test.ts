import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { backoff, Live, type LiveOptions, parseEvents } from "../../../page/events.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const stream = (...pieces: Uint8Array[]): ReadableStream<Uint8Array> =>
	new ReadableStream({
		start(out) {
			for (const piece of pieces) out.enqueue(piece);
			out.close();
		},
	});

describe("parseEvents", () => {
	it("puts events together, however they are cut, and yields comments as nameless ones", async () => {
		const text = bytes('event: file\ndata: {"name":"名"}\n\n: still here\nevent: resync\r\ndata: a\r\ndata: b\r\n\r\n');
		for (const cut of [1, 7, 20, 27, 40]) {
			const events = [];
			for await (const event of parseEvents(stream(text.slice(0, cut), text.slice(cut))))
				if (event.name) events.push(event);
			expect(events).toEqual([
				{ name: "file", data: '{"name":"名"}' },
				{ name: "resync", data: "a\nb" },
			]);
		}
	});

	it("does not yield an event before it is complete", async () => {
		const events = [];
		for await (const event of parseEvents(stream(bytes("event: file\ndata: {}\n")))) events.push(event);
		expect(events).toEqual([]);
	});
});

describe("backoff", () => {
	it("doubles up to 30 s, with half of it by chance", () => {
		expect([0, 1, 2, 9].map((n) => backoff(n, 1))).toEqual([1000, 2000, 4000, 30_000]);
		expect(backoff(0, 0)).toBe(500);
	});
});

describe("Live", () => {
	const open = vi.fn<LiveOptions["open"]>();
	const heard = vi.fn();
	const poll = vi.fn();
	const state = vi.fn();
	let live: Live;

	beforeEach(() => {
		vi.useFakeTimers();
		for (const mock of [open, heard, poll, state]) mock.mockReset();
		live = new Live({ open, heard, poll, state });
	});
	afterEach(() => {
		live.stop();
		vi.useRealTimers();
	});

	/** An answer that stays open until the connection is ended. */
	const answer = (signal: AbortSignal, text: string): Response => {
		const body = new ReadableStream<Uint8Array>({
			start(out) {
				out.enqueue(bytes(text));
				signal.addEventListener("abort", () => out.error(new DOMException("", "AbortError")));
			},
		});
		return new Response(body);
	};

	it("tells what it hears", async () => {
		open.mockImplementation((signal) => Promise.resolve(answer(signal, "event: resync\ndata: {}\n\n")));
		live.start();
		live.start();
		await vi.advanceTimersByTimeAsync(10);
		expect(open).toHaveBeenCalledTimes(1);
		expect(heard).toHaveBeenCalledExactlyOnceWith({ name: "resync", data: "{}" });
		expect(state).toHaveBeenLastCalledWith("live");
	});

	it("opens again after a failure", async () => {
		open
			.mockRejectedValueOnce(new Error("away"))
			.mockImplementation((signal) => Promise.resolve(answer(signal, ":\n")));
		live.start();
		await vi.advanceTimersByTimeAsync(10);
		expect(state).toHaveBeenLastCalledWith("away");
		await vi.advanceTimersByTimeAsync(1000);
		expect(open).toHaveBeenCalledTimes(2);
		expect(state).toHaveBeenLastCalledWith("live");
	});

	it("takes a connection without a sign of life for 45 s for dead", async () => {
		open.mockImplementation((signal) => Promise.resolve(answer(signal, ":\n")));
		live.start();
		await vi.advanceTimersByTimeAsync(44_000);
		expect(open).toHaveBeenCalledTimes(1);
		await vi.advanceTimersByTimeAsync(3000);
		expect(open).toHaveBeenCalledTimes(2);
	});

	it("polls a server that has no events", async () => {
		open.mockRejectedValue({ status: 404 });
		live.start();
		await vi.advanceTimersByTimeAsync(15_100);
		expect(open).toHaveBeenCalledTimes(1);
		expect(state).toHaveBeenLastCalledWith("polling");
		expect(poll).toHaveBeenCalledTimes(3);
		live.stop();
		await vi.advanceTimersByTimeAsync(15_000);
		expect(poll).toHaveBeenCalledTimes(3);
	});

	it("stops when nobody gives a token, and can be started again", async () => {
		open.mockRejectedValueOnce({ status: 401 }).mockImplementation((signal) => Promise.resolve(answer(signal, ":\n")));
		live.start();
		await vi.advanceTimersByTimeAsync(60_000);
		expect(open).toHaveBeenCalledTimes(1);
		expect(state).toHaveBeenLastCalledWith("idle");
		live.start();
		await vi.advanceTimersByTimeAsync(10);
		expect(open).toHaveBeenCalledTimes(2);
	});

	it("hears nothing after it was stopped", async () => {
		open.mockImplementation((signal) => Promise.resolve(answer(signal, ":\n")));
		live.start();
		await vi.advanceTimersByTimeAsync(10);
		live.stop();
		await vi.advanceTimersByTimeAsync(100_000);
		expect(open).toHaveBeenCalledTimes(1);
		expect(state).toHaveBeenLastCalledWith("idle");
	});
});
