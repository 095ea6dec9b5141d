// One file on its way: what is done when, what a failure means, and what is shown of it.

import type { API, InstantAnswer, ServerUpload } from "./api.js";
import { Backoff, type Network } from "./backoff.js";
import { Content } from "./content.js";
import type { Challenge, Hasher } from "./hasher.js";
import { type Lanes, Owner } from "./lanes.js";
import type { Remembered } from "./memory.js";
import type { Names } from "./names.js";
import { asUploadError, localError, UploadError } from "./problem.js";
import { id as newKey } from "./random.js";
import { Rate } from "./rate.js";
import { fileKey, type Remembering } from "./remembering.js";
import { child, Requests } from "./requests.js";
import { Sender } from "./sender.js";
import type { ConflictRule, Phase, ServerFile, Source, UploadView } from "./types.js";
import type { ChunkWish } from "./wish.js";

/** Bytes. Files up to this go in one request: no round trip is cheaper than the bytes. */
const WHOLE = 256 << 10;
/** Bytes. Files up to this are let in front of larger ones. */
const SMALL = 8 << 20;
/** How often a file is begun anew, or chunks are sent again that complete found missing, before it is told as an error. */
const ROUNDS = 4;

/** Of these, this upload cannot be gone on with; a new one of the same file can. */
const stale = new Set(["gone", "not_found", "idempotency_key_reused", "chunk_conflict", "digest_mismatch"]);

/** What an upload needs, and whom it tells: the Uploader. */
export interface Host {
	readonly api: API;
	readonly lanes: Lanes;
	readonly network: Network;
	readonly names: Names;
	readonly hasher: Hasher | null;
	/** null: nothing is remembered. */
	readonly past: Remembering | null;
	readonly retryDelays: number[] | undefined;
	/** Aborts when the uploader is closed. */
	readonly closing: AbortSignal;
	readonly wish: ChunkWish;
	/** So many more bytes were sent. */
	moved(bytes: number): void;
	/** Whether another upload of the list has this name. */
	taken(name: string, path: string): boolean;
	changed(upload: Upload, before: UploadView): void;
	chunk(upload: Upload, index: number): void;
	retrying(upload: Upload, reason: UploadError): void;
	/** It does nothing any more: it has ended, or waits for somebody. */
	stopped(upload: Upload): void;
}

interface Complete {
	file: ServerFile;
	instant: boolean;
}

export class Upload {
	view: UploadView;
	readonly small: boolean;
	/** By what its file is found again, see fileKey(). Its name may become another. */
	readonly key: string;
	readonly #content: Content;
	readonly #requests: Requests;
	readonly #sender: Sender;
	readonly #rate = new Rate();
	#stop: AbortController | null = null; // while it runs
	#opening: Promise<unknown> = Promise.resolve();
	#work: Phase = "queued"; // what is being done, while it runs: "waiting" comes and goes over it
	#stale = false; // the view's figures are not those that were told
	#known: "no" | "maybe";
	#asked = false; // for instant upload

