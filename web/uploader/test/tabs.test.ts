import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type TabNews, Tabs } from "../src/tabs.js";

const ids = vi.hoisted(() => ({ next: (): string => "" }));
vi.mock("../src/random.js", () => ({ id: () => ids.next() }));

/** Node's channels; killed ones say nothing any more. */
const channels: BroadcastChannel[] = [];
const Channel = BroadcastChannel;
let open: Tabs[] = [];
let endpoint = 0;

beforeEach(() => {
	vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
	channels.length = 0;
	endpoint++;
	let made = 0;
	ids.next = () => `tab ${made++}`;
	vi.stubGlobal(
		"BroadcastChannel",
		class extends Channel {
			constructor(name: string) {
				super(name);
				channels.push(this);
			}
		},
	);
});

afterEach(() => {
	open.forEach((tabs) => tabs.close());
	channels.forEach((channel) => channel.close());
	open = [];
	vi.useRealTimers();
	vi.unstubAllGlobals();
});

/** Lets messages arrive, without time going on. */
async function settle(): Promise<void> {
	for (let i = 0; i < 30; i++) {
		await new Promise((resolve) => setImmediate(resolve));
	}
}

/** Lets time go on in small steps, with messages arriving between them. */
async function pass(milliseconds: number): Promise<void> {
	for (let done = 0; done < milliseconds; done += 100) {
		vi.advanceTimersByTime(100);
		await settle();
	}
}

async function tab(): Promise<Tabs & { news: TabNews[]; kill(): void }> {
	const tabs = new Tabs(`https://files.example.com/${endpoint}`);
	const channel = channels.at(-1);
	const news: TabNews[] = [];
	tabs.heard((one) => news.push(one));
	open.push(tabs);
	const kill = (): void => {
		channel?.close();
		open = open.filter((one) => one !== tabs);
	};
	await pass(600);
	return Object.assign(tabs, { news, kill });
}

/** Claims, and lets as much time pass as that takes. */
async function claim(tabs: Tabs, id: string, lost = (): void => {}): Promise<boolean> {
	const claimed = tabs.claim(id, lost);
	await pass(600);
	return claimed;
}

const common = (): void => {
	it("only one of two tabs gets an upload", async () => {
		const [one, other] = [await tab(), await tab()];
		expect(await claim(one, "a")).toBe(true);
		expect(await claim(other, "a")).toBe(false);
		expect(await claim(other, "b")).toBe(true);
		expect(await claim(one, "a")).toBe(true);
		expect(other.news).toEqual([{ id: "a", kind: "claimed" }]);
	});

	it("two that ask at the same time do not both get it", async () => {
		const [one, other] = [await tab(), await tab()];
		const claims = [one.claim("a", () => {}), other.claim("a", () => {}), one.claim("a", () => {})];
		await pass(600);
		const [first, second, again] = await Promise.all(claims);
		expect(first).toBe(!second);
		expect(again).toBe(first);
	});

	it("what is released can be claimed by the other, which hears of it", async () => {
		const [one, other] = [await tab(), await tab()];
		await claim(one, "a");
		await claim(other, "a");
		one.tell({ id: "a", kind: "progress", sent: 5 });
		one.tell({ id: "a", kind: "done" });
		one.release("a");
		one.release("never claimed");
		await settle();
		expect(other.news).toEqual([
			{ id: "a", kind: "claimed" },
			{ id: "a", kind: "progress", sent: 5 },
			{ id: "a", kind: "done" },
			{ id: "a", kind: "released" },
		]);
		expect(await claim(other, "a")).toBe(true);
		expect(one.news).toEqual([{ id: "a", kind: "claimed" }]);
	});

	it("a tab that lives keeps its claim for as long as it wants", async () => {
		const [one, other] = [await tab(), await tab()];
		await claim(one, "a");
		expect(await claim(other, "a")).toBe(false);
		await pass(60_000);
		expect(other.news).toEqual([{ id: "a", kind: "claimed" }]);
		expect(await claim(other, "a")).toBe(false);
	});

	it("close() releases everything", async () => {
		const [one, other] = [await tab(), await tab()];
		await claim(one, "a");
		await claim(other, "a");
		one.close();
		await settle();
		expect(other.news.at(-1)).toEqual({ id: "a", kind: "released" });
		expect(await claim(other, "a")).toBe(true);
	});
};

