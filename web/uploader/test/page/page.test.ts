import { readFileSync } from "node:fs";
import { describe, expect, it, vi } from "vitest";
import { API } from "../../../page/api.js";
import { ring } from "../../../page/head.js";
import { inWords } from "../../../page/notices.js";
import { note } from "../../../page/open.js";
import { place } from "../../../page/place.js";
import { kind } from "../../../page/rows.js";
import { Session } from "../../../page/session.js";
import { en, pageText } from "../../../page/words.js";
import type { ServerFile, ServerTransfer } from "../../src/types.js";

describe("Session", () => {
	const storage = (): Map<string, string> & Pick<Storage, "getItem" | "setItem" | "removeItem"> => {
		const map = new Map<string, string>();
		return Object.assign(map, {
			getItem: (k: string) => map.get(k) ?? null,
			setItem: (k: string, v: string) => void map.set(k, v),
			removeItem: (k: string) => void map.delete(k),
		});
	};

	it("asks once for all who wait, and keeps the token for the tab", async () => {
		const ask = vi.fn(() => Promise.resolve("good"));
		const kept = storage();
		const session = new Session(ask, kept, () => {});
		expect(await Promise.all([session.renew(null), session.renew(null)])).toEqual(["good", "good"]);
		expect(ask).toHaveBeenCalledExactlyOnceWith(false);
		expect(new Session(ask, kept, () => {}).token).toBe("good");
	});

	it("gives a request that used an old token the new one without asking, and asks again if that is refused", async () => {
		const ask = vi.fn(() => Promise.resolve("second"));
		const kept = storage();
		kept.setItem("gantry-token", "first");
		const session = new Session(ask, kept, () => {});
		expect(await session.renew("older")).toBe("first");
		expect(await session.renew("first")).toBe("second");
		expect(ask).toHaveBeenCalledExactlyOnceWith(true);
	});

	it("forgets", async () => {
		const kept = storage();
		const session = new Session(
			() => Promise.resolve("t"),
			kept,
			() => {},
		);
		await session.renew(null);
		session.forget();
		expect(session.token).toBeNull();
		expect(kept.size).toBe(0);
	});
});

describe("API", () => {
	const answers = (...list: Response[]) => vi.fn<typeof fetch>(() => Promise.resolve(list.shift()!));
	const problem = (status: number, code: string): Response =>
		Response.json({ code, title: "Title", detail: "Detail." }, { status, headers: { "X-Request-Id": "r1" } });

	it("asks for a token at 401, and sends the request again with it", async () => {
		const get = answers(problem(401, "unauthenticated"), Response.json({ id: "a" }));
		const api = new API(
			new Session(
				() => Promise.resolve("secret"),
				null,
				() => {},
			),
			get,
		);
		await api.rename("a", "b");
		expect(new Headers(get.mock.calls[0]![1]!.headers).get("Authorization")).toBeNull();
		expect(new Headers(get.mock.calls[1]![1]!.headers).get("Authorization")).toBe("Bearer secret");
		expect(get.mock.calls[1]![1]!.body).toBe('{"name":"b"}');
	});

	it("gives up when nobody gives one", async () => {
		const api = new API(
			new Session(
				() => Promise.resolve(null),
				null,
				() => {},
			),
			answers(problem(401, "unauthenticated")),
		);
		await expect(api.uploads()).rejects.toMatchObject({ code: "unauthenticated", status: 401 });
	});

	it("does not ask while the page goes", async () => {
		const ask = vi.fn(() => Promise.resolve("t"));
		const api = new API(new Session(ask, null, () => {}), answers(problem(401, "unauthenticated")));
		await expect(api.delete("files", "a", true)).rejects.toMatchObject({ status: 401 });
		expect(ask).not.toHaveBeenCalled();
	});

	it("takes what is gone already for deleted", async () => {
		const api = new API(
			new Session(
				() => Promise.resolve(null),
				null,
				() => {},
			),
			answers(problem(404, "not_found"), problem(409, "conflict")),
		);
		await api.delete("files", "a", false);
		await expect(api.delete("files", "a", false)).rejects.toMatchObject({
			code: "conflict",
			detail: "Detail.",
			requestId: "r1",
		});
	});

	it("tells a proxy's page from the server's answer, and no answer from both", async () => {
		const session = new Session(
			() => Promise.resolve(null),
			null,
			() => {},
		);
		await expect(new API(session, answers(new Response("<html>", { status: 502 }))).uploads()).rejects.toMatchObject({
			code: "bad_answer",
			status: 502,
		});
		await expect(new API(session, () => Promise.reject(new TypeError())).uploads()).rejects.toMatchObject({
			code: "network",
			status: 0,
		});
	});
});

