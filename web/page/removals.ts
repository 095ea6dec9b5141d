// Deleting with a way back: nothing is sent before the time to think again is over.

export interface Removal {
	kind: "files" | "uploads";
	id: string;
	name: string;
}

export interface RemovalsOptions {
	/** Milliseconds to think again. */
	wait?: number;
	/** Sends a DELETE. With keepalive it has to outlive the page. */
	send: (removal: Removal, keepalive: boolean) => Promise<void>;
	/** Takes things out of sight, or brings them back. */
	hide: (removals: readonly Removal[], hidden: boolean) => void;
	/** These wait; none: the time is over, or they were brought back. */
	pending: (removals: readonly Removal[]) => void;
	/** A DELETE did not work; the thing is in sight again. */
	failed: (removal: Removal, error: unknown) => void;
}

/** What is deleted within the time joins those that wait, and begins it anew: one undo brings all back. */
export class Removals {
	#waiting: Removal[] = [];
	#timer: ReturnType<typeof setTimeout> | undefined;

	constructor(private readonly options: RemovalsOptions) {}

	add(removal: Removal): void {
		if (this.#waiting.some((r) => r.id === removal.id)) return;
		this.#waiting.push(removal);
		this.options.hide([removal], true);
		this.options.pending(this.#waiting);
		this.release();
	}

	undo(): void {
		const back = this.#take();
		this.options.hide(back, false);
	}

	/** Stops the time, while somebody is at the button. */
	hold(): void {
		clearTimeout(this.#timer);
	}

	/** Begins the time anew. */
	release(): void {
		clearTimeout(this.#timer);
		if (this.#waiting.length) this.#timer = setTimeout(() => void this.flush(false), this.options.wait ?? 6000);
	}

	/** Sends all that wait; with keepalive because the page goes. */
	async flush(keepalive: boolean): Promise<void> {
		await Promise.all(
			this.#take().map((removal) =>
				this.options.send(removal, keepalive).catch((error: unknown) => {
					this.options.hide([removal], false);
					this.options.failed(removal, error);
				}),
			),
		);
	}

	#take(): Removal[] {
		clearTimeout(this.#timer);
		const taken = this.#waiting;
		this.#waiting = [];
		if (taken.length) this.options.pending([]);
		return taken;
	}
}
