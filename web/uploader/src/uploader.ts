// The list of all uploads: whose turn it is, what they add up to, and who is told.

import { API } from "./api.js";
import { Network } from "./backoff.js";
import { Hasher } from "./hasher.js";
import { type Added, type Item, list } from "./intake.js";
import { Lanes } from "./lanes.js";
import type { Remembered } from "./memory.js";
import { Names } from "./names.js";
import { asUploadError } from "./problem.js";
import { id as newId } from "./random.js";
import { fileKey, isFile, Remembering, reopen } from "./remembering.js";
import type { TabNews } from "./tabs.js";
import { Sums } from "./totals.js";
import { Turns } from "./turns.js";
import type { AddOptions, Phase, Totals, UploaderEvents, UploaderOptions, UploadView } from "./types.js";
import { type Host, Upload } from "./upload.js";
import { ChunkWish } from "./wish.js";

/** Milliseconds between two looks at how far the bytes are. */
const TICK = 100;
/** Milliseconds between two messages about that to other tabs. */
const TELL = 1000;
/** Bytes. Larger ones are not kept in IndexedDB. */
const KEEP = 8 << 20;

const ended: ReadonlySet<Phase> = new Set(["done", "instant", "failed", "cancelled"]);
const stoppable: ReadonlySet<Phase> = new Set(["queued", "checking", "uploading", "finishing", "waiting"]);
/** What is told of a phase, beside that it has changed. */
const events: Partial<Record<Phase, readonly ("paused" | "error" | "instant" | "complete")[]>> = {
	paused: ["paused"],
	failed: ["error"],
	instant: ["instant", "complete"],
	done: ["complete"],
};
const figures = ["sent", "sending", "hashed", "speed", "timeLeft", "saved"] as const;

export class Uploader {
	readonly #options: UploaderOptions;
	readonly #host: Host;
	readonly #lanes: Lanes;
	readonly #past: Remembering | null;
	readonly #network = new Network();
	readonly #closing = new AbortController();
	readonly #turns = new Turns();
	readonly #sums = new Sums();
	readonly #listeners = new Map<keyof UploaderEvents, Set<UploaderEvents[keyof UploaderEvents]>>();
	readonly #uploads = new Map<string, Upload>();
	readonly #byFile = new Map<string, Set<Upload>>(); // by fileKey
	readonly #queue = { small: new Set<Upload>(), large: new Set<Upload>() };
	readonly #running = new Set<Upload>();
	#views: readonly UploadView[] | null = null; // null: to be made anew
	#started: boolean;
	#timer: ReturnType<typeof setTimeout> | null = null;
	#stale = false; // the totals are not those that were told
	#moved = 0; // bytes sent since the page began
	#toldAt = 0;
	#addedAt = 0;

	constructor(options: UploaderOptions) {
		const endpoint = options.endpoint.replace(/\/+$/, "");
		this.#options = { ...options, endpoint };
		this.#started = options.autoStart !== false;
		this.#lanes = new Lanes(laneCount(this.#options));
		this.#past = options.remember === false ? null : new Remembering(endpoint, this.#turns, (news) => this.#heard(news));
		this.#network.on(() => this.#totalsChanged());
		this.#host = this.#makeHost();
		this.#host.hasher?.start();
	}

