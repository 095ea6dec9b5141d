// Short messages at the lower edge. Their container is a live region: what appears in it is read out.

import { h, icon } from "./dom.js";

export interface Toast {
	text: string;
	/** A second, quieter sentence. */
	detail?: string | null;
	/** Text to be copied by hand, or a command. */
	field?: string;
	actions?: readonly { label: string; run: () => void }[];
	/** Milliseconds until it goes by itself; null: it stays. Default: 5 s. */
	lasts?: number | null;
	/** Somebody is at it, or no longer: its time should stand still meanwhile. */
	held?: (held: boolean) => void;
	/** Show how its time passes. */
	clock?: boolean;
	/** It changes often, and is not read out. */
	quiet?: boolean;
	/** It was closed by the person. */
	closed?: () => void;
}

export class Toasts {
	readonly #shown = new Map<string, HTMLElement>();
	readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();

	constructor(
		private readonly root: HTMLElement,
		private readonly closeLabel: () => string,
	) {}

	/** Shows a toast in place of the one that has the same key. */
	show(key: string, toast: Toast): void {
		const focused = this.#shown.get(key)?.contains(document.activeElement) ?? false;
		const buttons = (toast.actions ?? []).map((a) => h("button", { type: "button", onclick: () => a.run() }, a.label));
		const element = h(
			"div",
			{ class: "toast" },
			h(
				"div",
				{ class: "say", "aria-live": toast.quiet && "off" },
				toast.text,
				toast.detail ? h("span", {}, toast.detail) : null,
			),
			...buttons,
			toast.closed || !toast.clock
				? h(
						"button",
						{ type: "button", class: "close", "aria-label": this.closeLabel(), onclick: () => this.#close(key, toast) },
						icon("i-close"),
					)
				: null,
			toast.field === undefined
				? null
				: h("input", {
						readonly: true,
						value: toast.field,
						"aria-label": toast.text,
						onfocus: (event: Event) => (event.target as HTMLInputElement).select(),
					}),
			toast.clock ? h("div", { class: "time" }) : null,
		);
		const lasts = toast.lasts === undefined ? 5000 : toast.lasts;
		const run = (): void => {
			clearTimeout(this.#timers.get(key));
			if (lasts !== null)
				this.#timers.set(
					key,
					setTimeout(() => this.hide(key), lasts),
				);
		};
		let held = false;
		let over = false;
		const hold = (): void => {
			const now = over || element.matches(":focus-within");
			if (now === held) return;
			held = now;
			toast.held?.(held);
			if (held) clearTimeout(this.#timers.get(key));
			else run();
		};
		// A finger that was lifted leaves, though :hover stays.
		for (const type of ["pointerenter", "pointerleave"] as const)
			element.addEventListener(type, (event) => {
				over = type === "pointerenter" && event.pointerType !== "touch";
				hold();
			});
		// While the focus moves within, nothing has it for a moment.
		for (const type of ["focusin", "focusout"]) element.addEventListener(type, () => queueMicrotask(hold));
		const before = this.#shown.get(key);
		if (before) before.replaceWith(element);
		else this.root.append(element);
		this.#shown.set(key, element);
		run();
		if (focused) buttons[0]?.focus();
	}

	hide(key: string): void {
		clearTimeout(this.#timers.get(key));
		this.#shown.get(key)?.remove();
		this.#shown.delete(key);
	}

	/** Changes the first sentence of one that is shown. */
	retext(key: string, text: string): void {
		const said = this.#shown.get(key)?.querySelector(".say")?.firstChild;
		if (said && said.nodeValue !== text) said.nodeValue = text;
	}

	/** The field of a toast, to be selected. */
	field(key: string): HTMLInputElement | null {
		return this.#shown.get(key)?.querySelector("input") ?? null;
	}

	#close(key: string, toast: Toast): void {
		this.hide(key);
		toast.closed?.();
	}
}
