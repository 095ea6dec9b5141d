// On http://nas.local browsers have no crypto.subtle, no Web Locks, no pickers with handles: all works without.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MiB } from "../lib/files.js";
import { Stage, middling } from "../lib/stage.js";

const plain = { plain: true };

async function lacks(stage) {
	const there = await stage.page.tab.evaluate(() => ({
		secure: isSecureContext,
		subtle: crypto.subtle !== undefined,
		uuid: crypto.randomUUID !== undefined,
		locks: navigator.locks !== undefined,
		storage: navigator.storage !== undefined,
		picker: "showOpenFilePicker" in window,
	}));
	assert.deepEqual(there, { secure: false, subtle: false, uuid: false, locks: false, storage: false, picker: false });
}

test("http://nas.local: uploaded, and then instantly", async (t) => {
	const stage = await Stage.set(t, plain);
	await lacks(stage);
	const file = await stage.file("movie.mkv", 40 * MiB);
	await stage.page.add([file.path]);
	await stage.page.untilPhase(file.name, "done");
	await stage.server.stored((await stage.untilSame(file)).id);
	stage.proxy.forget();

	const again = await stage.rename(file, "again.mkv");
	await stage.page.add([again.path]);
	await stage.page.untilPhase(again.name, "instant");
	assert.equal(stage.proxy.contentBytes, 0);
	await stage.untilSame(again);
});

test("http://nas.local: reloaded, and the file is chosen again", async (t) => {
	const stage = await Stage.set(t, plain);
	const file = await stage.file("movie.mkv", middling);
	await stage.begin(file);
	await stage.page.tab.reload();
	const [{ received_bytes: before }] = await stage.server.uploads();
	assert.ok(before > 0);
	stage.proxy.forget();
	await stage.page.untilPhase(file.name, "needs-file");
	await stage.page.chooseBy(stage.page.goOn, [file.path]);
	stage.proxy.limit(Infinity);
	await stage.page.untilPhase(file.name, "done");
	await stage.untilSame(file);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("http://nas.local: two tabs send nothing twice", async (t) => {
	const stage = await Stage.set(t, plain);
	const file = await stage.file("movie.mkv", middling);
	await stage.begin(file);
	const second = await stage.open();
	await second.untilPhase(file.name, "elsewhere");
	stage.proxy.limit(Infinity);
	await stage.page.untilPhase(file.name, "done");
	await stage.untilSame(file);
	assert.equal(stage.proxy.contentBytes, file.size, "every byte was sent once");
});
