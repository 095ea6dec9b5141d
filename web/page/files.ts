// "My files": what happens to the list, in the page's words.

import { UploadError } from "../uploader/src/problem.js";
import type { ServerFile } from "../uploader/src/types.js";
import type { API, Sort } from "./api.js";
import { Catalog } from "./catalog.js";
import { copy } from "./clipboard.js";
import { found, h, setText } from "./dom.js";
import { type DownloadOptions, memoryLimit, savePicker, toDisk, toMemory } from "./download.js";
import { showMenu, showNote } from "./menu.js";
import { place } from "./place.js";
import type { Removal } from "./removals.js";
import { type Action, FileGrid } from "./rows.js";
import type { Toasts } from "./toast.js";
import { en, type PageText } from "./words.js";

export interface FilesOptions {
	words: () => PageText;
	api: API;
	toasts: Toasts;
	/** Requests need no token: the browser can download by itself. */
	open: boolean;
	remove: (removal: Removal) => void;
	/** Reads a sentence out. */
	say: (text: string) => void;
}

const address = (file: ServerFile): string => `/v1/files/${file.id}/content`;

/** An error as two sentences at the most: what the server said, or in another language than its own what its code means. */
export function errorWords(error: unknown, words: PageText): string {
	if (!(error instanceof UploadError)) return String(error);
	const key = `error.${error.code}`;
	const said =
		(words.lang !== "en" || error.status === 0) && key in en ? words.t(key as "error.network") : error.detail;
	return error.requestId ? `${said} ${words.t("toast.request", { id: error.requestId })}` : said;
}

/** Nobody gave a token. */
function isLocked(error: unknown): boolean {
	return error instanceof UploadError && error.status === 401;
}

export class Files {
	readonly catalog: Catalog;
	readonly #grid: FileGrid;
	readonly #options: FilesOptions;
	readonly #search = found<HTMLInputElement>("#search");
	readonly #sort = found<HTMLSelectElement>("#sort");
	#frame = 0;
	#announce = false;

