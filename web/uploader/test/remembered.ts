import type { Remembered } from "../src/memory.js";

/** An upload that is remembered, with these members and unimportant others. */
export function remembered(members: Partial<Remembered>): Remembered {
	return {
		id: "1", endpoint: "https://files.example.com", uploadId: null, key: "key", name: "a.bin", path: "", size: 3,
		type: "application/octet-stream", lastModified: 0, chunkSize: null, edges: "", hash: null, sha1: null, metadata: {},
		replaces: null, handle: null, blob: null, addedAt: 0, page: "", pausedByUser: false,
		...members,
	};
}
