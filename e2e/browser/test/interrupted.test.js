// Whatever breaks in the middle of an upload, it goes on where it stopped, and the file is the same byte for byte.
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { browserName } from "../lib/browser.js";
import { MiB } from "../lib/files.js";
import { until } from "../lib/page.js";
import { Stage, middling } from "../lib/stage.js";

const chromiumOnly = { skip: browserName === "firefox" && "Firefox has no handles of files" };

/** An upload in the middle. */
async function middle(t, options) {
	const stage = await Stage.set(t, options);
	const file = await stage.file("movie.mkv", middling);
	await stage.begin(file);
	return { stage, file };
}

/** The upload has ended well, and not by beginning again: of what was acknowledged nothing was sent twice. */
async function endsWell(stage, file, page = stage.page) {
	stage.proxy.limit(Infinity);
	await page.untilPhase(file.name, "done", 120);
	await stage.untilSame(file);
	const chunks = new Set(stage.proxy.requests.filter((r) => r.isContent).map((r) => r.path.split("/")[3]));
	assert.equal(chunks.size, 1, "all chunks were of one upload");
}

/** The chunks that the server has of the open upload. */
async function received(stage) {
	const [upload] = await stage.server.uploads();
	return upload.received_bytes;
}

test("paused and resumed", async (t) => {
	const { stage, file } = await middle(t);
	await stage.page.press("Pause", file.name);
	await stage.page.untilPhase(file.name, "paused");
	let sent = -1;
	await until("nothing is sent any more", async () => {
		const before = sent;
		sent = stage.proxy.contentBytes;
		await wait(1000);
		return sent === before;
	}, 10);
	const before = await received(stage);
	assert.ok(before < file.size, "it is not just about to end");
	stage.proxy.forget();
	await stage.page.press("Resume", file.name);
	await endsWell(stage, file);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("the network refuses for ten seconds", async (t) => {
	const { stage, file } = await middle(t);
	await stage.proxy.refuse();
	const before = await received(stage);
	await stage.page.untilPhase(file.name, "waiting");
	await wait(10_000);
	stage.proxy.forget();
	await stage.proxy.accept();
	await endsWell(stage, file);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("the network is silent for ten seconds", async (t) => {
	const { stage, file } = await middle(t);
	stage.proxy.hold();
	await wait(10_000);
	stage.proxy.release();
	await endsWell(stage, file);
});

test("connections stand still for good: they are given up, and chunks sent again on new ones", async (t) => {
	const { stage, file } = await middle(t);
	const index = (request) => request.headers["chunk-index"];
	stage.proxy.hold();
	const sent = new Set(stage.proxy.requests.filter((r) => r.isContent).map(index));
	await stage.proxy.next((request) => request.isContent && sent.has(index(request)));
	await stage.proxy.refuse(); // what stood still never arrives
	stage.proxy.release();
	await stage.proxy.accept();
	await endsWell(stage, file);
});

test("the browser is offline for a while", async (t) => {
	const { stage, file } = await middle(t);
	await stage.browser.context.setOffline(true);
	await stage.proxy.refuse();
	await stage.page.tab.getByText("You are offline").waitFor();
	stage.proxy.forget();
	await stage.proxy.accept();
	await stage.browser.context.setOffline(false);
	await endsWell(stage, file);
});

test("the server is killed -9 and comes back", async (t) => {
	const { stage, file } = await middle(t);
	await stage.server.kill();
	await stage.page.untilPhase(file.name, "waiting");
	await stage.server.run();
	const before = await received(stage);
	stage.proxy.forget();
	await endsWell(stage, file);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("the server is killed -9 three times", async (t) => {
	const { stage, file } = await middle(t);
	for (let i = 0; i < 3; i++) {
		await stage.server.kill();
		await stage.server.run();
		stage.proxy.forget();
		await stage.untilSent(2 * MiB);
	}
	await endsWell(stage, file);
});

/** After a reload with the file's handle allowed: nobody has to do anything but to agree that it goes on. */
async function goesOn(stage, file, page) {
	const phase = await page.untilPhase(file.name, ["uploading", "checking", "finishing", "done", "paused", "needs-file"]);
	if (phase === "paused") await page.press("Resume", file.name);
	assert.notEqual(phase, "needs-file", "the file's handle was not used");
	await endsWell(stage, file, page);
}

/** After a reload without a handle: the file is chosen again. */
async function chosenAgain(stage, file, page) {
	await page.untilPhase(file.name, "needs-file");
	await page.choose([file.path]);
	await endsWell(stage, file, page);
}

/** How much of it need not be sent again. */
async function interrupted(stage) {
	const before = await received(stage);
	assert.ok(before > 0, "the server had something");
	stage.proxy.forget();
	return before;
}

test("reloaded, and the file may be read again", chromiumOnly, async (t) => {
	const { stage, file } = await middle(t, { keepsHandles: true });
	await stage.page.tab.reload();
	const before = await interrupted(stage);
	await goesOn(stage, file, stage.page);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("reloaded, and the file is chosen again", async (t) => {
	const { stage, file } = await middle(t);
	await stage.page.tab.reload();
	const before = await interrupted(stage);
	await chosenAgain(stage, file, stage.page);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("reloaded, and another file is chosen: it is not mixed up with the one that was interrupted", async (t) => {
	const { stage, file } = await middle(t);
	await stage.page.tab.reload();
	await stage.page.untilPhase(file.name, "needs-file");
	const times = await fs.stat(file.path);
	const other = await stage.file("other/movie.mkv", middling); // the same name and size
	await fs.utimes(other.path, times.atime, times.mtime); // and time
	await stage.page.choose([other.path]);
	stage.proxy.limit(Infinity);
	await stage.untilSame(other);
	await stage.page.untilPhase(file.name, ["needs-file", "done"]);
});

test("the tab is closed and opened again, and the file may be read again", chromiumOnly, async (t) => {
	const { stage, file } = await middle(t, { keepsHandles: true });
	await stage.page.tab.close();
	const before = await interrupted(stage);
	const page = await stage.open();
	await goesOn(stage, file, page);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("the tab is closed and opened again, and the file is chosen again", async (t) => {
	const { stage, file } = await middle(t);
	await stage.page.tab.close();
	const before = await interrupted(stage);
	const page = await stage.open();
	await chosenAgain(stage, file, page);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("the browser is killed -9 and started again", chromiumOnly, async (t) => {
	const { stage, file } = await middle(t);
	await stage.browser.crash();
	const before = await interrupted(stage);
	const page = await stage.open();
	await chosenAgain(stage, file, page);
	assert.ok(stage.proxy.contentBytes <= file.size - before, "what the server had was not sent again");
});

test("a chunk is corrupted on its way, and sent again", async (t) => {
	const stage = await Stage.set(t);
	const file = await stage.file("movie.mkv", 24 * MiB);
	let spoilt = null;
	stage.proxy.corrupt((request) => {
		if (!request.isContent || request.sent < MiB) return false;
		spoilt = request;
		return true;
	});
	await stage.page.add([file.path]);
	await stage.page.untilPhase(file.name, "done");
	assert.ok(spoilt, "a chunk was corrupted");
	await stage.untilSame(file);
});

test("the file changes on the disk in the middle: that is told, and nothing wrong is kept", async (t) => {
	const { stage, file } = await middle(t);
	await stage.file("movie.mkv", middling);
	await until("it has failed", async () => (await stage.page.phase(file.name)) === "failed");
	await stage.page.row(file.name).getByText(/file has changed|changed on the disk/).first().waitFor();
	assert.deepEqual(await stage.server.files(), []);
});

test("two tabs: the second does not send what the first sends, and takes over when that is closed", async (t) => {
	const { stage, file } = await middle(t, { keepsHandles: browserName === "chromium" });
	const second = await stage.open();
	await second.untilPhase(file.name, "elsewhere");
	await stage.untilSent(file.size / 2);
	assert.equal(await second.phase(file.name), "elsewhere");
	await stage.page.tab.close();
	if (browserName === "chromium") await goesOn(stage, file, second);
	else await chosenAgain(stage, file, second);
	assert.equal((await stage.server.files()).length, 1);
});

test("two tabs: both open to the end, and every byte is sent once", async (t) => {
	const { stage, file } = await middle(t);
	const second = await stage.open();
	await second.untilPhase(file.name, "elsewhere");
	await endsWell(stage, file);
	assert.equal(stage.proxy.contentBytes, file.size, "every byte was sent once");
	assert.equal((await stage.server.files()).length, 1);
});
