// Where a file is, in words.

import type { ServerFile } from "../uploader/src/types.js";
import type { PageText } from "./words.js";

export interface Place {
	/** A few words. */
	text: string;
	/** A sentence or two, for who wants to know more. */
	help: string;
	/** What the store said, in its own words; null: nothing to tell. */
	reason: string | null;
	tone: "rest" | "busy" | "warn" | "bad";
	/** How much has been moved, 0 to 1; null while nothing moves. */
	progress: number | null;
}

/** Tells where a file is: the location counts, the transfer tells what is happening to it. `now` in milliseconds. */
export function place(file: ServerFile, words: PageText, now: number): Place {
	const { location, transfer } = file;
	const rest: Place = {
		text: words.t("place.stored"),
		help: words.t("help.stored"),
		reason: null,
		tone: "rest",
		progress: null,
	};
	if (location === "lost") return { ...rest, text: words.t("place.lost"), help: words.t("help.lost"), tone: "bad" };
	if (location === "store" || transfer?.state === "stored") return rest;
	if (!transfer) return { ...rest, text: words.t("place.staging"), help: words.t("help.staging") };
	const reason = transfer.last_error || null;
	switch (transfer.state) {
		case "running": {
			const progress = transfer.size > 0 ? transfer.bytes / transfer.size : 0;
			return {
				text: words.t("place.running", { percent: words.percent(progress) }),
				help: words.t("help.running"),
				reason: null,
				tone: "busy",
				progress,
			};
		}
		case "verifying":
			return { ...rest, text: words.t("place.verifying"), help: words.t("help.verifying"), tone: "busy" };
		case "retrying": {
			const at = transfer.next_at ? Date.parse(transfer.next_at) : now;
			const text =
				at > now
					? words.t("place.retrying", { time: words.when(new Date(at), new Date(now)) })
					: words.t("place.retrying-now");
			return { ...rest, text, help: words.t("help.retrying"), reason, tone: "warn" };
		}
		case "dead":
			return { ...rest, text: words.t("place.dead"), help: words.t("help.dead"), reason, tone: "bad" };
		case "cancelled":
			return { ...rest, text: words.t("place.cancelled"), help: words.t("help.cancelled") };
		case "queued":
			return { ...rest, text: words.t("place.queued"), help: words.t("help.queued") };
	}
}
