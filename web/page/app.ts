// The page: the uploader, open uploads of other devices, my files. Here they are brought together.

import { GantryUploader, type UploaderLike } from "../uploader/src/element/index.js";
import type { ServerFile } from "../uploader/src/types.js";
import { API, type OpenUpload } from "./api.js";
import { copy } from "./clipboard.js";
import { found, h, icon } from "./dom.js";
import { Live, type LiveState, type ServerEvent } from "./events.js";
import { errorWords, Files } from "./files.js";
import { Tab } from "./head.js";
import { Notices } from "./notices.js";
import { OpenUploads } from "./open.js";
import { type Removal, Removals } from "./removals.js";
import { Session, storageOf } from "./session.js";
import { Settings } from "./settings.js";
import { Toasts } from "./toast.js";
import { askToken } from "./token.js";

/** The connection for events is given back when nobody has looked for so long, in milliseconds. */
const unwatched = 60_000;

const open = document.documentElement.hasAttribute("data-open");
const settings = new Settings(redraw);
const words = (): Settings["words"] => settings.words;
const toasts = new Toasts(found("#toasts"), () => words().t("toast.close"));
const session = new Session((refused) => askToken(words(), refused), storageOf("sessionStorage"), sessionChanged);
const api = new API(session);
const notices = new Notices(words);
const uploader = makeUploader();
const files = new Files({ words, api, toasts, open, remove: (removal) => removals.add(removal), say });
const others = new OpenUploads(found("#open"), found("#open-list"), {
	words,
	api,
	own: () => new Set(uploader.uploads.filter((u) => u.phase !== "cancelled").map((u) => u.uploadId)),
	resume: (upload, file) => void uploader.add(file, { name: upload.name, path: upload.path, uploadId: upload.id }),
	wrong: (upload, file) => {
		const text = words().t("open.other", {
			name: upload.name,
			size: words().bytes(upload.size ?? 0),
			given: words().bytes(file.size),
		});
		toasts.show("wrong", { text, lasts: 10_000 });
	},
	cancel: (removal) => removals.add(removal),
});

const removals = new Removals({
	send: async (removal, keepalive) => {
		await api.delete(removal.kind, removal.id, keepalive);
		if (removal.kind === "files") files.catalog.drop(removal.id);
		else others.drop(removal.id);
	},
	hide: (list, hidden) => {
		const ids = (kind: Removal["kind"]): string[] => list.filter((r) => r.kind === kind).map((r) => r.id);
		files.catalog.hide(ids("files"), hidden);
		others.hide(ids("uploads"), hidden);
	},
	pending: showRemovals,
	failed: (removal, error) =>
		toasts.show(`failed ${removal.id}`, {
			text: words().t("toast.delete-failed", removal),
			detail: errorWords(error, words()),
			lasts: 10_000,
		}),
});

const live = new Live({
	open: (signal) => api.request("GET", "/v1/events", { signal, headers: { Accept: "text/event-stream" } }),
	heard,
	poll: load,
	state: showLive,
});

/** Says something to screen readers alone. */
function say(text: string): void {
	found("#say").textContent = text;
}

function load(): void {
	void files.catalog.reload();
	// The files' list tells when the server cannot be reached; this one just has nothing to show then.
	others.load().catch(() => {});
}

function heard(event: ServerEvent): void {
	if (event.name === "resync") {
		notices.load();
		return load();
	}
	const data = JSON.parse(event.data) as ServerFile & OpenUpload;
	if (event.name === "file") files.catalog.put(data);
	else if (event.name === "file_deleted") files.catalog.drop(data.id);
	else if (event.name === "upload") others.put(data);
	else if (event.name === "upload_ended") others.drop(data.id);
}

