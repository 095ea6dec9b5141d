// <gantry-uploader>: an Uploader that people can see and touch.

import { type Item, list } from "../intake.js";
import { type Language, language, type Text, text } from "../text.js";
import type { ConflictRule, Source, Totals, UploaderOptions, UploadView } from "../types.js";
import { Uploader } from "../uploader.js";
import { Announcer } from "./announcer.js";
import { h } from "./dom.js";
import { Counts, Gauge } from "./gauge.js";
import { Guard } from "./guard.js";
import { Header } from "./header.js";
import { accepts, Intake, type Part } from "./intake.js";
import { VirtualList } from "./list.js";
import { Notices } from "./notices.js";
import { looks } from "./phases.js";
import { UploadRow } from "./row.js";
import { adoptStyle } from "./styles.js";

/** What the element needs of an Uploader. */
export type UploaderLike = Pick<Uploader, keyof Uploader>;

/** Rows in pixels: with a problem or a question below, and without. */
const heights = { plain: 68, tall: 108 };

/** Everything on the screen, in one language. It is made again when the language changes. */
interface Surface {
	readonly text: Text;
	readonly frame: HTMLElement;
	readonly intake: Intake;
	readonly notices: Notices;
	readonly header: Header;
	readonly list: VirtualList<UploadView>;
	readonly announcer: Announcer;
}

/**
 * Attributes:
 * - `endpoint`, `token`, `conflict` ("ask" if it is not given), `worker-url`: as in UploaderOptions. They count when
 *   the element makes its Uploader, the first time it is in a document.
 * - `lang`: "en" or "zh"; without it that of the page, else that of the browser.
 * - `multiple="false"`: one file at a time. `accept`: as that of `<input>`.
 * - `anywhere`: files may be dropped anywhere on the page.
 * - `compact`: the drop zone is one line from the beginning.
 * - `title-progress`: the page's title tells how far it is.
 * - `theme`: "light", "dark" or "auto" (as the system); without it as the page's color-scheme.
 *
 * Events, none of which bubbles: `added`, `complete` and `error`, with the UploadView as detail.
 *
 * Looks: the custom properties `--gantry-accent`, `-on-accent`, `-ink`, `-soft`, `-line`, `-edge`, `-card`, `-tint`,
 * `-good`, `-warn`, `-bad` (colours), `--gantry-font` and `--gantry-list-height`; the parts `drop-zone`, `drop-cover`,
 * `button`, `primary`, `header`, `total-bar`, `percent`, `list`, `row`, `name`, `state`, `phase`, `bar`, `bar-fill`,
 * `hash-bar`, `error`, `notice`, `offline` and `needs-file`.
 */
export class GantryUploader extends HTMLElement {
	static readonly observedAttributes = ["lang", "multiple", "accept", "anywhere", "compact", "title-progress"];

	/** More options for the Uploader that the element makes. Set them before it does: in the same script. */
	declare options?: Partial<UploaderOptions>;

