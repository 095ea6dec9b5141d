// When the server says no, the page says why and what to do.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MiB } from "../lib/files.js";
import { Stage, middling } from "../lib/stage.js";

test("401 in the middle: a fresh token is asked for, and the upload goes on", async (t) => {
	const stage = await Stage.set(t, { token: "the first token of two" });
	const file = await stage.file("movie.mkv", middling);
	await stage.begin(file);
	await stage.server.kill();
	await stage.server.setToken("the second token of two");
	await stage.server.run();
	const [{ received_bytes: before }] = await stage.server.uploads();
	stage.proxy.forget();
	await stage.page.signIn("the second token of two");
	stage.proxy.limit(Infinity);
	await stage.page.untilPhase(file.name, "done");
	await stage.untilSame(file);
	assert.ok(before > 0);
});

test("401 with a token that the server does not take: it is asked for again", async (t) => {
	const stage = await Stage.set(t, { token: "the right token of all" });
	await stage.page.tab.evaluate(() => sessionStorage.clear());
	await stage.page.tab.reload();
	await stage.page.signIn("a wrong token, but a long one");
	await stage.page.tab.getByText("The server does not take this token").waitFor();
	await stage.page.signIn("the right token of all");
	await stage.page.ready();
	const file = await stage.file("a.bin", MiB);
	await stage.page.add([file.path]);
	await stage.page.untilPhase(file.name, "done");
	await stage.untilSame(file);
});

test("507 in words, and when there is room it is done", async (t) => {
	const stage = await Stage.set(t, { flags: ["--min-free", "100TiB"] });
	const file = await stage.file("movie.mkv", 3 * MiB);
	await stage.page.add([file.path]);
	await stage.page.row(file.name).getByText("The server's disk has no room for this file. Try again later.").waitFor();
	assert.deepEqual(await stage.server.files(), []);
	await stage.server.kill();
	stage.server.flags = [];
	await stage.server.run();
	await stage.page.press("Pause", file.name); // it would go on by itself, in a minute
	await stage.page.press("Resume", file.name);
	await stage.page.untilPhase(file.name, "done");
	await stage.untilSame(file);
});