	constructor(
		private readonly host: Host,
		readonly record: Remembered,
		source: Source | null,
		public rule: ConflictRule,
		phase: Phase,
	) {
		const { id, name, path, size, type, uploadId } = record;
		this.small = size <= SMALL;
		this.key = fileKey(name, record);
		// Of an earlier page's upload nobody knows what the server said. If it has nothing yet, it was being checked.
		this.#known = uploadId === null ? "no" : "maybe";
		this.#content = new Content(record, source, host.hasher, (change) => this.#remember(change));
		this.#requests = new Requests(
			host.lanes,
			new Owner(this.small),
			this.#newBackoff(),
			() => this.#show(),
			(reason) => this.#retrying(reason),
		);
		this.#sender = new Sender({
			...{ api: host.api, wish: host.wish, lanes: host.lanes.count, requests: this.#requests, content: this.#content },
			acknowledged: (index) => this.#acknowledged(index),
		});
		this.view = {
			...{ id, name, path, size, type, phase, uploadId, hashed: this.#content.hashed },
			...{ sent: 0, sending: 0, speed: 0, timeLeft: null, saved: 0, retryAt: null, attempt: 0 },
			...{ error: null, conflictWith: null, file: null },
		};
	}

	get id(): string {
		return this.record.id;
	}

	/** null: its bytes have to be chosen again. */
	get source(): Source | null {
		return this.#content.source;
	}

	set source(source: Source) {
		this.#content.source = source;
	}

	get running(): boolean {
		return this.#stop !== null;
	}

	/** Changes what is shown. */
	set(change: Partial<UploadView>): void {
		const before = this.view;
		this.view = { ...before, ...change };
		this.host.changed(this, before);
	}

	/** Brings the file to the server, from wherever it stands. Resolves when there is nothing to do any more; see view. */
	async run(): Promise<void> {
		const stop = new AbortController();
		this.#stop = stop;
		this.#work = "queued";
		try {
			await this.#go(stop.signal);
		} catch (e) {
			if (!stop.signal.aborted) {
				this.#rest({ phase: "failed", error: asUploadError(e) });
			}
		} finally {
			stop.abort();
			if (this.#stop === stop) {
				this.#stop = null;
				this.host.stopped(this);
			}
		}
	}

	/** Stops; phase is why. What was acknowledged stays with the server. */
	halt(phase: Phase): void {
		const stop = this.#stop;
		this.#stop = null;
		stop?.abort();
		this.#rest({ phase });
		this.host.stopped(this);
	}

	/** Waits for its turn, after a stop or a failure. */
	queue(): void {
		this.#requests.backoff = this.#newBackoff();
		this.set({ phase: "queued", error: null, attempt: 0, retryAt: null, conflictWith: null });
	}

	/** Does not wait any longer for the next try. */
	hurry(): void {
		this.#requests.backoff.hurry();
	}

	/** Stops, and deletes the server's upload. Resolves when that is answered, or cannot be. */
	async cancel(): Promise<void> {
		this.halt("cancelled");
		this.host.past?.forget(this.id);
		await this.#opening.catch(() => {}); // its answer has the id
		await this.#drop();
	}

	/** The file is another one than it was: it begins anew. */
	renew(file: File): void {
		const { size, type, lastModified } = file;
		void this.#drop();
		this.#anew({ size, type, lastModified, edges: "" });
		this.set({ size, type });
		this.source = file;
		this.queue();
	}

	/** Brings speed, time left and bytes up to date (performance.now()). */
	tick(now: number): void {
		if (this.#stop === null) {
			return;
		}
		const { acked, sending } = this.#sender;
		let { speed, timeLeft } = { speed: 0, timeLeft: this.view.timeLeft };
		if (this.#work === "uploading" && !this.#requests.waiting) {
			this.host.moved(this.#rate.feed(now, sending));
			speed = this.#rate.speed;
			timeLeft = this.#rate.timeLeft(now, this.record.size - sending);
		} else {
			this.#rate.stop();
		}
		const change = { sent: acked, sending, hashed: this.#content.hashed, speed, timeLeft };
		this.#update(change);
	}

	/** Changes what is shown, if it is another. */
	#update(change: Partial<UploadView>): void {
		const keys = Object.keys(change) as (keyof UploadView)[];
		if (this.#stale || keys.some((key) => change[key] !== this.view[key])) {
			this.#stale = false;
			this.set(change);
		}
	}

	#newBackoff(): Backoff {
		return new Backoff(this.host.network, this.host.retryDelays);
	}

	/** Shows an end, or that it stands still. */
	#rest(change: Partial<UploadView>): void {
		this.#sender.stop();
		this.#rate.stop();
		const { acked } = this.#sender;
		this.set({ sent: acked, sending: acked, hashed: this.#content.hashed, speed: 0, retryAt: null, ...change });
	}

	/** Shows what is being done, or that it waits. */
	#show(work: Phase = this.#work): void {
		if (this.#stop === null) {
			return;
		}
		this.#work = work;
		const { view } = this;
		const { waiting } = this.#requests;
		const { attempt, retryAt } = this.#requests.backoff;
		const phase = waiting ? "waiting" : work;
		const error = attempt > 0 || waiting ? view.error : null;
		this.#update({ phase, attempt, retryAt, error, speed: waiting ? 0 : view.speed });
	}

	#retrying(error: UploadError): void {
		this.view = { ...this.view, error };
		this.host.retrying(this, error);
	}

	#acknowledged(index: number): void {
		const { acked, sending } = this.#sender;
		this.view = { ...this.view, sent: acked, sending };
		this.#stale = true;
		this.host.chunk(this, index);
	}

	async #go(signal: AbortSignal): Promise<void> {
		if ((await this.host.past?.claim(this.record, () => this.halt("elsewhere"))) === false) {
			signal.throwIfAborted();
			this.#rest({ phase: "elsewhere" });
			return;
		}
		if (!(await this.#settleName(signal))) {
			return;
		}
		for (let round = 1; ; round++) {
			try {
				const { file, instant } = await this.#attempt(signal);
				this.#done(file, instant);
				return;
			} catch (e) {
				signal.throwIfAborted();
				if (!(e instanceof UploadError) || !stale.has(e.code)) {
					throw e;
				}
				await this.#content.probe();
				this.#beginAnew(e, round);
			}
		}
	}

	/** Begins anew after an error that a new upload may not have, or throws it. */
	#beginAnew(e: UploadError, round: number): void {
		const { record } = this;
		if (round === ROUNDS || (e.code === "digest_mismatch" && round > 1)) {
			throw e; // the same twice: it is not the network
		}
		let change: Partial<Remembered> = {};
		if (e.code === "not_found" && record.uploadId === null) {
			if (record.replaces === null) {
				throw e;
			}
			change = { replaces: null }; // what it was to replace is gone
		}
		if (e.code === "chunk_conflict") {
			void this.#drop();
		}
		this.#anew(change);
		this.#retrying(e);
	}

	/** Forgets the server's upload: the next one is another. */
	#anew(change: Partial<Remembered>): void {
		this.#sender.acked = this.#content.hashed = 0;
		this.#asked = false;
		this.#known = "no";
		this.#remember({ uploadId: null, key: newKey(), chunkSize: null, hash: null, sha1: null, ...change });
		this.set({ uploadId: null, sent: 0, sending: 0, hashed: 0 });
	}

	#remember(change: Partial<Remembered>): void {
		Object.assign(this.record, change);
		this.host.past?.update(this.id, change);
	}

	/** Whether it can go on under its name, or one that is found here. */
	async #settleName(signal: AbortSignal): Promise<boolean> {
		const { record, host } = this;
		const { name, path } = record;
		if (this.rule === "allow" || record.uploadId !== null || record.replaces !== null) {
			return true;
		}
		const other = await this.#requests.make(signal, true, () => host.names.find(name, path));
		if (!other) {
			return true;
		}
		switch (this.rule) {
			case "ask":
				this.#rest({ phase: "conflict", conflictWith: other });
				return false;
			case "skip":
				host.past?.forget(this.id);
				this.#rest({ phase: "cancelled", conflictWith: other });
				return false;
			case "replace":
				this.#remember({ replaces: other.id });
				return true;
			case "keep-both": {
				const taken = (free: string) => host.taken(free, path);
				const free = await this.#requests.make(signal, true, () => host.names.free(name, path, taken));
				this.#remember({ name: free });
				this.set({ name: free });
				return true;
			}
		}
	}

	async #attempt(signal: AbortSignal): Promise<Complete> {
		const { record } = this;
		if (record.uploadId === null && this.#fitsWhole()) {
			return { file: await this.#sendWhole(signal), instant: false };
		}
		const up = record.uploadId === null ? await this.#init(signal) : await this.#call<ServerUpload>("GET", "", signal);
		if (up.state === "complete") {
			this.#sender.acked = up.instant ? this.#sender.acked : record.size;
			return up;
		}
		if (up.size !== record.size) {
			throw localError("other_file");
		}
		const missing = this.#sender.missing(record.size, up.chunk_size, up.missing);
		this.#known = up.known ?? (up.received_bytes === 0 ? this.#known : "no");
		this.set({ sent: this.#sender.acked, sending: this.#sender.acked });
		this.#content.remarkEdges().catch(() => {}); // what reads the file next tells
		let sure = false;
		if (this.#known === "maybe" && !this.#asked && missing.length > 0 && this.#content.instantPossible) {
			this.#show("checking");
			const sha1 = await this.#content.sha1(signal, up.chunk_size, true);
			const answer = sha1 && (await this.#ask(sha1, up.challenge, signal));
			if (answer) {
				return answer;
			}
			sure = true;
		}
		const found = await this.#sendAndHash(missing, up.chunk_size, sure, signal);
		return found ?? { file: await this.#complete(up.chunk_size, signal), instant: false };
	}

	#fitsWhole(): boolean {
		const { size, metadata, type } = this.record;
		return size <= WHOLE && Object.keys(metadata).length === 0 && !/^multipart\//i.test(type);
	}

	async #sendWhole(signal: AbortSignal): Promise<ServerFile> {
		const { name, path, type, replaces, key } = this.record;
		const sha1 = await this.#content.sha1(signal, null, false);
		const query = new URLSearchParams({ name, path, ...(sha1 && { sha1 }), ...(replaces && { replaces }) });
		const headers = { "Idempotency-Key": key, ...(type === "" ? {} : { "Content-Type": type }) };
		const body = this.#content.file;
		this.#show("uploading");
		this.#rate.feed(performance.now(), 0);
		const file = await this.#sender.body<ServerFile>("POST", `/v1/files?${query}`, headers, body, 0, signal);
		this.#sender.acked = body.size;
		return file;
	}

	async #init(signal: AbortSignal): Promise<ServerUpload> {
		const { host, record } = this;
		const stored = host.past?.stored(this.id);
		const json = {
			...{ name: record.name, path: record.path, size: record.size, metadata: record.metadata },
			...(record.type === "" ? {} : { content_type: record.type }),
			...(record.replaces === null ? {} : { replaces: record.replaces }),
			...{ chunk_size: host.wish.of(record.size), ...(await this.#content.hint()) },
		};
		const headers = { "Idempotency-Key": record.key };
		await stored; // after a crash the next page finds the upload by its key
		signal.throwIfAborted();
		// Whoever pauses or cancels does not stop it: only its answer has the id.
		const request = { method: "POST", path: "/v1/uploads", headers, json, signal: host.closing } as const;
		const opening = this.#requests.make(signal, true, async () => {
			const up = await host.api.call<ServerUpload>(request);
			this.#remember({ uploadId: up.id, chunkSize: up.state === "open" ? up.chunk_size : null });
			return up;
		});
		this.#opening = opening;
		const up = await opening;
		signal.throwIfAborted();
		this.set({ uploadId: up.id });
		return up;
	}

	/** A call about the server's upload. */
	#call<T>(method: "GET" | "POST", rest: string, signal: AbortSignal, json?: object): Promise<T> {
		const path = `/v1/uploads/${this.record.uploadId}${rest}`;
		return this.#requests.make(signal, true, () => this.host.api.call<T>({ method, path, json, signal }));
	}

	/**
	 * Sends what is missing and hashes beside it. The answer is the file, if the server turned out to have it. sure: it was
	 * asked for before that.
	 */
	async #sendAndHash(missing: number[], chunkSize: number, sure: boolean, signal: AbortSignal): Promise<Complete | null> {
		this.#show("uploading");
		const sending = child(signal);
		const asking = child(sending.signal);
		const began = performance.now();
		let found: Complete | null = null;
		const hashing = this.#content.sha1(sending.signal, chunkSize, false);
		hashing.catch((e: unknown) => sending.abort(e)); // the file cannot be read
		const asked = hashing.then(async (sha1) => {
			const took = (performance.now() - began) / 1000;
			if (!sure && sha1 && (await this.#worthAsking(took, asking.signal))) {
				found = await this.#ask(sha1, undefined, asking.signal);
				if (found) {
					sending.abort();
				}
			}
		});
		asked.catch(() => {}); // whoever aborted it knows
		try {
			await this.#sendAll(missing, sending.signal);
			if (this.#sender.ended) {
				await asked.catch(() => {}); // why it takes no more chunks
			}
			asking.abort();
			if (!found) {
				this.#show("finishing");
				await this.#awaitHash(hashing);
			}
		} catch (e) {
			if (!found) {
				throw e;
			}
		} finally {
			sending.abort();
		}
		return found;
	}

	#sendAll(missing: number[], signal: AbortSignal): Promise<void> {
		this.#rate.feed(performance.now(), this.#sender.acked);
		return this.#sender.chunks(this.#content.file, this.record.uploadId!, missing, signal);
	}

	/** Waits for the hash, but not for those of other files that are before it. */
	async #awaitHash(hashing: Promise<unknown>): Promise<void> {
		if (this.#content.hashed === 0) {
			let timer: ReturnType<typeof setTimeout> | undefined;
			await Promise.race([hashing, new Promise((resolve) => (timer = setTimeout(resolve, 1000)))]);
			clearTimeout(timer);
		}
		if (this.#content.hashed > 0) {
			await hashing;
		}
	}

	/**
	 * Whether, after `took` seconds of hashing, a proof is likely to be quicker than the rest: it reads the file again, and
	 * the server has said that it does not know it. Waits until that can be told.
	 */
	async #worthAsking(took: number, signal: AbortSignal): Promise<boolean> {
		if (this.#asked || !this.#content.instantPossible) {
			return false;
		}
		while (this.view.timeLeft === null && !signal.aborted) {
			await new Promise((resolve) => setTimeout(resolve, 250));
		}
		return !signal.aborted && this.view.timeLeft! > Math.max(3, 2 * took);
	}

	/** Asks for instant upload and proves that we have the content. null: send it. */
	async #ask(sha1: string, challenge: Challenge | undefined, signal: AbortSignal): Promise<Complete | null> {
		const post = (json: object) => this.#call<InstantAnswer>("POST", "/instant", signal, json);
		try {
			let answer: InstantAnswer = challenge ? { status: "challenge", challenge } : await post({ sha1 });
			if (answer.status === "challenge") {
				answer = await post({ sha1, proof: await this.#content.prove(answer.challenge, signal) });
			}
			this.#asked = true;
			return answer.status === "complete" ? answer : null;
		} catch (e) {
			signal.throwIfAborted();
			if (e instanceof UploadError && (e.code === "file_changed" || e.code === "file_unreadable")) {
				throw e;
			}
			return null; // sending is always right, and tells what is wrong
		}
	}

	/** Completes it, sending again what the server has lost meanwhile. */
	async #complete(chunkSize: number, signal: AbortSignal): Promise<ServerFile> {
		for (let round = 1; ; round++) {
			this.#show("finishing");
			await this.#content.probe(); // a file that is changed by now was perhaps changed while it was read
			const { sha1 } = this.record;
			try {
				return await this.#call<ServerFile>("POST", "/complete", signal, sha1 === null ? {} : { sha1 });
			} catch (e) {
				if (!(e instanceof UploadError) || !e.missing || round === ROUNDS) {
					throw e;
				}
				this.#show("uploading");
				await this.#sendAll(this.#sender.missing(this.record.size, chunkSize, e.missing), signal);
			}
		}
	}

	#done(file: ServerFile, instant: boolean): void {
		const { size } = this.record;
		this.host.moved(this.#rate.feed(performance.now(), this.#sender.acked));
		this.host.names.note(file);
		this.host.past?.forget(this.id);
		const saved = instant ? size - this.#sender.acked : 0;
		const end = { saved, file, timeLeft: null, error: null, attempt: 0 };
		this.#rest({ phase: instant ? "instant" : "done", sent: size - saved, sending: size - saved, ...end });
	}

	/** Deletes the server's upload, if that can be done within a few tries; the server does it when it expires. */
	async #drop(): Promise<void> {
		const { host, record } = this;
		if (record.uploadId === null) {
			return;
		}
		const request = { path: `/v1/uploads/${record.uploadId}`, signal: host.closing };
		const backoff = new Backoff(host.network, [1000, 4000, 15_000]);
		const requests = new Requests(host.lanes, new Owner(true), backoff, () => {}, () => {});
		try {
			await requests.make(host.closing, true, () => host.api.call({ ...request, method: "DELETE" }));
		} catch (e) {
			if (asUploadError(e).code === "not_open" && this.view.phase === "cancelled") {
				const up = await host.api.call<ServerUpload>({ ...request, method: "GET" }).catch(() => null);
				if (up?.state === "complete") {
					this.#done(up.file, up.instant); // too late: it is a file
				}
			}
		}
	}
}
