// Lanes: how many requests the whole page makes at a time, and whose turn it is.

/** Whoever makes requests: one file. */
export class Owner {
	running = 0;
	/** When it was last served, for taking turns. */
	served = 0;

	/** small: of one chunk. Those are let in front, since many of them are done soon. */
	constructor(readonly small: boolean) {}
}

interface Ticket {
	owner: Owner;
	urgent: boolean;
	enter: () => void;
}

/**
 * On HTTP/1.1 a browser opens six connections to a server. Four lanes are as fast as six and leave two for everything
 * else the page asks.
 *
 * Calls without a body are urgent: they are short, and what comes after them waits. Of the others those of small files go
 * first, but leave one lane for large ones. Among equals it is who has the fewest lanes, then who waited longest.
 */
export class Lanes {
	#free: number;
	readonly #tickets = new Set<Ticket>();
	#turn = 0;
	#small = 0; // lanes that small files have

	constructor(readonly count: number) {
		this.#free = count;
	}

	/** Waits for a lane; the caller calls what it resolves to, once, when its request has ended. */
	enter(owner: Owner, urgent: boolean, signal: AbortSignal): Promise<() => void> {
		return new Promise((resolve, reject) => {
			if (signal.aborted) {
				reject(signal.reason);
				return;
			}
			const ticket: Ticket = {
				owner,
				urgent,
				enter: () => {
					signal.removeEventListener("abort", abort);
					resolve(this.#lane(owner));
				},
			};
			const abort = () => {
				this.#tickets.delete(ticket);
				reject(signal.reason);
			};
			signal.addEventListener("abort", abort, { once: true });
			this.#tickets.add(ticket);
			this.#serve();
		});
	}

	#lane(owner: Owner): () => void {
		this.#count(owner, 1);
		owner.served = ++this.#turn;
		let left = false;
		return () => {
			if (!left) {
				left = true;
				this.#count(owner, -1);
				this.#serve();
			}
		};
	}

	#count(owner: Owner, n: number): void {
		this.#free -= n;
		owner.running += n;
		this.#small += owner.small ? n : 0;
	}

	#serve(): void {
		while (this.#free > 0 && this.#tickets.size > 0) {
			const best = [...this.#tickets].reduce((a, b) => (this.#before(b, a) ? b : a));
			this.#tickets.delete(best);
			best.enter();
		}
	}

	#before(a: Ticket, b: Ticket): boolean {
		if (a.urgent !== b.urgent) {
			return a.urgent;
		}
		if (a.owner.small !== b.owner.small && this.count > 1) {
			return a.owner.small === this.#small < this.count - 1;
		}
		return a.owner.running !== b.owner.running ? a.owner.running < b.owner.running : a.owner.served < b.owner.served;
	}
}
