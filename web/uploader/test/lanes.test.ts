import { expect, it } from "vitest";
import { Lanes, Owner } from "../src/lanes.js";

const never = new AbortController().signal;

/** Lanes whose owners come again and again; tells who was served, in order. */
class Traffic {
	readonly served: string[] = [];
	readonly leaves: (() => void)[] = [];
	constructor(readonly lanes: Lanes) {}

	async wants(name: string, owner: Owner, times: number, urgent = false): Promise<void> {
		await Promise.all(
			Array.from({ length: times }, async () => {
				const leave = await this.lanes.enter(owner, urgent, never);
				this.served.push(name);
				this.leaves.push(leave);
			}),
		);
	}

	/** The one that is in longest leaves, n times. */
	async pass(n = 1): Promise<void> {
		for (let i = 0; i < n; i++) {
			await new Promise((resolve) => setImmediate(resolve));
			this.leaves.shift()?.();
		}
		await new Promise((resolve) => setImmediate(resolve));
	}
}

it("lets so many in and no more", async () => {
	const t = new Traffic(new Lanes(4));
	void t.wants("a", new Owner(false), 10);
	await t.pass(0);
	expect(t.served).toHaveLength(4);
	await t.pass(3);
	expect(t.served).toHaveLength(7);
});

it("a lane that is left twice is free once", async () => {
	const lanes = new Lanes(1);
	const leave = await lanes.enter(new Owner(false), false, never);
	leave();
	leave();
	const t = new Traffic(lanes);
	void t.wants("a", new Owner(false), 3);
	await t.pass(0);
	expect(t.served).toHaveLength(1);
});

it("shares the lanes among files", async () => {
	const t = new Traffic(new Lanes(4));
	void t.wants("a", new Owner(false), 20);
	await t.pass(0);
	void t.wants("b", new Owner(false), 20);
	await t.pass(10);
	const late = t.served.slice(-8);
	expect(late.filter((name) => name === "b")).toHaveLength(4);
});

it("takes urgent ones first", async () => {
	const t = new Traffic(new Lanes(1));
	void t.wants("chunk", new Owner(true), 3);
	await t.pass(0);
	void t.wants("call", new Owner(false), 1, true);
	await t.pass(1);
	expect(t.served).toEqual(["chunk", "call"]);
});

it("takes small files first, but keeps a lane for large ones", async () => {
	const t = new Traffic(new Lanes(4));
	void t.wants("large", new Owner(false), 20);
	await t.pass(0);
	for (let i = 0; i < 20; i++) {
		void t.wants("small", new Owner(true), 1);
	}
	await t.pass(12);
	const late = t.served.slice(-8);
	expect(late.filter((name) => name === "small")).toHaveLength(6);
	expect(late.filter((name) => name === "large")).toHaveLength(2);
});

it("with one lane nobody starves", async () => {
	const t = new Traffic(new Lanes(1));
	void t.wants("large", new Owner(false), 5);
	void t.wants("small", new Owner(true), 5);
	await t.pass(4);
	expect(new Set(t.served)).toEqual(new Set(["large", "small"]));
});

it("who leaves the queue is not served", async () => {
	const t = new Traffic(new Lanes(1));
	void t.wants("a", new Owner(false), 1);
	const leave = new AbortController();
	const waiting = t.lanes.enter(new Owner(false), false, leave.signal);
	leave.abort(new Error("left"));
	await expect(waiting).rejects.toThrow("left");
	void t.wants("b", new Owner(false), 1);
	await t.pass(1);
	expect(t.served).toEqual(["a", "b"]);
});
