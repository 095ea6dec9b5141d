// Little helpers for making and changing elements. Everything goes through the DOM: pages with Trusted Types and a
// strict content security policy take no markup in strings.

type Attributes = Readonly<Record<string, string | boolean>>;

/** An element with attributes (true: without value, false: not at all) and children. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
	tag: Tag,
	attributes: Attributes = {},
	...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		element.toggleAttribute(name, value !== false);
		if (typeof value === "string") {
			element.setAttribute(name, value);
		}
	}
	element.append(...children);
	return element;
}

/** Sets an attribute if it is not so already: what is not touched need not be laid out. null removes it. */
export function setAttribute(element: Element, name: string, value: string | null): void {
	if (element.getAttribute(name) !== value) {
		if (value === null) {
			element.removeAttribute(name);
		} else {
			element.setAttribute(name, value);
		}
	}
}

export function setText(element: Element, text: string): void {
	if (element.textContent !== text) {
		element.textContent = text;
	}
}

export function show(element: HTMLElement, shown: boolean): void {
	if (element.hidden === shown) {
		element.hidden = !shown;
	}
}

/** The element in this tree that has the focus, also inside a shadow tree. */
function focusNear(element: Element): Element | null {
	return (element.getRootNode() as Partial<DocumentOrShadowRoot>).activeElement ?? null;
}

export function hasFocus(element: Element): boolean {
	return element.contains(focusNear(element));
}

/** Changes what is in an element. If what had the focus there is gone or hidden afterwards, `instead` gets it. */
export function keepFocus(element: Element, change: () => void, instead: () => HTMLElement | undefined): void {
	const focused = hasFocus(element);
	change();
	if (focused && (!hasFocus(element) || focusNear(element)?.closest("[hidden]"))) {
		instead()?.focus({ preventScroll: true });
	}
}

/** A button with words, or with an icon and a name that is only spoken and shown as a tip. */
export function button(part: string, click: () => void, ...children: (Node | string)[]): HTMLButtonElement {
	const element = h("button", { type: "button", part: `button ${part}`, class: part }, ...children);
	element.addEventListener("click", click);
	return element;
}

export function setLabel(element: HTMLElement, label: string): void {
	setAttribute(element, "aria-label", label);
	setAttribute(element, "title", label);
}

// Lines in a square of 16.
const icons = {
	up: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
	pause: "M5.5 3.5v9M10.5 3.5v9",
	play: "M5 3.2v9.6L12.5 8Z",
	close: "M4 4l8 8M12 4l-8 8",
	retry: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5V5.5H10",
	done: "M3 8.5 6.5 12 13 4.5",
	instant: "M9 1.5 3.5 9H8l-1 5.5L12.5 7H8Z",
	failed: "M8 3v6M8 12v.5",
	question: "M5.5 5.5a2.5 2.5 0 1 1 3.7 2.2C8.3 8.3 8 8.7 8 9.5M8 12.4v.5",
	clock: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M8 5v3.2l2 1.3",
	tab: "M2.5 4.5h11v8h-11ZM2.5 7h11",
	file: "M4 1.5h5L12.5 5v9.5H4ZM9 1.5V5h3.5",
	none: "M4 8h8",
} as const;

export type Icon = keyof typeof icons;

/** An icon in the colour of the text around it. It is decoration: what it says, words say too. */
export function icon(name: Icon): SVGSVGElement {
	const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
	svg.setAttribute("viewBox", "0 0 16 16");
	svg.setAttribute("aria-hidden", "true");
	const path = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
	path.setAttribute("d", icons[name]);
	return svg;
}

export function setIcon(svg: SVGSVGElement, name: Icon): void {
	const path = svg.firstElementChild;
	if (path) {
		setAttribute(path, "d", icons[name]);
	}
}

/** A bar; `value` is a fraction, `part` the name for themes. Its length is set by script, not by a style attribute. */
export class Bar {
	readonly element = h("div", { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" });
	readonly #fill: HTMLElement;
	readonly #ahead: HTMLElement;

	constructor(part: string) {
		this.#ahead = h("div", { class: "ahead" });
		this.#fill = h("div", { class: "fill", part: `${part}-fill` });
		this.element.className = part;
		this.element.setAttribute("part", part);
		this.element.append(this.#ahead, this.#fill);
	}

	/** What is `ahead` is on its way and drawn paler. */
	set(value: number, ahead = value): void {
		setAttribute(this.element, "aria-valuenow", String(Math.floor(value * 100)));
		setScale(this.#fill, value);
		setScale(this.#ahead, ahead);
	}
}

/** Lengths are scaled, not laid out: a frame with many bars then costs nothing but drawing. */
function setScale(element: HTMLElement, fraction: number): void {
	const transform = `scaleX(${Math.min(1, Math.max(0, fraction)).toFixed(4)})`;
	if (element.style.transform !== transform) {
		element.style.transform = transform;
	}
}
