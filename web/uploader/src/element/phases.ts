// What the phases of an upload mean to people.

import { zhErrors } from "../locales/zh.js";
import { type Text, timeInWords } from "../text.js";
import type { Phase, UploadView } from "../types.js";
import type { UploadError } from "../problem.js";
import type { Icon } from "./dom.js";

/** How a phase looks: its sign, its tone, and what can be done. */
interface Look {
	readonly icon: Icon;
	readonly tone: "quiet" | "busy" | "good" | "warn" | "bad";
	/** Works on it by itself, sooner or later. */
	readonly going?: true;
	/** Will change no more by itself. */
	readonly ended?: true;
	readonly can: "pause" | "resume" | "retry" | null;
}

export const looks: Readonly<Record<Phase, Look>> = {
	queued: { icon: "clock", tone: "quiet", going: true, can: "pause" },
	checking: { icon: "up", tone: "busy", going: true, can: "pause" },
	uploading: { icon: "up", tone: "busy", going: true, can: "pause" },
	finishing: { icon: "up", tone: "busy", going: true, can: null },
	done: { icon: "done", tone: "good", ended: true, can: null },
	instant: { icon: "instant", tone: "good", ended: true, can: null },
	paused: { icon: "pause", tone: "quiet", can: "resume" },
	waiting: { icon: "retry", tone: "warn", going: true, can: "pause" },
	conflict: { icon: "question", tone: "warn", can: null },
	"needs-file": { icon: "file", tone: "warn", can: "resume" },
	elsewhere: { icon: "tab", tone: "quiet", can: null },
	failed: { icon: "failed", tone: "bad", ended: true, can: "retry" },
	cancelled: { icon: "none", tone: "quiet", ended: true, can: null },
};

/** The phase in words. */
export function phaseInWords(text: Text, u: UploadView, now: number): string {
	if (u.phase === "cancelled" && u.conflictWith) {
		return text.t("phase.skipped");
	}
	if (u.phase !== "waiting") {
		return text.t(`phase.${u.phase}`);
	}
	if (u.retryAt === null) {
		return text.t("phase.offline");
	}
	const seconds = Math.ceil((u.retryAt - now) / 1000);
	if (seconds <= 0) {
		return text.t("phase.waiting");
	}
	return text.t("phase.waiting-in", {
		time: seconds < 60 ? text.t("time.exact", { n: seconds }) : timeInWords(text, seconds),
	});
}

/** What was saved, and why. */
export function instantInWords(text: Text, u: UploadView): string {
	const saved = text.bytes(u.saved);
	return u.saved < u.size
		? text.t("row.instant-part", { saved, size: text.bytes(u.size) })
		: text.t("row.instant", { saved });
}

/** What happened; in other languages than English also what to do. */
export function errorInWords(text: Text, error: UploadError): string {
	return translated(text, error) ?? (error.message || error.code);
}

/** What happened, and no more: for what is tried again anyway. */
export function reasonInWords(text: Text, error: UploadError): string {
	return errorInWords(text, error).split("。", 1)[0] ?? "";
}

/** What the error says itself: of a server's it is more than the code tells. Empty if all is said already. */
export function errorDetail(text: Text, error: UploadError): string {
	// What is not the server's is translated whole.
	return error.requestId === null && translated(text, error) ? "" : error.detail;
}

function translated(text: Text, error: UploadError): string | undefined {
	const words: Readonly<Record<string, string>> = zhErrors;
	return text.lang === "zh" ? words[error.code] : undefined;
}

/** What is wrong for longer, and nothing that passes by itself in a moment, is told at length. */
export function isLasting(u: UploadView): boolean {
	const code = u.error?.code;
	const soon = code === "network" || (u.attempt <= 2 && code !== "insufficient_storage");
	return u.phase === "failed" || (u.phase === "waiting" && !soon);
}
