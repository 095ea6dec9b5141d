// The requests of one file: each waits for its lane, and is made again after failures that may pass.

import type { Backoff } from "./backoff.js";
import type { Lanes, Owner } from "./lanes.js";
import { asUploadError, type UploadError } from "./problem.js";

export class Requests {
	/** How many are under way. */
	running = 0;

	constructor(
		private readonly lanes: Lanes,
		private readonly owner: Owner,
		public backoff: Backoff,
		/** Something of this, or of the back-off, is another than it was. */
		private readonly changed: () => void,
		/** It is tried again; once for an outage. */
		private readonly retrying: (reason: UploadError) => void,
	) {}

	/** All that are there wait for their next try. */
	get waiting(): boolean {
		return this.backoff.waiting && this.running === 0;
	}

	/** Sends, again and again if that may help. Fails with an UploadError for good, or the signal's reason. */
	async make<T>(signal: AbortSignal, urgent: boolean, send: () => Promise<T>): Promise<T> {
		for (;;) {
			await this.backoff.ready(signal);
			const leave = await this.lanes.enter(this.owner, urgent, signal);
			if (this.backoff.waiting) {
				leave();
				continue;
			}
			const seen = this.backoff.failures;
			this.running++;
			this.changed();
			try {
				const answer = await send();
				this.backoff.succeeded();
				return answer;
			} catch (e) {
				signal.throwIfAborted();
				const error = asUploadError(e);
				const first = seen === this.backoff.failures;
				if (!this.backoff.failed(error, seen)) {
					throw error;
				}
				if (first) {
					this.retrying(error);
				}
			} finally {
				this.running--;
				leave();
				this.changed();
			}
		}
	}
}

/** Aborts when the parent does, or by itself; then it does not listen to the parent any more. */
export function child(parent: AbortSignal): AbortController {
	const controller = new AbortController();
	const abort = () => controller.abort(parent.reason);
	if (parent.aborted) {
		abort();
	}
	parent.addEventListener("abort", abort, { signal: controller.signal });
	return controller;
}
