// Long work on the page's own thread, in slices.

/**
 * Lets long work on the page's own thread be done in slices, between which the page reacts. All that is done in turns
 * shares the slices.
 */
export class Turns {
	#end = 0;
	#next: Promise<void> | null = null;

	/** Call it before each piece of the work. */
	async turn(): Promise<void> {
		while (performance.now() > this.#end) {
			// A timer would be slowed down in a hidden tab, a message is not.
			this.#next ??= new Promise((resolve) => {
				const { port1, port2 } = new MessageChannel();
				port1.onmessage = () => {
					port1.close();
					this.#next = null;
					this.#end = performance.now() + 10;
					resolve();
				};
				port2.postMessage(null);
			});
			await this.#next;
		}
	}
}
