// The list of files, as far as it was loaded, kept right by events. It knows nothing of the page.

import type { ServerFile } from "../uploader/src/types.js";
import type { FilesQuery, Page, Sort } from "./api.js";

/** Sizes of pages: the first is small to be there at once, later ones are large so that scrolling seldom waits. */
const firstPage = 100;
const nextPage = 500;
const largestPage = 1000;

/** How the server compares names, in search and in order: without regard to case, by code points. */
const fold = (name: string): string => name.toLowerCase();

/** Orders files as `GET /v1/files?sort=` does: ties are broken by id, in the same direction. */
export function comparer(sort: Sort): (a: ServerFile, b: ServerFile) => number {
	const sign = sort.startsWith("-") ? -1 : 1;
	const by = sort.replace("-", "") as "name" | "size" | "created_at";
	const key = (f: ServerFile): string | number =>
		by === "name" ? fold(f.name) : by === "size" ? f.size : Date.parse(f.created_at);
	return (a, b) => {
		const [x, y] = [key(a), key(b)];
		return sign * (x < y ? -1 : x > y ? 1 : a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
	};
}

export type Loading = "first" | "more" | null;

export class Catalog {
	sort: Sort = "-created_at";
	/** Part of the name that is searched for. */
	name = "";
	loading: Loading = null;
	/** Why the last load failed; loading again clears it. */
	error: unknown = null;

	#items: ServerFile[] = [];
	#cursor: string | null = null;
	#loaded = false;
	readonly #hidden = new Set<string>();
	#visible: readonly ServerFile[] | null = null;
	#load: AbortController | null = null;
	/** What events said while a page was on its way; they are newer than it. null: deleted. */
	#meanwhile = new Map<string, ServerFile | null>();

	/** @param fetchPage GET /v1/files. @param changed is called after every change. */
	constructor(
		private readonly fetchPage: (query: FilesQuery, signal: AbortSignal) => Promise<Page<ServerFile>>,
		private readonly changed: () => void,
	) {}

	/** The files loaded, without hidden ones. The same array until something changes. */
	get items(): readonly ServerFile[] {
		this.#visible ??= this.#hidden.size ? this.#items.filter((f) => !this.#hidden.has(f.id)) : this.#items.slice();
		return this.#visible;
	}

	/** All files that match are loaded. */
	get complete(): boolean {
		return this.#loaded && this.#cursor === null;
	}

	/** Something was loaded, be it nothing. */
	get loaded(): boolean {
		return this.#loaded;
	}

	/** Shows another order, or other names. What is there stays until the answer comes. */
	show(change: { sort?: Sort; name?: string }): Promise<void> {
		this.sort = change.sort ?? this.sort;
		this.name = change.name ?? this.name;
		return this.#run("first", firstPage);
	}

	/** Loads all again that was loaded: something may have been missed. */
	reload(): Promise<void> {
		return this.#run("first", Math.max(this.#items.length, firstPage));
	}

	/** Loads the next page, if there is one, none is on its way, and the last load worked: the page asks at every scroll. */
	async more(): Promise<void> {
		if (this.#load || this.#cursor === null || this.error !== null) return;
		await this.#run("more", nextPage);
	}

	/** A file is new, or is not what it was. */
	put(file: ServerFile): void {
		if (this.#load) this.#meanwhile.set(file.id, file);
		this.#put(file);
		this.#touch();
	}

	/** A file is gone. */
	drop(id: string): void {
		if (this.#load) this.#meanwhile.set(id, null);
		this.#drop(id);
		this.#touch();
	}

	/** Takes files out of sight until show is true again; they are about to be deleted. */
	hide(ids: Iterable<string>, hidden: boolean): void {
		for (const id of ids) hidden ? this.#hidden.add(id) : this.#hidden.delete(id);
		this.#touch();
	}

	find(id: string): ServerFile | undefined {
		return this.#items.find((f) => f.id === id);
	}

	#put(file: ServerFile): void {
		const order = comparer(this.sort);
		const at = this.#items.findIndex((f) => f.id === file.id);
		const before = this.#items[at];
		if (before && Date.parse(before.updated_at) > Date.parse(file.updated_at)) return; // an answer that events overtook
		const matches = fold(file.name).includes(fold(this.name));
		if (before && matches && order(before, file) === 0) {
			this.#items[at] = file;
			return;
		}
		if (before) this.#items.splice(at, 1);
		if (!matches || !this.#loaded) return;
		let [low, high] = [0, this.#items.length];
		while (low < high) {
			const middle = (low + high) >> 1;
			if (order(this.#items[middle]!, file) < 0) low = middle + 1;
			else high = middle;
		}
		// After the last one that is loaded there may be others first: it comes with its page.
		if (low < this.#items.length || this.complete) this.#items.splice(low, 0, file);
	}

	#drop(id: string): void {
		const at = this.#items.findIndex((f) => f.id === id);
		if (at >= 0) this.#items.splice(at, 1);
	}

	async #run(kind: "first" | "more", count: number): Promise<void> {
		this.#load?.abort();
		const load = (this.#load = new AbortController());
		this.#meanwhile = new Map();
		this.loading = kind;
		this.error = null;
		this.#touch();
		try {
			const got: ServerFile[] = [];
			let cursor = kind === "more" ? this.#cursor : null;
			do {
				const limit = Math.min(count - got.length, largestPage);
				const page = await this.fetchPage({ sort: this.sort, name: this.name, cursor, limit }, load.signal);
				got.push(...page.items);
				cursor = page.next_cursor;
			} while (cursor !== null && got.length < count);
			if (load.signal.aborted) return;
			this.#take(got, cursor, kind);
		} catch (error) {
			if (load.signal.aborted) return;
			this.error = error;
		}
		this.#load = null;
		this.loading = null;
		this.#touch();
	}

	#take(got: ServerFile[], cursor: string | null, kind: "first" | "more"): void {
		if (kind === "more") {
			const known = new Set(this.#items.map((f) => f.id));
			this.#items.push(...got.filter((f) => !known.has(f.id)));
		} else this.#items = got;
		this.#cursor = cursor;
		this.#loaded = true;
		for (const [id, file] of this.#meanwhile) file ? this.#put(file) : this.#drop(id);
	}

	#touch(): void {
		this.#visible = null;
		this.changed();
	}
}
