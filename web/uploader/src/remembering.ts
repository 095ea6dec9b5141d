// What outlives the page, and which of several tabs has it.

import { changed, sameFile } from "./fingerprint.js";
import { permitted } from "./handles.js";
import { Memory, type Remembered } from "./memory.js";
import { localError } from "./problem.js";
import { id as newId } from "./random.js";
import { type TabNews, Tabs } from "./tabs.js";
import type { Turns } from "./turns.js";
import type { Source } from "./types.js";

/** Milliseconds that files which are added may wait for what was remembered of them. */
const PATIENCE = 100;

/** Milliseconds that sending may wait for a browser that is slow to store. */
const STORING = 1000;

/** Bytes. Sending so few is over before another tab could take a page for dead. */
const UNCLAIMED = 256 << 10;

/** What earlier pages and others had not finished, by fileKey: complete when it is read, which soon waits for. */
interface Earlier {
	byFile: Map<string, Remembered[]>;
	soon: Promise<void>;
}

/**
 * A page claims its own id at once, and that of an upload while it sends it. So of ten thousand files that wait, others know
 * by one question that they are taken care of.
 *
 * Nothing waits for the writing, but the opening of an upload at the server; see stored().
 */
export class Remembering {
	readonly #page = newId();
	readonly #memory: Memory;
	readonly #tabs: Tabs;
	#earlier: Earlier | null = null; // null: to be read anew
	readonly #forgotten = new Set<string>();
	readonly #alive = new Map<string, Promise<boolean>>(); // pages

	constructor(
		endpoint: string,
		private readonly turns: Turns,
		heard: (news: TabNews) => void,
	) {
		this.#memory = Memory.open(endpoint);
		this.#tabs = new Tabs(endpoint);
		this.#tabs.own(this.#page);
		this.#read();
		this.#tabs.heard((news) => {
			if (news.kind === "claimed" || news.kind === "released") {
				this.#earlier = null;
				this.#alive.delete(news.id);
			}
			heard(news);
		});
	}

	/** All that is not finished, this page's too. */
	all(): Promise<Remembered[]> {
		return this.#memory.all();
	}

	/** What is not finished of files that seem to be this one. Does not wait for a browser that is slow to tell. */
	async ofFile(key: string): Promise<Remembered[]> {
		const earlier = this.#earlier ?? this.#read();
		await earlier.soon;
		return (earlier.byFile.get(key) ?? []).filter((r) => !this.#forgotten.has(r.id));
	}

	/** One wait for all files: ten thousand are asked for one after the other. */
	#read(): Earlier {
		const byFile = new Map<string, Remembered[]>();
		this.#earlier = { byFile, soon: atMost(PATIENCE, this.#sort(byFile)) };
		return this.#earlier;
	}

	async #sort(byFile: Map<string, Remembered[]>): Promise<void> {
		for (const record of await this.all()) {
			await this.turns.turn();
			const key = fileKey(record.name, record);
			const same = byFile.get(key);
			if (same) {
				same.push(record);
			} else {
				byFile.set(key, [record]);
			}
		}
	}

	/** Remembers an upload that was made here. */
	add(record: Remembered): void {
		record.page = this.#page;
		void this.#memory.put(record);
	}

	/** The record has changed in this. Does nothing if the upload has ended. */
	update(id: string, change: Partial<Remembered>): void {
		if (this.#forgotten.has(id)) {
			return;
		}
		void this.#memory.update(id, change);
	}

	/** Waits until the disk has what was remembered of it, but not for a browser that is slow to store. */
	stored(id: string): Promise<void> {
		return atMost(STORING, this.#memory.stored(id));
	}

	/** It has ended: no tab has to care any more. */
	forget(id: string): void {
		this.#forgotten.add(id);
		void this.#memory.delete(id);
		this.#tabs.tell({ id, kind: "done" });
		this.#tabs.release(id);
	}

	/** Resolves when all is written; does not wait for ever for a browser that does not answer. */
	written(): Promise<void> {
		return atMost(10 * STORING, this.#memory.written());
	}

	/** Whether another page that is still there has it in its list. */
	async elsewhere({ page }: Remembered): Promise<boolean> {
		if (page === this.#page) {
			return false;
		}
		let alive = this.#alive.get(page);
		if (!alive) {
			alive = this.#tabs.claim(page, () => {}).then((dead) => {
				this.#tabs.release(page);
				return !dead;
			});
			this.#alive.set(page, alive);
		}
		return alive;
	}

	/** Whether this page may send it now: false if another one does. lost is called if one takes it over. */
	async claim({ id, page, size }: Remembered, lost: () => void): Promise<boolean> {
		const own = page === this.#page;
		if (own && size <= UNCLAIMED) {
			return true;
		}
		const claimed = this.#tabs.claim(id, lost);
		return own || claimed; // nobody else takes what a page has made while that is there
	}

	release(id: string): void {
		this.#tabs.release(id);
	}

	/** Tells the other tabs how far it is. */
	progress(id: string, sent: number): void {
		this.#tabs.tell({ id, kind: "progress", sent });
	}

	/** What is to be written is written first. */
	close(): void {
		this.#tabs.close();
		this.#memory.close();
	}
}

/** Waits for work, but no longer than so many milliseconds. */
async function atMost(ms: number, work: Promise<void>): Promise<void> {
	let timer: ReturnType<typeof setTimeout> | undefined;
	await Promise.race([work, new Promise((resolve) => (timer = setTimeout(resolve, ms)))]);
	clearTimeout(timer);
}

/** By what a file is known again before it is looked into. */
export function fileKey(name: string, { size, lastModified }: { size: number; lastModified: number }): string {
	return `${name}\n${size}\n${lastModified}`;
}

/** Whether file is the one that r remembers: by its first and last bytes, if it got as far as that these were read. */
export async function isFile(r: Remembered, file: File): Promise<boolean> {
	if (r.edges === "") {
		return !changed(file, r);
	}
	return sameFile(r, file).catch(() => false);
}

/**
 * The bytes of an upload of an earlier page. null: they have to be chosen again. ask: asks the user for permission, which works
 * only in a click. Fails with "file_changed" or "file_unreadable".
 */
export async function reopen(r: Remembered, ask: boolean): Promise<Source | null> {
	if (r.blob || !r.handle || !(await permitted(r.handle, ask))) {
		return r.blob;
	}
	const file = await r.handle.getFile().catch(() => Promise.reject(localError("file_unreadable")));
	if (changed(file, r)) {
		throw localError("file_changed");
	}
	return file;
}
