// What survives a reload: IndexedDB "gantry-uploader". Where that is refused, full or lost, what was to be kept there is kept in
// this page's memory alone, and nobody has to care.

import type { HashState } from "./hasher.js";

/** An upload that is not finished, as the next page needs it. */
export interface Remembered {
	id: string;
	endpoint: string;
	/** The server's id; null before init was answered. */
	uploadId: string | null;
	/** The Idempotency-Key of init. */
	key: string;
	name: string;
	path: string;
	/** Bytes. */
	size: number;
	type: string;
	/** Milliseconds, as in File. */
	lastModified: number;
	chunkSize: number | null;
	/** See edges() in fingerprint.ts. */
	edges: string;
	hash: HashState | null;
	sha1: string | null;
	metadata: Record<string, string>;
	replaces: string | null;
	handle: FileSystemFileHandle | null;
	/** The bytes themselves, of small ones that are nowhere else, such as pasted pictures. Set by put() only. */
	blob: Blob | null;
	/** Date.now() */
	addedAt: number;
	/** The page that has made it: while that is there, it is taken care of. */
	page: string;
	pausedByUser: boolean;
}

const version = 1;
const uploads = "uploads";
/** Apart from the rest, so that an update does not write the bytes again. */
const blobs = "blobs";
/** In localStorage: ids, with spaces between, that a page had not yet deleted here when it was left. */
const forgotten = "gantry-uploader-forgotten";
/** Milliseconds for which changes are collected: a transaction for each of ten thousand files would keep the page busy for long. */
const TICK = 100;
/** Milliseconds of the page's own thread that a large batch takes at a time. */
const SLICE = 5;
/** Changes in one transaction, at most: one that is not at its end is lost with the page. */
const MOST = 1000;
/** Records that are read at a time. */
const PAGE = 250;
/** Milliseconds. Some browsers never answer open() when their storage is damaged; a busy one may take seconds. */
const SLOW = 10_000;

/** What is to become of one upload: it is forgotten, or not, and then remembered or changed, or neither. */
interface Change {
	forget: boolean;
	put: Remembered | null;
	update: Partial<Remembered> | null;
}

/** The changes of one transaction, by id. */
interface Batch {
	changes: Map<string, Change>;
	/** Resolves when they are committed, or are kept in memory for now. */
	kept: Promise<void>;
	committed: () => void;
}

/**
 * Every method resolves. Changes are collected and written together; the promise of each resolves when that is done. Two
 * pages may write at the same time: of one upload the later change of each member counts.
 */
export class Memory {
	readonly #endpoint: string;
	/** What could not be stored, by id. */
	readonly #unstored = new Map<string, Remembered>();
	#database: Promise<IDBDatabase | null> | null = null;
	#db: IDBDatabase | null = null;
	#late = new Promise<null>(() => {});
	#pending: Batch | null = null;
	#writing: Batch | null = null;
	#timer: ReturnType<typeof setTimeout> | undefined;
	#writer: Promise<void> | null = null;
	#due = false;
	#refused = false;
	#closed = false;

	private constructor(endpoint: string) {
		this.#endpoint = endpoint;
	}

