// The dialog that asks for the token. Signing in will be here one day.

import { h } from "./dom.js";
import type { PageText } from "./words.js";

/** Asks for a token; null: not now. `refused`: there was one, and the server did not take it. */
export function askToken(words: PageText, refused: boolean): Promise<string | null> {
	return new Promise((resolve) => {
		const input = h("input", {
			id: "token-input",
			type: "password",
			autocomplete: "current-password",
			required: true,
			"aria-describedby": "token-text",
			"aria-invalid": refused && "true",
		});
		const form = h(
			"form",
			{ method: "dialog" },
			h("h2", { id: "token-title" }, words.t("token.title")),
			h("p", { id: "token-text", class: refused && "bad" }, words.t(refused ? "token.refused" : "token.text")),
			h("label", { for: "token-input" }, words.t("token.label")),
			input,
			h(
				"div",
				{ class: "buttons" },
				h("button", { type: "button", class: "button", onclick: () => dialog.close() }, words.t("token.later")),
				h("button", { type: "submit", class: "button primary", value: "ok" }, words.t("token.ok")),
			),
		);
		const dialog = h("dialog", { class: "card", "aria-labelledby": "token-title" }, form);
		dialog.addEventListener("close", () => {
			dialog.remove();
			resolve(dialog.returnValue === "ok" ? input.value.trim() || null : null);
		});
		document.body.append(dialog);
		dialog.showModal();
		input.focus();
	});
}
