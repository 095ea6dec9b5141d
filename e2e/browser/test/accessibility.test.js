// axe finds nothing to complain about, in any state of the page.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { scenes } from "../lib/scenes.js";
import { Stage } from "../lib/stage.js";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** What axe complains about, in words. */
async function violations(page) {
	await page.tab.addScriptTag({ path: axe });
	const found = await page.tab.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
	return found.violations.map((v) => `${v.id} (${v.impact}): ${v.help}: ${v.nodes.map((node) => node.target.flat().join(" ")).slice(0, 3)}`);
}

for (const [name, scene] of Object.entries(scenes)) {
	for (const colorScheme of ["light", "dark"]) {
		test(`accessibility: ${name}, ${colorScheme}`, async (t) => {
			const stage = await Stage.set(t, { browser: { colorScheme, bypassCSP: true } });
			await scene(stage);
			assert.deepEqual(await violations(stage.page), []);
		});
	}
}