describe("place", () => {
	const now = Date.parse("2026-11-25T10:00:00Z");
	const words = pageText("en");
	const file = (location: ServerFile["location"], transfer: Partial<ServerTransfer> | null): ServerFile =>
		({ location, transfer: transfer && { id: "t", bytes: 0, size: 200, attempts: 1, ...transfer } }) as ServerFile;
	it.each([
		[file("staging", { state: "queued" }), "Waiting", "rest"],
		[file("staging", { state: "running", bytes: 86 }), "Being moved 43%", "busy"],
		[file("staging", { state: "verifying" }), "Being checked", "busy"],
		[file("staging", { state: "stored" }), "Stored", "rest"],
		[file("store", { state: "stored" }), "Stored", "rest"],
		[file("store", null), "Stored", "rest"],
		[file("staging", null), "Received", "rest"],
		[file("staging", { state: "retrying", next_at: "2026-11-25T09:59:59Z" }), "Retrying", "warn"],
		[file("staging", { state: "dead" }), "Not moved", "bad"],
		[file("staging", { state: "cancelled" }), "Move stopped", "rest"],
		[file("lost", { state: "stored" }), "Lost", "bad"],
	] as const)("%# %s", (f, text, tone) => {
		expect(place(f, words, now)).toMatchObject({ text, tone });
	});

	it("tells when it is tried again, and why it failed", () => {
		const told = place(
			file("staging", { state: "retrying", next_at: "2026-11-25T10:05:00Z", last_error: "no route" }),
			words,
			now,
		);
		expect(told.text).toBe(`Retrying at ${words.when(new Date(now + 300_000), new Date(now))}`);
		expect(told.reason).toBe("no route");
	});

	it("does not divide by nothing", () => {
		expect(place(file("staging", { state: "running", size: 0 }), words, now).progress).toBe(0);
	});
});

describe("notices", () => {
	it("are the server's own sentences, and told in the page's language", () => {
		const server = readFileSync(new URL("../../../../cmd/gantry/serve.go", import.meta.url), "utf8");
		for (const key of ["notice.store", "notice.disk"] as const) {
			expect(server).toContain(`"${en[key]}"`);
			expect(inWords(en[key], pageText("zh"))).toMatch(/\p{Script=Han}/u);
		}
		expect(inWords("It rains.", pageText("zh"))).toBe("It rains.");
	});
});

describe("open uploads", () => {
	const now = Date.parse("2026-11-25T10:00:00Z");
	const words = pageText("en");
	const open = {
		id: "u",
		name: "n",
		path: "",
		size: 200,
		received_bytes: 86,
		updated_at: "2026-11-25T09:58:00Z",
		expires_at: "",
	};
	const time = words.when(new Date(now - 120_000), new Date(now));
	it.each([
		[open, `43% of 200 B · last active ${time}`],
		[{ ...open, size: null }, `86 B so far · last active ${time}`],
		[{ ...open, size: 0, received_bytes: 0 }, `0% of 0 B · last active ${time}`],
		[{ ...open, updated_at: "2026-11-25T09:59:30Z" }, "43% of 200 B · being sent by another device or tab"],
	])("%# %s", (upload, want) => {
		expect(note(upload, words, now)).toBe(want);
	});
});

describe("ring", () => {
	it("is filled as far as it is told", () => {
		expect(ring(43)).toContain('stroke-dasharray="43 100"');
	});
});

describe("kind", () => {
	it.each([
		["a.mp4", "mp4"],
		["backup.tar.zst", "zst"],
		["README", ""],
		[".bashrc", ""],
		["world.blend", ""],
		["a.", ""],
	])("%s: %s", (name, want) => {
		expect(kind(name)).toBe(want);
	});
});
