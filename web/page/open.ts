// Open uploads that this browser does not have: begun on another device, or forgotten here. Who has the file goes on with it.

import type { API, OpenUpload } from "./api.js";
import { h, setText } from "./dom.js";
import type { Removal } from "./removals.js";
import type { PageText } from "./words.js";

/** Who has sent nothing for so long has stopped, in milliseconds. Chunks take seconds. */
const stopped = 60_000;
/** Rows that are shown; more are only counted. */
const shownAtMost = 20;

export interface OpenOptions {
	words: () => PageText;
	api: API;
	/** The server's ids of the uploads in the uploader's own list. */
	own: () => ReadonlySet<string | null>;
	/** Go on with an upload. */
	resume: (upload: OpenUpload, file: File) => void;
	/** It is another file. */
	wrong: (upload: OpenUpload, file: File) => void;
	cancel: (removal: Removal) => void;
}

export class OpenUploads {
	readonly #all = new Map<string, OpenUpload>();
	readonly #hidden = new Set<string>();
	#frame = 0;

	constructor(
		private readonly section: HTMLElement,
		private readonly list: HTMLElement,
		private readonly options: OpenOptions,
	) {
		// The uploader takes what is dropped anywhere else, and covers the page meanwhile.
		for (const type of ["dragenter", "dragleave", "dragover", "drop"])
			list.addEventListener(type, (event) => event.stopPropagation());
		// That one stopped, no event tells.
		setInterval(() => this.#all.size > 0 && this.draw(), stopped / 2);
	}

	async load(): Promise<void> {
		const items = await this.options.api.uploads();
		this.#all.clear();
		for (const upload of items) this.#all.set(upload.id, upload);
		this.draw();
	}

	put(upload: OpenUpload): void {
		this.#all.set(upload.id, upload);
		this.draw();
	}

	drop(id: string): void {
		this.#all.delete(id);
		this.draw();
	}

	hide(ids: Iterable<string>, hidden: boolean): void {
		for (const id of ids) hidden ? this.#hidden.add(id) : this.#hidden.delete(id);
		this.draw();
	}

	draw(): void {
		this.#frame ||= requestAnimationFrame(() => {
			this.#frame = 0;
			this.#draw();
		});
	}

	#draw(): void {
		const own = this.options.own();
		const others = [...this.#all.values()]
			.filter((u) => !own.has(u.id) && !this.#hidden.has(u.id))
			.sort((a, b) => Date.parse(b.updated_at) - Date.parse(a.updated_at));
		this.section.hidden = others.length === 0;
		const rows = new Map(
			[...this.list.querySelectorAll<HTMLElement>("li[data-id]")].map((row) => [row.dataset["id"], row]),
		);
		const words = this.options.words();
		const now = Date.now();
		const shown = others.slice(0, shownAtMost).map((upload) => {
			const row = rows.get(upload.id);
			const made = row?.dataset["lang"] === words.lang ? row : this.#row(upload);
			setText(made.querySelector(".note")!.firstElementChild!, note(upload, words, now));
			made.toggleAttribute("data-active", isActive(upload, now));
			const bar = made.querySelector("progress");
			if (bar) bar.value = upload.size ? upload.received_bytes / upload.size : 0;
			return made;
		});
		const rest = others.length - shown.length;
		const wanted = rest > 0 ? [...shown, h("li", { class: "rest" }, words.t("open.more", { n: rest }))] : shown;
		// The same rows stay where they are, so that the focus and a file held over one do.
		if (wanted.length !== this.list.children.length || wanted.some((row, i) => this.list.children[i] !== row))
			this.list.replaceChildren(...wanted);
	}

	#row(upload: OpenUpload): HTMLElement {
		const words = this.options.words();
		const { id, name } = upload;
		const give = (file: File | undefined): void => {
			const now = this.#all.get(id);
			if (!file || !now) return;
			if (now.size !== null && file.size !== now.size) this.options.wrong(now, file);
			else this.options.resume(now, file);
		};
		const input = h("input", {
			type: "file",
			hidden: true,
			onchange: () => {
				give(input.files?.[0]);
				input.value = "";
			},
		});
		return h(
			"li",
			{
				"data-id": id,
				"data-lang": words.lang,
				ondragover: (event: Event) => {
					event.preventDefault();
					(event.currentTarget as HTMLElement).setAttribute("data-over", "");
				},
				ondragleave: (event: Event) => (event.currentTarget as HTMLElement).removeAttribute("data-over"),
				ondrop: (event: Event) => {
					event.preventDefault();
					(event.currentTarget as HTMLElement).removeAttribute("data-over");
					give((event as DragEvent).dataTransfer?.files[0]);
				},
			},
			h("span", { class: "name" }, name),
			h(
				"span",
				{ class: "buttons" },
				h(
					"button",
					{
						type: "button",
						class: "button",
						"aria-label": words.t("open.choose-for", { name }),
						onclick: () => input.click(),
					},
					words.t("open.choose"),
				),
				h(
					"button",
					{
						type: "button",
						class: "button",
						"aria-label": words.t("open.cancel-for", { name }),
						onclick: () => this.options.cancel({ kind: "uploads", id, name }),
					},
					words.t("open.cancel"),
				),
				input,
			),
			h("span", { class: "note" }, h("span"), h("span", { class: "drop" }, ` · ${words.t("open.drop")}`)),
			upload.size === null ? null : h("progress", { "aria-label": words.t("open.bar", { name }) }),
		);
	}
}

/** Somebody is sending it right now. */
export function isActive(upload: OpenUpload, now: number): boolean {
	return now - Date.parse(upload.updated_at) < stopped;
}

/** "43% of 9.0 GB · last active 14:02" */
export function note(upload: OpenUpload, words: PageText, now: number): string {
	const part =
		upload.size === null
			? words.t("open.bytes", { size: words.bytes(upload.received_bytes) })
			: words.t("open.part", {
					percent: words.percent(upload.size ? upload.received_bytes / upload.size : 0),
					size: words.bytes(upload.size),
				});
	const active = isActive(upload, now)
		? words.t("open.now")
		: words.t("open.heard", { when: words.when(new Date(upload.updated_at), new Date(now)) });
	return `${part} · ${active}`;
}
