// A list that shows ten thousand rows as easily as ten: only the rows in sight are in the document.

import { h, hasFocus, setAttribute } from "./dom.js";

/** The row of an item. */
export interface Row<T> {
	readonly element: HTMLElement;
	update(item: T): void;
}

export interface VirtualListOptions<T> {
	label: string;
	/** How high a row probably is, in pixels; the true height is measured when it is shown. */
	height(item: T): number;
	create(item: T): Row<T>;
}

/** Rows in the document above and below those in sight. */
const spare = 8;

/**
 * Items are told apart by their `id`. A change of many items is one change of the document, in the next frame, and
 * only rows that changed are touched. One row can be reached by Tab; arrow keys, Home, End and the page keys go to
 * the others, and Tab goes on to the buttons of the row.
 */
export class VirtualList<T extends { readonly id: string }> {
	/** The part that scrolls; it needs a height limit by style. */
	readonly element: HTMLElement;
	readonly #rows: HTMLElement;
	readonly #options: VirtualListOptions<T>;
	readonly #shown = new Map<string, Row<T>>();
	readonly #measured = new Map<string, number>();
	readonly #changed = new Set<string>();
	readonly #resized = new ResizeObserver((entries) => this.#measure(entries));
	#items: T[] = [];
	#index = new Map<string, number>();
	/** Where each row begins, and where the last one ends. */
	#offsets = new Float64Array(1);
	#offsetsValid = true;
	#active = 0;
	#frame = 0;

