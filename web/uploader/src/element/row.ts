// The row of one upload.

import { type Text, timeInWords } from "../text.js";
import type { UploadError } from "../problem.js";
import type { UploadView } from "../types.js";
import { Bar, button, h, icon, type Icon, keepFocus, setIcon, setLabel, setText, show } from "./dom.js";
import { copy } from "./copy.js";
import type { Row } from "./list.js";
import { errorDetail, errorInWords, instantInWords, isLasting, looks, phaseInWords, reasonInWords } from "./phases.js";

/** What a row's buttons do. */
export interface RowActions {
	pause(id: string): void;
	resume(id: string): void;
	retry(id: string): void;
	cancel(id: string): void;
	remove(id: string): void;
	resolve(id: string, how: "skip" | "replace" | "keep-both", forAll: boolean): void;
	/** How many other uploads have a conflict too. */
	otherConflicts(): number;
}

const signs = { pause: "pause", resume: "play", retry: "retry" } as const satisfies Record<string, Icon>;

export class UploadRow implements Row<UploadView> {
	readonly element: HTMLElement;
	readonly #text: Text;
	readonly #actions: RowActions;
	#view: UploadView;
	/** What was drawn last. */
	#drawn: { readonly phase: UploadView["phase"]; readonly name: string } | null = null;
	readonly #name = h("div", { class: "name", part: "name" });
	readonly #sign = icon("clock");
	readonly #bar = new Bar("bar");
	readonly #hashBar = new Bar("hash-bar");
	readonly #phase = h("span", { part: "phase", class: "phase" });
	readonly #amount = h("span", { class: "amount" });
	readonly #speed = h("span", { class: "speed" });
	readonly #left = h("span", { class: "left" });
	readonly #reason = h("span");
	readonly #more = h("div", { class: "more", hidden: true });
	readonly #all = h("input", { type: "checkbox" });
	readonly #forAll = h("span");
	readonly #mainSign = icon("pause");
	readonly #main: HTMLButtonElement;
	readonly #end: HTMLButtonElement;

