// What the server says about itself, as that its store does not answer. It writes these sentences into the page that it serves;
// a page that stays open looks again from time to time.

import { found, h } from "./dom.js";
import { en, type PageText } from "./words.js";

/** Milliseconds between looks. */
const every = 60_000;

/** A sentence of the server's in the page's language, if it is one that the page knows. */
export function inWords(sentence: string, words: PageText): string {
	for (const key of ["notice.store", "notice.disk"] as const) if (en[key] === sentence) return words.t(key);
	return sentence;
}

export class Notices {
	#sentences: string[];

	constructor(private readonly words: () => PageText) {
		this.#sentences = read(document);
		this.show();
		setInterval(() => document.hidden || this.load(), every);
	}

	/** Writes them again: the language changed. */
	show(): void {
		const shown = this.#sentences.map((sentence) => h("p", { class: "notice" }, inWords(sentence, this.words())));
		found("#notices").replaceChildren(...shown);
	}

	/** Looks whether they are still the same. XMLHttpRequest makes a document of the page without a string in between, so Trusted Types agree. */
	load(): void {
		const request = new XMLHttpRequest();
		request.open("GET", "/");
		request.responseType = "document";
		request.onload = () => {
			if (request.status !== 200 || !request.responseXML?.querySelector("#notices")) return;
			const sentences = read(request.responseXML);
			if (sentences.join("\n") === this.#sentences.join("\n")) return;
			this.#sentences = sentences;
			this.show();
		};
		request.send();
	}
}

function read(page: Document): string[] {
	return [...page.querySelectorAll("#notices .notice")].map((notice) => notice.textContent ?? "");
}
