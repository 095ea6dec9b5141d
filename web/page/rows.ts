// The list of files: a grid that has only those rows in the document that are in sight, in the page's own scroll.

import type { ServerFile } from "../uploader/src/types.js";
import type { Sort } from "./api.js";
import { h, icon, setAttribute, setText } from "./dom.js";
import { place, type Place } from "./place.js";
import type { PageKey, PageText } from "./words.js";

/** Rows beyond the edges of the window, so that fast scrolling finds them there. */
const overscan = 8;
/** Rows before the end at which the next page is asked for. */
const ahead = 60;

export type Action = "download" | "copy" | "rename" | "delete";

export interface GridOptions {
	words: () => PageText;
	sort: (sort: Sort) => void;
	act: (action: Action, file: ServerFile) => void;
	/** A new name was entered. */
	rename: (file: ServerFile, name: string) => void;
	/** The address of a file's content. */
	address: (file: ServerFile) => string;
	/** Show the actions of a file beside an element. */
	menu: (file: ServerFile, at: Element) => void;
	/** Tell where a file is, in full, beside an element. */
	note: (file: ServerFile, at: Element) => void;
	/** The end is near: load more. */
	more: () => void;
}

interface Row {
	readonly element: HTMLElement;
	/** What it shows; null: nothing yet. */
	file: ServerFile | null;
	shown: string;
	placed: string;
	tab: number | null;
	input: HTMLInputElement | null;
}

const columns: readonly {
	key: "list.name" | "list.size" | "list.added" | "list.place" | "list.actions";
	sort: "name" | "size" | "created_at" | null;
	first: Sort | null;
	end?: true;
}[] = [
	{ key: "list.name", sort: "name", first: "name" },
	{ key: "list.size", sort: "size", first: "-size", end: true },
	{ key: "list.added", sort: "created_at", first: "-created_at" },
	{ key: "list.place", sort: null, first: null },
	{ key: "list.actions", sort: null, first: null },
];

export class FileGrid {
	readonly #options: GridOptions;
	readonly #root: HTMLElement;
	readonly #heads: HTMLElement;
	readonly #body: HTMLElement;
	readonly #rows = new Map<string, Row>();
	#items: readonly ServerFile[] = [];
	#complete = false;
	/** The file whose row has the focus, or had it last: the grid's one tab stop. */
	#active: string | null = null;
	#height = 0;
	#frame = 0;
	#moving = false;
	#day = "";
	/** Says when a file was added, in a few signs. */
	#when: (added: Date) => string = String;
	#fullDate = new Intl.DateTimeFormat();

