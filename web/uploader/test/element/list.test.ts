// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Row, VirtualList } from "../../src/element/list.js";

interface Item {
	id: string;
	value: number;
}

const rowHeight = 50;
let updates: string[] = [];
let list: VirtualList<Item>;

const frame = (): void => void vi.advanceTimersToNextFrame();
const rows = (): HTMLElement[] => [...list.element.querySelectorAll<HTMLElement>("[role=listitem]")];
const ids = (): (string | undefined)[] => rows().map((row) => row.dataset.id);
const items = (n: number): Item[] => Array.from({ length: n }, (_, i) => ({ id: `i${i}`, value: 0 }));
const key = (name: string): boolean | undefined =>
	document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));

beforeEach(() => {
	vi.useFakeTimers();
	updates = [];
	list = new VirtualList<Item>({
		label: "Things",
		height: () => rowHeight,
		create: (): Row<Item> => {
			const element = document.createElement("div");
			element.append(document.createElement("button"));
			return { element, update: (item) => void updates.push(item.id) };
		},
	});
	vi.spyOn(list.element, "clientHeight", "get").mockReturnValue(500);
	document.body.replaceChildren(list.element);
});

afterEach(() => {
	list.close();
	vi.restoreAllMocks();
	vi.useRealTimers();
});

describe("VirtualList", () => {
	it("has only the rows in sight in the document, of ten thousand", () => {
		list.items = items(10_000);
		frame();
		expect(rows().length).toBeLessThanOrEqual(40);
		expect(ids()[0]).toBe("i0");
		expect(rows()[3]?.getAttribute("aria-posinset")).toBe("4");
		expect(rows()[3]?.getAttribute("aria-setsize")).toBe("10000");
	});

	it("shows those in the middle when scrolled there, at their place", () => {
		list.items = items(10_000);
		list.element.scrollTop = 5000 * rowHeight;
		list.element.dispatchEvent(new Event("scroll"));
		frame();
		expect(ids()).toContain("i5000");
		expect(ids()).toContain("i5009");
		expect(rows().length).toBeLessThanOrEqual(40);
		const inner = list.element.firstElementChild as HTMLElement;
		const above = Number(ids()[0]?.slice(1));
		expect(inner.style.paddingTop).toBe(`${above * rowHeight}px`);
		expect(
			Number.parseInt(inner.style.paddingTop) + rows().length * rowHeight + Number.parseInt(inner.style.paddingBottom),
		).toBe(10_000 * rowHeight);
	});

	it("touches only the rows that changed, once a frame", () => {
		list.items = items(10_000);
		frame();
		updates = [];
		const before = rows();
		for (let value = 1; value <= 5; value++) {
			list.change({ id: "i3", value });
		}
		list.change({ id: "i9000", value: 1 }); // out of sight
		list.change({ id: "stranger", value: 1 });
		expect(updates).toEqual([]);
		frame();
		expect(updates).toEqual(["i3"]);
		expect(rows()).toEqual(before);
		expect(list.items[9000]?.value).toBe(1);
	});

	it("keeps the elements of rows that stay when others go", () => {
		list.items = items(20);
		frame();
		const third = rows()[2];
		list.items = items(20).slice(1);
		frame();
		expect(rows()[1]).toBe(third);
		expect(ids()[0]).toBe("i1");
	});

	it("has one row in the order of Tab, and keys go to the others", () => {
		list.items = items(10_000);
		frame();
		expect(rows().filter((row) => row.tabIndex === 0)).toEqual([rows()[0]]);
		expect(rows()[0]?.querySelector("button")?.tabIndex).toBe(0);
		expect(rows()[1]?.querySelector("button")?.tabIndex).toBe(-1);
		rows()[0]?.focus();
		for (const [name, id] of [
			["ArrowDown", "i1"],
			["PageDown", "i10"],
			["End", "i9999"],
			["ArrowDown", "i9999"],
			["ArrowUp", "i9998"],
			["Home", "i0"],
			["ArrowUp", "i0"],
		] as const) {
			key(name);
			expect((document.activeElement as HTMLElement).dataset.id).toBe(id);
		}
	});

	it("goes to a row that is revealed", () => {
		list.items = items(10_000);
		list.reveal("i7777");
		expect((document.activeElement as HTMLElement).dataset.id).toBe("i7777");
	});

	it("keeps the focus when its row scrolls away, and gives it to the next one when its row is removed", () => {
		list.items = items(1000);
		list.reveal("i5");
		list.element.scrollTop = 500 * rowHeight;
		list.element.dispatchEvent(new Event("scroll"));
		frame();
		expect(document.activeElement).toBe(list.element);
		key("ArrowDown");
		expect((document.activeElement as HTMLElement).dataset.id).toBe("i6");
		list.items = items(1000).filter(({ id }) => id !== "i6");
		frame();
		return Promise.resolve().then(() => expect((document.activeElement as HTMLElement).dataset.id).toBe("i7"));
	});
});