function showRemovals(pending: readonly Removal[]): void {
	const [first] = pending;
	if (!first) return toasts.hide("removals");
	const n = pending.length;
	const kinds =
		first.kind === "files"
			? (["toast.deleted", "toast.deleted-many"] as const)
			: (["toast.cancelled", "toast.cancelled-many"] as const);
	toasts.show("removals", {
		text: n === 1 ? words().t(kinds[0], first) : words().t(kinds[1], { n }),
		actions: [{ label: words().t("toast.undo"), run: undo }],
		lasts: null,
		clock: true,
		held: (held) => (held ? removals.hold() : removals.release()),
		closed: () => void removals.flush(false),
	});
}

function undo(): void {
	removals.undo();
	say(words().t("toast.undone"));
}

let wasAway: ReturnType<typeof setTimeout> | undefined;

function showLive(state: LiveState): void {
	const line = found("#live");
	const away = state === "away";
	if (!away) {
		clearTimeout(wasAway);
		wasAway = undefined;
		if (line.textContent) say(words().t("live.back"));
		line.textContent = "";
	} else if (!navigator.onLine) line.textContent = words().t("live.offline");
	// A moment without a connection is nobody's business.
	else
		wasAway ??= setTimeout(() => (line.textContent = words().t(navigator.onLine ? "live.away" : "live.offline")), 2000);
}

function sessionChanged(): void {
	found("#token").hidden = session.token === null;
	if (session.token === null) return;
	live.start();
	for (const u of uploader.uploads) if (u.phase === "failed" && u.error?.code === "unauthorized") uploader.retry(u.id);
}

/** Puts the element into the page. Its Uploader shares the session's token, and its dialog. */
function makeUploader(): UploaderLike {
	const element = new GantryUploader();
	let given: string | null = null;
	element.options = {
		endpoint: "",
		workerURL: "/hash.worker.js",
		token: () => (given = session.token),
		onUnauthorized: async () => (given = await session.renew(given)),
	};
	element.toggleAttribute("anywhere", true);
	element.lang = words().lang;
	found("#upload").append(element);
	const made = element.uploader;
	if (!made) throw new Error("The element is in the page, and has no Uploader.");
	return made;
}

function redraw(): void {
	found("gantry-uploader").lang = words().lang;
	notices.show();
	files.redraw();
	others.draw();
}

found("#files").hidden = false;
found("#token").append(icon("i-key"));
found("#token").hidden = session.token === null;
found("#token").addEventListener("click", () => {
	session.forget();
	location.reload();
});
for (const code of document.querySelectorAll<HTMLElement>("[data-command]")) {
	const command = (code.textContent ?? "").replace("http://localhost:8080", location.origin);
	// One box for each word, so that lines do not break at hyphens.
	code.replaceChildren(...command.split(" ").flatMap((word) => [h("span", {}, word), " "]));
	const run = async (): Promise<void> => {
		if (await copy(command)) toasts.show("copy", { text: words().t("toast.command") });
	};
	code.after(
		h(
			"button",
			{ type: "button", class: "tool", "data-t-label": "help.copy", onclick: () => void run() },
			icon("i-copy"),
		),
	);
}
settings.show();

const tab = new Tab((fraction) => words().percent(fraction));
uploader.on("totals", (totals) => tab.show(totals));
uploader.on("complete", (u) => u.file && files.catalog.put(u.file));
uploader.on("removed", () => others.draw());
uploader.on("change", (u, before) => {
	if (u.uploadId !== before.uploadId || u.phase !== before.phase) others.draw();
});

addEventListener("pagehide", () => void removals.flush(true));
addEventListener("keydown", (event) => {
	const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
	if (event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !typing) undo();
});
addEventListener("offline", () => showLive("away"));
addEventListener("online", () => {
	// The old connection may be dead without anybody having said so.
	live.stop();
	live.start();
});
let idle: ReturnType<typeof setTimeout>;
document.addEventListener("visibilitychange", () => {
	clearTimeout(idle);
	if (document.hidden) idle = setTimeout(() => live.stop(), unwatched);
	else live.start();
});

load();
live.start();
