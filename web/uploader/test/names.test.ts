import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { API } from "../src/api.js";
import { Names } from "../src/names.js";
import { FakeServer } from "./fake.js";
import { eventually } from "./eventually.js";

let server: FakeServer;
let names: Names;

beforeEach(() => {
	server = new FakeServer();
	server.install();
	names = new Names(new API({ endpoint: "http://server" }), new AbortController().signal);
});

afterEach(() => vi.unstubAllGlobals());

const there = (name: string, path = "p") => server.addFile(name, path, new Uint8Array(1));

it("finds exactly the name, in exactly the folder", async () => {
	there("A.txt");
	there("a.txt.bak");
	there("a.txt", "p/q");
	expect(await names.find("a.txt", "p")).toBeNull();
	const file = there("a.txt");
	names.note(file);
	await eventually(async () => expect(await names.find("a.txt", "p")).toEqual(file));
	expect(server.count("GET /v1/files")).toBe(1);
});

it("asks once for a folder, however many ask", async () => {
	await Promise.all(Array.from({ length: 20 }, (_, i) => names.find(`${i}`, "p")));
	expect(server.count("GET /v1/files")).toBe(1);
});

it("asks by name where a folder is too large", async () => {
	for (let i = 0; i < 1500; i++) {
		there(`file ${i}.txt`);
	}
	expect((await names.find("file 1400.txt", "p"))?.name).toBe("file 1400.txt");
	expect(await names.find("file 9999.txt", "p")).toBeNull();
	for (let i = 0; i < 1100; i++) {
		there(`${i}.longer`);
	}
	const last = there(".longer");
	expect(await names.find(".longer", "p")).toEqual(last); // on the second page of those that contain it
});

it("asks again after a failure", async () => {
	server.fault = (_, n) => (n === 0 ? "reset" : undefined);
	await expect(names.find("a", "p")).rejects.toMatchObject({ code: "network" });
	expect(await names.find("a", "p")).toBeNull();
});

it.each([
	["report.pdf", "report (2).pdf"],
	["archive.tar.gz", "archive.tar (2).gz"],
	["README", "README (2)"],
	[".profile", ".profile (2)"],
])("%s becomes %s", async (name, free) => {
	expect(await names.free(name, "p", () => false)).toBe(free);
});

it("passes over what is taken, here or there", async () => {
	there("a (2).txt");
	expect(await names.free("a.txt", "p", (name) => name === "a (3).txt")).toBe("a (4).txt");
});
