/** Copies text, also on plain HTTP, where there is no clipboard API. Rejects if the browser refuses. */
export async function copy(text: string, near: Element): Promise<void> {
	if (navigator.clipboard) {
		await navigator.clipboard.writeText(text);
		return;
	}
	const field = document.createElement("textarea");
	field.value = text;
	field.readOnly = true;
	field.style.position = "fixed";
	field.style.opacity = "0";
	// Beside what was clicked: a dialogue around it would not let go of the focus.
	near.after(field);
	field.select();
	const copied = document.execCommand("copy");
	field.remove();
	if (near instanceof HTMLElement) {
		near.focus({ preventScroll: true });
	}
	if (!copied) {
		throw new Error("The browser did not copy. Select the text and copy it.");
	}
}
