// Which names are taken on the server, and which one is free.

import type { API, FilePage } from "./api.js";
import type { ServerFile } from "./types.js";

/** Milliseconds for which a folder's listing is believed: long enough for a folder to be dropped with all that is in it. */
const FRESH = 5_000;

interface Folder {
	files: Map<string, ServerFile>;
	/** All are in files; otherwise the folder is too large for that, and names are asked for one by one. */
	whole: boolean;
}

export class Names {
	#folders = new Map<string, { at: number; folder: Promise<Folder> }>();

	constructor(
		private readonly api: API,
		private readonly signal: AbortSignal,
	) {}

	/** The file of exactly this name in exactly this folder. Fails as API.call does. */
	async find(name: string, path: string): Promise<ServerFile | null> {
		const folder = await this.#folder(path);
		const file = folder.files.get(name);
		if (file || folder.whole) {
			return file ?? null;
		}
		for (let cursor: string | null = ""; cursor !== null; ) {
			const page: FilePage = await this.#page({ path, name, ...(cursor && { cursor }) });
			const found = page.items.find((f) => f.name === name);
			if (found) {
				return found;
			}
			cursor = page.next_cursor;
		}
		return null;
	}

	/** "report (2).pdf", or (3) and so on: the first that neither the server has nor taken says it is. */
	async free(name: string, path: string, taken: (name: string) => boolean): Promise<string> {
		const dot = name.lastIndexOf(".");
		const [stem, extension] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
		for (let n = 2; ; n++) {
			const other = `${stem} (${n})${extension}`;
			if (!taken(other) && !(await this.find(other, path))) {
				return other;
			}
		}
	}

	/** This file is there by now. */
	note(file: ServerFile): void {
		void this.#folders.get(file.path)?.folder.then((folder) => folder.files.set(file.name, file), () => {});
	}

	#folder(path: string): Promise<Folder> {
		const known = this.#folders.get(path);
		if (known && performance.now() - known.at < FRESH) {
			return known.folder;
		}
		const folder = this.#page({ path }).then((page) => ({
			files: new Map(page.items.map((f) => [f.name, f])),
			whole: page.next_cursor === null,
		}));
		this.#folders.set(path, { at: performance.now(), folder });
		folder.catch(() => this.#folders.delete(path));
		return folder;
	}

	#page(query: Record<string, string>): Promise<FilePage> {
		const search = new URLSearchParams({ ...query, limit: "1000" });
		return this.api.call<FilePage>({ method: "GET", path: `/v1/files?${search}`, signal: this.signal });
	}
}
