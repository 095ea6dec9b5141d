// Files and folders that were dropped, pasted or picked, by whichever of three APIs the browser has: file handles (File System
// Access: Chromium, secure contexts), entries (webkitGetAsEntry: everywhere), plain files.

/** One file, and the folder it is in, relative to what was dropped: "" or "photos/2026", without a slash at the ends. */
export interface Found {
	file: File;
	path: string;
	/** For reading it again after a reload, where the browser has that. */
	handle?: FileSystemFileHandle;
}

/** Not in TypeScript's DOM, since not all browsers have it. */
interface HandleItem extends DataTransferItem {
	getAsFileSystemHandle?(): Promise<FileSystemHandle | null>;
}

interface Permissions {
	queryPermission?(mode: { mode: "read" }): Promise<PermissionState>;
	requestPermission?(mode: { mode: "read" }): Promise<PermissionState>;
}

/** A file or folder, whichever API it came from. */
interface Entry {
	name: string;
	/** null: a file. */
	children: (() => Promise<Entry[]>) | null;
	open(): Promise<{ file: File; handle?: FileSystemFileHandle }>;
}

/**
 * Lists the files of a drop, a paste or a picked folder, those below folders too. Must be called in the event itself: after it a
 * DataTransfer is empty, so that is read before walk() returns, and not when the first file is asked for.
 *
 * The order is that of the drop, and within a folder that of the names, so it is the same each time. Hidden files are listed as
 * well. Empty folders are not: the server knows a folder only as the path of its files. What cannot be read does not stop
 * the rest: at the end an AggregateError tells all of it.
 */
export function walk(what: DataTransfer | FileSystemHandle): AsyncIterable<Found> {
	return list("kind" in what ? [Promise.resolve(ofHandle(what))] : dropped(what));
}

/** Whether the file may be read. ask: ask the user if need be, which works only in a click. Never rejects. */
export async function permitted(handle: FileSystemFileHandle, ask: boolean): Promise<boolean> {
	const { queryPermission, requestPermission } = handle as Permissions;
	try {
		let state = (await queryPermission?.call(handle, { mode: "read" })) ?? "granted";
		if (state === "prompt" && ask) {
			state = (await requestPermission?.call(handle, { mode: "read" })) ?? "granted";
		}
		return state === "granted";
	} catch {
		return false;
	}
}

async function* list(nodes: Promise<Entry | null>[]): AsyncGenerator<Found> {
	const errors: Error[] = [];
	for (const node of await Promise.all(nodes)) {
		if (node) {
			yield* below(node, "", errors);
		}
	}
	if (errors.length > 0) {
		throw new AggregateError(errors, errors.map((error) => error.message).join("\n"));
	}
}

async function* below(node: Entry, path: string, errors: Error[]): AsyncGenerator<Found> {
	const full = path === "" ? node.name : `${path}/${node.name}`;
	let children: Entry[];
	try {
		if (!node.children) {
			yield { ...(await node.open()), path };
			return;
		}
		children = await node.children();
	} catch (error) {
		errors.push(new Error(`${full} cannot be read: ${(error as Error).message}`, { cause: error }));
		return;
	}
	for (const child of children.sort((a, b) => (a.name < b.name ? -1 : 1))) {
		yield* below(child, full, errors);
	}
}

/** All must be asked for at once, before the first of them is there. */
function dropped(transfer: DataTransfer): Promise<Entry | null>[] {
	const nodes: Promise<Entry | null>[] = [];
	for (const item of transfer.items) {
		if (item.kind !== "file") {
			continue;
		}
		// Over plain HTTP Chromium has this method, and ends the tab that calls it.
		const handle = (globalThis.isSecureContext !== false && (item as HandleItem).getAsFileSystemHandle?.()) || Promise.resolve(null);
		const entry = item.webkitGetAsEntry();
		const file = item.getAsFile();
		const other = entry?.isDirectory ? ofEntry(entry) : file ? ofFile(file) : null;
		nodes.push(handle.then((found) => (found ? ofHandle(found) : other)).catch(() => other));
	}
	return nodes;
}

function ofHandle(handle: FileSystemHandle): Entry {
	return {
		name: handle.name,
		children: handle.kind === "directory" ? () => handles(handle as FileSystemDirectoryHandle) : null,
		open: async () => ({
			file: await (handle as FileSystemFileHandle).getFile(),
			handle: handle as FileSystemFileHandle,
		}),
	};
}

async function handles(folder: FileSystemDirectoryHandle): Promise<Entry[]> {
	const nodes: Entry[] = [];
	for await (const handle of folder.values()) {
		nodes.push(ofHandle(handle));
	}
	return nodes;
}

function ofEntry(entry: FileSystemEntry): Entry {
	return {
		name: entry.name,
		children: entry.isDirectory ? () => entries(entry as FileSystemDirectoryEntry) : null,
		open: () =>
			new Promise((resolve, reject) => (entry as FileSystemFileEntry).file((file) => resolve({ file }), reject)),
	};
}

/** A reader gives the entries in batches (Chromium: of 100) and an empty one at the end. */
async function entries(folder: FileSystemDirectoryEntry): Promise<Entry[]> {
	const reader = folder.createReader();
	const nodes: Entry[] = [];
	for (;;) {
		const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
		if (batch.length === 0) {
			return nodes;
		}
		nodes.push(...batch.map(ofEntry));
	}
}

function ofFile(file: File): Entry {
	return { name: file.name, children: null, open: async () => ({ file }) };
}
