// Speed and time left, smoothed: people read them, and distrust figures that jump.

/** Seconds over which the speed is averaged. */
const SPEED_OVER = 4;
/** Seconds of sending before a time is told. */
const WARM_UP = 3;
/** Seconds in which the time told comes near the time computed. */
const NEAR_IN = 5;
/** How much of itself the time told may move in a second, beside passing. */
const MOST = 0.15;
/** Seconds without a look: the computer slept, and nothing is known of them. */
const GAP = 10;

/** Times are milliseconds that only grow: performance.now(). */
export class Rate {
	#since: number | null = null; // when the sending began
	#at = 0; // of the last look
	#top = 0; // most bytes ever: what is sent a second time is no progress
	#sum = 0;
	#weight = 0; // of the looks in #sum: without it the average would begin at 0
	#told: number | null = null; // seconds left
	#toldAt = 0;

	/** Bytes a second; 0 while nothing is sent. */
	get speed(): number {
		return this.#since === null || this.#weight === 0 ? 0 : this.#sum / this.#weight;
	}

	/**
	 * So many bytes are there by now, since the beginning. Call it when the sending begins and then a few times a second.
	 * The answer is how many of them are new; those that were there when the sending began are not.
	 */
	feed(now: number, bytes: number): number {
		const seconds = (now - this.#at) / 1000;
		const more = Math.max(bytes - this.#top, 0);
		if (this.#since === null || seconds > GAP) {
			this.#since = now;
			this.#at = now;
			this.#top = bytes;
			return 0;
		}
		if (seconds > 0) {
			const share = 1 - Math.exp(-seconds / SPEED_OVER);
			this.#sum += share * (more / seconds - this.#sum);
			this.#weight += share * (1 - this.#weight);
			this.#at = now;
			this.#top += more;
			return more;
		}
		return 0;
	}

	/** Seconds until so many more bytes are sent; null while it cannot be told. */
	timeLeft(now: number, bytes: number): number | null {
		if (bytes <= 0) {
			this.#told = null;
			return 0;
		}
		if (this.#since === null || now - this.#since < WARM_UP * 1000 || this.speed < 1) {
			this.#toldAt = now;
			return this.#told; // as it stands: it does not pass while nothing is sent
		}
		const computed = bytes / this.speed;
		if (this.#told === null) {
			this.#told = computed;
		} else {
			const seconds = (now - this.#toldAt) / 1000;
			const passed = Math.max(this.#told - seconds, 0);
			const most = Math.max(this.#told * MOST, 1) * seconds;
			const step = (computed - passed) * (1 - Math.exp(-seconds / NEAR_IN));
			this.#told = passed + Math.min(Math.max(step, -most), most);
		}
		this.#toldAt = now;
		return this.#told;
	}

	/** Nothing is sent for now. */
	stop(): void {
		this.#since = null;
	}
}
