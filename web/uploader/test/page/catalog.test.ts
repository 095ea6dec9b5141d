import { describe, expect, it } from "vitest";
import type { FilesQuery, Page, Sort } from "../../../page/api.js";
import { Catalog, comparer } from "../../../page/catalog.js";
import type { ServerFile } from "../../src/types.js";

const file = (id: string, more: Partial<ServerFile> = {}): ServerFile => ({
	id,
	name: `${id}.txt`,
	path: "",
	size: 1,
	sha1: null,
	content_type: "",
	metadata: {},
	created_at: "2026-11-25T10:00:00Z",
	updated_at: "2026-11-25T10:00:00Z",
	location: "staging",
	transfer: null,
	...more,
});

/** A server with files, that answers when told. */
class Server {
	asked: FilesQuery[] = [];
	#waiting: (() => void)[] = [];
	constructor(
		public files: ServerFile[],
		private readonly page = 3,
	) {}

	get = (query: FilesQuery, signal: AbortSignal): Promise<Page<ServerFile>> => {
		this.asked.push(query);
		return new Promise((resolve, reject) => {
			signal.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
			// What the answer says is decided when the server answers.
			this.#waiting.push(() => {
				const all = this.files.filter((f) => f.name.includes(query.name)).sort(comparer(query.sort));
				const from = query.cursor === null ? 0 : all.findIndex((f) => f.id === query.cursor) + 1;
				const items = all.slice(from, from + Math.min(query.limit, this.page));
				resolve({ items, next_cursor: from + items.length < all.length ? items.at(-1)!.id : null });
			});
		});
	};

	async answer(): Promise<void> {
		for (const answer of this.#waiting.splice(0)) answer();
		await new Promise(setImmediate);
	}
}

const loaded = async (server: Server, change: { sort?: Sort; name?: string } = {}): Promise<Catalog> => {
	const catalog = new Catalog(server.get, () => {});
	void catalog.show(change);
	for (let i = 0; i < 40; i++) await server.answer(); // 100 wanted, few a page
	return catalog;
};
const ids = (catalog: Catalog): string => catalog.items.map((f) => f.id).join("");

describe("comparer", () => {
	const a = file("a", { name: "Beta", size: 3, created_at: "2026-11-25T10:00:00.5Z" });
	const b = file("b", { name: "alpha", size: 3, created_at: "2026-11-25T10:00:00Z" });
	const c = file("c", { name: "alpha", size: 1, created_at: "2026-11-25T11:00:00Z" });
	it.each([
		["name", "bca"],
		["-name", "acb"],
		["size", "cab"],
		["-size", "bac"],
		["created_at", "bac"],
		["-created_at", "cab"],
	] as const)("%s gives %s: names without regard to case, times by value, ties by id", (sort, want) => {
		expect(
			[a, b, c]
				.sort(comparer(sort))
				.map((f) => f.id)
				.join(""),
		).toBe(want);
	});
});

