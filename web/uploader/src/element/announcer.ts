// What a screen reader is told. One polite region, few words: the start, each quarter, the end, and what went wrong.

import type { Text } from "../text.js";
import type { UploadView } from "../types.js";
import { h } from "./dom.js";
import type { Counts } from "./gauge.js";
import { errorInWords } from "./phases.js";

/** What happens within this time is told together. Milliseconds. */
const together = 700;

export class Announcer {
	readonly element = h("div", { class: "spoken", role: "status", "aria-live": "polite", "aria-atomic": "true" });
	readonly #text: Text;
	#timer: ReturnType<typeof setTimeout> | undefined;
	#failed: UploadView[] = [];
	#conflicts = 0;
	#network: boolean | null = null;
	#counts: Counts | null = null;
	#fraction = 0;
	/** Quarters told of what runs now; null while nothing runs. */
	#told: number | null = null;

	constructor(text: Text) {
		this.#text = text;
	}

	failed(u: UploadView): void {
		this.#failed.push(u);
		this.#soon();
	}

	conflict(): void {
		this.#conflicts++;
		this.#soon();
	}

	network(online: boolean): void {
		this.#network = online;
		this.#soon();
	}

	progress(counts: Counts, fraction: number): void {
		this.#counts = counts;
		this.#fraction = fraction;
		const running = counts.going > 0;
		if (running !== (this.#told !== null) || (this.#told !== null && Math.floor(fraction * 4) > this.#told)) {
			this.#soon();
		}
	}

	/** Says something out of the order of events. */
	say(message: string): void {
		// The same words twice are told only if they are another text.
		this.element.textContent = this.element.textContent === message ? `${message}\u00a0` : message;
	}

	close(): void {
		clearTimeout(this.#timer);
	}

	#soon(): void {
		this.#timer ??= setTimeout(() => {
			this.#timer = undefined;
			const parts = this.#parts();
			if (parts.length > 0) {
				this.say(parts.join(". "));
			}
		}, together);
	}

	#parts(): string[] {
		const text = this.#text;
		const parts: string[] = [];
		if (this.#network !== null) {
			parts.push(text.t(this.#network ? "say.online" : "offline"));
			this.#network = null;
		}
		const [first, ...others] = this.#failed;
		if (first) {
			parts.push(
				others.length === 0 && first.error
					? text.t("say.failed", { name: first.name, reason: errorInWords(text, first.error) })
					: text.t("say.failed-more", { n: others.length + 1 }),
			);
			this.#failed = [];
		}
		if (this.#conflicts > 0) {
			parts.push(text.t("say.conflict", { n: this.#conflicts }));
			this.#conflicts = 0;
		}
		parts.push(...this.#progressParts());
		return parts;
	}

	#progressParts(): string[] {
		const text = this.#text;
		const counts = this.#counts;
		if (!counts) {
			return [];
		}
		if (counts.going === 0) {
			const ran = this.#told !== null;
			this.#told = null;
			const done = counts.of("done", "instant");
			// Paused by hand, or asking: that is told where it was done.
			const finished = ran && counts.of("paused", "conflict", "needs-file") === 0 && done > 0;
			return finished ? [text.t("total.done", { n: done })] : [];
		}
		const quarters = Math.floor(this.#fraction * 4);
		if (this.#told === null) {
			this.#told = quarters;
			return [text.t("total.uploading", { n: counts.going })];
		}
		if (quarters > this.#told && quarters < 4) {
			this.#told = quarters;
			return [text.t("say.percent", { percent: text.percent(quarters / 4) })];
		}
		return [];
	}
}
