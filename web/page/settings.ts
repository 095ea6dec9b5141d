// What the person chose for this browser: language and colours.

import { found, icon, setAttribute } from "./dom.js";
import { storageOf } from "./session.js";
import { type Language, type PageKey, type PageText, pageText } from "./words.js";

type Theme = "system" | "light" | "dark";
const themes: readonly Theme[] = ["system", "light", "dark"];

const kept = storageOf("localStorage");

function keep(key: string, value: string): void {
	try {
		kept?.setItem(key, value);
	} catch {
		// Full or refused: then it counts until the page is left.
	}
}

/** The language chosen before, else the first of the browser's that there is. */
export function firstLanguage(chosen: string | null, browser: readonly string[]): Language {
	for (const tag of [chosen ?? "", ...browser]) {
		const lang = tag.slice(0, 2).toLowerCase();
		if (lang === "en" || lang === "zh") return lang;
	}
	return "en";
}

export class Settings {
	words: PageText;
	#theme: Theme;

	/** @param changed is called after the language changed. */
	constructor(private readonly changed: () => void) {
		this.words = pageText(firstLanguage(kept?.getItem("gantry-language") ?? null, navigator.languages));
		const theme = kept?.getItem("gantry-theme");
		this.#theme = themes.find((t) => t === theme) ?? "system";
		found("#language").addEventListener("click", () => {
			const next = this.words.lang === "en" ? "zh" : "en";
			this.words = pageText(next);
			keep("gantry-language", next);
			this.show();
			this.changed();
		});
		found("#theme").addEventListener("click", () => {
			this.#theme = themes[(themes.indexOf(this.#theme) + 1) % themes.length]!;
			keep("gantry-theme", this.#theme);
			this.#showTheme();
		});
	}

	/** Puts the words of the language into index.html's elements: data-t is a key of words.ts. */
	show(): void {
		const { words } = this;
		document.documentElement.lang = words.lang === "zh" ? "zh-CN" : "en";
		const text = (element: HTMLElement, name: string): string => words.t(element.dataset[name] as "page.files");
		for (const element of document.querySelectorAll<HTMLElement>("[data-t]")) element.textContent = text(element, "t");
		for (const element of document.querySelectorAll<HTMLElement>("[data-t-label]")) {
			element.ariaLabel = text(element, "tLabel");
			if (element.tagName === "BUTTON") element.title = element.ariaLabel;
		}
		for (const element of document.querySelectorAll<HTMLInputElement>("[data-t-placeholder]"))
			element.placeholder = text(element, "tPlaceholder");
		// The switch names the other language, in that language.
		const other = words.lang === "en" ? "zh" : "en";
		const button = found("#language");
		button.textContent = { en: "English", zh: "中文" }[other];
		button.lang = other;
		this.#showTheme();
	}

	#showTheme(): void {
		setAttribute(document.documentElement, "data-theme", this.#theme === "system" ? null : this.#theme);
		const button = found("#theme");
		button.replaceChildren(icon(`i-${this.#theme}`));
		button.title = button.ariaLabel = this.words.t(`theme.${this.#theme}` satisfies PageKey);
	}
}