describe("without Web Locks", () => {
	beforeEach(() => vi.stubGlobal("navigator", {}));
	common();

	it("a lonely tab does not wait", async () => {
		const one = await tab();
		expect(await one.claim("a", () => {})).toBe(true);
	});

	it("the claim of a tab that was killed ends within 5 s", async () => {
		const [one, other] = [await tab(), await tab()];
		await claim(one, "a");
		expect(await claim(other, "a")).toBe(false);
		await pass(3000);
		one.kill();
		await pass(4400);
		expect(other.news.at(-1)).toEqual({ id: "a", kind: "released" });
		expect(await claim(other, "a")).toBe(true);
	});

	it("one that never asked for it hears of it as well", async () => {
		const [one, other] = [await tab(), await tab()];
		await claim(one, "a");
		await settle();
		one.kill();
		await pass(5000);
		expect(other.news).toEqual([{ id: "a", kind: "claimed" }, { id: "a", kind: "released" }]);
	});

	it.each(["lower", "higher"])("of two that have claimed the same, the busy one with the %s id, the lower keeps it", async (busy) => {
		let made = busy === "lower" ? 0 : 9;
		ids.next = () => `tab ${busy === "lower" ? made++ : made--}`;
		const [one, other] = [await tab(), await tab()];
		const lost = { one: vi.fn(), other: vi.fn() };
		await claim(one, "a", lost.one);
		// The busy tab hears nothing for a while.
		const hear = channels[0]!.onmessage;
		const missed: MessageEvent[] = [];
		channels[0]!.onmessage = (event) => missed.push(event as MessageEvent);
		expect(await claim(other, "a", lost.other)).toBe(true);
		channels[0]!.onmessage = hear;
		missed.forEach((event) => hear?.call(channels[0]!, event));
		await settle();
		const [winner, loser] = busy === "lower" ? [one, other] : [other, one];
		expect(busy === "lower" ? lost.other : lost.one).toHaveBeenCalledTimes(1);
		expect(busy === "lower" ? lost.one : lost.other).not.toHaveBeenCalled();
		expect(await claim(winner, "a")).toBe(true);
		expect(await claim(loser, "a")).toBe(false);
	});
});

describe("with Web Locks", () => {
	beforeEach(() => {
		const held = new Set<string>();
		const request = async (name: string, _: LockOptions, granted: (lock: object | null) => Promise<void> | undefined): Promise<void> => {
			if (held.has(name)) {
				await granted(null);
				return;
			}
			held.add(name);
			await granted({ name });
			held.delete(name);
		};
		vi.stubGlobal("navigator", { locks: { request } });
	});
	common();

	it("a lock is enough where there is no BroadcastChannel", async () => {
		vi.stubGlobal("BroadcastChannel", undefined);
		const [one, other] = [await tab(), await tab()];
		expect(await claim(one, "a")).toBe(true);
		expect(await claim(other, "a")).toBe(false);
		one.release("a");
		await settle();
		expect(await claim(other, "a")).toBe(true);
	});
});

it("without BroadcastChannel and locks everything is granted", async () => {
	vi.stubGlobal("navigator", undefined);
	vi.stubGlobal("BroadcastChannel", undefined);
	const [one, other] = [await tab(), await tab()];
	expect(await claim(one, "a")).toBe(true);
	expect(await claim(other, "a")).toBe(true);
	one.tell({ id: "a", kind: "done" });
	one.close();
});

it("locks that may not be used are as none", async () => {
	vi.stubGlobal("navigator", { locks: { request: () => Promise.reject(new DOMException("sandboxed", "SecurityError")) } });
	const [one, other] = [await tab(), await tab()];
	expect(await claim(one, "a")).toBe(true);
	expect(await claim(other, "a")).toBe(false);
});
