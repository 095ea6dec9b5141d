// @vitest-environment happy-dom
import { readdirSync, readFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { en, type Key, type Message } from "../src/locales/en.js";
import { zh, zhErrors } from "../src/locales/zh.js";
import { language, Text, text, timeInWords } from "../src/text.js";

const keys = Object.keys(en) as Key[];
const forms = (message: Message): string[] => (typeof message === "string" ? [message] : Object.values(message));
const slots = (message: string): string[] => [...message.matchAll(/\{(\w+)\}/g)].map((m) => m[1] ?? "").sort();

describe("locales", () => {
	it("have the same keys", () => {
		expect(Object.keys(zh)).toEqual(keys);
	});

	it.each(keys)("%s has English and Chinese, with the same names in braces", (key) => {
		for (const english of forms(en[key])) {
			expect(english.trim()).not.toBe("");
			expect(english).not.toMatch(/\p{Script=Han}/u);
		}
		for (const chinese of forms(zh[key])) {
			// What has no word in it, but names in braces and signs, is the same in all languages.
			expect(chinese.replace(/\{\w+\}/g, "").match(/\p{Letter}/u) ? chinese : "中").toMatch(/\p{Script=Han}/u);
			expect(chinese).not.toMatch(/[,:;!?]/);
			expect(slots(chinese)).toEqual(slots(forms(en[key]).at(-1) ?? ""));
		}
	});

	it.each(keys)("%s has all the plural forms of its language", (key) => {
		for (const [lang, message] of [
			["en", en[key]],
			["zh", zh[key]],
		] as const) {
			if (typeof message !== "string") {
				expect(Object.keys(message).sort()).toEqual(
					[...new Intl.PluralRules(lang).resolvedOptions().pluralCategories].sort(),
				);
			}
		}
	});

	it.each(Object.entries(zhErrors))("%s has Chinese words for what happened and what to do", (_, words) => {
		expect(words).toMatch(/^[\p{Script=Han}，：]+。[\p{Script=Han}，]+。$/u);
	});

	it("have no text that nothing shows", () => {
		const sources = readdirSync("src", { recursive: true, encoding: "utf8" })
			.filter((name) => name.endsWith(".ts") && !name.startsWith("locales"))
			.map((name) => readFileSync(`src/${name}`, "utf8"))
			.join("\n");
		// Some are found by a name that is put together: `phase.${u.phase}`.
		const families = [...sources.matchAll(/`(\w+)\.\$\{/g)].map((m) => `${m[1]}.`);
		expect(
			keys.filter((key) => !families.some((family) => key.startsWith(family)) && !sources.includes(`"${key}"`)),
		).toEqual([]);
	});
});

describe("Text", () => {
	it("puts values into texts, and takes the form that the number wants", () => {
		expect(text("en").t("row.pause", { name: "report.pdf" })).toBe("Pause report.pdf");
		expect(text("en").t("total.uploading", { n: 1 })).toBe("Uploading 1 file");
		expect(text("en").t("total.uploading", { n: 12345 })).toBe("Uploading 12,345 files");
		expect(text("zh").t("total.uploading", { n: 1 })).toBe("正在上传 1 个文件");
	});

	it("puts names in as they are", () => {
		expect(text("en").t("row.pause", { name: "{name} $& $1" })).toBe("Pause {name} $& $1");
	});

	it("works with a table of the page's own", () => {
		const own = { greeting: "Hello {who}" } as const;
		expect(new Text<typeof own>("en", own).t("greeting", { who: "you" })).toBe("Hello you");
	});

	it.each([
		[0, "0 B"],
		[999, "999 B"],
		[1000, "1.0 kB"],
		[9949, "9.9 kB"],
		[9950, "10 kB"],
		[345_600, "346 kB"],
		[999_499, "999 kB"],
		[999_500, "1.0 MB"],
		[34_200_000, "34 MB"],
		[9_000_000_000, "9.0 GB"],
		[45_230_000_000, "45.2 GB"],
		[999_000_000_000_000_000, "999 PB"],
		[5e18, "5,000 PB"],
	])("tells %d bytes as %s", (n, words) => {
		expect(text("en").bytes(n)).toBe(words);
	});

	it("tells speed and parts", () => {
		expect(text("en").speed(34_200_000)).toBe("34 MB/s");
		expect(text("en").percent(0.423)).toBe("42%");
		expect(text("en").percent(0.999)).toBe("99%");
		expect(text("en").percent(1)).toBe("100%");
	});

	it("tells the time of today and the day of other days", () => {
		const now = new Date(2026, 10, 25, 14, 2);
		expect(text("en").when(new Date(2026, 10, 25, 9, 30), now)).toMatch(/^9:30\sAM$/);
		expect(text("en").when(new Date(2026, 9, 1), now)).toBe("Oct 1, 2026");
		expect(text("zh").when(new Date(2026, 9, 1), now)).toBe("2026年10月1日");
	});
});

describe("timeInWords", () => {
	it.each([
		[0, "a few seconds", "几秒"],
		[9.9, "a few seconds", "几秒"],
		[11, "about 20 s", "约 20 秒"],
		[50, "about 50 s", "约 50 秒"],
		[51, "about 1 min", "约 1 分钟"],
		[100, "about 2 min", "约 2 分钟"],
		[59 * 60, "about 59 min", "约 59 分钟"],
		[59 * 60 + 1, "about 1 h", "约 1 小时"],
		[62 * 60, "about 1 h 10 min", "约 1 小时 10 分钟"],
		[115 * 60, "about 2 h", "约 2 小时"],
		[5 * 3600 + 1, "about 6 h", "约 6 小时"],
		[47.5 * 3600, "about 2 days", "约 2 天"],
	])("tells %d s", (seconds, english, chinese) => {
		expect(timeInWords(text("en"), seconds)).toBe(english);
		expect(timeInWords(text("zh"), seconds)).toBe(chinese);
	});

	it("never tells more for less", () => {
		let before = 0;
		const minutes = (words: string): number => {
			const unit = (pattern: RegExp, factor: number): number => Number(pattern.exec(words)?.[1] ?? 0) * factor;
			return unit(/(\d+) s/, 1) + unit(/(\d+) min/, 60) + unit(/(\d+) h/, 3600) + unit(/(\d+) day/, 86400);
		};
		for (let s = 10; s < 300_000; s += 7) {
			const told = minutes(timeInWords(text("en"), s));
			expect(told).toBeGreaterThanOrEqual(before);
			before = told;
		}
	});
});

describe("language", () => {
	afterEach(() => {
		vi.restoreAllMocks();
		document.documentElement.removeAttribute("lang");
		document.body.replaceChildren();
	});

	it("is that of the nearest lang attribute, also outside of shadow trees", () => {
		document.documentElement.lang = "en";
		const host = document.body.appendChild(document.createElement("div"));
		host.lang = "zh-CN";
		const inner = host.attachShadow({ mode: "open" }).appendChild(document.createElement("p"));
		expect(language(inner)).toBe("zh");
		expect(language()).toBe("en");
	});

	it("is else the first of the browser's languages that there is", () => {
		vi.spyOn(navigator, "languages", "get").mockReturnValue(["fr-FR", "zh-TW", "en"]);
		expect(language()).toBe("zh");
		vi.spyOn(navigator, "languages", "get").mockReturnValue(["fr-FR"]);
		expect(language()).toBe("en");
	});
});
