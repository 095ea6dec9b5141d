import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { API } from "../src/api.js";
import { FakeServer, problem } from "./fake.js";

let server: FakeServer;
const never = new AbortController().signal;

beforeEach(() => {
	vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
	server = new FakeServer();
	server.install();
});

afterEach(() => {
	vi.useRealTimers();
	vi.unstubAllGlobals();
});

const get = (api: API, signal = never) => api.call<{ items: unknown[] }>({ method: "GET", path: "/v1/files?path=", signal });
const put = (api: API, more: { progress?: (bytes: number) => void; signal?: AbortSignal; patience?: number } = {}) =>
	api.send({ method: "POST", path: "/v1/files?name=a", body: new Blob(["abc"]), progress: () => {}, patience: 1, signal: never, ...more });

/** What a promise was rejected with, once so much time has gone by. */
async function failure(promise: Promise<unknown>, after = 0): Promise<unknown> {
	const reason = promise.then(() => "none", (e: unknown) => e);
	for (let passed = 0; passed < after; passed += 1000) {
		await new Promise((resolve) => setImmediate(resolve));
		await vi.advanceTimersByTimeAsync(1000);
	}
	return reason;
}

describe("a token", () => {
	const headers = () => server.calls.map((call) => call.headers.get("Authorization"));

	it("is asked for once and sent with everything, beside the page's headers", async () => {
		const token = vi.fn(() => "t");
		const api = new API({ endpoint: "http://server", token, headers: { "X-A": "1" } });
		await Promise.all([get(api), put(api)]);
		await get(api);
		expect(token).toHaveBeenCalledTimes(1);
		expect(headers()).toEqual(["Bearer t", "Bearer t", "Bearer t"]);
		expect(server.calls.every((call) => call.headers.get("X-A") === "1")).toBe(true);
	});

	it("that is refused is replaced once for all that wait", async () => {
		server.token = "new";
		const onUnauthorized = vi.fn(async () => "new");
		const api = new API({ endpoint: "http://server", token: () => "old", onUnauthorized });
		await Promise.all([get(api), get(api), put(api), put(api)]);
		await get(api);
		expect(onUnauthorized).toHaveBeenCalledTimes(1);
	});

	it("is asked for again where there is nothing else", async () => {
		server.token = "2";
		let n = 0;
		await get(new API({ endpoint: "http://server", token: () => String(++n) }));
		expect(n).toBe(2);
	});

	it("that is refused again is told", async () => {
		server.token = "x";
		const api = new API({ endpoint: "http://server", token: () => "old", onUnauthorized: async () => "no better" });
		expect(await failure(get(api))).toMatchObject({ code: "unauthorized", status: 401 });
		expect(server.calls).toHaveLength(2);
	});
});

describe("a request", () => {
	it("tells what the server says", async () => {
		server.fault = () => problem(503, "unavailable", {}, { "Retry-After": "2" });
		expect(await failure(get(new API({ endpoint: "http://server" })))).toMatchObject({ code: "unavailable", retryAfter: 2000 });
		expect(await failure(put(new API({ endpoint: "http://server" })))).toMatchObject({ code: "unavailable", retryAfter: 2000 });
	});

	it("whose connection breaks is told as that", async () => {
		server.fault = () => "reset";
		expect(await failure(get(new API({ endpoint: "http://server" })))).toMatchObject({ code: "network", retryable: true });
		expect(await failure(put(new API({ endpoint: "http://server" })))).toMatchObject({ code: "network", retryable: true });
	});

	it("ends with its signal", async () => {
		server.fault = () => "hang";
		for (const send of [get, (api: API, signal: AbortSignal) => put(api, { signal })]) {
			const stop = new AbortController();
			const sent = failure(send(new API({ endpoint: "http://server" }), stop.signal));
			await new Promise((resolve) => setImmediate(resolve));
			stop.abort("why");
			expect(await sent).toBe("why");
			expect(await failure(send(new API({ endpoint: "http://server" }), stop.signal))).toBe("why");
		}
	});

	it("without an answer is given up in a minute", async () => {
		server.fault = () => "hang";
		const sent = get(new API({ endpoint: "http://server" }));
		expect(await failure(sent, 60_000)).toMatchObject({ code: "stalled", retryable: true });
	});

	it("tells how much of it is on its way", async () => {
		const seen: number[] = [];
		await put(new API({ endpoint: "http://server" }), { progress: (bytes) => seen.push(bytes) });
		expect(seen).toEqual([1, 3]);
	});
});

describe("a body that stalls", () => {
	/** Sends slowly: a byte each time it is told to, and never an end. */
	class Slow {
		static last: Slow;
		upload: { onprogress?: (event: { loaded: number }) => void; onload?: () => void } = {};
		aborted = false;
		constructor() {
			Slow.last = this;
		}
		open(): void {}
		setRequestHeader(): void {}
		send(): void {}
		abort(): void {
			this.aborted = true;
		}
	}

	beforeEach(() => vi.stubGlobal("XMLHttpRequest", Slow));

	it("is given up after stallTimeout, and not while bytes move", async () => {
		const sent = put(new API({ endpoint: "http://server", stallTimeout: 5000 }));
		sent.catch(() => {});
		await vi.advanceTimersByTimeAsync(0);
		for (let i = 0; i < 10; i++) {
			await vi.advanceTimersByTimeAsync(4000);
			Slow.last.upload.onprogress!({ loaded: i });
			expect(Slow.last.aborted).toBe(false);
		}
		await vi.advanceTimersByTimeAsync(5000);
		expect(Slow.last.aborted).toBe(true);
		expect(await failure(sent)).toMatchObject({ code: "stalled" });
	});

	it("may take longer if that is asked for, and when all has been sent", async () => {
		const api = new API({ endpoint: "http://server", stallTimeout: 5000 });
		put(api, { patience: 2 }).catch(() => {});
		await vi.advanceTimersByTimeAsync(9000);
		expect(Slow.last.aborted).toBe(false);
		Slow.last.upload.onload!();
		await vi.advanceTimersByTimeAsync(39_000);
		expect(Slow.last.aborted).toBe(false);
		await vi.advanceTimersByTimeAsync(2000);
		expect(Slow.last.aborted).toBe(true);
	});
});