	constructor(options: FilesOptions) {
		this.#options = options;
		this.catalog = new Catalog(
			(query, signal) => options.api.files(query, signal),
			() => this.#changed(),
		);
		this.#grid = new FileGrid(found("#grid"), {
			words: options.words,
			sort: (sort) => this.#show({ sort }),
			act: (action, file) => this.#act(action, file),
			rename: (file, name) => void this.#rename(file, name),
			address,
			menu: (file, at) => this.#menu(file, at),
			note: (file, at) => this.#note(file, at),
			more: () => void this.catalog.more(),
		});
		this.#sort.addEventListener("change", () => this.#show({ sort: this.#sort.value as Sort }));
		found("#again").addEventListener("click", () => void this.catalog.reload());
		let typing: ReturnType<typeof setTimeout>;
		this.#search.addEventListener("input", () => {
			clearTimeout(typing);
			typing = setTimeout(() => this.#show({ name: this.#search.value.trim() }), 200);
		});
		this.#search.addEventListener("keydown", (event) => {
			if (event.key === "Escape" && this.#search.value) this.#clear();
		});
	}

	/** Draws all anew: the language changed. */
	redraw(): void {
		this.#grid.redraw(this.catalog.sort);
		this.#changed();
	}

	#show(change: { sort?: Sort; name?: string }): void {
		this.#announce = true;
		this.#sort.value = change.sort ?? this.#sort.value;
		// From the middle of the old list nobody knows where they are in the new one.
		const top = found("#files").getBoundingClientRect().top;
		if (top < 0) scrollBy({ top, behavior: "instant" });
		void this.catalog.show(change);
	}

	#clear(): void {
		this.#search.value = "";
		this.#show({ name: "" });
		this.#search.focus();
	}

	#changed(): void {
		this.#frame ||= requestAnimationFrame(() => {
			this.#frame = 0;
			this.#draw();
		});
	}

	#draw(): void {
		const { catalog } = this;
		const { items, complete, loading, error, loaded } = catalog;
		const words = this.#options.words();
		this.#grid.update(items, complete, catalog.sort);
		const bare = items.length === 0;
		found("#grid").hidden = bare;
		for (const control of [this.#search.parentElement!, this.#sort]) control.hidden = bare && catalog.name === "";
		setText(found("#count"), bare ? "" : words.t(complete ? "page.count" : "page.count-more", { n: items.length }));
		if (this.#announce && loading === null) {
			this.#announce = false;
			this.#options.say(
				bare ? words.t("list.no-match", { query: catalog.name }) : words.t("list.matches", { n: items.length }),
			);
		}
		// What is there stays when loading fails; that it may not be what was asked for is told where it is always seen.
		const stale = error !== null && !bare && !isLocked(error);
		const again = found<HTMLButtonElement>("#again");
		again.hidden = !stale;
		setText(again, words.t("list.stale"));
		again.title = stale ? errorWords(error, words) : "";
		const state = found("#state");
		const shown = this.#state(words, bare, loaded, error);
		state.hidden = shown === null;
		// The same state is not written again, so that it is not read out again and its button keeps the focus.
		const key = words.lang + (shown?.[0] ?? "") + (shown?.[1] ?? "");
		if (state.dataset["key"] === key) return;
		state.dataset["key"] = key;
		if (shown === null) state.replaceChildren();
		else {
			const [title, text, label, run] = shown;
			state.replaceChildren(
				h("p", {}, h("strong", {}, title), text),
				...(label === null ? [] : [h("button", { type: "button", class: "button primary", onclick: run }, label)]),
			);
		}
	}

	/** What stands instead of the list, or below what was loaded of it: title, text, and what can be done. */
	#state(
		words: PageText,
		bare: boolean,
		loaded: boolean,
		error: unknown,
	): [string, string, string | null, () => void] | null {
		const again = (): void => void this.catalog.reload();
		if (isLocked(error)) return [words.t("list.locked"), "", words.t("token.enter"), again];
		if (error !== null && bare) return [words.t("list.failed"), errorWords(error, words), words.t("list.again"), again];
		if (!loaded) return [words.t("list.loading"), "", null, again];
		if (!bare) return null;
		if (this.catalog.name)
			return [
				words.t("list.no-match", { query: this.catalog.name }),
				"",
				words.t("list.show-all"),
				() => this.#clear(),
			];
		return [words.t("list.empty"), words.t("list.empty-hint"), null, again];
	}

	#act(action: Action, file: ServerFile): void {
		switch (action) {
			case "download":
				return this.#download(file);
			case "copy":
				return void this.#copy(file);
			case "rename":
				return this.#grid.edit(file.id);
			case "delete": {
				const next = this.#grid.hasFocus ? this.#grid.neighbour(file.id) : null;
				this.#options.remove({ kind: "files", id: file.id, name: file.name });
				if (next !== null) {
					this.#draw();
					this.#grid.focus(next);
				}
			}
		}
	}

	#menu(file: ServerFile, at: Element): void {
		const words = this.#options.words();
		const where = place(file, words, Date.now());
		const item = (action: Action, icon: string): { label: string; icon: string; run: () => void } => ({
			label: words.t(`menu.${action}`),
			icon,
			run: () => this.#act(action, file),
		});
		const note = where.tone === "rest" ? null : [where.text, where.reason].filter(Boolean).join(": ");
		showMenu(at, words.t("row.menu", { name: file.name }), note, [
			item("download", "i-download"),
			item("copy", "i-link"),
			item("rename", "i-pencil"),
			item("delete", "i-trash"),
		]);
	}

	#note(file: ServerFile, at: Element): void {
		const { help, reason } = place(file, this.#options.words(), Date.now());
		showNote(at, reason ? [help, reason] : [help]);
	}

	async #rename(file: ServerFile, name: string): Promise<void> {
		const { api, toasts, say } = this.#options;
		const words = this.#options.words();
		this.catalog.put({ ...file, name });
		try {
			this.catalog.put(await api.rename(file.id, name));
			say(words.t("row.renamed", { name }));
		} catch (error) {
			this.catalog.put(file);
			toasts.show("rename", {
				text: words.t("toast.rename-failed", { name: file.name }),
				detail: errorWords(error, words),
				lasts: 10_000,
			});
		}
	}

	async #copy(file: ServerFile): Promise<void> {
		const { toasts, open } = this.#options;
		const words = this.#options.words();
		const link = location.origin + address(file);
		if (await copy(link)) toasts.show("copy", { text: words.t(open ? "toast.link" : "toast.link-token") });
		else {
			toasts.show("copy", { text: words.t("toast.by-hand"), field: link, lasts: null, closed: () => {} });
			toasts.field("copy")?.focus();
		}
	}

	#download(file: ServerFile): void {
		if (this.#options.open) h("a", { href: address(file), download: file.name }).click();
		else void this.#fetch(file);
	}

	async #fetch(file: ServerFile): Promise<void> {
		const { api, toasts } = this.#options;
		const words = this.#options.words();
		const pick = savePicker();
		const key = `download ${file.id}`;
		if (!pick && file.size > memoryLimit) {
			const command = `curl -OJ -H "Authorization: Bearer $TOKEN" ${location.origin}${address(file)}`;
			const text = words.t("download.large", { name: file.name, limit: words.bytes(memoryLimit) });
			return toasts.show(key, { text, field: command, lasts: null, closed: () => {} });
		}
		const stop = new AbortController();
		const running = (bytes: number): string =>
			words.t("download.running", { name: file.name, percent: words.percent(file.size ? bytes / file.size : 1) });
		const options: DownloadOptions = {
			get: (signal) => api.request("GET", `${address(file)}?redirect=false`, { signal }),
			signal: stop.signal,
			progress: (bytes) => toasts.retext(key, running(bytes)),
		};
		const actions = [{ label: words.t("download.stop"), run: (): void => stop.abort() }];
		toasts.show(key, {
			text: running(0),
			detail: pick ? null : words.t("download.memory"),
			actions,
			lasts: null,
			quiet: true,
		});
		try {
			await (pick ? toDisk(file, pick, options) : toMemory(file, options));
			toasts.show(key, { text: words.t("download.done", { name: file.name }) });
		} catch (error) {
			if (error instanceof DOMException && error.name === "AbortError") return toasts.hide(key); // they do not want it
			const detail =
				error instanceof UploadError && error.status > 0 ? errorWords(error, words) : words.t("download.broken");
			toasts.show(key, { text: words.t("download.failed", { name: file.name }), detail, lasts: 10_000 });
		}
	}
}
