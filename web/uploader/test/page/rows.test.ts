// @vitest-environment happy-dom
import { beforeEach, describe, expect, it, vi } from "vitest";
import { FileGrid, type GridOptions } from "../../../page/rows.js";
import { pageText } from "../../../page/words.js";
import type { ServerFile } from "../../src/types.js";

const file = (i: number): ServerFile => ({
	id: `f${i}`,
	name: `file ${i}.txt`,
	path: "",
	size: i,
	sha1: null,
	content_type: "",
	metadata: {},
	created_at: "2026-11-25T10:00:00Z",
	updated_at: "2026-11-25T10:00:00Z",
	location: "store",
	transfer: null,
});
const many = Array.from({ length: 10_000 }, (_, i) => file(i));
const frame = (): Promise<unknown> => new Promise((resolve) => requestAnimationFrame(resolve));

describe("FileGrid", () => {
	const act = vi.fn();
	const rename = vi.fn();
	const more = vi.fn();
	const sort = vi.fn();
	let root: HTMLElement;
	let grid: FileGrid;

	beforeEach(async () => {
		for (const mock of [act, rename, more, sort]) mock.mockClear();
		document.documentElement.style.setProperty("--row", "3.5rem");
		document.documentElement.style.fontSize = "16px";
		root = document.createElement("div");
		document.body.replaceChildren(root);
		const words = pageText("en");
		const options: GridOptions = {
			words: () => words,
			address: (f) => `/${f.id}`,
			menu: vi.fn(),
			note: vi.fn(),
			act,
			rename,
			more,
			sort,
		};
		grid = new FileGrid(root, options);
		grid.update(many, false, "-created_at");
		await frame();
	});

	const rows = (): HTMLElement[] => [...root.querySelectorAll<HTMLElement>(".row")];
	const row = (i: number): HTMLElement => rows().find((r) => r.dataset["id"] === `f${i}`)!;
	const press = (target: Element, key: string): boolean =>
		target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

	it("has only rows that are in sight, or nearly, in the document, at their places", () => {
		expect(rows().length).toBeGreaterThan(5);
		expect(rows().length).toBeLessThan(60);
		expect(row(3).style.transform).toBe(`translateY(${3 * 56}px)`);
		expect(row(3).getAttribute("aria-rowindex")).toBe("5");
	});

	it("has no rows while it is far below the window", async () => {
		const below = vi.spyOn(Element.prototype, "getBoundingClientRect").mockReturnValue(new DOMRect(0, 5000, 100, 100));
		grid.update(many.slice(0, 20), true, "-created_at");
		await frame();
		below.mockRestore();
		expect(rows()).toEqual([]);
		expect(root.getAttribute("aria-rowcount")).toBe("21");
	});

	it("tells how many rows there are once that is known", async () => {
		expect(root.getAttribute("aria-rowcount")).toBe("-1");
		grid.update(many, true, "-created_at");
		await frame();
		expect(root.getAttribute("aria-rowcount")).toBe("10001");
	});

	it("asks for more only when the end is near", async () => {
		expect(more).not.toHaveBeenCalled();
		grid.update(many.slice(0, 50), false, "-created_at");
		await frame();
		expect(more).toHaveBeenCalled();
	});

	it("is one tab stop, and goes by keys", async () => {
		const stops = (): string[] =>
			rows()
				.filter((r) => r.tabIndex === 0)
				.map((r) => r.dataset["id"]!);
		expect(stops()).toEqual(["f0"]);
		row(0).focus();
		press(row(0), "ArrowDown");
		await frame();
		expect(stops()).toEqual(["f1"]);
		expect(document.activeElement).toBe(row(1));
		press(row(1), "End");
		await frame();
		expect(document.activeElement).toBe(row(9999));
	});

	it("keeps the row that has the focus when the list changes around it", async () => {
		row(2).focus();
		const before = row(2);
		grid.update([file(20_000), ...many], false, "-created_at");
		await frame();
		expect(row(2)).toBe(before);
		expect(document.activeElement).toBe(before);
	});

	it("does what the keys say", () => {
		press(row(1), "Delete");
		expect(act).toHaveBeenLastCalledWith("delete", many[1]);
		press(row(1), "Enter");
		expect(act).toHaveBeenLastCalledWith("download", many[1]);
	});

	it.each([
		["Enter", "new.txt", 1],
		["Escape", "new.txt", 0],
		["Enter", "file 1.txt", 0],
		["Enter", "  ", 0],
	])("renames with %s and “%s”: %d", (key, name, times) => {
		press(row(1), "F2");
		const input = row(1).querySelector("input")!;
		expect(input.value.slice(input.selectionStart!, input.selectionEnd!)).toBe("file 1");
		input.value = name;
		press(input, key);
		expect(rename).toHaveBeenCalledTimes(times);
		if (times) expect(rename).toHaveBeenCalledWith(many[1], name);
		expect(row(1).querySelector("input")).toBeNull();
	});

	it("keeps a field that is being written in when the row is drawn again", async () => {
		press(row(1), "F2");
		const input = row(1).querySelector("input")!;
		input.value = "half";
		grid.update([many[0]!, { ...many[1]!, size: 77 }, ...many.slice(2)], false, "-created_at");
		await frame();
		expect(row(1).querySelector("input")).toBe(input);
		expect(input.value).toBe("half");
		expect(rename).not.toHaveBeenCalled();
	});

	it("sorts by a column, and the other way round at the second click", () => {
		const [name, , added] = [...root.querySelectorAll<HTMLElement>("[role=columnheader]")];
		expect(added!.getAttribute("aria-sort")).toBe("descending");
		name!.querySelector("button")!.click();
		expect(sort).toHaveBeenLastCalledWith("name");
		grid.update(many, false, "name");
		expect(name!.getAttribute("aria-sort")).toBe("ascending");
		expect(added!.hasAttribute("aria-sort")).toBe(false);
		name!.querySelector("button")!.click();
		expect(sort).toHaveBeenLastCalledWith("-name");
	});
});
