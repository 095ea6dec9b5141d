// What opens beside something: the actions of a file, and where it is in full sentences.

import { found, h, icon } from "./dom.js";

export interface MenuItem {
	label: string;
	icon: string;
	run: () => void;
}

let open: HTMLElement | null = null;

/** Shows actions beside an element. Arrow keys move, Escape closes and gives the focus back. */
export function showMenu(at: Element, label: string, note: string | null, items: readonly MenuItem[]): void {
	const buttons = items.map((item) => {
		const run = (): void => {
			close();
			item.run();
		};
		return h("button", { type: "button", role: "menuitem", tabindex: -1, onclick: run }, icon(item.icon), item.label);
	});
	const menu = h("div", { role: "menu", "aria-label": label }, ...buttons);
	const card = h("div", { class: "card menu-card" }, note === null ? null : h("p", { class: "menu-note" }, note), menu);
	menu.addEventListener("keydown", (event) => {
		const now = buttons.indexOf(document.activeElement as HTMLButtonElement);
		const to = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: buttons.length - 1, Tab: null }[event.key];
		if (to === undefined) return;
		event.preventDefault();
		if (to === null) close();
		else buttons[(to + buttons.length) % buttons.length]?.focus();
	});
	show(card, at);
	buttons[0]?.focus();
}

/** Shows sentences beside an element. */
export function showNote(at: Element, sentences: readonly string[]): void {
	show(
		h("div", { class: "card note-card", role: "note", tabindex: -1 }, ...sentences.map((s) => h("p", {}, s))),
		at,
	).focus();
}

function close(): void {
	open?.hidePopover();
}

function show(card: HTMLElement, at: Element): HTMLElement {
	close();
	card.setAttribute("popover", "auto");
	found("main").append(card);
	open = card;
	card.addEventListener("toggle", (event) => {
		if ((event as ToggleEvent).newState === "closed") {
			card.remove();
			if (open === card) open = null;
		}
	});
	const from = scrollY;
	const end = (): void => {
		// Bringing what was clicked into sight scrolls a little, too.
		if (open === card && Math.abs(scrollY - from) < 48) return;
		removeEventListener("scroll", end);
		if (open === card) close();
	};
	addEventListener("scroll", end, { passive: true });
	card.showPopover();
	const [anchor, size] = [at.getBoundingClientRect(), card.getBoundingClientRect()];
	const left = Math.min(Math.max(8, anchor.right - size.width), innerWidth - size.width - 8);
	const below = anchor.bottom + 4;
	card.style.left = `${at.closest(".where") ? Math.min(anchor.left, innerWidth - size.width - 8) : left}px`;
	card.style.top = `${below + size.height > innerHeight ? Math.max(8, anchor.top - size.height - 4) : below}px`;
	return card;
}
