// What of all uploads is done, as people want to see it.

import type { Phase, Totals } from "../types.js";
import { looks } from "./phases.js";

/**
 * The fraction of all bytes that are there, never going backwards. When files are added, what is done stays where it
 * is and the rest of the bar gets longer to fill. It begins anew when files are added after all were finished.
 */
export class Gauge {
	#fraction = 0;
	/** The fraction, and the bytes sent, when the number of bytes was last another. */
	#from = { fraction: 0, sent: 0, bytes: 0 };

	get fraction(): number {
		return this.#fraction;
	}

	update(totals: Pick<Totals, "bytes" | "sending">): number {
		const { bytes, sending: sent } = totals;
		if (bytes !== this.#from.bytes) {
			const fresh = this.#from.bytes === 0 || (this.#fraction === 1 && sent < bytes);
			this.#from = { fraction: fresh ? 0 : this.#fraction, sent: this.#from.bytes === 0 ? 0 : sent, bytes };
			this.#fraction = this.#from.fraction;
		}
		const { fraction, sent: before } = this.#from;
		const rest = bytes - before;
		const now = sent >= bytes ? 1 : fraction + (1 - fraction) * Math.max(0, (sent - before) / rest);
		this.#fraction = bytes === 0 ? 0 : Math.max(this.#fraction, now);
		return this.#fraction;
	}
}

/** How many uploads are in each phase. */
export class Counts {
	readonly #counts = new Map<Phase, number>();

	add(phase: Phase, n: 1 | -1): void {
		this.#counts.set(phase, this.of(phase) + n);
	}

	of(...phases: Phase[]): number {
		return phases.reduce((sum, phase) => sum + (this.#counts.get(phase) ?? 0), 0);
	}

	/** Uploads that go on by themselves. */
	get going(): number {
		let n = 0;
		for (const [phase, count] of this.#counts) {
			n += looks[phase].going ? count : 0;
		}
		return n;
	}

	/** Uploads that somebody has to decide about. */
	get asking(): number {
		return this.of("conflict", "needs-file");
	}

	clear(): void {
		this.#counts.clear();
	}
}
