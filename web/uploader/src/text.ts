// Words and figures as people read them, in the language of the page.

import { en, type Key, type Message, type Messages } from "./locales/en.js";
import { zh } from "./locales/zh.js";

export type { Key, Message, Messages };

export type Language = "en" | "zh";

const languages: Record<Language, Messages> = { en, zh };

/** The names in braces in a text. */
type Slots<S> = S extends `${string}{${infer Name}}${infer Rest}` ? Name | Slots<Rest> : never;

/** The names in braces in a message; a text with plural forms always has `n`. */
type SlotsOf<M> = M extends string ? Slots<M> : M extends { readonly other: infer Other } ? Slots<Other> | "n" : never;

type Values<M> = { readonly [Name in SlotsOf<M>]: string | number };

/**
 * Texts and formats of one language. English gives the keys and the names in braces: a key that is not there, or
 * a value that is missing, does not compile. A page with words of its own makes one with its own table.
 */
export class Text<Table extends Readonly<Record<string, Message>> = typeof en> {
	readonly lang: Language;
	readonly #table: Readonly<Record<string, Message>>;
	readonly #plural: Intl.PluralRules;
	readonly #numbers = new Map<number, Intl.NumberFormat>();
	readonly #percent: Intl.NumberFormat;

	/** The table is the language's own: `{ [K in keyof Table]: … }` of another language than English. */
	constructor(lang: Language, table: { readonly [K in keyof Table]: Message }) {
		this.lang = lang;
		this.#table = table;
		this.#plural = new Intl.PluralRules(lang);
		this.#percent = new Intl.NumberFormat(lang, { style: "percent", maximumFractionDigits: 0 });
	}

	/** The text of a key, with the values in place of the names in braces. */
	t<K extends keyof Table & string>(
		key: K,
		...[values]: [SlotsOf<Table[K]>] extends [never] ? [] : [values: Values<Table[K]>]
	): string {
		const given: Readonly<Record<string, string | number>> = values ?? {};
		const message = this.#table[key] as Message;
		const form =
			typeof message === "string" ? message : (message[this.#plural.select(Number(given.n))] ?? message.other);
		return form.replace(/\{(\w+)\}/g, (_, name: string) => this.#word(given[name] ?? ""));
	}

	/** Bytes in decimal units, as file managers and network people count: "9.0 GB". */
	bytes(n: number): string {
		let unit = 0;
		// 999.5 would be shown as 1000.
		while (n >= 999.5 && unit < units.length - 1) {
			n /= 1000;
			unit++;
		}
		const digits = unit === 0 ? 0 : n < 9.95 || (unit >= 3 && n < 99.95) ? 1 : 0;
		return `${this.#number(n, digits)} ${units[unit]}`;
	}

	/** Bytes a second. */
	speed(n: number): string {
		return `${this.bytes(n)}/s`;
	}

	/** A fraction. What is not quite complete is never told as 100 %. */
	percent(fraction: number): string {
		return this.#percent.format(fraction >= 1 ? 1 : Math.min(fraction, 0.99));
	}

	/** When something was, as short as it can be understood: the time of today, else the day. */
	when(date: Date, now = new Date()): string {
		const today = date.toDateString() === now.toDateString();
		return date.toLocaleString(this.lang, today ? { timeStyle: "short" } : { dateStyle: "medium" });
	}

	#word(value: string | number): string {
		return typeof value === "number" ? this.#number(value, 0) : value;
	}

	#number(n: number, digits: number): string {
		let format = this.#numbers.get(digits);
		if (!format) {
			format = new Intl.NumberFormat(this.lang, { minimumFractionDigits: digits, maximumFractionDigits: digits });
			this.#numbers.set(digits, format);
		}
		return format.format(n);
	}
}

const units = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

const texts = new Map<Language, Text>();

/** The uploader's texts in a language. */
export function text(lang: Language): Text {
	let found = texts.get(lang);
	if (!found) {
		found = new Text<typeof en>(lang, languages[lang]);
		texts.set(lang, found);
	}
	return found;
}

/**
 * Seconds in words, coarser the more there are, so that they do not flicker: "about 2 min". Rounded up: who waits
 * would rather be surprised.
 */
export function timeInWords(text: Text, seconds: number): string {
	if (seconds < 10) {
		return text.t("time.now");
	}
	if (seconds <= 50) {
		return text.t("time.seconds", { n: Math.ceil(seconds / 10) * 10 });
	}
	const minutes = Math.ceil(seconds / 60);
	if (minutes < 60) {
		return text.t("time.minutes", { n: minutes });
	}
	if (minutes < 5 * 60) {
		// Steps of ten minutes.
		const tens = Math.ceil(minutes / 10);
		const [h, m] = [Math.floor(tens / 6), (tens % 6) * 10];
		return m === 0 ? text.t("time.hours", { n: h }) : text.t("time.hours-minutes", { h, m });
	}
	const hours = Math.ceil(minutes / 60);
	return hours < 48 ? text.t("time.hours", { n: hours }) : text.t("time.days", { n: Math.ceil(hours / 24) });
}

/** The language for an element: that of the nearest `lang` attribute, else the first of the browser's that there is. */
export function language(element: Element = document.documentElement): Language {
	const wanted = [nearestLang(element), ...navigator.languages];
	for (const tag of wanted) {
		const lang = tag?.slice(0, 2).toLowerCase();
		if (lang === "en" || lang === "zh") {
			return lang;
		}
	}
	return "en";
}

/** Looks out of shadow trees too, which `closest` does not. */
function nearestLang(element: Element): string | null {
	const found = element.closest("[lang]");
	if (found) {
		return found.getAttribute("lang");
	}
	const root = element.getRootNode();
	return root instanceof ShadowRoot ? nearestLang(root.host) : null;
}