	constructor(view: UploadView, text: Text, actions: RowActions) {
		this.#view = view;
		this.#text = text;
		this.#actions = actions;
		this.#main = button("icon main", () => this.#act(), this.#mainSign);
		this.#end = button("icon end", () => this.#finish(), icon("close"));
		this.element = h(
			"div",
			{ class: "row", part: "row" },
			h("div", { class: "sign" }, this.#sign),
			h(
				"div",
				{ class: "body" },
				this.#name,
				h("div", { class: "state", part: "state" }, this.#phase, this.#amount, this.#speed, this.#left, this.#reason),
				h("div", { class: "bars" }, this.#bar.element, this.#hashBar.element),
				this.#more,
			),
			h("div", { class: "actions" }, this.#main, this.#end),
		);
		this.element.addEventListener("keydown", (event) => this.#key(event));
	}

	update(u: UploadView): void {
		this.#view = u;
		const text = this.#text;
		const look = looks[u.phase];
		const moving = u.phase === "uploading";
		const size = Math.max(u.size, 1);

		setText(this.#phase, phaseInWords(text, u, Date.now()));
		setText(this.#amount, this.#amountInWords(u));
		setText(this.#speed, moving && u.speed > 0 ? text.speed(u.speed) : "");
		setText(
			this.#left,
			moving && u.timeLeft !== null ? text.t("row.left", { time: timeInWords(text, u.timeLeft) }) : "",
		);
		setText(this.#reason, u.phase === "waiting" && u.error && !isLasting(u) ? reasonInWords(text, u.error) : "");

		// An upload that has not begun has no bar: a hundred empty ones would tell nothing.
		const begun = !look.ended && (u.phase !== "queued" || u.sent > 0);
		show(this.#bar.element, begun && u.phase !== "conflict");
		this.#bar.set(u.phase === "finishing" ? 1 : u.sent / size, u.sending / size);
		const hashing = (u.phase === "checking" || moving) && u.hashed > 0 && u.hashed < u.size;
		show(this.#hashBar.element, hashing);
		if (hashing) {
			this.#hashBar.set(u.hashed / size);
		}

		if (
			u.phase !== this.#drawn?.phase ||
			u.name !== this.#drawn.name ||
			look.ended ||
			u.phase === "conflict" ||
			u.phase === "waiting"
		) {
			keepFocus(
				this.element,
				() => this.#drawPhase(u),
				() => this.element,
			);
		}
	}

	#drawPhase(u: UploadView): void {
		const text = this.#text;
		const anew = u.phase !== this.#drawn?.phase;
		const renamed = u.name !== this.#drawn?.name;
		if (renamed) {
			drawName(this.#name, u);
			this.#bar.element.setAttribute("aria-label", text.t("row.progress", u));
			this.#hashBar.element.setAttribute("aria-label", text.t("row.checking", u));
		}
		if (anew || renamed) {
			const look = looks[u.phase];
			this.element.setAttribute("data-phase", u.phase);
			this.element.setAttribute("data-tone", look.tone);
			this.element.setAttribute("aria-label", text.t("list.row", { name: u.name, state: text.t(`phase.${u.phase}`) }));
			setIcon(this.#sign, look.icon);
			this.#drawButtons(u);
		}
		this.#drawMore(u, anew);
		this.#drawn = u;
	}

	#drawButtons(u: UploadView): void {
		const look = looks[u.phase];
		const text = this.#text;
		show(this.#main, look.can !== null);
		if (look.can !== null) {
			setIcon(this.#mainSign, signs[look.can]);
			setLabel(this.#main, text.t(`row.${look.can}`, u));
		}
		show(this.#end, u.phase !== "finishing" && u.phase !== "elsewhere");
		setLabel(this.#end, text.t(look.ended ? "row.remove" : "row.cancel", u));
	}

	/** What an upload that waits for somebody has to say, below its state. */
	#drawMore(u: UploadView, anew: boolean): void {
		if (u.phase === "conflict") {
			if (anew) {
				this.#more.replaceChildren(this.#conflict(u));
			}
			this.#drawForAll();
		} else if (u.error && isLasting(u)) {
			if (anew || this.#more.dataset.error !== u.error.code + u.error.requestId) {
				this.#more.dataset.error = u.error.code + u.error.requestId;
				this.#more.replaceChildren(this.#problem(u.error));
			}
		} else {
			this.#more.replaceChildren();
			delete this.#more.dataset.error;
		}
		show(this.#more, this.#more.childElementCount > 0);
	}

	#problem(error: UploadError): HTMLElement {
		const detail = errorDetail(this.#text, error);
		const problem = h(
			"p",
			{ class: "problem" },
			h("span", { class: "reason", part: "error" }, errorInWords(this.#text, error)),
		);
		if (detail) {
			problem.append(h("span", { class: "detail", lang: "en" }, detail));
		}
		if (error.requestId) {
			problem.append(
				h(
					"span",
					{ class: "detail" },
					this.#text.t("error.request", { id: error.requestId }),
					" ",
					this.#copyButton(error.requestId),
				),
			);
		}
		return problem;
	}

	#copyButton(id: string): HTMLButtonElement {
		const copyButton = button(
			"link",
			() => {
				copy(id, copyButton).then(
					() => setText(copyButton, this.#text.t("error.copied")),
					() => undefined, // the id stands beside it
				);
			},
			this.#text.t("error.copy"),
		);
		copyButton.setAttribute("aria-label", this.#text.t("error.copy-label", { id }));
		copyButton.tabIndex = this.element.tabIndex;
		return copyButton;
	}

	#conflict(u: UploadView): HTMLElement {
		const text = this.#text;
		const choice = (how: "skip" | "replace" | "keep-both"): HTMLButtonElement =>
			button("small", () => this.#actions.resolve(u.id, how, this.#all.checked), text.t(`conflict.${how}`));
		const choices = h("div", { class: "choices", role: "group", "aria-label": text.t("conflict.actions", u) });
		this.#all.checked = false;
		choices.append(choice("skip"), choice("replace"), choice("keep-both"), h("label", {}, this.#all, this.#forAll));
		for (const control of choices.querySelectorAll<HTMLElement>("button, input")) {
			control.tabIndex = this.element.tabIndex;
		}
		return choices;
	}

	#drawForAll(): void {
		const others = this.#actions.otherConflicts();
		setText(this.#forAll, this.#text.t("conflict.all", { n: others }));
		if (this.#forAll.parentElement) {
			show(this.#forAll.parentElement, others > 0);
		}
	}

	#amountInWords(u: UploadView): string {
		const text = this.#text;
		switch (u.phase) {
			case "checking":
				return text.percent(u.hashed / Math.max(u.size, 1));
			case "instant":
				return instantInWords(text, u);
			case "conflict":
				return u.conflictWith
					? text.t("conflict.there", {
							size: text.bytes(u.conflictWith.size),
							time: text.when(new Date(u.conflictWith.updated_at)),
						})
					: "";
			case "finishing":
			case "done":
				return text.bytes(u.size);
			default:
				return u.sending > 0
					? text.t("row.of", { part: text.bytes(u.sending), whole: text.bytes(u.size) })
					: text.bytes(u.size);
		}
	}

	#act(): void {
		const { id, phase } = this.#view;
		const { can } = looks[phase];
		if (can) {
			this.#actions[can](id);
		}
	}

	#finish(): void {
		const { id, phase } = this.#view;
		if (looks[phase].ended) {
			this.#actions.remove(id);
		} else {
			this.#actions.cancel(id);
		}
	}

	/** Keys on the row itself: the space bar pauses and goes on, Delete takes it away. */
	#key(event: KeyboardEvent): void {
		if (event.target !== this.element || event.altKey || event.ctrlKey || event.metaKey) {
			return;
		}
		if (event.key === " ") {
			event.preventDefault();
			this.#act();
		} else if (event.key === "Delete" && !this.#end.hidden) {
			event.preventDefault();
			this.#finish();
		}
	}
}

/** The name, cut in its middle if there is no room: the end tells what it is. */
function drawName(element: HTMLElement, { name, path }: UploadView): void {
	const letters = [...name];
	// What is written from right to left ends on the other side.
	const tail = letters.length > 24 && !/[\u0590-\u08ff]/.test(name) ? 10 : 0;
	const parts = [
		h("bdi", { class: "head" }, letters.slice(0, letters.length - tail).join("")),
		h("bdi", { class: "tail" }, letters.slice(letters.length - tail).join("")),
	];
	element.title = path ? `${path}/${name}` : name;
	element.replaceChildren(...(path ? [h("bdi", { class: "path" }, `${path}/`)] : []), ...parts);
}
