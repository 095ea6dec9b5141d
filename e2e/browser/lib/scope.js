/** What is to be undone at the end, of which the last is undone first: node:test undoes the first first. */
export class Scope {
	#undo = [];

	/** One that ends with a test. */
	static of(t) {
		const scope = new Scope();
		t.after(() => scope.end());
		return scope;
	}

	after(undo) {
		this.#undo.push(undo);
	}

	/** Undoes all, also what comes after something that could not be undone. */
	async end() {
		const errors = [];
		for (const undo of this.#undo.reverse()) {
			try {
				await undo();
			} catch (error) {
				errors.push(error);
			}
		}
		if (errors.length > 0) throw errors[0];
	}
}