	constructor(root: HTMLElement, options: GridOptions) {
		this.#options = options;
		this.#root = root;
		this.#heads = h("div", { role: "row", class: "heads", "aria-rowindex": 1 });
		this.#body = h("div", { role: "rowgroup", class: "rows" });
		root.append(h("div", { role: "rowgroup", class: "head" }, this.#heads), this.#body);
		root.setAttribute("role", "grid");
		root.setAttribute("aria-labelledby", "files-title");
		root.setAttribute("aria-describedby", "grid-keys");
		this.#body.addEventListener("click", (event) => this.#click(event));
		this.#body.addEventListener("keydown", (event) => this.#key(event));
		this.#body.addEventListener("focusin", (event) => this.#fileOf(event, (file) => this.#activate(file.id)));
		const draw = (): void => this.draw();
		addEventListener("scroll", draw, { passive: true });
		addEventListener("resize", () => {
			this.#measure();
			draw();
		});
		this.#measure();
		// What is above the list grows and shrinks too.
		new ResizeObserver(draw).observe(document.body);
	}

	/** Shows files. `sort` is what they are sorted by. */
	update(items: readonly ServerFile[], complete: boolean, sort: Sort): void {
		const top = this.#body.getBoundingClientRect().top;
		// Rows that are put in above those in sight must not move these.
		const anchor = top < 0 ? this.#items[Math.ceil(-top / this.#height)] : undefined;
		const before = anchor ? this.#items.indexOf(anchor) : -1;
		this.#items = items;
		this.#complete = complete;
		this.#drawHeads(sort);
		if (anchor) {
			const after = items.findIndex((f) => f.id === anchor.id);
			if (after >= 0 && after !== before && Math.abs(after - before) < 100) {
				this.#size();
				scrollBy({ top: (after - before) * this.#height, behavior: "instant" });
			}
		}
		this.draw();
	}

	/** Draws at the next frame, once. */
	draw(): void {
		this.#frame ||= requestAnimationFrame(() => {
			this.#frame = 0;
			this.#draw();
		});
	}

	/** Draws all anew: the language or the day changed. */
	redraw(sort: Sort): void {
		for (const row of this.#rows.values()) row.shown = "";
		this.#heads.replaceChildren();
		this.#drawHeads(sort);
		this.draw();
	}

	/** Shows a file's name as a field. */
	edit(id: string): void {
		const row = this.#rows.get(id);
		const file = row?.file;
		if (!row || !file || row.input) return;
		const input = h("input", {
			type: "text",
			"aria-label": this.#options.words().t("row.new-name", { name: file.name }),
			spellcheck: "false",
			maxlength: 1024,
		});
		input.value = file.name;
		row.input = input;
		let ended = false;
		const end = (name: string | null): void => {
			if (ended || this.#moving) return;
			ended = true;
			const focused = document.activeElement === input;
			row.input = null;
			row.shown = "";
			if (name && name !== file.name) this.#options.rename(file, name);
			this.#draw();
			if (focused) this.focus(id);
		};
		input.addEventListener("blur", () => end(input.value.trim()));
		input.addEventListener("keydown", (event) => {
			event.stopPropagation();
			if (event.isComposing) return; // the Enter that ends choosing a Chinese word
			if (event.key === "Enter") end(input.value.trim());
			if (event.key === "Escape") end(null);
		});
		row.element.querySelector(".what")?.replaceChildren(input);
		input.focus();
		const dot = file.name.lastIndexOf(".");
		input.setSelectionRange(0, dot > 0 ? dot : file.name.length);
	}

	/** Gives the focus to a file's row, and brings it in sight. */
	focus(id: string): void {
		const index = this.#items.findIndex((f) => f.id === id);
		if (index < 0) return;
		this.#activate(id);
		const height = this.#height;
		const top = this.#body.getBoundingClientRect().top + index * height;
		const low = (this.#root.firstElementChild?.getBoundingClientRect().bottom ?? 0) + 8;
		if (top < low) scrollBy({ top: top - low, behavior: "instant" });
		else if (top + height > innerHeight) scrollBy({ top: top + height - innerHeight + 8, behavior: "instant" });
		this.#draw();
		this.#rows.get(id)?.element.focus({ preventScroll: true });
	}

	/** The file after this one, or else before it: where the focus goes when it is deleted. */
	neighbour(id: string): string | null {
		const index = this.#items.findIndex((f) => f.id === id);
		return (this.#items[index + 1] ?? this.#items[index - 1])?.id ?? null;
	}

	get hasFocus(): boolean {
		return this.#body.contains(document.activeElement);
	}

	/** The height of a row in pixels, as the style sheet has it. */
	#measure(): void {
		const style = getComputedStyle(document.documentElement);
		this.#height = parseFloat(style.fontSize) * parseFloat(style.getPropertyValue("--row"));
	}

	#size(): void {
		this.#body.style.height = `${(this.#items.length + (this.#complete || !this.#items.length ? 0 : 3)) * this.#height}px`;
		this.#body.toggleAttribute("data-more", !this.#complete && this.#items.length > 0);
	}

	#draw(): void {
		const height = this.#height;
		this.#size();
		const top = this.#body.getBoundingClientRect().top;
		const first = Math.max(0, Math.floor(-top / height) - overscan);
		const last = Math.min(this.#items.length - 1, Math.ceil((innerHeight - top) / height) + overscan);
		const wanted: number[] = [];
		for (let i = first; i <= last; i++) wanted.push(i);
		// The row with the focus stays, wherever it is.
		const active = this.#active === null ? -1 : this.#items.findIndex((f) => f.id === this.#active);
		if (active >= 0 && active < first) wanted.unshift(active);
		if (active >= 0 && active > last) wanted.push(active);

		const keep = new Set(wanted.map((i) => this.#items[i]!.id));
		for (const [id, row] of this.#rows) {
			if (keep.has(id)) continue;
			row.element.remove();
			this.#rows.delete(id);
		}
		const now = Date.now();
		this.#newDay(now);
		const stop = active >= 0 ? active : Math.max(0, Math.ceil(-top / height));
		let at = this.#body.firstElementChild;
		for (const i of wanted) {
			const file = this.#items[i]!;
			let row = this.#rows.get(file.id);
			if (!row) {
				row = {
					element: this.#template().cloneNode(true) as HTMLElement,
					file: null,
					shown: "",
					placed: "",
					tab: null,
					input: null,
				};
				this.#rows.set(file.id, row);
			}
			if (row.element === at) at = at.nextElementSibling;
			else this.#insert(row.element, at);
			row.element.style.transform = `translateY(${i * height}px)`;
			setAttribute(row.element, "aria-rowindex", String(i + 2));
			this.#fill(row, file, i === stop ? 0 : -1, now);
		}
		setAttribute(this.#root, "aria-rowcount", String(this.#complete ? this.#items.length + 1 : -1));
		if (!this.#complete && last >= this.#items.length - ahead) this.#options.more();
	}

	/** Moving an element takes its focus, and ends editing; both are given back. */
	#insert(element: HTMLElement, before: Element | null): void {
		const focused = document.activeElement;
		const inside = element.contains(focused) ? (focused as HTMLElement) : null;
		this.#moving = inside !== null;
		this.#body.insertBefore(element, before);
		inside?.focus({ preventScroll: true });
		this.#moving = false;
	}

	#made: HTMLElement | null = null;

	#template(): HTMLElement {
		const tool = (name: string, symbol: string, more = ""): HTMLElement =>
			h("button", { type: "button", class: "tool" + more, "data-do": name }, icon(symbol));
		return (this.#made ??= h(
			"div",
			{ role: "row", class: "row" },
			h("div", { class: "kind", "aria-hidden": "true" }),
			h("div", { role: "gridcell", class: "what" }),
			h("div", { role: "gridcell", class: "end" }),
			h("div", { role: "gridcell", class: "added" }, h("time")),
			h(
				"div",
				{ role: "gridcell", class: "where" },
				h("button", { type: "button", "data-do": "note" }, h("span", { class: "state-word" })),
			),
			h(
				"div",
				{ role: "gridcell", class: "acts" },
				tool("download", "i-download"),
				tool("copy", "i-link"),
				tool("rename", "i-pencil"),
				tool("delete", "i-trash"),
				tool("menu", "i-more", " menu"),
			),
		));
	}

	/** Writes what changed; most calls find that nothing did. */
	#fill(row: Row, file: ServerFile, tab: number, now: number): void {
		if (row.tab !== tab) {
			row.tab = tab;
			row.element.tabIndex = tab;
			for (const inside of row.element.querySelectorAll<HTMLElement>("button, a")) inside.tabIndex = tab;
		}
		// Only the time of the next try can pass without the file changing.
		if (row.file === file && row.shown && file.transfer?.state !== "retrying") return;
		row.file = file;
		row.element.dataset["id"] = file.id;
		const when = this.#when(new Date(file.created_at));
		const shown = [file.name, file.path, file.size, when].join("\n");
		if (row.shown !== shown) {
			row.shown = shown;
			row.placed = "";
			this.#fillFile(row, file, when);
		}
		const where = place(file, this.#options.words(), now);
		const placed = [where.text, where.reason, where.progress].join("\n");
		if (row.placed !== placed) {
			row.placed = placed;
			this.#fillPlace(row.element, where, when);
		}
	}

	/** Times of today are told as times, others as days. Making these formats is slow; a row must not do it. */
	#newDay(now: number): void {
		const { lang } = this.#options.words();
		const today = new Date(now).toDateString();
		if (this.#day === lang + today) return;
		this.#day = lang + today;
		const [time, date] = [
			new Intl.DateTimeFormat(lang, { timeStyle: "short" }),
			new Intl.DateTimeFormat(lang, { dateStyle: "medium" }),
		];
		this.#when = (added) => (added.toDateString() === today ? time : date).format(added);
		this.#fullDate = new Intl.DateTimeFormat(lang, { dateStyle: "full", timeStyle: "medium" });
		for (const row of this.#rows.values()) row.shown = "";
	}

	#fillFile(row: Row, file: ServerFile, when: string): void {
		const words = this.#options.words();
		const { element } = row;
		const size = words.bytes(file.size);
		element.querySelector(".kind")!.replaceChildren(kind(file.name) || icon("i-file"));
		if (!row.input) {
			element.querySelector(".what")!.replaceChildren(
				h(
					"a",
					{
						class: "name",
						href: this.#options.address(file),
						download: file.name,
						title: file.name,
						"data-do": "download",
						tabindex: element.tabIndex,
					},
					file.name,
				),
				...(file.path ? [h("div", { class: "path", title: file.path }, file.path)] : []),
				h("div", { class: "brief" }, `${size} · `, h("span", { class: "state-word" })),
			);
		}
		setText(element.querySelector(".end")!, size);
		const time = element.querySelector("time")!;
		setText(time, when);
		time.dateTime = file.created_at;
		time.title = this.#fullDate.format(new Date(file.created_at));
		for (const [action, key] of Object.entries(labels)) {
			const button = element.querySelector<HTMLElement>(`.acts [data-do="${action}"]`)!;
			setAttribute(button, "aria-label", words.t(key, { name: file.name }));
			button.title = action === "menu" ? words.t("list.actions") : words.t(short[action as Action]);
		}
	}

	/** The button stays, so that one that has the focus keeps it. */
	#fillPlace(element: HTMLElement, where: Place, when: string): void {
		setAttribute(element, "data-tone", where.tone);
		const brief = element.querySelector(".brief .state-word");
		if (brief) setText(brief, where.tone === "rest" ? when : where.text);
		const button = element.querySelector<HTMLElement>(".where button")!;
		setText(button.querySelector(".state-word")!, where.text);
		const bar = button.querySelector("progress");
		if (where.progress === null) bar?.remove();
		else (bar ?? button.appendChild(h("progress", { "aria-hidden": "true" }))).value = where.progress;
		const reason = button.querySelector(".reason");
		if (!where.reason) reason?.remove();
		else setText(reason ?? button.appendChild(h("span", { class: "reason" })), where.reason);
	}

	#drawHeads(sort: Sort): void {
		const words = this.#options.words();
		const by = sort.replace("-", "");
		const made = this.#heads.childElementCount > 0;
		for (const [i, column] of columns.entries()) {
			const cell = made
				? (this.#heads.children[i] as HTMLElement)
				: this.#heads.appendChild(
						h(
							"div",
							{ role: "columnheader", class: column.end && "end" },
							column.first
								? h("button", { type: "button", onclick: () => this.#sortBy(column.first!) }, words.t(column.key))
								: h("span", { class: column.key === "list.actions" && "unseen" }, words.t(column.key)),
						),
					);
			setAttribute(cell, "aria-sort", column.sort === by ? (sort.startsWith("-") ? "descending" : "ascending") : null);
			if (column.sort === by) cell.dataset["sort"] = sort;
			else delete cell.dataset["sort"];
		}
	}

	#sortBy(first: Sort): void {
		const by = first.replace("-", "");
		const now = this.#heads.querySelector<HTMLElement>("[data-sort]")?.dataset["sort"];
		const other = (first.startsWith("-") ? by : "-" + by) as Sort;
		this.#options.sort(now === first ? other : first);
	}

	#fileOf(event: Event, found: (file: ServerFile) => void): void {
		const id = (event.target as Element).closest<HTMLElement>(".row")?.dataset["id"];
		const file = id === undefined ? undefined : this.#rows.get(id)?.file;
		if (file) found(file);
	}

	#click(event: MouseEvent): void {
		const button = (event.target as Element).closest<HTMLElement>("[data-do]");
		if (!button) return;
		this.#fileOf(event, (file) => {
			const what = button.dataset["do"];
			// A plain link downloads by itself, and with a key held down opens as links do.
			if (button.tagName === "A" && (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey)) return;
			event.preventDefault();
			if (what === "menu") this.#options.menu(file, button);
			else if (what === "note") this.#options.note(file, button);
			else this.#act(what as Action, file);
		});
	}