describe("Catalog", () => {
	it("loads page by page", async () => {
		const server = new Server("abcdefg".split("").map((id) => file(id)));
		const catalog = new Catalog(server.get, () => {});
		void catalog.show({ sort: "name" });
		expect(catalog.loading).toBe("first");
		await server.answer();
		await server.answer();
		await server.answer();
		expect(ids(catalog)).toBe("abcdefg");
		expect(catalog.complete).toBe(true);
	});

	it("asks for more from where it stopped, and once at a time", async () => {
		const many = Array.from({ length: 250 }, (_, i) => file(String(i).padStart(3, "0")));
		const server = new Server(many, 100);
		const catalog = new Catalog(server.get, () => {});
		void catalog.show({ sort: "name" });
		await server.answer();
		expect(catalog.items).toHaveLength(100);
		expect(catalog.complete).toBe(false);
		void catalog.more();
		void catalog.more();
		expect(server.asked).toHaveLength(2);
		expect(server.asked[1]!.cursor).toBe("099");
		for (let i = 0; i < 3; i++) await server.answer();
		expect(catalog.items).toHaveLength(250);
		void catalog.more();
		expect(server.asked).toHaveLength(3);
	});

	it("does not ask again by itself after a failure", async () => {
		const many = Array.from({ length: 250 }, (_, i) => file(String(i).padStart(3, "0")));
		const server = new Server(many, 100);
		let asked = 0;
		const catalog = new Catalog(
			(q, s) => (++asked === 2 ? Promise.reject(new Error("away")) : server.get(q, s)),
			() => void catalog.more(),
		);
		void catalog.show({ sort: "name" });
		await server.answer();
		expect(asked).toBe(2);
		expect(catalog.error).not.toBeNull();
	});

	it("puts a new file where it belongs", async () => {
		const catalog = await loaded(new Server([file("a"), file("c")]), { sort: "name" });
		catalog.put(file("b"));
		expect(ids(catalog)).toBe("abc");
	});

	it("moves a renamed file, and takes it out if it is no longer searched for", async () => {
		const catalog = await loaded(new Server([file("a"), file("b"), file("c")]), { sort: "name", name: ".txt" });
		catalog.put(file("a", { name: "Z.TXT" }));
		expect(ids(catalog)).toBe("bca");
		catalog.put(file("b", { name: "b.pdf" }));
		expect(ids(catalog)).toBe("ca");
		catalog.put(file("d", { name: "d.pdf" }));
		expect(ids(catalog)).toBe("ca");
	});

	it("leaves a file after the last loaded one to its page", async () => {
		const many = Array.from({ length: 101 }, (_, i) => file(String(i).padStart(3, "0")));
		const server = new Server(many, 100);
		const catalog = new Catalog(server.get, () => {});
		void catalog.show({ sort: "name" });
		await server.answer();
		catalog.put(file("999"));
		expect(catalog.items).toHaveLength(100);
		server.files.push(file("999"));
		void catalog.more();
		await server.answer();
		expect(catalog.items.at(-1)!.id).toBe("999");
		expect(catalog.items).toHaveLength(102);
	});

	it("believes events more than a page that was on its way", async () => {
		const server = new Server([file("a"), file("b"), file("c")]);
		const catalog = await loaded(server, { sort: "name" });
		const old = server.files.slice();
		void catalog.reload();
		catalog.drop("b");
		catalog.put(file("c", { name: "0.txt", updated_at: "2026-11-25T10:00:01Z" }));
		server.files = old;
		await server.answer();
		expect(ids(catalog)).toBe("ca");
	});

	it("keeps the newer of two states of a file", async () => {
		const catalog = await loaded(new Server([file("a")]));
		catalog.put(file("a", { name: "new", updated_at: "2026-11-25T10:00:02.5Z" }));
		catalog.put(file("a", { name: "old", updated_at: "2026-11-25T10:00:02Z" }));
		expect(catalog.items[0]!.name).toBe("new");
	});

	it("hides what is being deleted, whatever events and reloads say, until it is brought back", async () => {
		const server = new Server([file("a"), file("b")]);
		const catalog = await loaded(server, { sort: "name" });
		catalog.hide(["a"], true);
		catalog.put(file("a", { size: 2 }));
		expect(ids(catalog)).toBe("b");
		void catalog.reload();
		await server.answer();
		expect(ids(catalog)).toBe("b");
		catalog.hide(["a"], false);
		expect(ids(catalog)).toBe("ab");
	});

	it("loads again as much as was loaded", async () => {
		const server = new Server(
			Array.from({ length: 150 }, (_, i) => file(String(i).padStart(3, "0"))),
			1000,
		);
		const catalog = new Catalog(server.get, () => {});
		void catalog.show({ sort: "name" });
		await server.answer();
		void catalog.more();
		await server.answer();
		void catalog.reload();
		expect(server.asked.at(-1)).toMatchObject({ cursor: null, limit: 150 });
	});

	it("tells the last question only", async () => {
		const server = new Server([file("a"), file("b")]);
		const catalog = new Catalog(server.get, () => {});
		void catalog.show({ name: "a" });
		void catalog.show({ name: "b" });
		await server.answer();
		expect(ids(catalog)).toBe("b");
	});

	it("keeps what it has when a load fails, and tells why", async () => {
		const server = new Server([file("a")]);
		const catalog = await loaded(server);
		const failing = new Error("away");
		const get = server.get;
		let fail = true;
		const again = new Catalog(
			(q, s) => (fail ? Promise.reject(failing) : get(q, s)),
			() => {},
		);
		await again.reload();
		expect(again.error).toBe(failing);
		expect(again.loaded).toBe(false);
		fail = false;
		void again.reload();
		expect(again.error).toBeNull();
		await server.answer();
		expect(ids(again)).toBe("a");
		expect(ids(catalog)).toBe("a");
	});
});
