// The boxes above the list: offline, uploads that need their files again, and what was left out.

import type { Text } from "../text.js";
import type { UploadView } from "../types.js";
import { button, h, icon, setLabel, setText, show } from "./dom.js";

/** Names that the card of interrupted uploads shows. */
const namesShown = 3;

export class Notices {
	readonly element: HTMLElement;
	readonly #text: Text;
	readonly #offline: HTMLElement;
	readonly #message = h("p");
	readonly #box: HTMLElement;
	readonly #card: HTMLElement;
	readonly #title = h("p", { class: "title" });
	readonly #names = h("ul");

	constructor(text: Text, actions: { goOn(): void; forget(): void }) {
		this.#text = text;
		this.#offline = h("div", { class: "notice warn", part: "offline", hidden: true }, h("p", {}, text.t("offline")));
		const dismiss = button("icon", () => show(this.#box, false), icon("close"));
		setLabel(dismiss, text.t("dismiss"));
		this.#box = h("div", { class: "notice", part: "notice", hidden: true }, this.#message, dismiss);
		const choices = h(
			"div",
			{ class: "choices" },
			button("small primary", actions.goOn, text.t("needs.go-on")),
			button("small", actions.forget, text.t("needs.forget")),
		);
		this.#card = h(
			"div",
			{ class: "notice card", part: "needs-file", hidden: true },
			this.#title,
			this.#names,
			choices,
		);
		this.element = h("div", { class: "notices" }, this.#offline, this.#card, this.#box);
	}

	set online(online: boolean) {
		show(this.#offline, !online);
	}

	set message(message: string) {
		setText(this.#message, message);
		show(this.#box, message !== "");
	}

	/** The uploads that need their file again. */
	set needing(uploads: readonly UploadView[]) {
		show(this.#card, uploads.length > 0);
		if (uploads.length === 0) {
			return;
		}
		setText(this.#title, this.#text.t("needs.title", { n: uploads.length }));
		const lines = uploads
			.slice(0, namesShown)
			.map((u) => h("li", {}, h("bdi", {}, u.name), " ", h("span", {}, this.#text.bytes(u.size))));
		const more = uploads.length - lines.length;
		if (more > 0) {
			lines.push(h("li", {}, this.#text.t("needs.more", { n: more })));
		}
		this.#names.replaceChildren(...lines);
	}
}
