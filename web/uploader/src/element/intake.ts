// Where files come in: the drop zone, the buttons to choose, and pasting.

import type { Text } from "../text.js";
import { button, h, icon, show } from "./dom.js";

export interface IntakeOptions {
	/** One file at a time, no folders, if false. */
	multiple: boolean;
	/** As the attribute of an `<input>`: ".jpg, image/*"; "" takes all. */
	accept: string;
	/** Takes what is dropped anywhere on the page, not only on the element. */
	anywhere: boolean;
	/** Called in the very event: what a DataTransfer has is gone after it. */
	take(parts: readonly Part[]): void;
}

/** What an Uploader takes. */
export type Part = File[] | DataTransfer | FileSystemHandle;

/** The pickers of the File System Access API give handles, with which an upload goes on after a reload. */
interface Pickers {
	showOpenFilePicker?(options: { multiple: boolean }): Promise<FileSystemFileHandle[]>;
	showDirectoryPicker?(): Promise<FileSystemDirectoryHandle>;
}

export class Intake {
	readonly element: HTMLElement;
	/** Covers the page while something is dragged over it. */
	readonly cover: HTMLElement;
	readonly #text: Text;
	readonly #options: IntakeOptions;
	readonly #files: HTMLInputElement;
	readonly #folder: HTMLInputElement;
	readonly #listening = new AbortController();

	constructor(host: HTMLElement, text: Text, options: IntakeOptions) {
		const { multiple, accept } = options;
		this.#text = text;
		this.#options = options;
		this.#files = h("input", { type: "file", multiple, accept, hidden: true, "data-choose": "files" });
		this.#folder = h("input", { type: "file", webkitdirectory: true, hidden: true, "data-choose": "folder" });
		const chooseFolder = button("choose folder", () => this.chooseFolder(), text.t("choose.folder"));
		show(chooseFolder, multiple && "webkitdirectory" in this.#folder);
		this.element = h(
			"div",
			{ class: "zone", part: "drop-zone" },
			icon("up"),
			h("p", { class: "invitation" }, text.t(multiple ? "drop.files" : "drop.file")),
			h("p", { class: "hint" }, text.t("drop.paste")),
			h(
				"div",
				{ class: "choices" },
				button("choose primary", () => this.chooseFiles(), text.t(multiple ? "choose.files" : "choose.file")),
				chooseFolder,
			),
			this.#files,
			this.#folder,
		);
		this.cover = h(
			"div",
			{ class: "cover", part: "drop-cover", hidden: true },
			h("p", {}, icon("up"), text.t("drop.now")),
		);
		for (const input of [this.#files, this.#folder]) {
			input.addEventListener("change", () => {
				options.take([[...(input.files ?? [])]]);
				input.value = ""; // the same file can be chosen again
			});
		}
		this.#listen(options.anywhere ? window : host);
	}

	chooseFiles(): void {
		const { multiple, accept } = this.#options;
		const picker = (window as Pickers).showOpenFilePicker;
		if (picker && !accept) {
			this.#pick(picker.call(window, { multiple }), this.#files);
		} else {
			this.#files.click();
		}
	}

	chooseFolder(): void {
		const picker = (window as Pickers).showDirectoryPicker;
		if (picker) {
			this.#pick(
				picker.call(window).then((handle) => [handle]),
				this.#folder,
			);
		} else {
			this.#folder.click();
		}
	}

	close(): void {
		this.#listening.abort();
		this.cover.remove();
	}

	/** A picker that may not be used here, as in a frame of another site, gives way to the ordinary input. */
	#pick(picked: Promise<FileSystemHandle[]>, input: HTMLInputElement): void {
		picked.then(
			(handles) => this.#options.take(handles),
			(error: unknown) => {
				if (!(error instanceof DOMException && error.name === "AbortError")) {
					input.click();
				}
			},
		);
	}

	#listen(where: Window | HTMLElement): void {
		const { signal } = this.#listening;
		const on = (target: EventTarget, type: string, listener: (event: DragEvent) => void): void =>
			target.addEventListener(
				type,
				(event) => event instanceof DragEvent && hasFiles(event.dataTransfer) && listener(event),
				{ signal },
			);
		// Enter and leave come for every element that is passed: those that are inside now are counted.
		let inside = 0;
		on(where, "dragenter", () => this.#over(++inside > 0));
		on(where, "dragleave", () => this.#over(--inside > 0));
		on(where, "dragover", (event) => {
			event.preventDefault();
			if (event.dataTransfer) {
				event.dataTransfer.dropEffect = "copy";
			}
		});
		on(where, "drop", (event) => {
			event.preventDefault();
			inside = 0;
			this.#over(false);
			if (event.dataTransfer) {
				this.#options.take([event.dataTransfer]);
			}
		});
		document.addEventListener("paste", (event) => this.#paste(event), { signal });
	}

	#over(over: boolean): void {
		this.element.classList.toggle("over", over);
		show(this.cover, over && this.#options.anywhere);
	}

	#paste(event: ClipboardEvent): void {
		const files = [...(event.clipboardData?.files ?? [])];
		if (files.length === 0 || event.defaultPrevented || isEditable(event.composedPath()[0])) {
			return;
		}
		event.preventDefault();
		this.#options.take([files.map((file) => this.#named(file))]);
	}

	/** Browsers call every picture that is pasted image.png. */
	#named(file: File): File {
		if (file.name !== "image.png") {
			return file;
		}
		const now = new Date();
		const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000);
		const time = local.toISOString().slice(0, 19).replace("T", " ").replaceAll(":", ".");
		return new File([file], `${this.#text.t("paste.name", { time })}.png`, {
			type: file.type,
			lastModified: file.lastModified,
		});
	}
}

function hasFiles(transfer: DataTransfer | null): boolean {
	return transfer?.types.includes("Files") ?? false;
}

function isEditable(target: EventTarget | undefined): boolean {
	return target instanceof HTMLElement && (target.isContentEditable || target.matches("input, textarea"));
}

/** Whether a file is among those that the `accept` attribute of an input names. */
export function accepts(accept: string, name: string, type: string): boolean {
	const kinds = accept
		.toLowerCase()
		.split(",")
		.map((kind) => kind.trim())
		.filter(Boolean);
	const is = (kind: string): boolean => {
		if (kind.startsWith(".")) {
			return name.toLowerCase().endsWith(kind);
		}
		return kind.endsWith("/*") ? type.startsWith(kind.slice(0, -1)) : type === kind;
	};
	return kinds.length === 0 || kinds.some(is);
}
