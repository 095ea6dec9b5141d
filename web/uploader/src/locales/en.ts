// The words of the element, in English. A text that depends on a number has a form for each plural category.

import type { LocalCode } from "../problem.js";

/** The forms of a text that depends on `n`: see Intl.PluralRules. */
export type Plural = { readonly other: string } & { readonly [C in Intl.LDMLPluralRule]?: string };

export type Message = string | Plural;

export const en = {
	"drop.files": "Drop files or folders here",
	"drop.file": "Drop a file here",
	"drop.now": "Drop to upload",
	"drop.paste": "or paste them",
	"drop.refused": {
		one: "{n} file was left out: only {accept} can be uploaded here.",
		other: "{n} files were left out: only {accept} can be uploaded here.",
	},
	"drop.one-only": "Only one file at a time can be uploaded here.",
	"drop.unreadable": "That could not be read. Choose the files instead of dropping them.",
	"drop.empty": "There are no files in it.",
	"choose.files": "Choose files",
	"choose.file": "Choose a file",
	"choose.folder": "Choose a folder",
	"paste.name": "Pasted {time}",

	"list.label": "Uploads",
	"list.row": "{name}, {state}",

	"total.uploading": {
		one: "Uploading {n} file",
		other: "Uploading {n} files",
	},
	"total.paused": {
		one: "{n} file paused",
		other: "{n} files paused",
	},
	"total.waiting": {
		one: "{n} file waits for you",
		other: "{n} files wait for you",
	},
	"total.elsewhere": {
		one: "{n} file in another tab",
		other: "{n} files in another tab",
	},
	"total.done": {
		one: "{n} file uploaded",
		other: "{n} files uploaded",
	},
	"total.failed": "{n} failed",
	"total.none": "Nothing was uploaded",
	"total.saved": "{bytes} not sent, the server had it",
	"total.bar": "All uploads",
	"all.pause": "Pause all",
	"all.resume": "Resume all",
	"all.retry": "Retry failed",
	"all.clear": "Clear finished",

	"phase.queued": "Queued",
	"phase.checking": "Checking whether the server has it",
	"phase.uploading": "Uploading",
	"phase.finishing": "Finishing",
	"phase.done": "Done",
	"phase.instant": "Instant",
	"phase.paused": "Paused",
	"phase.offline": "Waiting for the network",
	"phase.waiting": "Trying again",
	"phase.waiting-in": "Trying again in {time}",
	"phase.conflict": "A file of this name is there",
	"phase.needs-file": "Needs its file again",
	"phase.elsewhere": "Another tab is sending it",
	"phase.failed": "Failed",
	"phase.cancelled": "Cancelled",
	"phase.skipped": "Skipped, a file of this name is there",

	"row.of": "{part} of {whole}",
	"row.left": "{time} left",
	"row.instant": "The server already has this exact content, verified; {saved} not sent",
	"row.instant-part": "The server already has this exact content, verified; {saved} of {size} not sent",
	"row.progress": "Progress of {name}",
	"row.checking": "Checking {name}",
	"row.pause": "Pause {name}",
	"row.resume": "Resume {name}",
	"row.cancel": "Cancel {name}",
	"row.retry": "Retry {name}",
	"row.remove": "Remove {name} from the list",

	"conflict.there": "{size}, {time}",
	"conflict.skip": "Skip",
	"conflict.replace": "Replace",
	"conflict.keep-both": "Keep both",
	"conflict.actions": "What to do with {name}",
	"conflict.all": "also for {n} more",

	"needs.title": {
		one: "An upload was interrupted. Choose its file again to go on.",
		other: "{n} uploads were interrupted. Choose their files again to go on.",
	},
	"needs.more": "and {n} more",
	"needs.go-on": "Go on",
	"needs.forget": "Forget",
	"needs.strangers": {
		one: "{n} other file was chosen too. It is uploaded as new.",
		other: "{n} other files were chosen too. They are uploaded as new.",
	},

	offline: "You are offline. Uploads go on by themselves when the network is back.",
	dismiss: "Dismiss",

	"error.request": "Request {id}",
	"error.copy": "Copy",
	"error.copied": "Copied",
	"error.copy-label": "Copy request id {id}",

	"time.exact": "{n} s",
	"time.now": "a few seconds",
	"time.seconds": "about {n} s",
	"time.minutes": "about {n} min",
	"time.hours": "about {n} h",
	"time.hours-minutes": "about {h} h {m} min",
	"time.days": {
		one: "about {n} day",
		other: "about {n} days",
	},

	"say.percent": "{percent} uploaded",
	"say.failed": "{name} failed. {reason}",
	"say.failed-more": {
		one: "{n} upload failed",
		other: "{n} uploads failed",
	},
	"say.conflict": {
		one: "{n} file has a name that is taken",
		other: "{n} files have names that are taken",
	},
	"say.online": "You are online again",
} as const satisfies Record<string, Message>;

export type Key = keyof typeof en;

/** Errors that have words in each translation. In English those that the error itself brings are shown. */
export type TranslatedError =
	| LocalCode
	| "forbidden"
	| "insufficient_storage"
	| "internal"
	| "invalid_name"
	| "remote_file"
	| "too_large"
	| "unavailable";

/** A translation: every key, texts with plural forms where English has them. */
export type Messages = { readonly [K in Key]: (typeof en)[K] extends string ? string : Plural };
