// What add() is given, as files one by one.

import { walk } from "./handles.js";
import type { AddOptions, Source } from "./types.js";

export type Added = Source | Iterable<Source> | DataTransfer | FileSystemHandle;

export interface Item {
	source: Source;
	name: string;
	path: string;
	handle: FileSystemFileHandle | null;
}

/**
 * Takes the files of a DataTransfer or a FileList at once: it is empty after its event, or when the input is reset. What is
 * below folders comes later, and so do names: ten thousand take their time.
 */
export function list(what: Added, options: AddOptions): Iterable<Item> | AsyncIterable<Item> {
	const { path: folder = "", handle = null } = options;
	if (what instanceof Blob) {
		return [{ source: what, name: options.name ?? nameOf(what), path: options.path ?? folderOf(what), handle }];
	}
	if (Symbol.iterator in what) {
		return named([...what], folder);
	}
	return walked(walk(what), folder);
}

function* named(sources: Source[], folder: string): Generator<Item> {
	for (const source of sources) {
		yield { source, name: nameOf(source), path: join(folder, folderOf(source)), handle: null };
	}
}

async function* walked(files: ReturnType<typeof walk>, folder: string): AsyncGenerator<Item> {
	for await (const { file, path, handle = null } of files) {
		yield { source: file, name: file.name, path: join(folder, path), handle };
	}
}

function nameOf(source: Source): string {
	return (source instanceof File && source.name) || "untitled";
}

/** The folder of a file that came from an input for folders. */
function folderOf(source: Source): string {
	const path = (source instanceof File && source.webkitRelativePath) || "";
	return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}

function join(a: string, b: string): string {
	return a && b ? `${a}/${b}` : a || b;
}
