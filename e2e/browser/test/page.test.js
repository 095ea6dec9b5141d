// What else people do on the page: cancel, decide about names that are taken, and use "my files".
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { test } from "node:test";
import { browserName, drop } from "../lib/browser.js";
import { KiB, MiB, sha256 } from "../lib/files.js";
import { until } from "../lib/page.js";
import { Stage, middling } from "../lib/stage.js";

/** Names and sizes of all files on the server. */
async function listing(stage) {
	return (await stage.server.files()).map((file) => `${file.name} ${file.size}`).sort();
}

async function untilListing(stage, ...wanted) {
	let now;
	await until(`the server has ${wanted}`, async () => {
		now = await listing(stage);
		return JSON.stringify(now) === JSON.stringify(wanted.toSorted());
	}, 20).catch((error) => {
		throw new Error(`${error.message}; it has ${now}`);
	});
}

test("cancelled: the server keeps nothing of it", async (t) => {
	const stage = await Stage.set(t);
	const file = await stage.file("movie.mkv", middling);
	await stage.begin(file);
	await stage.page.press("Cancel", file.name);
	await until("the server has dropped the upload", async () => (await stage.server.uploads()).length === 0);
	assert.deepEqual(await stage.server.files(), []);
});

test("paused and resumed all at once", async (t) => {
	const stage = await Stage.set(t);
	stage.proxy.limit(16 * MiB);
	const files = [];
	for (let i = 0; i < 6; i++) files.push(await stage.file(`part ${i}.bin`, 20 * MiB));
	await stage.page.add(files.map((file) => file.path));
	await stage.untilSent(10 * MiB);
	await stage.page.tab.getByRole("button", { name: "Pause all" }).click();
	for (const file of files) await stage.page.untilPhase(file.name, ["paused", "done"]);
	stage.proxy.limit(Infinity);
	await stage.page.tab.getByRole("button", { name: "Resume all" }).click();
	for (const file of files) await stage.untilSame(file);
});

for (const [how, wanted] of [
	["Skip", ["report.pdf 1000"]],
	["Replace", ["report.pdf 2000"]],
	["Keep both", ["report (2).pdf 2000", "report.pdf 1000"]],
]) {
	test(`the name is taken: ${how.toLowerCase()}`, async (t) => {
		const stage = await Stage.set(t);
		await stage.server.finish(await stage.server.send(await stage.file("report.pdf", 1000), "report.pdf"));
		const file = await stage.file("report.pdf", 2000);
		await stage.page.add([file.path]);
		await stage.page.untilPhase(file.name, "conflict");
		await stage.page.row(file.name).getByRole("button", { name: how }).click();
		await untilListing(stage, ...wanted);
		if (how !== "Skip") await stage.untilSame(file, wanted[0].replace(/ \d+$/, ""));
	});
}

test("the names are taken: keep both, for all", async (t) => {
	const stage = await Stage.set(t);
	const files = [];
	for (const name of ["a.txt", "b.txt", "c.txt"]) {
		await stage.server.finish(await stage.server.send(await stage.file(name, 10), name));
		files.push(await stage.file(name, 20));
	}
	await stage.page.add(files.map((file) => file.path));
	for (const file of files) await stage.page.untilPhase(file.name, "conflict");
	const row = stage.page.row("a.txt");
	await row.getByRole("checkbox").check();
	await row.getByRole("button", { name: "Keep both" }).click();
	await untilListing(stage, "a.txt 10", "a (2).txt 20", "b.txt 10", "b (2).txt 20", "c.txt 10", "c (2).txt 20");
});

test("my files: what is uploaded elsewhere appears by itself, and is renamed, found, downloaded, deleted and brought back", async (t) => {
	const stage = await Stage.set(t);
	const { tab } = stage.page;
	const file = await stage.file("photo.jpg", 300 * KiB);
	const other = await stage.file("invoice.pdf", 100 * KiB);
	const grid = tab.getByRole("grid");
	const row = (name) => grid.getByRole("row").filter({ hasText: name });
	for (const f of [file, other]) await stage.server.finish(await stage.server.send(f, f.name));
	await row(file.name).getByText("Stored").first().waitFor(); // by server-sent events
	await row(other.name).waitFor();

	await row(file.name).hover();
	await row(file.name).getByRole("button", { name: "Rename photo.jpg" }).click();
	await tab.getByRole("textbox", { name: "New name of photo.jpg" }).fill("夏天.jpg");
	await tab.keyboard.press("Enter");
	await untilListing(stage, `夏天.jpg ${file.size}`, `invoice.pdf ${other.size}`);

	await tab.getByRole("searchbox", { name: "Search by name" }).fill("夏");
	await row(other.name).waitFor({ state: "detached" });
	await row("夏天.jpg").hover();
	const [download] = await Promise.all([tab.waitForEvent("download"), row("夏天.jpg").getByRole("button", { name: "Download 夏天.jpg" }).click()]);
	assert.equal(download.suggestedFilename(), "夏天.jpg");
	assert.equal(await sha256({ path: await download.path() }), await sha256(file));

	await row("夏天.jpg").getByRole("button", { name: "Delete 夏天.jpg" }).click();
	await row("夏天.jpg").waitFor({ state: "detached" });
	await tab.getByRole("button", { name: "Undo" }).click();
	await row("夏天.jpg").waitFor();
	await tab.getByRole("searchbox", { name: "Search by name" }).fill("");
	await row(other.name).hover();
	await row(other.name).getByRole("button", { name: "Delete invoice.pdf" }).click();
	await untilListing(stage, `夏天.jpg ${file.size}`);
});

test("an upload of another device goes on here when its file is dropped", { skip: browserName === "firefox" && "nothing can drop there" }, async (t) => {
	const stage = await Stage.set(t);
	const file = await stage.file("movie.mkv", 64 * MiB);
	const part = await fs.open(file.path);
	const headers = { "content-type": "application/json" };
	const upload = await stage.server.json("/v1/uploads", { method: "POST", headers, body: JSON.stringify({ name: file.name, size: file.size }) });
	const { buffer } = await part.read(Buffer.alloc(upload.chunk_size), 0, upload.chunk_size, 0);
	await part.close();
	await stage.server.request(`/v1/uploads/${upload.id}/chunks/0`, { method: "PUT", body: buffer });

	const row = stage.page.tab.getByRole("listitem").filter({ hasText: "Drop the file here to go on" });
	const box = await row.boundingBox({ timeout: 10_000 });
	await drop(stage.page.tab, { x: box.x + 30, y: box.y + box.height / 2 }, [file.path]);
	await stage.untilSame(file);
	assert.equal(stage.proxy.contentBytes, file.size - upload.chunk_size, "what the server had was not sent again");
	assert.deepEqual(await stage.server.uploads(), []);
});
