// An Uploader without a server: tests and pages that are looked at put uploads into any phase.

import type { UploaderLike } from "../src/element/element.js";
import type { AddOptions, Phase, Source, Totals, UploaderEvents, UploadView } from "../src/types.js";

type Listeners = { [E in keyof UploaderEvents]: Set<UploaderEvents[E]> };

export class FakeUploader implements UploaderLike {
	/** What was called, in order: "pause a", "cancel", "resolve a skip true" … */
	readonly calls: string[] = [];
	/** What was added, as it was given. */
	readonly given: unknown[] = [];
	online = true;
	closed = false;
	/** What rejoin() does not take. */
	strangers: File[] = [];
	readonly #views = new Map<string, UploadView>();
	readonly #listeners: Listeners = {
		added: new Set(),
		change: new Set(),
		removed: new Set(),
		progress: new Set(),
		chunk: new Set(),
		instant: new Set(),
		paused: new Set(),
		retrying: new Set(),
		complete: new Set(),
		error: new Set(),
		totals: new Set(),
	};

	get uploads(): readonly UploadView[] {
		return [...this.#views.values()];
	}

	get totals(): Totals {
		const all = this.uploads.filter((u) => u.phase !== "cancelled");
		const sum = (of: (u: UploadView) => number): number => all.reduce((n, u) => n + of(u), 0);
		const count = (...phases: Phase[]): number => all.filter((u) => phases.includes(u.phase)).length;
		const part = (of: (u: UploadView) => number): number => sum((u) => (u.phase === "instant" ? u.size : of(u)));
		const [bytes, sent, sending, speed] = [
			sum((u) => u.size),
			part((u) => u.sent),
			part((u) => u.sending),
			sum((u) => u.speed),
		];
		return {
			files: all.length,
			done: count("done", "instant"),
			failed: count("failed"),
			active: count("checking", "uploading", "finishing", "waiting"),
			bytes,
			sent,
			sending,
			saved: sum((u) => u.saved),
			speed,
			timeLeft: speed > 0 ? (bytes - sent) / speed : null,
			online: this.online,
		};
	}

	get(id: string): UploadView | undefined {
		return this.#views.get(id);
	}

	/** Puts an upload into the list. */
	put(view: Partial<UploadView> & { id: string }): UploadView {
		const u: UploadView = {
			name: `${view.id}.bin`,
			path: "",
			size: 1000,
			type: "",
			phase: "queued",
			sent: 0,
			sending: view.sent ?? 0,
			hashed: 0,
			speed: 0,
			timeLeft: null,
			saved: 0,
			retryAt: null,
			attempt: 0,
			error: null,
			conflictWith: null,
			file: null,
			uploadId: null,
			...view,
		};
		this.#views.set(u.id, u);
		this.#emit("added", u);
		this.#emit("totals", this.totals);
		return u;
	}

	/** Changes an upload, and tells all that the real one tells. */
	set(id: string, change: Partial<UploadView>): void {
		const before = this.#views.get(id);
		if (!before) {
			return;
		}
		const u = { ...before, ...(change.sent === undefined ? {} : { sending: change.sent }), ...change };
		this.#views.set(id, u);
		this.#emit("change", u, before);
		if (u.sending !== before.sending) {
			this.#emit("progress", u);
		}
		if (u.phase !== before.phase) {
			const event = ({ done: "complete", instant: "complete", failed: "error", paused: "paused" } as const)[
				u.phase as "done"
			];
			if (event) {
				this.#emit(event, u);
			}
		}
		this.#emit("totals", this.totals);
	}

	setOnline(online: boolean): void {
		this.online = online;
		this.#emit("totals", this.totals);
	}

	async add(
		what: Source | Iterable<Source> | DataTransfer | FileSystemHandle,
		options: AddOptions = {},
	): Promise<UploadView[]> {
		this.given.push(what);
		const files = what instanceof Blob ? [what] : Symbol.iterator in what ? [...what] : [];
		return files.map((file, i) =>
			this.put({
				id: `${this.#views.size + i}`,
				name: options.name ?? (file instanceof File ? file.name : "untitled"),
				path: options.path ?? "",
				size: file.size,
				type: file.type,
			}),
		);
	}

	start(): void {
		this.calls.push("start");
	}

	pause(id?: string): void {
		this.#call("pause", id);
		this.#each(
			id,
			(u) =>
				!["done", "instant", "failed", "cancelled"].includes(u.phase) &&
				this.set(u.id, { phase: "paused", speed: 0, timeLeft: null }),
		);
	}

	resume(id?: string): void {
		this.#call("resume", id);
		this.#each(id, (u) => u.phase === "paused" && this.set(u.id, { phase: "uploading" }));
	}

	retry(id?: string): void {
		this.#call("retry", id);
		this.#each(id, (u) => u.phase === "failed" && this.set(u.id, { phase: "uploading", error: null }));
	}

	async cancel(id?: string): Promise<void> {
		this.#call("cancel", id);
		this.#each(id, (u) => this.set(u.id, { phase: "cancelled" }));
	}

	remove(id: string): void {
		this.#call("remove", id);
		const u = this.#views.get(id);
		if (u && this.#views.delete(id)) {
			this.#emit("removed", u);
			this.#emit("totals", this.totals);
		}
	}

	resolve(id: string, how: "skip" | "replace" | "keep-both", forAll = false): void {
		this.#call("resolve", id, how, String(forAll));
		this.#each(
			forAll ? undefined : id,
			(u) =>
				u.phase === "conflict" &&
				this.set(u.id, how === "skip" ? { phase: "cancelled" } : { phase: "queued", conflictWith: null }),
		);
	}

	async restore(): Promise<UploadView[]> {
		this.calls.push("restore");
		return [];
	}

	async rejoin(files: Iterable<File>): Promise<File[]> {
		this.#call("rejoin", ...[...files].map((file) => file.name));
		return this.strangers;
	}

	on<E extends keyof UploaderEvents>(event: E, listener: UploaderEvents[E]): () => void {
		this.#listeners[event].add(listener);
		return () => this.#listeners[event].delete(listener);
	}

	get listeners(): number {
		return Object.values(this.#listeners).reduce((n, set) => n + set.size, 0);
	}

	close(): void {
		this.closed = true;
	}

	#call(...words: (string | undefined)[]): void {
		this.calls.push(words.filter((word) => word !== undefined).join(" "));
	}

	#each(id: string | undefined, act: (u: UploadView) => unknown): void {
		for (const u of this.uploads) {
			if (id === undefined || u.id === id) {
				act(u);
			}
		}
	}

	#emit<E extends keyof UploaderEvents>(event: E, ...values: Parameters<UploaderEvents[E]>): void {
		for (const listener of this.#listeners[event]) {
			(listener as (...values: Parameters<UploaderEvents[E]>) => void)(...values);
		}
	}
}
