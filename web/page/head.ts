// The tab: how far the uploads are, in its title and its icon.

import { Gauge } from "../uploader/src/element/gauge.js";
import type { Totals } from "../uploader/src/types.js";
import { found } from "./dom.js";

/** The icon while files go up: a ring, a part of which is filled. An SVG of its own, since a style cannot be told to a tab. */
export function ring(percent: number): string {
	return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" fill="none" stroke-width="11"><circle cx="32" cy="32" r="26" stroke="#8b969d" stroke-opacity=".45"/><circle cx="32" cy="32" r="26" stroke="#2f7fd1" pathLength="100" stroke-dasharray="${percent} 100" transform="rotate(-90 32 32)"/></svg>`;
}

/** The icon changes in steps of so many hundredths: browsers fetch each one anew. */
const step = 5;

export class Tab {
	/** The same as the uploader's own bar has, so that both tell the same. */
	readonly #gauge = new Gauge();
	#filled: number | null = null;
	#before = "";

	/** @param percent tells a fraction in the page's language. */
	constructor(private readonly percent: (fraction: number) => string) {}

	show(totals: Totals): void {
		const fraction = this.#gauge.update(totals);
		const title = totals.active > 0 ? `${this.percent(fraction)} · Gantry` : "Gantry";
		if (document.title !== title) document.title = title;
		const filled = totals.active > 0 ? Math.floor((fraction * 100) / step) * step : null;
		if (filled === this.#filled) return;
		this.#filled = filled;
		const link = found<HTMLLinkElement>("link[rel=icon]");
		// The one that is replaced may be on its way into the tab still; the one before it is not.
		URL.revokeObjectURL(this.#before);
		this.#before = link.href;
		link.href =
			filled === null ? "/icon.svg" : URL.createObjectURL(new Blob([ring(filled)], { type: "image/svg+xml" }));
	}
}
