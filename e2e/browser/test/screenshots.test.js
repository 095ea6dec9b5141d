// Leaves pictures of the page in E2E_SCREENSHOTS, to be looked at. They fail only if a state cannot be reached or the page is
// wider than its window.
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { scenes } from "../lib/scenes.js";
import { Stage } from "../lib/stage.js";

const dir = process.env.E2E_SCREENSHOTS ?? new URL("../screenshots", import.meta.url).pathname;
const widths = [1440, 768, 390];

async function shoot(stage, name) {
	await fs.mkdir(dir, { recursive: true });
	const { tab } = stage.page;
	for (const width of widths) {
		await tab.setViewportSize({ width, height: width < 500 ? 844 : 900 });
		const wide = await tab.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
		assert.ok(wide <= 0, `${name} at ${width} px is ${wide} px wider than the window`);
		await tab.screenshot({ path: path.join(dir, `${name}-${width}.png`) });
	}
}

const looks = { "": {}, "-dark": { colorScheme: "dark" }, "-zh": { locale: "zh-CN" } };

for (const [name, scene] of Object.entries(scenes)) {
	for (const [look, options] of Object.entries(looks)) {
		if (look !== "" && !["empty", "busy", "done"].includes(name)) continue;
		test(`screenshots: ${name}${look}`, async (t) => {
			const stage = await Stage.set(t, { browser: options });
			await scene(stage);
			await shoot(stage, `${name}${look}`);
		});
	}
}
