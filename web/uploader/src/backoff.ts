// When to try again: exponential back-off with full jitter, that the network's return and the computer's waking cut short.

import type { UploadError } from "./problem.js";

const FIRST = 500;
const LONGEST = 30_000;
/** How often a failure is tried again that may well be for good. */
const DOUBTS = 8;
/** Failures that somebody will mend, or that mend themselves: tried again for ever. */
const outages = new Set(["network", "stalled", "timeout", "unavailable", "too_many_requests", "insufficient_storage", "canceled"]);

/** Whether there is a network, as far as the browser knows: "online" may be wrong, "offline" hardly is. */
export class Network {
	readonly #listeners = new Set<() => void>();
	readonly #closing = new AbortController();

	constructor() {
		for (const event of ["online", "offline"]) {
			globalThis.addEventListener?.(event, () => this.#listeners.forEach((listener) => listener()), this.#closing);
		}
	}

	get online(): boolean {
		return globalThis.navigator?.onLine !== false;
	}

	/** Tells of every change; the answer ends that. */
	on(listener: () => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	close(): void {
		this.#closing.abort();
		this.#listeners.clear();
	}
}

/** The back-off of one upload: its requests share it, so that a server in trouble is not asked by each of them. */
export class Backoff {
	/** Failures since something last worked; those without a network do not count. */
	attempt = 0;
	/** Outages there ever were. */
	failures = 0;
	/** When it is tried again (Date.now()); null if not waiting, or for the network. */
	retryAt: number | null = null;
	#gate: Gate | null = null;

	/** delays: milliseconds before each further try, after which it fails; undefined: see the top of this file. */
	constructor(
		private readonly network: Network,
		private readonly delays: readonly number[] | undefined,
	) {}

	get waiting(): boolean {
		return this.#gate !== null;
	}

	/** A request failed; seen is what failures was when it began. The answer says whether to try again. */
	failed(error: UploadError, seen: number): boolean {
		if (!error.retryable) {
			return false;
		}
		if (seen < this.failures) {
			return true; // several requests fall to one outage: it counts once
		}
		const offline = !this.network.online && error.status === 0;
		if (!offline) {
			const most = this.delays?.length ?? (outages.has(error.code) ? Number.POSITIVE_INFINITY : DOUBTS);
			if (this.attempt >= most) {
				return false;
			}
			this.attempt++;
		}
		this.failures++;
		const wait = Math.max(this.#delay(), error.retryAfter ?? 0);
		this.#gate?.open();
		this.#gate = new Gate(wait, this.network);
		this.retryAt = offline ? null : Date.now() + wait;
		return true;
	}

	#delay(): number {
		const n = Math.max(this.attempt - 1, 0);
		return this.delays?.[n] ?? Math.random() * Math.min(FIRST * 2 ** n, LONGEST);
	}

	/** Something worked: what waits goes on at once. */
	succeeded(): void {
		this.attempt = 0;
		this.hurry();
	}

	/** Ends the waiting. */
	hurry(): void {
		this.#gate?.open();
		this.#gate = null;
		this.retryAt = null;
	}

	/** Waits until the next try is due. */
	async ready(signal: AbortSignal): Promise<void> {
		for (let gate = this.#gate; gate; gate = this.#gate) {
			await gate.wait(signal);
			if (this.#gate === gate) {
				this.#gate = null;
				this.retryAt = null;
			}
		}
		signal.throwIfAborted();
	}
}

/** Opens when the time has come or the network is back. */
class Gate {
	readonly #opened: Promise<void>;
	open!: () => void;

	constructor(ms: number, network: Network) {
		this.#opened = new Promise((resolve) => {
			// The clock is read every second: a computer that wakes finds the time past, and need not wait for the
			// rest of a timer that stood still. The count is for clocks that are set back.
			const until = Date.now() + ms;
			const wasOnline = network.online;
			let ticks = Math.ceil(ms / 1000);
			let timer: ReturnType<typeof setTimeout> | undefined;
			const tick = () => {
				const left = until - Date.now();
				if (left <= 0 || ticks-- <= 0) {
					this.open();
				} else {
					timer = setTimeout(tick, Math.min(left, 1000));
				}
			};
			const unhear = network.on(() => {
				if (network.online) {
					this.open();
				}
			});
			this.open = () => {
				clearTimeout(timer);
				unhear();
				resolve();
			};
			// Without a network it is looked at now and then all the same: the server may be on this computer.
			if (!wasOnline) {
				timer = setTimeout(this.open, LONGEST);
			} else {
				tick();
			}
		});
	}

	wait(signal: AbortSignal): Promise<void> {
		return new Promise((resolve, reject) => {
			const abort = () => reject(signal.reason);
			if (signal.aborted) {
				abort();
				return;
			}
			signal.addEventListener("abort", abort, { once: true });
			void this.#opened.then(() => {
				signal.removeEventListener("abort", abort);
				resolve();
			});
		});
	}
}
