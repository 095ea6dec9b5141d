// Measures the uploader in Debian's Chromium on this machine and prints tables in Markdown. See scripts/bench-browser.sh.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import { Browser, drop } from "../lib/browser.js";
import { GiB, KiB, MiB, makeFile, parseSize, renew } from "../lib/files.js";
import { Proxy } from "../lib/proxy.js";
import { Scope } from "../lib/scope.js";
import { Server, temporary } from "../lib/server.js";
import { UploaderPage, until } from "../lib/page.js";

const size = parseSize(process.env.BENCH_SIZE ?? "1GiB");
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const assets = process.env.BENCH_ASSETS; // the bundles of this directory, see the script
const tusd = process.env.BENCH_TUSD;

async function within(work) {
	const scope = new Scope();
	try {
		return await work(scope);
	} finally {
		await scope.end();
	}
}

function median(values) {
	const sorted = values.toSorted((a, b) => a - b);
	const half = sorted.length >> 1;
	return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

const results = [];

function result(what, value, target, met) {
	results.push({ what, value, target, met });
	console.log(`| ${what} | ${value} | ${target} | ${met ? "yes" : "NO"} |`);
}

/** An address of its own for a page with the bundles. */
async function host(scope) {
	const types = { ".js": "text/javascript", ".html": "text/html" };
	const page = '<!doctype html><title>bench</title><script src="/uppy.js"></script><script src="/gantry.js"></script><input type="file">';
	const server = http.createServer(async (request, response) => {
		const name = path.basename(request.url);
		response.setHeader("Content-Type", types[path.extname(name)] ?? types[".html"]);
		response.end(name === "" ? page : await fs.readFile(path.join(assets, name)).catch(() => ""));
	});
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	scope.after(() => server.close());
	return `http://localhost:${server.address().port}`;
}

async function startTusd(scope) {
	const dir = await temporary(scope);
	const child = spawn(tusd, ["-host", "127.0.0.1", "-port", "0", "-upload-dir", dir, "-show-greeting=false"], { stdio: ["ignore", "pipe", "pipe"] });
	scope.after(async () => {
		child.kill("SIGKILL");
		await once(child, "exit");
	});
	const endpoint = await new Promise((resolve, reject) => {
		createInterface({ input: child.stdout }).on("line", (line) => {
			const [, url] = line.match(/upload files to: (\S+)/) ?? [];
			if (url !== undefined) resolve(url.replace("127.0.0.1", "localhost"));
		});
		child.on("exit", () => reject(new Error("tusd does not start")));
	});
	const clear = async () => {
		for (const name of await fs.readdir(dir)) await fs.rm(path.join(dir, name));
	};
	return { endpoint, clear };
}

/** Uploads one large file in turns by each of the ways, and hashes it alone. */
async function throughput(scope) {
	const origin = await host(scope);
	const server = await Server.start(scope, { flags: ["--allowed-origins", origin, "--delete-grace", "1s"] });
	const gantry = `http://${server.address.replace("127.0.0.1", "localhost")}`;
	const tus = await startTusd(scope);
	const browser = await Browser.start(scope, await temporary(scope));
	const file = await makeFile(await temporary(scope), "bench.bin", size);

	const fresh = async (work) => {
		await renew(file);
		const page = await browser.tab(origin);
		await page.locator("input").setInputFiles(file.path);
		const took = await work(page);
		await page.close();
		return took;
	};
	const upload = async (page, instant, phase) => {
		const run = (e, [endpoint, instant]) => window.gantry(e.files[0], endpoint, instant);
		const answer = await page.locator("input").evaluate(run, [gantry, instant]);
		if (answer.phase !== phase) throw new Error(`the upload was ${answer.phase} instead of ${phase}`);
		return answer.took;
	};
	const stored = async () => {
		const [newest] = (await server.files()).toSorted((a, b) => (a.created_at < b.created_at ? 1 : -1));
		return server.stored(newest.id);
	};
	const forget = async () => {
		for (const { id } of await server.files()) await server.request(`/v1/files/${id}`, { method: "DELETE" });
	};
	const ways = {
		async hashing() {
			return fresh((page) => page.locator("input").evaluate((e) => window.hashing(e.files[0])));
		},
		async instant() {
			return fresh(async (page) => {
				await server.finish(await server.send(file, "known"));
				await stored();
				const took = await upload(page, true, "instant");
				await forget();
				return took;
			});
		},
		async "hashing on"() {
			const took = await fresh((page) => upload(page, true, "done"));
			await stored(); // the transfer to the store is not to disturb the next
			await forget();
			return took;
		},
		async "hashing off"() {
			const took = await fresh((page) => upload(page, false, "done"));
			await stored();
			await forget();
			return took;
		},
		async uppy() {
			const run = (e, endpoint) => window.uppy(e.files[0], endpoint);
			const took = await fresh((page) => page.locator("input").evaluate(run, tus.endpoint));
			await tus.clear();
			return took;
		},
	};
	const times = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
	for (let round = 0; round < rounds; round++) {
		const names = Object.keys(ways);
		for (let i = 0; i < names.length; i++) {
			const way = names[(i + round) % names.length]; // who is first changes
			times[way].push(await ways[way]());
		}
	}
	const seconds = Object.fromEntries(Object.entries(times).map(([way, all]) => [way, median(all) / 1000]));
	console.log(`\n| ${size / MiB} MiB, median of ${rounds} | seconds | MB/s |\n|---|--:|--:|`);
	for (const [way, s] of Object.entries(seconds)) console.log(`| ${way} | ${s.toFixed(2)} | ${Math.round(size / s / 1e6)} |`);
	return seconds;
}

/** The time from the drop on the page to the first byte of the first chunk, in milliseconds. */
async function firstByte(scope, fileSize) {
	const server = await Server.start(scope);
	const proxy = await Proxy.start(server.address);
	scope.after(() => proxy.stop());
	const origin = `http://localhost:${proxy.port}`;
	const browser = await Browser.start(scope, await temporary(scope));
	const dir = await temporary(scope);
	const page = new UploaderPage(await browser.tab(origin));
	await page.ready();
	await page.tab.evaluate(() => addEventListener("drop", (e) => (window.dropped = performance.timeOrigin + e.timeStamp), true));
	const times = [];
	for (let i = 0; i < Math.max(rounds, 9); i++) {
		const name = `first-${i}.bin`;
		const file = await makeFile(dir, name, Math.min(fileSize, MiB));
		await fs.truncate(file.path, fileSize); // the rest is a hole
		const begun = proxy.next((request) => request.isContent);
		await page.drop([file.path]);
		const { at } = await begun;
		times.push(at - (await page.tab.evaluate(() => window.dropped)));
		await page.tab.getByRole("button", { name: new RegExp(`^(Cancel|Remove) ${name}`) }).click();
		await fs.rm(file.path);
	}
	return times;
}

/** The longest task of the page's main thread while files go up, in milliseconds; 0 if none was over 50. */
async function longestTask(scope, files) {
	const server = await Server.start(scope);
	const browser = await Browser.start(scope, await temporary(scope));
	await browser.context.addInitScript(() => {
		window.longest = 0;
		const observer = new PerformanceObserver((list) => {
			for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
		});
		observer.observe({ type: "longtask", buffered: true });
	});
	const dir = await temporary(scope);
	for (const [name, fileSize] of files) await makeFile(dir, name, fileSize);
	const page = new UploaderPage(await browser.tab(`http://${server.address.replace("127.0.0.1", "localhost")}`));
	await page.ready();
	await page.tab.evaluate(() => (window.longest = 0)); // what came before is the loading of the page
	await page.drop([dir]);
	await until("all files are on the server", async () => (await server.files()).length === files.length, 300);
	return page.tab.evaluate(() => window.longest);
}

console.log("| what | measured | target | met |\n|---|--:|--:|---|");
for (const fileSize of [256 * KiB, 64 * MiB, 16 * GiB]) {
	const time = median(await within((scope) => firstByte(scope, fileSize)));
	result(`from the drop to the first byte, ${fileSize / MiB} MiB`, `${Math.round(time)} ms`, "≤ 150 ms", time <= 150);
}
const many = Array.from({ length: 500 }, (_, i) => [`many-${i}.bin`, 16 * KiB]);
for (const [what, files] of [["one large file", [["large.bin", size]]], ["500 files", many]]) {
	const longest = await within((scope) => longestTask(scope, files));
	const text = longest === 0 ? "< 50 ms" : `${Math.round(longest)} ms`;
	result(`longest task of the main thread, ${what}`, text, "≤ 50 ms", longest <= 50);
}
const seconds = await within(throughput);
const ratio = (a, b) => seconds[a] / seconds[b];
console.log("\n| what | measured | target | met |\n|---|--:|--:|---|");
const beside = ratio("hashing off", "hashing on");
result("speed with hashing ÷ without", beside.toFixed(2), "≥ 0.80", beside >= 0.8);
const faster = ratio("uppy", "hashing on");
result("speed ÷ Uppy's with tusd", faster.toFixed(2), "≥ 1.30", faster >= 1.3);
const instant = ratio("instant", "hashing");
result("instant upload ÷ hashing alone, time", instant.toFixed(2), "≤ 1.15", instant <= 1.15);
console.log(`\n${results.filter((r) => r.met).length} of ${results.length} targets met`);