	/** Memory of the uploads to one server. It can be used at once: what is changed before the database is open is written then. */
	static open(endpoint: string): Memory {
		const memory = new Memory(endpoint);
		void memory.#connect();
		memory.#forgetNoted();
		globalThis.addEventListener?.("pagehide", memory.#leave);
		return memory;
	}

	/**
	 * All uploads to this server, of earlier pages and this one, in the order in which they were added; those too that are to
	 * be written yet. Waits for a slow browser, but if it does not answer at all, there is only what this page has.
	 */
	async all(): Promise<Remembered[]> {
		const db = await this.#soon();
		let kept: Batch[] = [];
		const read = (connection: IDBDatabase) => {
			kept = this.#batches(); // the transaction sees what was committed before
			return readAll(connection);
		};
		const all = (db && (await this.#try(read))) ?? new Map<string, Remembered>();
		this.#unstored.forEach((row, id) => all.set(id, { ...row }));
		(db ? kept : this.#batches()).forEach(({ changes }) => changes.forEach((change, id) => apply(all, id, change)));
		return [...all.values()].filter(({ endpoint }) => endpoint === this.#endpoint).sort((a, b) => a.addedAt - b.addedAt);
	}

	/** Remembers r as it is now; in this page only if there is no room for it or its bytes. */
	put(r: Remembered): Promise<void> {
		return this.#change(r.id, { forget: false, put: { ...r }, update: null });
	}

	/** Changes some members. Nothing happens if the upload is not remembered: it may have ended in another tab. */
	update(id: string, change: Partial<Omit<Remembered, "id" | "blob">>): Promise<void> {
		return this.#change(id, { forget: false, put: null, update: { ...change } });
	}

	/** Forgets an upload. Repeating it does nothing. */
	delete(id: string): Promise<void> {
		return this.#change(id, { forget: true, put: null, update: null });
	}

	/** Resolves when all that was changed of this upload is kept, and sees to it that it is written at once. */
	async stored(id: string): Promise<void> {
		if (this.#pending?.changes.has(id)) {
			const { kept } = this.#pending;
			void this.#write();
			await kept;
		} else if (this.#writing?.changes.has(id)) {
			await this.#writing.kept;
		}
	}

	/** Writes all that was changed at once, and resolves when that is done. */
	written(): Promise<void> {
		return this.#write();
	}

	/** Takes no more changes; those that were made before are written at once. */
	close(): void {
		this.#closed = true;
		void this.#write().then(() => {
			globalThis.removeEventListener?.("pagehide", this.#leave);
			this.#refused = true;
			void this.#database?.then((db) => db?.close());
		});
	}

	#batches(): Batch[] {
		return [this.#writing, this.#pending].filter((batch) => batch !== null);
	}

	#change(id: string, change: Change): Promise<void> {
		if (this.#closed) {
			return Promise.resolve();
		}
		const batch = (this.#pending ??= this.#collect());
		batch.changes.set(id, combine(batch.changes.get(id), change));
		return batch.kept;
	}

	#collect(): Batch {
		let committed = (): void => {};
		const done = new Promise<void>((resolve) => (committed = resolve));
		const kept = this.#soon().then((db) => (db || this.#refused ? done : undefined));
		this.#timer = setTimeout(() => void this.#write(), TICK);
		return { changes: new Map(), kept, committed };
	}

	/** Writes what was collected. Until the database is there, and while a batch is being written, the next one collects. */
	#write(): Promise<void> {
		this.#due = true;
		this.#writer ??= this.#writeAll().finally(() => (this.#writer = null));
		return this.#writer;
	}

	async #writeAll(): Promise<void> {
		while (this.#due && this.#pending) {
			await this.#connect();
			const batch = this.#take();
			if (batch) {
				this.#writing = batch;
				const changes = [...batch.changes];
				for (let from = 0; from < changes.length; from += MOST) {
					await this.#store(new Map(changes.slice(from, from + MOST)));
				}
				this.#writing = null;
				batch.committed();
			}
		}
	}

	/** What was collected. */
	#take(): Batch | null {
		const batch = this.#pending;
		clearTimeout(this.#timer);
		this.#pending = null;
		this.#due = false;
		return batch;
	}

	async #store(changes: Map<string, Change>): Promise<void> {
		let stored = await this.#try((db) => write(db, changes));
		const light = new Map([...changes].filter(([, { put }]) => !put?.blob));
		if (!stored && light.size < changes.size) {
			stored = await this.#try((db) => write(db, light)); // there may be no room for the bytes only
		}
		this.#settle(changes, stored);
	}

	/** Keeps in memory what was not stored. */
	#settle(changes: Map<string, Change>, stored: Set<string> | null): void {
		for (const [id, change] of changes) {
			if (stored?.has(id) && !change.update) {
				this.#unstored.delete(id);
			} else {
				apply(this.#unstored, id, change);
			}
		}
	}

	/**
	 * The page may be gone in a moment: what was collected is written at once. But a transaction that is not committed goes
	 * with the page, and what was cancelled must not come back. So that is noted where writing waits for nothing.
	 */
	readonly #leave = (): void => {
		void this.#write();
		const ids = this.#batches().flatMap(({ changes }) => [...changes].filter(([, c]) => c.forget && !c.put).map(([id]) => id));
		try {
			if (ids.length > 0) {
				localStorage.setItem(forgotten, [...noted(), ...ids].join(" "));
			}
		} catch {
			// There is no room, or no localStorage.
		}
	};

	/** Forgets what pages had to note when they were left. Until it is written, this page would note it again. */
	#forgetNoted(): void {
		try {
			noted().forEach((id) => void this.delete(id));
			localStorage.removeItem(forgotten);
		} catch {
			// There is no localStorage.
		}
	}

	/** Runs work with the database. null: that is not there, or it failed. */
	async #try<T>(work: (db: IDBDatabase) => Promise<T>, again = false): Promise<T | null> {
		const db = await this.#connect();
		if (!db) {
			return null;
		}
		try {
			return await work(db);
		} catch (error) {
			if (!again && isLost(error)) {
				this.#lose(db);
				return this.#try(work, true);
			}
			return null; // full, or something that cannot be stored
		}
	}

	/** The database, or null if the browser refuses it, is blocked, or does not answer for long. It may come after that. */
	#soon(): Promise<IDBDatabase | null> {
		const database = this.#connect();
		return Promise.race([database, this.#late]);
	}

	/** The database, however long that takes. null: it is refused. */
	async #connect(): Promise<IDBDatabase | null> {
		if (this.#refused) {
			return null;
		}
		this.#database ??= this.#open().catch(() => {
			this.#refused = true;
			return null;
		});
		return this.#database;
	}

	/** The next that needs it opens it again. */
	#lose(db: IDBDatabase): void {
		if (this.#db === db) {
			this.#db = this.#database = null;
		}
	}

	#open(): Promise<IDBDatabase> {
		return new Promise((resolve, reject) => {
			const request = indexedDB.open("gantry-uploader", version);
			let timer: ReturnType<typeof setTimeout> | undefined;
			this.#late = new Promise((late) => {
				timer = setTimeout(late, SLOW, null);
				request.onblocked = () => late(null);
			});
			request.onupgradeneeded = () => {
				request.result.createObjectStore(uploads, { keyPath: "id" });
				request.result.createObjectStore(blobs);
			};
			request.onsuccess = () => {
				clearTimeout(timer);
				const db = request.result;
				this.#db = db;
				// A later version of the page wants to change the database: do not stand in its way.
				db.onversionchange = () => {
					db.close();
					this.#lose(db);
				};
				// The browser closed it, for example since the user deletes the site's data.
				db.onclose = () => this.#lose(db);
				resolve(db);
			};
			request.onerror = () => {
				clearTimeout(timer);
				reject(request.error);
			};
		});
	}
}

