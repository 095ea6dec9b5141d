// Files of every size, number and name arrive as they are.
import assert from "node:assert/strict";
import { test } from "node:test";
import { browserName } from "../lib/browser.js";
import { KiB, MiB, parseSize, sha256 } from "../lib/files.js";
import { until } from "../lib/page.js";
import { Stage } from "../lib/stage.js";

const large = parseSize(process.env.E2E_LARGE ?? "256MiB");

test(`a file of ${large / MiB} MiB`, async (t) => {
	const stage = await Stage.set(t);
	const file = await stage.file("large.bin", large);
	await stage.page.add([file.path]);
	await stage.page.untilPhase(file.name, "done", 300);
	await stage.untilSame(file);
	assert.equal(stage.proxy.contentBytes, file.size, "every byte was sent once");
});

test("a file of 0 bytes, of 1 byte, of exactly a chunk and of one byte more", async (t) => {
	const stage = await Stage.set(t);
	for (const size of [0, 1, 8 * MiB, 8 * MiB + 1]) {
		const file = await stage.file(`${size} bytes.bin`, size);
		await stage.page.add([file.path]);
		await stage.page.untilPhase(file.name, "done");
		await stage.untilSame(file);
	}
});

test("names in any script", async (t) => {
	const stage = await Stage.set(t);
	const names = [
		"季度报告（最终版）.pdf",
		"отчёт за год.txt",
		"تقرير السنة.txt",
		"דוח שנתי.txt",
		"वार्षिक रिपोर्ट.txt",
		"보고서.txt",
		"รายงานประจำปี.txt",
		"family 👨‍👩‍👧 🏝.jpg",
		"cafe\u0301 decomposed.txt",
		"caf\u00e9 composed.txt",
		"100% of #1? [a] {b} ~ & 'c' \"d\" <e>.txt",
		"back\\slash;semicolon:colon|pipe*.txt",
		".hidden",
		"no extension",
		`${"long ".repeat(48)}name.txt`,
	];
	const files = [];
	for (const name of names) files.push(await stage.file(name, 3 * KiB + files.length));
	await stage.page.add(files.map((file) => file.path));
	for (const file of files) await stage.untilSame(file);
	assert.deepEqual((await stage.server.files()).map((file) => file.name).sort(), names.map((name) => name.normalize("NFC")).sort());
});

test("a folder of 500 files", { skip: browserName === "firefox" && "nothing can drop or choose a folder there" }, async (t) => {
	const stage = await Stage.set(t);
	const local = new Map();
	for (let i = 0; i < 500; i++) {
		const dir = `photos/${2000 + (i % 7)}${i % 3 === 0 ? "/夏天/deep" : ""}`;
		const file = await stage.file(`${dir}/image ${i}.jpg`, (i * 37) % 5000);
		local.set(`${dir}/${file.name}`, file);
	}
	await stage.page.drop([stage.local("photos")]);
	const files = await until("500 files are on the server", async () => {
		const there = await stage.server.files();
		return there.length >= 500 && there;
	}, 180);
	assert.deepEqual(new Set(files.map((file) => `${file.path}/${file.name}`)), new Set(local.keys()));
	for (const file of files) {
		assert.equal(await stage.server.sha256(file.id), await sha256(local.get(`${file.path}/${file.name}`)), file.name);
	}
});