	#uploader: UploaderLike | null = null;
	/** The element made its Uploader, and closes it. */
	#own = false;
	#unsubscribe: (() => void)[] = [];
	#surface: Surface | null = null;
	readonly #views = new Map<string, UploadView>();
	/** The list has other uploads than the map. */
	#stale = false;
	#counts = new Counts();
	#gauge = new Gauge();
	readonly #guard = new Guard();
	#online = true;
	/** The page may change its language. */
	readonly #relabel = new MutationObserver(() => {
		if (this.#surface && this.#surface.text.lang !== language(this)) {
			this.#build();
		}
	});
	#frame = 0;
	#clock: ReturnType<typeof setInterval> | undefined;

	constructor() {
		super();
		adoptStyle(this.attachShadow({ mode: "open" }));
	}

	/**
	 * The Uploader that is shown; null while the element is in no document and was given none. One that is given is not
	 * closed with the element.
	 */
	get uploader(): UploaderLike | null {
		if (!this.#uploader && this.isConnected) {
			const uploader = new Uploader(this.#uploaderOptions());
			this.#uploader = uploader;
			this.#own = true;
			void uploader.restore();
			this.#subscribe();
		}
		return this.#uploader;
	}

	set uploader(uploader: UploaderLike | null) {
		this.#release();
		this.#uploader = uploader;
		if (this.isConnected) {
			this.#subscribe();
		}
	}

	connectedCallback(): void {
		this.#adoptUploader();
		this.#relabel.observe(document.documentElement, { attributeFilter: ["lang"] });
		this.#build();
		if (this.#uploader) {
			this.#subscribe();
		} else {
			// The script that loads the element may still give it options or an Uploader.
			queueMicrotask(() => this.uploader);
		}
	}

	disconnectedCallback(): void {
		this.#unsubscribeAll();
		this.#relabel.disconnect();
		this.#demolish();
		// Moved to another place it is back before this runs.
		queueMicrotask(() => {
			if (!this.isConnected && this.#own) {
				this.#release();
			}
		});
	}

	attributeChangedCallback(): void {
		if (this.#surface) {
			this.#build();
		}
	}

	/** Takes over an Uploader that was given before the element was defined: as a plain property it hides the class's. */
	#adoptUploader(): void {
		const early: unknown = Object.getOwnPropertyDescriptor(this, "uploader")?.value;
		if (early) {
			Reflect.deleteProperty(this, "uploader");
			this.uploader = early as UploaderLike;
		}
	}

	#uploaderOptions(): UploaderOptions {
		const workerURL = this.getAttribute("worker-url");
		return {
			endpoint: this.getAttribute("endpoint") ?? "",
			token: () => this.getAttribute("token"),
			conflict: (this.getAttribute("conflict") as ConflictRule | null) ?? "ask",
			...(workerURL === null ? {} : { workerURL }),
			...this.options,
		};
	}

	#release(): void {
		this.#unsubscribeAll();
		if (this.#own) {
			this.#uploader?.close();
		}
		this.#own = false;
		this.#uploader = null;
	}

	#unsubscribeAll(): void {
		for (const off of this.#unsubscribe.splice(0)) {
			off();
		}
		cancelAnimationFrame(this.#frame);
		this.#frame = 0;
		clearInterval(this.#clock);
		this.#clock = undefined;
		this.#guard.active = false;
		this.#guard.title = null;
	}

	#subscribe(): void {
		const uploader = this.#uploader;
		if (!uploader || !this.#surface) {
			return;
		}
		this.#unsubscribeAll();
		this.#views.clear();
		this.#counts = new Counts();
		this.#gauge = new Gauge();
		for (const u of uploader.uploads) {
			this.#put(u);
		}
		this.#unsubscribe = [
			uploader.on("added", (u) => {
				this.#put(u);
				this.#tell("added", u);
			}),
			uploader.on("change", (u) => this.#change(u)),
			uploader.on("removed", (u) => this.#remove(u)),
			uploader.on("complete", (u) => this.#tell("complete", u)),
			uploader.on("error", (u) => {
				this.#surface?.announcer.failed(u);
				this.#tell("error", u);
			}),
			uploader.on("totals", () => this.#schedule()),
		];
		this.#schedule();
	}

	#tell(type: string, u: UploadView): void {
		this.dispatchEvent(new CustomEvent(type, { detail: u }));
	}

	#put(u: UploadView): void {
		const before = this.#views.get(u.id);
		if (before) {
			this.#counts.add(before.phase, -1);
		}
		this.#counts.add(u.phase, 1);
		this.#views.set(u.id, u);
		this.#stale ||= !before;
		if (u.phase === "conflict" && before?.phase !== "conflict") {
			this.#surface?.announcer.conflict();
		}
		this.#schedule();
	}

	#change(u: UploadView): void {
		const before = this.#views.get(u.id);
		this.#put(u);
		this.#surface?.list.change(u);
		if ((before?.phase === "conflict") !== (u.phase === "conflict")) {
			this.#touch((other) => other.phase === "conflict");
		}
	}

	#remove(u: UploadView): void {
		const before = this.#views.get(u.id);
		if (before) {
			this.#counts.add(before.phase, -1);
			this.#views.delete(u.id);
			this.#stale = true;
			this.#schedule();
		}
	}

	/** Draws uploads again whose words depend on more than themselves. */
	#touch(which: (u: UploadView) => boolean): void {
		for (const u of this.#views.values()) {
			if (which(u)) {
				this.#surface?.list.change(u);
			}
		}
	}

	#schedule(): void {
		this.#frame ||= requestAnimationFrame(() => {
			this.#frame = 0;
			this.#draw();
		});
	}

	#draw(): void {
		const surface = this.#surface;
		const totals = this.#uploader?.totals;
		if (!surface || !totals) {
			return;
		}
		if (this.#stale) {
			this.#stale = false;
			surface.list.items = [...this.#views.values()];
		}
		const any = this.#views.size > 0;
		const fraction = this.#gauge.update(totals);
		surface.header.update(totals, this.#counts, fraction);
		surface.header.element.hidden = !any;
		surface.list.element.hidden = !any;
		surface.frame.classList.toggle("slim", any || this.hasAttribute("compact"));
		surface.notices.needing = this.#counts.of("needs-file") > 0 ? this.#in("needs-file") : [];
		this.#drawNetwork(totals, surface);
		surface.announcer.progress(this.#counts, fraction);
		this.#guard.active = this.#counts.going > 0;
		this.#guard.title =
			this.hasAttribute("title-progress") && this.#counts.going > 0 ? surface.text.percent(fraction) : null;
		this.#countDown();
	}

	#drawNetwork(totals: Totals, surface: Surface): void {
		if (totals.online !== this.#online) {
			this.#online = totals.online;
			surface.announcer.network(totals.online);
		}
		surface.notices.online = totals.online;
	}

	/** The seconds until the next try pass also while nothing else happens. */
	#countDown(): void {
		const waiting = this.#counts.of("waiting") > 0;
		if (!waiting) {
			clearInterval(this.#clock);
			this.#clock = undefined;
		} else {
			this.#clock ??= setInterval(() => this.#touch((u) => u.phase === "waiting"), 1000);
		}
	}

	#in(phase: UploadView["phase"]): UploadView[] {
		return [...this.#views.values()].filter((u) => u.phase === phase);
	}

	#build(): void {
		this.#demolish();
		const lang = language(this);
		const words = text(lang);
		const intake = new Intake(this, words, {
			multiple: this.getAttribute("multiple") !== "false",
			accept: this.getAttribute("accept") ?? "",
			anywhere: this.hasAttribute("anywhere"),
			take: (parts) => this.#take(parts),
		});
		const surface: Surface = {
			text: words,
			frame: h("div", { class: "frame", lang: htmlLang(lang) }),
			intake,
			notices: new Notices(words, { goOn: () => this.#goOn(this.#in("needs-file")), forget: () => this.#forget() }),
			header: this.#header(words),
			list: new VirtualList<UploadView>({
				label: words.t("list.label"),
				height: (u) => (u.phase === "conflict" || u.phase === "failed" ? heights.tall : heights.plain),
				create: (u) => this.#row(u, words),
			}),
			announcer: new Announcer(words),
		};
		const { frame, notices, header, announcer } = surface;
		frame.append(intake.element, notices.element, header.element, surface.list.element, announcer.element);
		// What is fixed inside a size container is not always fixed to the window.
		this.shadowRoot?.append(frame, intake.cover);
		this.#surface = surface;
		this.#stale = true;
		this.#draw();
	}

	#demolish(): void {
		this.#surface?.intake.close();
		this.#surface?.list.close();
		this.#surface?.announcer.close();
		this.#surface?.frame.remove();
		this.#surface = null;
	}

	#header(words: Text): Header {
		return new Header(words, {
			pauseAll: () => this.#uploader?.pause(),
			resumeAll: () => this.#uploader?.resume(),
			retryFailed: () => this.#uploader?.retry(),
			clearFinished: () => this.#clear(),
			revealFailed: () => this.#reveal("failed"),
			revealAsking: () => this.#reveal("conflict", "needs-file"),
		});
	}

	#row(u: UploadView, words: Text): UploadRow {
		return new UploadRow(u, words, {
			pause: (id) => this.#uploader?.pause(id),
			resume: (id) => this.#resume(id),
			retry: (id) => this.#uploader?.retry(id),
			cancel: (id) => void this.#uploader?.cancel(id),
			remove: (id) => this.#takeOff(id),
			resolve: (id, how, forAll) => this.#uploader?.resolve(id, how, forAll),
			otherConflicts: () => this.#counts.of("conflict") - 1,
		});
	}

	#resume(id: string): void {
		const u = this.#views.get(id);
		if (u?.phase === "needs-file") {
			this.#goOn([u]);
		} else {
			this.#uploader?.resume(id);
		}
	}

	/**
	 * Goes on with interrupted uploads, in a click. Where file handles may be remembered the Uploader asks for the
	 * permission to read them; it tells of each upload whether that went well. The files of the others are asked for.
	 */
	#goOn(uploads: readonly UploadView[]): void {
		const uploader = this.#uploader;
		if (!uploader || !("showOpenFilePicker" in window)) {
			this.#surface?.intake.chooseFiles();
			return;
		}
		const open = new Set(uploads.map((u) => u.id));
		const off = uploader.on("change", (u) => {
			if (open.delete(u.id) && open.size === 0) {
				off();
				if (uploads.some(({ id }) => uploader.get(id)?.phase === "needs-file")) {
					this.#surface?.intake.chooseFiles();
				}
			}
		});
		this.#unsubscribe.push(off);
		for (const { id } of uploads) {
			uploader.resume(id);
		}
	}

	/** Takes an upload off the list; of one that failed the server still has what was sent, and need not keep it. */
	#takeOff(id: string): void {
		if (this.#views.get(id)?.phase === "failed") {
			void this.#uploader?.cancel(id);
		}
		this.#uploader?.remove(id);
	}

	#clear(): void {
		for (const u of [...this.#views.values()]) {
			if (looks[u.phase].ended && u.phase !== "failed") {
				this.#uploader?.remove(u.id);
			}
		}
	}

	#forget(): void {
		for (const u of this.#in("needs-file")) {
			void this.#uploader?.cancel(u.id);
		}
	}

	/** The first of these phases, or the one after that which was revealed last. */
	#reveal(...phases: UploadView["phase"][]): void {
		const found = [...this.#views.values()].filter((u) => phases.includes(u.phase));
		const shown = this.shadowRoot?.activeElement?.closest<HTMLElement>("[data-id]")?.dataset.id;
		const next = found[found.findIndex((u) => u.id === shown) + 1] ?? found[0];
		if (next) {
			this.#surface?.list.reveal(next.id);
		}
	}

	/** Adds what was dropped, chosen or pasted. */
	#take(parts: readonly Part[]): void {
		this.#message("");
		const words = this.#surface?.text;
		if (!words) {
			return;
		}
		this.#add(parts).then(
			(any) => any || this.#message(words.t("drop.empty")),
			() => this.#message(words.t("drop.unreadable")),
		);
	}

	/** False: there was nothing in it. Rejects if some of it could not be read; the rest is added. */
	async #add(parts: readonly Part[]): Promise<boolean> {
		const uploader = this.#uploader;
		const choosy = this.getAttribute("multiple") === "false" || this.getAttribute("accept");
		if (!uploader) {
			return false;
		}
		if (!choosy && this.#counts.of("needs-file") === 0) {
			const added = await Promise.all(parts.map((part) => uploader.add(part)));
			return added.some((views) => views.length > 0);
		}
		const found: Item[] = [];
		let unreadable: unknown = null;
		// All are begun in the event itself: a DataTransfer is empty after it.
		for (const items of parts.map((part) => list(part, {}))) {
			try {
				for await (const item of items) {
					found.push(item);
				}
			} catch (error) {
				unreadable = error;
			}
		}
		await this.#sift(uploader, found);
		if (unreadable) {
			throw unreadable;
		}
		return found.length > 0;
	}

	/** Adds of the files those that may be; the ones that interrupted uploads wait for go to those. */
	async #sift(uploader: UploaderLike, found: readonly Item[]): Promise<void> {
		const words = this.#surface?.text ?? text("en");
		const accept = this.getAttribute("accept") ?? "";
		let wanted = found.filter(({ name, source }) => accepts(accept, name, source.type));
		if (wanted.length < found.length) {
			this.#message(words.t("drop.refused", { n: found.length - wanted.length, accept }));
		}
		if (this.getAttribute("multiple") === "false" && wanted.length > 1) {
			this.#message(words.t("drop.one-only"));
			return;
		}
		if (this.#counts.of("needs-file") > 0) {
			const files = wanted.map(({ source }) => source).filter((source) => source instanceof File);
			const strangers = new Set<Source>(await uploader.rejoin(files));
			if (strangers.size > 0 && strangers.size < wanted.length) {
				this.#message(words.t("needs.strangers", { n: strangers.size }));
			}
			wanted = wanted.filter(({ source }) => strangers.has(source));
		}
		await Promise.all(
			wanted.map(({ source, path, handle }) => uploader.add(source, { path, ...(handle && { handle }) })),
		);
	}

	#message(message: string): void {
		const surface = this.#surface;
		if (surface) {
			surface.notices.message = message;
			if (message) {
				surface.announcer.say(message);
			}
		}
	}
}

function htmlLang(lang: Language): string {
	return lang === "zh" ? "zh-CN" : lang;
}

declare global {
	interface HTMLElementTagNameMap {
		"gantry-uploader": GantryUploader;
	}
}