	/**
	 * Adds files; folders of a DataTransfer or a directory handle are walked, with relative paths. Resolves when all are listed.
	 * A file that is in the list and has not ended is not added twice: its upload is the answer. Rejects with an
	 * AggregateError if some of a folder could not be read; the others are in the list then.
	 */
	async add(what: Added, options: AddOptions = {}): Promise<UploadView[]> {
		const uploads: Upload[] = [];
		for await (const item of list(what, options)) {
			uploads.push(await this.#take(item, options));
		}
		return uploads.map((upload) => upload.view);
	}

	/** In the order in which they were added. The same array as long as nothing changes. */
	get uploads(): readonly UploadView[] {
		this.#views ??= Array.from(this.#uploads.values(), (upload) => upload.view);
		return this.#views;
	}

	get totals(): Totals {
		const sending = [...this.#running].some(({ view }) => view.phase === "uploading");
		return this.#sums.totals(performance.now(), sending ? this.#moved : null, this.#network.online);
	}

	get(id: string): UploadView | undefined {
		return this.#uploads.get(id)?.view;
	}

	/** Begins, if autoStart is false. */
	start(): void {
		this.#started = true;
		this.#schedule();
	}

	/** Without id: all. What was acknowledged stays with the server. */
	pause(id?: string): void {
		for (const upload of this.#those(id)) {
			if (stoppable.has(upload.view.phase)) {
				this.#remember(upload, { pausedByUser: true });
				upload.halt("paused");
			}
		}
	}

	/**
	 * Goes on with what is paused, and does not wait any longer with what waits. In a click it also asks for the permission to
	 * read files that an earlier page had, where there are handles. Without id: all.
	 */
	resume(id?: string): void {
		this.#started = true;
		for (const upload of this.#those(id)) {
			switch (upload.view.phase) {
				case "paused":
					this.#remember(upload, { pausedByUser: false });
					upload.queue();
					break;
				case "waiting":
					upload.hurry();
					break;
				case "elsewhere":
				case "needs-file":
					void this.#comeBack(upload);
			}
		}
		this.#schedule();
	}

	/** Tries again what has failed, and at once what waits. Without id: all. */
	retry(id?: string): void {
		for (const upload of this.#those(id)) {
			const { phase, error } = upload.view;
			if (phase === "waiting") {
				upload.hurry();
			} else if (phase === "failed" && error?.code === "file_changed" && upload.record.handle) {
				void this.#renew(upload, upload.record.handle);
			} else if (phase === "failed") {
				upload.queue();
			}
		}
		this.#schedule();
	}

	/** Stops, and deletes what the server has of it; resolves when that is done. Without id: all that are not finished. */
	async cancel(id?: string): Promise<void> {
		const cancelled: Promise<void>[] = [];
		for (const upload of this.#those(id)) {
			if (id === undefined) {
				await this.#turns.turn(); // there may be many
			}
			if (upload.view.phase === "failed" || !ended.has(upload.view.phase)) {
				cancelled.push(upload.cancel());
			}
		}
		await Promise.all([...cancelled, this.#past?.written()]);
	}

	/** Takes an upload that has ended off the list. */
	remove(id: string): void {
		const upload = this.#uploads.get(id);
		if (upload && ended.has(upload.view.phase)) {
			this.#past?.forget(id);
			this.#takeOff(upload);
		}
	}

	/** Decides what becomes of a file whose name is taken. forAll: also of all others in the list, when it comes to them. */
	resolve(id: string, how: "skip" | "replace" | "keep-both", forAll = false): void {
		for (const upload of this.#those(forAll ? undefined : id)) {
			if (upload.rule === "ask" && !ended.has(upload.view.phase)) {
				upload.rule = how;
				if (upload.view.phase === "conflict") {
					upload.queue();
				}
			}
		}
		this.#schedule();
	}

	/**
	 * Lists what earlier pages had not finished, and answers with that. What can be read goes on. Files that are known by a
	 * handle need a permission, which resume() asks for in a click; others have to be chosen again, see rejoin().
	 */
	async restore(): Promise<UploadView[]> {
		const restored: Upload[] = [];
		for (const record of (await this.#past?.all()) ?? []) {
			await this.#turns.turn();
			if (!this.#uploads.has(record.id) && !this.#closing.signal.aborted) {
				restored.push(this.#insert(record, null, "needs-file"));
			}
		}
		await Promise.all(restored.map((upload) => this.#comeBack(upload)));
		return restored.map((upload) => upload.view);
	}

	/** Gives files back to uploads in phase "needs-file", by name, size and time; returns the ones that were not any's. */
	async rejoin(files: Iterable<File>): Promise<File[]> {
		const strangers: File[] = [];
		for (const file of files) {
			await this.#turns.turn();
			if (!(await this.#takenBack(file))) {
				strangers.push(file);
			}
		}
		return strangers;
	}

	/** Calls listener until the answer is called. */
	on<E extends keyof UploaderEvents>(event: E, listener: UploaderEvents[E]): () => void {
		const listeners = this.#listeners.get(event) ?? new Set();
		this.#listeners.set(event, listeners.add(listener));
		return () => listeners.delete(listener);
	}

	/** Stops everything, and tells nobody. What is remembered stays: restore() of another Uploader goes on with it. */
	close(): void {
		this.#listeners.forEach((listeners) => listeners.clear());
		this.#started = false;
		this.#closing.abort(new DOMException("The uploader was closed.", "AbortError"));
		[...this.#running].forEach((upload) => upload.halt("paused"));
		clearTimeout(this.#timer ?? undefined);
		this.#host.hasher?.close();
		this.#past?.close();
		this.#network.close();
	}

	#those(id: string | undefined): Upload[] {
		const one = id === undefined ? undefined : this.#uploads.get(id);
		return id === undefined ? [...this.#uploads.values()] : one ? [one] : [];
	}

	/** An upload for a file that is added: a new one, or the one that there is or was. */
	async #take(item: Item, options: AddOptions): Promise<Upload> {
		await this.#turns.turn();
		const { source } = item;
		const known = source instanceof File && options.uploadId === undefined ? await this.#known(source, item) : null;
		const upload = known ?? this.#make(item, options);
		this.#schedule();
		return upload;
	}

	/** The upload of the same file that has not ended: of the list, or of another page. */
	async #known(file: File, item: Item): Promise<Upload | null> {
		const { name, path, handle } = item;
		const key = fileKey(name, file);
		for (const upload of this.#byFile.get(key) ?? []) {
			const { record, source, view } = upload;
			if (record.path === path && !ended.has(view.phase) && (source || (await isFile(record, file)))) {
				if (!source) {
					await this.#give(upload, file, handle);
				}
				return upload;
			}
		}
		for (const record of (await this.#past?.ofFile(key)) ?? []) {
			if (record.path === path && (await isFile(record, file)) && !this.#uploads.has(record.id)) {
				const upload = this.#insert(record, null, "needs-file");
				await this.#give(upload, file, handle);
				return upload;
			}
		}
		return null;
	}

	async #takenBack(file: File): Promise<boolean> {
		for (const upload of this.#byFile.get(fileKey(file.name, file)) ?? []) {
			if (upload.view.phase === "needs-file" && !upload.source && (await isFile(upload.record, file))) {
				await this.#give(upload, file, null);
				return true;
			}
		}
		return false;
	}

	/** Gives a file to an upload of another page, which goes on unless that is still there. */
	async #give(upload: Upload, file: File, handle: FileSystemFileHandle | null): Promise<void> {
		this.#remember(upload, { handle: handle ?? upload.record.handle, pausedByUser: false });
		upload.source = file;
		await this.#comeBack(upload);
	}

	#make({ source, name, path, handle }: Item, options: AddOptions): Upload {
		const { metadata } = this.#options;
		const lastModified = source instanceof File ? source.lastModified : 0;
		// The bytes of what was pasted are nowhere else. It is as new as its time.
		const pasted = !handle && source.size <= KEEP && Math.abs(Date.now() - lastModified) < 2000;
		this.#addedAt = Math.max(Date.now(), this.#addedAt + 0.001); // the order outlives the page
		const id = newId();
		const record: Remembered = {
			...{ id, key: id, endpoint: this.#options.endpoint, uploadId: options.uploadId ?? null, name, path, handle },
			...{ size: source.size, type: source.type, lastModified, chunkSize: null, edges: "", hash: null, sha1: null },
			metadata: { ...(typeof metadata === "function" ? metadata(source) : metadata), ...options.metadata },
			replaces: options.replaces ?? null,
			blob: pasted || (!(source instanceof File) && source.size <= KEEP) ? source : null,
			addedAt: this.#addedAt,
			page: "",
			pausedByUser: false,
		};
		this.#past?.add(record);
		return this.#insert(record, source, "queued", options.conflict);
	}

	#insert(record: Remembered, source: Blob | null, phase: Phase, rule = this.#options.conflict ?? "allow"): Upload {
		const upload = new Upload(this.#host, record, source, rule, phase);
		this.#uploads.set(upload.id, upload);
		this.#byFile.set(upload.key, (this.#byFile.get(upload.key) ?? new Set()).add(upload));
		this.#sort(upload);
		this.#sums.set(upload.view);
		this.#emit("added", upload.view);
		this.#totalsChanged();
		return upload;
	}

	#takeOff(upload: Upload): void {
		this.#uploads.delete(upload.id);
		this.#byFile.get(upload.key)?.delete(upload);
		this.#queue.small.delete(upload);
		this.#queue.large.delete(upload);
		this.#sums.delete(upload.view);
		this.#emit("removed", upload.view);
		this.#totalsChanged();
	}

	/** Goes on with an upload of another page or tab, if nobody has it and its file can be read. */
	async #comeBack(upload: Upload): Promise<void> {
		const { record } = upload;
		const ask = globalThis.navigator?.userActivation?.isActive ?? false;
		try {
			if (await this.#past?.elsewhere(record)) {
				upload.set({ phase: "elsewhere" });
				return;
			}
			const source = upload.source ?? (await reopen(record, ask));
			if (this.#closing.signal.aborted || !["needs-file", "elsewhere"].includes(upload.view.phase)) {
				return; // meanwhile it was chosen again, or cancelled
			}
			if (!source) {
				upload.set({ phase: "needs-file" });
				return;
			}
			upload.source = source;
			upload.queue();
			if (record.pausedByUser) {
				upload.halt("paused");
			}
		} catch (e) {
			upload.set({ phase: "failed", error: asUploadError(e) });
		}
		this.#schedule();
	}

	async #renew(upload: Upload, handle: FileSystemFileHandle): Promise<void> {
		try {
			upload.renew(await handle.getFile());
		} catch (e) {
			upload.set({ phase: "failed", error: asUploadError(e) });
		}
		this.#schedule();
	}

	/** News of another tab, about an upload or a page. */
	#heard({ id, kind, sent = 0 }: TabNews): void {
		const upload = this.#uploads.get(id);
		if (kind === "released") {
			const elsewhere = [...this.#uploads.values()].filter(({ view }) => view.phase === "elsewhere");
			elsewhere.forEach((u) => (u.id === id || u.record.page === id) && void this.#takeOver(u));
		} else if (upload?.view.phase !== "elsewhere" && upload?.view.phase !== "needs-file") {
			return;
		} else if (kind === "claimed") {
			upload.set({ phase: "elsewhere" });
		} else if (kind === "progress") {
			upload.set({ phase: "elsewhere", sent, sending: sent });
		} else {
			this.#takeOff(upload);
		}
	}

	/** Goes on with what another tab has given up, from where that was. */
	async #takeOver(upload: Upload): Promise<void> {
		const record = (await this.#past?.all())?.find((r) => r.id === upload.id);
		if (record && upload.view.phase === "elsewhere") {
			Object.assign(upload.record, record);
			await this.#comeBack(upload);
		}
	}

	#remember(upload: Upload, change: Partial<Remembered>): void {
		Object.assign(upload.record, change);
		this.#past?.update(upload.id, change);
	}

	/** Begins as many as there is room for. Large ones do not keep small ones waiting, nor the other way round. */
	#schedule(): void {
		const running = { small: 0, large: 0 };
		for (const upload of this.#running) {
			running[upload.small ? "small" : "large"]++;
		}
		const most = { small: 2 * this.#lanes.count, large: this.#lanes.count };
		for (const size of ["small", "large"] as const) {
			for (const upload of this.#queue[size]) {
				if (!this.#started || running[size]++ >= most[size]) {
					break;
				}
				this.#queue[size].delete(upload);
				this.#running.add(upload);
				void upload.run();
			}
		}
	}

	/** Puts it where its phase belongs. */
	#sort(upload: Upload): void {
		const queue = this.#queue[upload.small ? "small" : "large"];
		if (upload.view.phase === "queued" && !upload.running) {
			queue.add(upload);
		} else {
			queue.delete(upload);
		}
	}

	#makeHost(): Host {
		const { workerURL, instant, retryDelays } = this.#options;
		const api = new API(this.#options);
		const closing = this.#closing.signal;
		return {
			...{ api, past: this.#past, lanes: this.#lanes, network: this.#network, names: new Names(api, closing), retryDelays, closing },
			wish: new ChunkWish(this.#options.chunkSize),
			hasher: instant === false ? null : new Hasher(workerURL ?? new URL("hash.worker.js", import.meta.url)),
			moved: (bytes) => void (this.#moved += bytes),
			taken: (name, path) =>
				[...this.#uploads.values()].some(({ view }) => view.name === name && view.path === path && view.phase !== "cancelled"),
			changed: (upload, before) => this.#changed(upload, before),
			chunk: (upload, index) => this.#emit("chunk", upload.view, index),
			retrying: (upload, reason) => this.#emit("retrying", upload.view, reason),
			stopped: (upload) => {
				this.#running.delete(upload);
				this.#sort(upload);
				this.#schedule();
			},
		};
	}

	#changed(upload: Upload, before: UploadView): void {
		if (!this.#uploads.has(upload.id)) {
			return; // it was taken off the list
		}
		const u = upload.view;
		this.#sort(upload);
		this.#sums.set(u);
		this.#totalsChanged();
		this.#emit("change", u, before);
		if (figures.some((figure) => u[figure] !== before[figure])) {
			this.#emit("progress", u);
		}
		if (u.phase === before.phase) {
			return;
		}
		for (const event of events[u.phase] ?? []) {
			this.#emit(event, u);
		}
	}

	#totalsChanged(): void {
		this.#views = null;
		this.#stale = true;
		this.#watch();
	}

	/** Looks from time to time how far the bytes are, and tells. */
	#watch(): void {
		if (this.#timer !== null || this.#closing.signal.aborted || (this.#running.size === 0 && !this.#stale)) {
			return;
		}
		this.#timer = setTimeout(() => {
			this.#timer = null;
			const now = performance.now();
			this.#running.forEach((upload) => upload.tick(now));
			if (now - this.#toldAt > TELL) {
				this.#toldAt = now;
				this.#running.forEach(({ id, view }) => this.#past?.progress(id, view.sent));
			}
			if (this.#stale) {
				this.#stale = false;
				this.#emit("totals", this.totals);
			}
			this.#watch();
		}, TICK);
	}

	#emit<E extends keyof UploaderEvents>(event: E, ...args: Parameters<UploaderEvents[E]>): void {
		for (const listener of this.#listeners.get(event) ?? []) {
			try {
				(listener as (...args: Parameters<UploaderEvents[E]>) => void)(...args);
			} catch (e) {
				queueMicrotask(() => {
					throw e; // it is the page's, and must not stop an upload
				});
			}
		}
	}
}

/** More than four on HTTP/1.1 would keep the page's other requests waiting; see Lanes. */
function laneCount({ endpoint, parallelUploads = 4 }: UploaderOptions): number {
	const [page] = (globalThis.performance?.getEntriesByType?.("navigation") ?? []) as PerformanceNavigationTiming[];
	const multiplexed = endpoint === "" && /^h[23]/.test(page?.nextHopProtocol ?? "");
	return Math.min(Math.max(Math.floor(parallelUploads), 1), multiplexed ? 32 : 4);
}
