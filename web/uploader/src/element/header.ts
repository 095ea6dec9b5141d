// The line above the list: all uploads together.

import { type Text, timeInWords } from "../text.js";
import type { Totals } from "../types.js";
import { Bar, button, h, keepFocus, setText, show } from "./dom.js";
import type { Counts } from "./gauge.js";

export interface HeaderActions {
	pauseAll(): void;
	resumeAll(): void;
	retryFailed(): void;
	clearFinished(): void;
	/** Shows the next upload that failed, or that waits for somebody. */
	revealFailed(): void;
	revealAsking(): void;
}

export class Header {
	readonly element: HTMLElement;
	readonly #text: Text;
	readonly #what = h("strong");
	readonly #failed: HTMLButtonElement;
	readonly #asking: HTMLButtonElement;
	readonly #figures = h("span", { class: "figures" });
	readonly #percent = h("span", { class: "percent", part: "percent" });
	readonly #bar = new Bar("total-bar");
	readonly #pause: HTMLButtonElement;
	readonly #resume: HTMLButtonElement;
	readonly #retry: HTMLButtonElement;
	readonly #clear: HTMLButtonElement;

	constructor(text: Text, actions: HeaderActions) {
		this.#text = text;
		this.#failed = button("link bad", () => actions.revealFailed());
		this.#asking = button("link warn", () => actions.revealAsking());
		this.#pause = button("small", () => actions.pauseAll(), text.t("all.pause"));
		this.#resume = button("small", () => actions.resumeAll(), text.t("all.resume"));
		this.#retry = button("small", () => actions.retryFailed(), text.t("all.retry"));
		this.#clear = button("small", () => actions.clearFinished(), text.t("all.clear"));
		this.#bar.element.setAttribute("aria-label", text.t("total.bar"));
		this.element = h(
			"div",
			{ class: "header", part: "header" },
			h("div", { class: "summary" }, this.#what, this.#failed, this.#asking, this.#figures),
			h("div", { class: "all" }, this.#pause, this.#resume, this.#retry, this.#clear),
			h("div", { class: "total" }, this.#bar.element, this.#percent),
		);
	}

	update(totals: Totals, counts: Counts, fraction: number): void {
		const text = this.#text;
		const { going } = counts;
		const paused = counts.of("paused");
		setText(this.#what, this.#whatInWords(counts));
		show(this.#what, this.#what.textContent !== "");
		setText(this.#failed, totals.failed > 0 ? text.t("total.failed", { n: totals.failed }) : "");
		show(this.#failed, totals.failed > 0);
		setText(this.#asking, text.t("total.waiting", { n: counts.asking }));
		show(this.#asking, counts.asking > 0);
		setText(this.#figures, this.#figuresInWords(totals, going > 0).join(" · "));

		const unfinished = going + paused > 0;
		show(this.#bar.element, unfinished);
		show(this.#percent, unfinished);
		this.#bar.set(fraction);
		setText(this.#percent, text.percent(fraction));

		const buttons = [this.#pause, this.#resume, this.#retry, this.#clear];
		keepFocus(
			this.element,
			() => {
				show(this.#pause, going > 0);
				show(this.#resume, going === 0 && paused > 0);
				show(this.#retry, totals.failed > 0);
				show(this.#clear, counts.of("done", "instant", "cancelled") > 0);
			},
			// One often takes the other's place.
			() => buttons.find((button) => !button.hidden),
		);
	}

	#whatInWords(counts: Counts): string {
		const text = this.#text;
		const paused = counts.of("paused");
		const done = counts.of("done", "instant");
		if (counts.going > 0) {
			return text.t("total.uploading", { n: counts.going });
		}
		if (paused > 0) {
			return text.t("total.paused", { n: paused });
		}
		if (counts.of("elsewhere") > 0) {
			return text.t("total.elsewhere", { n: counts.of("elsewhere") });
		}
		if (done > 0) {
			return text.t("total.done", { n: done });
		}
		return counts.asking > 0 ? "" : text.t("total.none");
	}

	#figuresInWords(totals: Totals, going: boolean): string[] {
		const text = this.#text;
		const figures = [
			totals.sending < totals.bytes
				? text.t("row.of", { part: text.bytes(totals.sending), whole: text.bytes(totals.bytes) })
				: text.bytes(totals.bytes),
		];
		if (going && totals.speed > 0) {
			figures.push(text.speed(totals.speed));
		}
		if (going && totals.timeLeft !== null) {
			figures.push(text.t("row.left", { time: timeInWords(text, totals.timeLeft) }));
		}
		if (!going && totals.saved > 0) {
			figures.push(text.t("total.saved", { bytes: text.bytes(totals.saved) }));
		}
		return figures;
	}
}
