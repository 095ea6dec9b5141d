// The little that is needed to build elements: no markup in strings, which Trusted Types would refuse.

type Attributes = Record<string, string | number | boolean | EventListener | undefined>;
export type Child = Node | string | null | false;

/** Makes an element. An attribute that is a function is a listener ("onclick"), true is an empty one, false and undefined none. */
export function h<K extends keyof HTMLElementTagNameMap>(
	tag: K,
	attributes: Attributes = {},
	...children: Child[]
): HTMLElementTagNameMap[K] {
	const made = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (typeof value === "function") made.addEventListener(name.slice(2), value);
		else if (value !== false && value !== undefined) made.setAttribute(name, value === true ? "" : String(value));
	}
	for (const child of children) if (child !== null && child !== false) made.append(child);
	return made;
}

/** One of the drawings that index.html has as symbols. It says nothing to screen readers: its button does. */
export function icon(name: string): SVGSVGElement {
	const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
	svg.setAttribute("class", "icon");
	svg.setAttribute("aria-hidden", "true");
	const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
	use.setAttribute("href", "#" + name);
	svg.append(use);
	return svg;
}

/** An element of index.html, which is there. */
export function found<T extends Element = HTMLElement>(selector: string): T {
	const element = document.querySelector<T>(selector);
	if (!element) throw new Error(`index.html has no ${selector}`);
	return element;
}

/** Sets text only where it changed: what is read out or laid out again is kept small. */
export function setText(element: Element, text: string): void {
	if (element.textContent !== text) element.textContent = text;
}

/** The same for an attribute; null takes it away. */
export function setAttribute(element: Element, name: string, value: string | null): void {
	if (value === null) element.removeAttribute(name);
	else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
