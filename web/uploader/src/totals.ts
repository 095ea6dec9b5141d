// All uploads of the list together.

import { Rate } from "./rate.js";
import type { Totals, UploadView } from "./types.js";

/** What one upload counts for. */
interface Share {
	done: number;
	failed: number;
	active: number;
	/** 0 for those that were cancelled. */
	files: number;
	bytes: number;
	sent: number;
	sending: number;
	saved: number;
}

const nothing: Share = { done: 0, failed: 0, active: 0, files: 0, bytes: 0, sent: 0, sending: 0, saved: 0 };
const keys = Object.keys(nothing) as (keyof Share)[];
const active = new Set(["checking", "uploading", "finishing", "waiting"]);

/**
 * The sums, kept up to date with each change instead of being counted anew.
 *
 * Neither the bytes nor their share of all go backwards: an upload that loses what it has sent keeps counting for the most
 * that it had, and one that was cancelled or taken off the list stays with that, as if that had been all of it.
 */
export class Sums {
	#sum: Share = { ...nothing };
	#of = new Map<string, Share>();
	#rate = new Rate();

	/** u is new or has changed. */
	set(u: UploadView): void {
		const before = this.#of.get(u.id) ?? nothing;
		const ended = u.phase === "done" || u.phase === "instant";
		const sent = ended ? u.size : Math.max(before.sent, u.sent);
		const sending = ended ? u.size : Math.max(before.sending, u.sending, sent);
		const cancelled = u.phase === "cancelled";
		const share: Share = {
			files: cancelled ? 0 : 1,
			done: ended ? 1 : 0,
			failed: u.phase === "failed" ? 1 : 0,
			active: active.has(u.phase) ? 1 : 0,
			bytes: cancelled ? sending : u.size,
			sent: cancelled ? sending : sent,
			sending,
			saved: u.saved,
		};
		this.#add(share, 1);
		this.#add(before, -1);
		this.#of.set(u.id, share);
	}

	/** u is not in the list any more. What it was stays in the sums until the list is empty. */
	delete(u: UploadView): void {
		const share = this.#of.get(u.id) ?? nothing;
		this.#of.delete(u.id);
		const { sending, saved } = share;
		this.#add(share, -1);
		this.#add({ ...nothing, bytes: sending, sent: sending, sending, saved }, 1);
		if (this.#of.size === 0) {
			this.#sum = { ...nothing };
			this.#rate = new Rate();
		}
	}

	/** The totals by now (performance.now()). moved: bytes sent since the page began; null: nothing is being sent. */
	totals(now: number, moved: number | null, online: boolean): Totals {
		if (moved === null) {
			this.#rate.stop();
		} else {
			this.#rate.feed(now, moved);
		}
		const timeLeft = this.#rate.timeLeft(now, this.#sum.bytes - this.#sum.sending);
		return { ...this.#sum, speed: this.#rate.speed, timeLeft, online };
	}

	#add(share: Share, times: 1 | -1): void {
		for (const key of keys) {
			this.#sum[key] += times * share[key];
		}
	}
}
