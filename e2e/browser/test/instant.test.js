// What the server has already is not sent.
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { test } from "node:test";
import { MiB } from "../lib/files.js";
import { Stage } from "../lib/stage.js";

test("instant: the server has the content, and says why nothing was sent", async (t) => {
	const stage = await Stage.set(t);
	const file = await stage.file("original.bin", 64 * MiB);
	await stage.server.stored((await stage.server.finish(await stage.server.send(file, "known.bin"))).id);
	await stage.page.add([file.path]);
	await stage.page.untilPhase(file.name, "instant");
	assert.equal(stage.proxy.contentBytes, 0, "no byte of it was sent");
	await stage.page.row(file.name).getByText("The server already has this exact content, verified").waitFor();
	await stage.untilSame(file);
});

test("instant midway: the server gets the content from elsewhere while it is sent", async (t) => {
	const stage = await Stage.set(t);
	const file = await stage.file("original.bin", 128 * MiB);
	const other = await stage.server.send(file, "known.bin"); // all but completed, so that nobody knows of it yet
	stage.proxy.limit(8 * MiB);
	await stage.page.add([file.path]);
	await stage.untilSent(8 * MiB);
	await stage.server.stored((await stage.server.finish(other)).id);
	await stage.page.untilPhase(file.name, "instant", 120);
	assert.ok(stage.proxy.contentBytes < file.size, "not all of it was sent");
	await stage.untilSame(file);
});

test("not instant: the beginning is the same, the rest is not", async (t) => {
	const stage = await Stage.set(t);
	const file = await stage.file("original.bin", 32 * MiB);
	await stage.server.stored((await stage.server.finish(await stage.server.send(file, "known.bin"))).id);
	const handle = await fs.open(file.path, "r+");
	await handle.write(Buffer.from("something else"), 0, undefined, file.size - 100);
	await handle.close();
	await stage.page.add([file.path]);
	await stage.page.untilPhase(file.name, "done");
	assert.equal(stage.proxy.contentBytes, file.size);
	await stage.untilSame(file);
});