/** One change that does what these two do one after the other. */
function combine(first: Change | undefined, next: Change): Change {
	if (!first || next.forget) {
		return next;
	}
	if (next.put) {
		return { ...next, forget: first.forget };
	}
	if (first.put) {
		return { ...first, put: { ...first.put, ...next.update } };
	}
	return first.forget ? first : { ...next, update: { ...first.update, ...next.update } };
}

/** Makes the change to what is remembered in rows. */
function apply(rows: Map<string, Remembered>, id: string, { forget, put, update }: Change): void {
	const row = forget ? undefined : rows.get(id);
	if (put) {
		rows.set(id, { ...put, blob: put.blob ?? row?.blob ?? null });
	} else if (forget) {
		rows.delete(id);
	} else if (row) {
		rows.set(id, { ...row, ...update });
	}
}

/**
 * Makes the changes in one transaction, keeping the page's own thread for SLICE at a time. The answer is the ids of those
 * that could be stored. It is not flushed to the disk: after a power cut the server knows what it has.
 */
function write(db: IDBDatabase, changes: Map<string, Change>): Promise<Set<string>> {
	return new Promise((resolve, reject) => {
		const transaction = db.transaction([uploads, blobs], "readwrite", { durability: "relaxed" });
		const rows = transaction.objectStore(uploads);
		const bytes = transaction.objectStore(blobs);
		const stored = new Set<string>();
		const queue = changes.entries();
		const work = (): void => {
			const end = performance.now() + SLICE;
			for (let next = queue.next(); !next.done; next = queue.next()) {
				const [id, change] = next.value;
				try {
					make(change, id, rows, bytes);
					stored.add(id);
				} catch {
					bytes.delete(id); // it cannot be stored; the others can
				}
				if (performance.now() > end) {
					rows.getKey("").onsuccess = work; // the transaction stays open for the next slice
					return;
				}
			}
		};
		transaction.oncomplete = () => resolve(stored);
		transaction.onabort = () => reject(transaction.error);
		work();
	});
}

function make({ forget, put, update }: Change, id: string, rows: IDBObjectStore, bytes: IDBObjectStore): void {
	if (forget) {
		rows.delete(id);
		bytes.delete(id);
	}
	if (put) {
		if (put.blob) {
			bytes.put(put.blob, id);
		}
		rows.put({ ...put, blob: null });
	}
	if (update) {
		const request = rows.get(id) as IDBRequest<Remembered | undefined>;
		request.onsuccess = () => {
			if (request.result) {
				rows.put({ ...request.result, ...update });
			}
		};
	}
}

/** What is stored, by id, read in pages. */
function readAll(db: IDBDatabase): Promise<Map<string, Remembered>> {
	return new Promise((resolve, reject) => {
		const transaction = db.transaction([uploads, blobs]);
		const all = new Map<string, Remembered>();
		const page = (after: string): void => {
			const request = transaction.objectStore(uploads).getAll(IDBKeyRange.lowerBound(after, true), PAGE) as IDBRequest<Remembered[]>;
			request.onsuccess = () => {
				const rows = request.result;
				rows.forEach((row) => all.set(row.id, row));
				const last = rows.at(-1)?.id;
				if (last !== undefined) {
					page(last);
				}
			};
		};
		page("");
		const ids = transaction.objectStore(blobs).getAllKeys();
		const bytes = transaction.objectStore(blobs).getAll() as IDBRequest<Blob[]>;
		transaction.oncomplete = () => {
			ids.result.forEach((id, i) => {
				const row = all.get(id as string);
				if (row) {
					row.blob = bytes.result[i] ?? null;
				}
			});
			resolve(all);
		};
		transaction.onabort = () => reject(transaction.error);
	});
}

/** The connection is gone, which Safari does to pages in the background without saying so. */
function isLost(error: unknown): boolean {
	const name = (error as Error | null)?.name;
	return name === "InvalidStateError" || name === "UnknownError";
}

function noted(): string[] {
	return localStorage.getItem(forgotten)?.split(" ") ?? [];
}