	#act(action: Action, file: ServerFile): void {
		if (action === "rename") this.edit(file.id);
		else this.#options.act(action, file);
	}

	#key(event: KeyboardEvent): void {
		const row = event.target as HTMLElement;
		this.#fileOf(event, (file) => {
			const index = this.#items.findIndex((f) => f.id === file.id);
			const page = Math.max(1, Math.floor(innerHeight / this.#height) - 3);
			const to = {
				ArrowDown: index + 1,
				ArrowUp: index - 1,
				PageDown: index + page,
				PageUp: index - page,
				Home: 0,
				End: this.#items.length - 1,
			}[event.key];
			if (to !== undefined) {
				const next = this.#items[Math.min(Math.max(to, 0), this.#items.length - 1)];
				if (next) this.focus(next.id);
			} else if (event.key === "F2") this.#act("rename", file);
			else if (event.key === "Delete") this.#act("delete", file);
			else if (event.key === "Enter" && row.classList.contains("row")) this.#act("download", file);
			else if (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey))
				this.#options.menu(file, row.closest(".row")!.querySelector(".acts")!);
			else return;
			event.preventDefault();
		});
	}

	#activate(id: string): void {
		if (this.#active === id) return;
		this.#active = id;
		this.draw();
	}
}

const labels = {
	download: "row.download",
	copy: "row.copy",
	rename: "row.rename",
	delete: "row.delete",
	menu: "row.menu",
} as const;
const short = {
	download: "menu.download",
	copy: "menu.copy",
	rename: "menu.rename",
	delete: "menu.delete",
} as const satisfies Record<Action, PageKey>;

/** The extension of a name, for the tile before it; at most four signs, else nothing. */
export function kind(name: string): string {
	return /[^.]\.([\p{L}\p{N}]{1,4})$/u.exec(name)?.[1] ?? "";
}