	constructor(options: VirtualListOptions<T>) {
		this.#options = options;
		this.#rows = h("div", { class: "rows", role: "list", "aria-label": options.label });
		this.element = h("div", { class: "list", part: "list", tabindex: "-1" }, this.#rows);
		this.element.addEventListener("scroll", () => this.#schedule(), { passive: true });
		this.element.addEventListener("keydown", (event) => this.#key(event));
		this.element.addEventListener("focusin", (event) => this.#focused(event));
		this.#resized.observe(this.element);
	}

	get items(): readonly T[] {
		return this.#items;
	}

	/** Replaces all items. */
	set items(items: readonly T[]) {
		const active = this.#items[this.#active]?.id ?? "";
		this.#items = [...items];
		this.#index = new Map(items.map((item, i) => [item.id, i]));
		// The row that keys would move from stays the same one; if it is gone, it is the one now in its place.
		this.#active = this.#index.get(active) ?? Math.max(0, Math.min(this.#active, items.length - 1));
		for (const id of this.#measured.keys()) {
			if (!this.#index.has(id)) {
				this.#measured.delete(id);
			}
		}
		for (const id of this.#shown.keys()) {
			this.#changed.add(id);
		}
		this.#offsetsValid = false;
		this.#schedule();
	}

	/** Takes over a changed item. */
	change(item: T): void {
		const i = this.#index.get(item.id);
		if (i === undefined) {
			return;
		}
		this.#items[i] = item;
		if (this.#shown.has(item.id)) {
			this.#changed.add(item.id);
			this.#schedule();
		}
	}

	/** Scrolls to an item and gives its row the focus. */
	reveal(id: string): void {
		const i = this.#index.get(id);
		if (i !== undefined) {
			this.#go(i);
		}
	}

	/** Stops observing; the list can't be used any more. */
	close(): void {
		cancelAnimationFrame(this.#frame);
		this.#resized.disconnect();
	}

	#schedule(): void {
		this.#frame ||= requestAnimationFrame(() => this.#render());
	}

	#measure(entries: readonly ResizeObserverEntry[]): void {
		for (const { target, borderBoxSize } of entries) {
			const id = target instanceof HTMLElement ? target.dataset.id : undefined;
			const height = borderBoxSize[0]?.blockSize ?? 0;
			if (id !== undefined && height > 0 && this.#measured.get(id) !== height) {
				this.#measured.set(id, height);
				this.#offsetsValid = false;
			}
		}
		this.#schedule();
	}

	#place(): void {
		if (this.#offsetsValid) {
			return;
		}
		this.#offsetsValid = true;
		this.#offsets = new Float64Array(this.#items.length + 1);
		let y = 0;
		for (const [i, item] of this.#items.entries()) {
			y += this.#measured.get(item.id) ?? this.#options.height(item);
			this.#offsets[i + 1] = y;
		}
	}

	/** The row at a height. */
	#at(y: number): number {
		let low = 0;
		let high = this.#items.length;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (this.#offset(middle + 1) <= y) {
				low = middle + 1;
			} else {
				high = middle;
			}
		}
		return low;
	}

	#offset(i: number): number {
		return this.#offsets[i] ?? 0;
	}

	#render(): void {
		cancelAnimationFrame(this.#frame);
		this.#frame = 0;
		this.#place();
		const { scrollTop, clientHeight } = this.element;
		const first = Math.max(0, this.#at(scrollTop) - spare);
		const end = Math.min(this.#items.length, this.#at(scrollTop + clientHeight) + 1 + spare);
		const wanted = this.#items.slice(first, end);
		this.#drop(wanted);
		this.#rows.style.paddingTop = `${this.#offset(first)}px`;
		this.#rows.style.paddingBottom = `${this.#offset(this.#items.length) - this.#offset(end)}px`;

		let next = this.#rows.firstElementChild;
		for (const [i, item] of wanted.entries()) {
			const row = this.#row(item);
			if (row.element === next) {
				next = next.nextElementSibling;
			} else {
				this.#rows.insertBefore(row.element, next);
			}
			setAttribute(row.element, "aria-posinset", String(first + i + 1));
			setAttribute(row.element, "aria-setsize", String(this.#items.length));
			this.#reachable(row.element, first + i === this.#active);
		}
		this.#changed.clear();
	}

	/** The item's row, as the item is now. */
	#row(item: T): Row<T> {
		let row = this.#shown.get(item.id);
		if (!row) {
			row = this.#options.create(item);
			row.element.role = "listitem";
			row.element.dataset.id = item.id;
			this.#shown.set(item.id, row);
			this.#resized.observe(row.element);
			row.update(item);
		} else if (this.#changed.has(item.id)) {
			row.update(item);
		}
		return row;
	}

	/** Takes the rows of all other items out of the document. The focus is not lost with them. */
	#drop(wanted: readonly T[]): void {
		const ids = new Set(wanted.map((item) => item.id));
		for (const [id, row] of this.#shown) {
			if (ids.has(id)) {
				continue;
			}
			const focused = hasFocus(row.element);
			this.#resized.unobserve(row.element);
			row.element.remove();
			this.#shown.delete(id);
			if (focused) {
				this.element.focus({ preventScroll: true });
				if (!this.#index.has(id)) {
					queueMicrotask(() => this.#go(this.#active));
				}
			}
		}
	}

	#reachable(row: HTMLElement, on: boolean): void {
		const tabIndex = on ? 0 : -1;
		if (row.tabIndex !== tabIndex || !row.hasAttribute("tabindex")) {
			row.tabIndex = tabIndex;
		}
		for (const control of row.querySelectorAll<HTMLElement>("button, input, a")) {
			if (control.tabIndex !== tabIndex) {
				control.tabIndex = tabIndex;
			}
		}
	}

	#focused(event: FocusEvent): void {
		const row = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-id]") : null;
		const i = this.#index.get(row?.dataset.id ?? "");
		if (i !== undefined && i !== this.#active) {
			this.#active = i;
			this.#schedule();
		}
	}

	#key(event: KeyboardEvent): void {
		const writing = event.target instanceof HTMLInputElement && event.target.type !== "checkbox";
		if (writing || event.altKey || event.ctrlKey || event.metaKey || this.#items.length === 0) {
			return;
		}
		const page = Math.max(
			1,
			this.#at(this.element.scrollTop + this.element.clientHeight) - this.#at(this.element.scrollTop) - 1,
		);
		const last = this.#items.length - 1;
		const to = {
			ArrowDown: this.#active + 1,
			ArrowUp: this.#active - 1,
			PageDown: this.#active + page,
			PageUp: this.#active - page,
			Home: 0,
			End: last,
		}[event.key];
		if (to !== undefined) {
			event.preventDefault();
			this.#go(Math.max(0, Math.min(to, last)));
		}
	}

	#go(i: number): void {
		const item = this.#items[i];
		if (!item) {
			return;
		}
		this.#active = i;
		this.#place();
		const { scrollTop, clientHeight } = this.element;
		const [top, bottom] = [this.#offset(i), this.#offset(i + 1)];
		if (top < scrollTop) {
			this.element.scrollTop = top;
		} else if (bottom > scrollTop + clientHeight) {
			this.element.scrollTop = bottom - clientHeight;
		}
		this.#render();
		const row = this.#shown.get(item.id)?.element;
		row?.focus({ preventScroll: true });
		// Its true height may be another than was thought.
		row?.scrollIntoView({ block: "nearest" });
	}
}
