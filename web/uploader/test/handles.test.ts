import { describe, expect, it, vi } from "vitest";
import { type Found, permitted, walk } from "../src/handles.js";

/** A folder is an object, a file its text, and what cannot be read null. */
type Tree = { [name: string]: Tree | string | null };

const refused = new DOMException("A requested file or directory could not be found", "NotFoundError");

function handleOf(name: string, node: Tree | string | null): FileSystemHandle {
	const handle = {
		kind: node === null || typeof node === "string" ? "file" : "directory",
		name,
		getFile: async () => {
			if (node === null) {
				throw refused;
			}
			return new File([node as string], name);
		},
		values: async function* () {
			for (const [child, below] of Object.entries(node as Tree)) {
				yield handleOf(child, below);
			}
		},
	};
	return handle as unknown as FileSystemHandle;
}

function entryOf(name: string, node: Tree | string | null): FileSystemEntry {
	const isDirectory = node !== null && typeof node === "object";
	const entry = {
		name,
		isDirectory,
		isFile: !isDirectory,
		file: (resolve: (file: File) => void, reject: (error: unknown) => void) =>
			node === null ? reject(refused) : resolve(new File([node as string], name)),
		createReader: () => {
			const left = Object.entries(node as Tree).map(([child, below]) => entryOf(child, below));
			return { readEntries: (resolve: (batch: FileSystemEntry[]) => void) => setImmediate(() => resolve(left.splice(0, 100))) };
		},
	};
	return entry as unknown as FileSystemEntry;
}

/** A drop as browsers have it: when the event is over, it is empty. */
function drop(tree: Tree, by: "handles" | "entries" | "files"): { transfer: DataTransfer; over(): void } {
	const items = Object.entries(tree).map(([name, node]) => {
		const file = typeof node === "string" ? new File([node], name) : new File([], name);
		return {
			kind: "file",
			...(by === "handles" ? { getAsFileSystemHandle: async () => (items.length ? handleOf(name, node) : null) } : {}),
			webkitGetAsEntry: () => (by === "files" || !items.length ? null : entryOf(name, node)),
			getAsFile: () => (items.length ? file : null),
		};
	});
	items.unshift({ kind: "string", webkitGetAsEntry: () => null, getAsFile: () => null } as never);
	return { transfer: { items } as unknown as DataTransfer, over: () => items.splice(0) };
}

async function collect(found: AsyncIterable<Found>): Promise<Found[]> {
	const all: Found[] = [];
	for await (const one of found) {
		all.push(one);
	}
	return all;
}

const paths = (all: Found[]): string[] => all.map(({ file, path }) => `${path}|${file.name}`);

const tree: Tree = {
	"z.txt": "z",
	photos: { "b.jpg": "b", "2026": { "文件.png": "p", empty: {} }, "a.jpg": "a", ".hidden": "h" },
	"a.txt": "a",
};
const expected = ["|z.txt", "photos/2026|文件.png", "photos|.hidden", "photos|a.jpg", "photos|b.jpg", "|a.txt"].sort();

describe.each(["handles", "entries"] as const)("a drop with %s", (by) => {
	it("gives all files with their folders, in the same order each time, also when it is asked for later", async () => {
		const { transfer, over } = drop(tree, by);
		const walking = walk(transfer);
		over();
		const found = await collect(walking);
		expect(paths(found)).toEqual(["|z.txt", "photos|.hidden", "photos/2026|文件.png", "photos|a.jpg", "photos|b.jpg", "|a.txt"]);
		expect(paths(found).sort()).toEqual(expected);
		expect(await found[2]?.file.text()).toBe("p");
		expect(found.every(({ handle }) => (handle !== undefined) === (by === "handles"))).toBe(true);
	});

	it("gives folders of thousands of files", async () => {
		const many: Tree = {};
		for (let i = 0; i < 2345; i++) {
			many[`${i}`] = "x";
		}
		expect(await collect(walk(drop({ many }, by).transfer))).toHaveLength(2345);
	});

	it("gives what can be read, and then tells what cannot", async () => {
		const walking = walk(drop({ folder: { a: "a", b: null, c: "c", d: null } }, by).transfer);
		const found: Found[] = [];
		const all = (async () => {
			for await (const one of walking) {
				found.push(one);
			}
		})();
		await expect(all).rejects.toThrow(/^folder\/b cannot be read: .*\nfolder\/d cannot be read: /);
		expect(paths(found)).toEqual(["folder|a", "folder|c"]);
	});
});

it("a paste has plain files only", async () => {
	const { transfer, over } = drop({ "image.png": "p" }, "files");
	const walking = walk(transfer);
	over();
	expect(paths(await collect(walking))).toEqual(["|image.png"]);
});

it("where the browser refuses handles, entries do", async () => {
	const { transfer } = drop({ "a.txt": "a", folder: { b: "b" } }, "entries");
	for (const item of transfer.items) {
		Object.assign(item, { getAsFileSystemHandle: () => Promise.reject(new DOMException("no", "NotAllowedError")) });
	}
	expect(paths(await collect(walk(transfer)))).toEqual(["|a.txt", "folder|b"]);
});

it("over plain HTTP no handle is asked for", async () => {
	vi.stubGlobal("isSecureContext", false);
	const ask = vi.fn(async () => null);
	const { transfer } = drop({ "a.txt": "a" }, "entries");
	for (const item of transfer.items) {
		Object.assign(item, { getAsFileSystemHandle: ask });
	}
	expect(paths(await collect(walk(transfer)))).toEqual(["|a.txt"]);
	expect(ask).not.toHaveBeenCalled();
	vi.unstubAllGlobals();
});

it("handles are walked as well", async () => {
	expect(paths(await collect(walk(handleOf("photos", tree.photos!))))).toHaveLength(4);
	expect(paths(await collect(walk(handleOf("a.txt", "a"))))).toEqual(["|a.txt"]);
});

describe("permitted", () => {
	const handle = (query: unknown, request?: unknown): FileSystemFileHandle =>
		({ queryPermission: query, requestPermission: request }) as unknown as FileSystemFileHandle;

	it("asks the user only when told to", async () => {
		const request = vi.fn(async () => "granted");
		const asking = handle(async () => "prompt", request);
		expect(await permitted(asking, false)).toBe(false);
		expect(request).not.toHaveBeenCalled();
		expect(await permitted(asking, true)).toBe(true);
		expect(request).toHaveBeenCalledWith({ mode: "read" });
	});

	it("takes the answers as they are", async () => {
		expect(await permitted(handle(async () => "granted"), false)).toBe(true);
		expect(await permitted(handle(async () => "denied", async () => "granted"), true)).toBe(false);
		expect(await permitted(handle(async () => "prompt", async () => "denied"), true)).toBe(false);
	});

	it("is false where the browser throws, and true where it has no such thing", async () => {
		const refuse = async (): Promise<never> => {
			throw new DOMException("User activation is required", "SecurityError");
		};
		expect(await permitted(handle(async () => "prompt", refuse), true)).toBe(false);
		expect(await permitted(handle(undefined), false)).toBe(true);
	});
});
