// While bytes are moving: the device stays awake, leaving the page asks first, and its title tells how far it is.

export class Guard {
	#active = false;
	#lock: Promise<WakeLockSentinel | null> | null = null;
	#words: string | null = null;
	#title: { before: string; shown: string } | null = null;
	readonly #leaving = (event: BeforeUnloadEvent): void => {
		event.preventDefault();
		event.returnValue = true; // browsers from before 2023
	};
	readonly #visible = (): void => this.#wake();

	/** Idempotent. */
	set active(active: boolean) {
		if (active === this.#active) {
			return;
		}
		this.#active = active;
		// The listener is there only while it is needed: it keeps the page out of the back/forward cache.
		if (active) {
			addEventListener("beforeunload", this.#leaving);
			document.addEventListener("visibilitychange", this.#visible);
			this.#wake();
		} else {
			removeEventListener("beforeunload", this.#leaving);
			document.removeEventListener("visibilitychange", this.#visible);
			void this.#lock?.then((lock) => lock?.release());
			this.#lock = null;
		}
	}

	/** Puts words before the page's title; null takes them away. A title that the page sets meanwhile stays. */
	set title(words: string | null) {
		if (words === this.#words) {
			return;
		}
		this.#words = words;
		if (this.#title && document.title === this.#title.shown) {
			document.title = this.#title.before;
		}
		this.#title = null;
		if (words !== null) {
			const before = document.title;
			document.title = before ? `${words} – ${before}` : words;
			this.#title = { before, shown: document.title };
		}
	}

	/** The browser takes the lock back when the page is hidden; it does not exist on plain HTTP, and may be refused. */
	#wake(): void {
		if (document.visibilityState === "visible" && "wakeLock" in navigator) {
			this.#lock = navigator.wakeLock.request("screen").catch(() => null);
		}
	}
}
