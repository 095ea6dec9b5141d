// Who is at the page. Today that is a token or nobody; signing in will have its place here.

const key = "gantry-token";

/** Keeps the token for as long as the tab lives, and asks for one when the server wants it. */
export class Session {
	#token: string | null;
	#asking: Promise<string | null> | null = null;

	/**
	 * @param ask shows the dialog: resolves with what was entered, or null if nobody wants to. `refused`: a token was
	 * there, and the server did not take it.
	 * @param storage of the tab; where it is refused the token lives as long as the page.
	 */
	constructor(
		private readonly ask: (refused: boolean) => Promise<string | null>,
		private readonly storage: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null,
		private readonly changed: () => void,
	) {
		this.#token = storage?.getItem(key) ?? null;
	}

	get token(): string | null {
		return this.#token;
	}

	/**
	 * A token instead of one that the server refused. Many requests may fail at once: they all wait for one
	 * dialog, and one that failed with a token from before the last dialog gets the new one at once. null: nobody wants to.
	 */
	renew(refused: string | null): Promise<string | null> {
		if (this.#token !== null && this.#token !== refused) return Promise.resolve(this.#token);
		this.#asking ??= this.ask(this.#token !== null)
			.then((token) => {
				this.#keep(token);
				return token;
			})
			.finally(() => {
				this.#asking = null;
			});
		return this.#asking;
	}

	forget(): void {
		this.#keep(null);
	}

	#keep(token: string | null): void {
		this.#token = token;
		try {
			if (token === null) this.storage?.removeItem(key);
			else this.storage?.setItem(key, token);
		} catch {
			// Full or refused: then it is asked for again after a reload.
		}
		this.changed();
	}
}

/** A storage of the browser, or null where looking at it alone throws (cookies are blocked). */
export function storageOf(name: "localStorage" | "sessionStorage"): Storage | null {
	try {
		return window[name];
	} catch {
		return null;
	}
}
