// Copying text, also on plain http, where the clipboard API does not exist.

/** True if the text is on the clipboard. */
export async function copy(text: string): Promise<boolean> {
	// Typed as always there; on http it is not.
	const clipboard = navigator.clipboard as Clipboard | undefined;
	if (clipboard) {
		try {
			await clipboard.writeText(text);
			return true;
		} catch {
			// Refused, or the page is not in front: the old way may still work.
		}
	}
	const focused = document.activeElement as HTMLElement | null;
	const field = document.createElement("textarea");
	field.value = text;
	field.readOnly = true;
	field.className = "unseen";
	document.body.append(field);
	field.select();
	let copied = false;
	try {
		copied = document.execCommand("copy");
	} catch {
		// Refused as well.
	}
	field.remove();
	focused?.focus({ preventScroll: true });
	return copied;
}
