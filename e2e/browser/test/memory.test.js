// A file of any size goes through a tab whose memory stays as it is.
import assert from "node:assert/strict";
import { test } from "node:test";
import { browserName } from "../lib/browser.js";
import { MiB, parseSize } from "../lib/files.js";
import { Stage } from "../lib/stage.js";

const size = parseSize(process.env.E2E_MEMORY ?? "512MiB");
const allowed = 96 * MiB; // the chunks on their way, the hasher's buffers, and what the browser has not collected yet

test(`memory while ${size / MiB} MiB go through`, { skip: browserName === "firefox" && "it does not tell its processes" }, async (t) => {
	const stage = await Stage.set(t);
	const warm = await stage.file("warm-up.bin", 32 * MiB);
	await stage.page.add([warm.path]);
	await stage.page.untilPhase(warm.name, "done");

	const file = await stage.file("large.bin", size);
	const before = await stage.browser.memory();
	const most = { ...before };
	await stage.page.add([file.path]);
	const watch = setInterval(async () => {
		const now = await stage.browser.memory().catch(() => before); // the browser may be closing
		for (const what of ["tab", "browser"]) most[what] = Math.max(most[what], now[what]);
	}, 250);
	await stage.page.untilPhase(file.name, "done", 600).finally(() => clearInterval(watch));
	for (const what of ["tab", "browser"]) {
		const grown = most[what] - before[what];
		t.diagnostic(`${what}: ${Math.round(before[what] / MiB)} MiB before, at most ${Math.round(most[what] / MiB)} MiB`);
		assert.ok(grown < allowed, `the ${what}'s memory grew by ${Math.round(grown / MiB)} MiB`);
	}
	await stage.untilSame(file);
});
