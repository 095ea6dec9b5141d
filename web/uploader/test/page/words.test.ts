import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { firstLanguage } from "../../../page/settings.js";
import { en, type PageKey, zh } from "../../../page/words.js";
import type { Message } from "../../src/text.js";

const page = new URL("../../../page/", import.meta.url);
const keys = Object.keys(en) as PageKey[];
const forms = (message: Message): string[] => (typeof message === "string" ? [message] : Object.values(message));
const slots = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1] ?? "").sort();
const html = readFileSync(new URL("index.html", page), "utf8");

describe("words of the page", () => {
	it("have the same keys in both languages", () => {
		expect(Object.keys(zh)).toEqual(keys);
	});

	it.each(keys)("%s is in English and in Chinese, with the same names in braces", (key) => {
		for (const english of forms(en[key])) {
			expect(english.trim()).not.toBe("");
			expect(english).not.toMatch(/\p{Script=Han}/u);
		}
		for (const chinese of forms(zh[key])) {
			// Names in braces and the name of a file are no words.
			const bare = chinese.replace(/\{\w+\}|openapi\.yaml/g, "");
			expect(/\p{Letter}/u.test(bare) ? chinese : "中").toMatch(/\p{Script=Han}/u);
			expect(chinese).not.toMatch(/[,:;!?]/);
			expect(slots(chinese)).toEqual(slots(forms(en[key]).at(-1) ?? ""));
		}
	});

	it.each(keys)("%s has all plural forms", (key) => {
		for (const [lang, message] of [
			["en", en[key]],
			["zh", zh[key]],
		] as const) {
			if (typeof message !== "string")
				expect(Object.keys(message).sort()).toEqual(
					[...new Intl.PluralRules(lang).resolvedOptions().pluralCategories].sort(),
				);
		}
	});

	it("are all shown somewhere", () => {
		const sources = readdirSync(page)
			.filter((name) => /\.(ts|html)$/.test(name) && name !== "words.ts")
			.map((name) => readFileSync(new URL(name, page), "utf8"))
			.join("\n");
		// These are found by what they are of.
		expect(keys.filter((key) => !/^(error|theme|menu)\./.test(key) && !sources.includes(`"${key}"`))).toEqual([]);
	});

	it("are what index.html asks for, in the English that it has", () => {
		for (const [, key, text] of html.matchAll(/data-t="([^"]+)"[^>]*>([^<]*)</g))
			expect(en[key as PageKey], key).toBe(text);
		for (const [, key] of html.matchAll(/data-t-(?:label|placeholder)="([^"]+)"/g)) expect(keys).toContain(key);
	});
});

describe("index.html", () => {
	it("has nothing that the content security policy refuses", () => {
		expect(html).not.toMatch(/<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc="\/)|(src|href)="(https?:)?\/\//);
	});

	it("is a template with the server's fields", () => {
		expect(html).toContain("{{range .Notices}}");
		expect(html).toMatch(/<html[^>]*\{\{if \.Open\}\} data-open\{\{end\}\}>/);
	});
});

describe("the language", () => {
	it.each([
		[null, ["zh-CN", "en"], "zh"],
		[null, ["de", "en-GB"], "en"],
		[null, ["fr"], "en"],
		["en", ["zh"], "en"],
		["zh", ["en"], "zh"],
		["xx", ["zh-Hant"], "zh"],
	] as const)("chosen %s, browser %s: %s", (chosen, browser, want) => {
		expect(firstLanguage(chosen, browser)).toBe(want);
	});
});
