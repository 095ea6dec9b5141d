// Which tab sends what. Tabs of one origin ask each other over a BroadcastChannel; where Web Locks exist (secure contexts)
// these decide, and the channel only carries the news.
//
// Nobody's word is trusted for longer than it is repeated, but it is asked for, not sent by a timer: browsers slow the timers
// of hidden tabs down to one a minute, while they answer messages at once.

import { id as newId } from "./random.js";

/** What one tab tells the others of an upload. id: the local one, see UploadView. */
export interface TabNews {
	id: string;
	/** "released": nobody has it any more; also heard, within 5 s, when the tab that had it was killed. */
	kind: "claimed" | "released" | "done" | "progress";
	/** Acknowledged bytes. */
	sent?: number;
}

type Message =
	/** Which of these do you have? Answered by "here"; also how tabs get to know each other. */
	| { kind: "whose"; tab: string; ids: string[] }
	| { kind: "here"; tab: string; to: string; ids: string[] }
	| { kind: "bye"; tab: string }
	| (TabNews & { tab: string });

/** A claim that waits for the answers of the other tabs. */
interface Question {
	waitingFor: Set<string>;
	decide(mine: boolean): void;
}

/** How long a tab may take to answer: one that is alive but busy may be late, and is then told again by "claimed". */
const answerTimeout = 500;
/** How often those are asked that have what this tab waits for. */
const askEvery = 1200;
/** After how many questions without an answer they are taken for dead: 3 × 1.2 s and the claim's 0.5 s are below 5 s. */
const patience = 2;

export class Tabs {
	readonly #tab = newId();
	readonly #prefix: string;
	#channel: BroadcastChannel | null;
	readonly #listeners = new Set<(news: TabNews) => void>();
	/** What this tab has, and what to call if it loses it. */
	readonly #claims = new Map<string, { lost(): void; unlock(): void }>();
	readonly #claiming = new Map<string, Promise<boolean>>();
	readonly #questions = new Map<string, Question>();
	/** The other tabs. */
	readonly #others = new Set<string>();
	/** What other tabs have, and how many questions about it had no answer. */
	readonly #elsewhere = new Map<string, number>();
	#asking: ReturnType<typeof setInterval> | undefined;
	/** Until then the others may not have said yet that they are there. */
	#introduced: Promise<void> = Promise.resolve();

	/** Tabs with other endpoints do not matter. */
	constructor(endpoint: string) {
		this.#prefix = `gantry-uploader ${endpoint} `;
		this.#channel = openChannel(this.#prefix);
		if (this.#channel) {
			this.#channel.onmessage = ({ data }: MessageEvent<Message>) => this.#heard(data);
			this.#post({ kind: "whose", tab: this.#tab, ids: [] });
			this.#introduced = new Promise((resolve) => setTimeout(resolve, answerTimeout));
		}
	}

	/**
	 * Claims an upload. true: no other tab has it, and none gets it before release(); repeating it is harmless. false:
	 * another tab has it; heard() tells when it is released. lost is called if it turns out that two tabs have claimed it,
	 * one of which could not answer in time: then the one with the lower id keeps it.
	 */
	claim(id: string, lost: () => void): Promise<boolean> {
		if (this.#claims.has(id)) {
			return Promise.resolve(true);
		}
		let claiming = this.#claiming.get(id);
		if (!claiming) {
			claiming = this.#claim(id, lost).finally(() => this.#claiming.delete(id));
			this.#claiming.set(id, claiming);
		}
		return claiming;
	}

	/** Claims what this tab has just made up, so that none other can have it. It counts at once and needs nobody's answer. */
	own(id: string): void {
		const claim = { lost: () => {}, unlock: () => {} };
		this.#claims.set(id, claim);
		void lock(this.#prefix + id).then((unlock) => {
			claim.unlock = unlock ?? claim.unlock;
			if (this.#claims.get(id) !== claim) {
				claim.unlock(); // released meanwhile
			}
		});
	}

	/** Gives an upload back. Does nothing if this tab does not have it. */
	release(id: string): void {
		const claim = this.#claims.get(id);
		if (claim) {
			this.#claims.delete(id);
			claim.unlock();
			this.tell({ id, kind: "released" });
		}
	}

	/** Calls listener with the news of other tabs. Returns what ends that. */
	heard(listener: (news: TabNews) => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	/** Tells the other tabs. */
	tell(news: TabNews): void {
		this.#post({ ...news, tab: this.#tab });
	}

	/** Releases everything. */
	close(): void {
		[...this.#claims.keys()].forEach((id) => this.release(id));
		this.#post({ kind: "bye", tab: this.#tab });
		this.#channel?.close();
		this.#channel = null;
		clearInterval(this.#asking);
		this.#listeners.clear();
		this.#questions.forEach((question) => question.decide(false));
	}

	async #claim(id: string, lost: () => void): Promise<boolean> {
		const unlock = await lock(this.#prefix + id);
		if (unlock === null || (unlock === undefined && !(await this.#ask(id)))) {
			this.#watch(id);
			return false;
		}
		this.#elsewhere.delete(id);
		this.#claims.set(id, { lost, unlock: unlock ?? (() => {}) });
		this.tell({ id, kind: "claimed" });
		return true;
	}

	/** Whether no other tab has id. */
	async #ask(id: string): Promise<boolean> {
		if (!this.#channel) {
			return true;
		}
		await this.#introduced;
		if (this.#others.size === 0) {
			return true; // nobody to wait for: the first byte is sent at once
		}
		return new Promise((resolve) => {
			const timer = setTimeout(() => {
				question.waitingFor.forEach((tab) => this.#others.delete(tab)); // killed; if not, its next message brings it back
				question.decide(true);
			}, answerTimeout);
			const question: Question = {
				waitingFor: new Set(this.#others),
				decide: (mine) => {
					clearTimeout(timer);
					this.#questions.delete(id);
					resolve(mine);
				},
			};
			this.#questions.set(id, question);
			this.#post({ kind: "whose", tab: this.#tab, ids: [id] });
		});
	}

	/** Asks from time to time whether those that have something are still there. */
	#watch(id: string): void {
		this.#elsewhere.set(id, 0);
		this.#asking ??= setInterval(() => {
			for (const [other, unanswered] of this.#elsewhere) {
				this.#elsewhere.set(other, unanswered + 1);
				if (unanswered >= patience) {
					this.#ended({ id: other, kind: "released" });
				}
			}
			if (this.#elsewhere.size > 0) {
				this.#post({ kind: "whose", tab: this.#tab, ids: [...this.#elsewhere.keys()] });
			} else {
				clearInterval(this.#asking);
				this.#asking = undefined;
			}
		}, askEvery);
	}

	#heard(message: Message): void {
		if (message.kind === "bye") {
			this.#others.delete(message.tab);
			this.#questions.forEach((question) => this.#answered(question, message.tab));
			return;
		}
		this.#others.add(message.tab);
		switch (message.kind) {
			case "whose":
				// Of two tabs that ask for the same at the same time, the lower id gets it.
				this.#post({
					kind: "here",
					tab: this.#tab,
					to: message.tab,
					ids: message.ids.filter((id) => this.#claims.has(id) || (this.#questions.has(id) && this.#tab < message.tab)),
				});
				break;
			case "here":
				if (message.to === this.#tab) {
					this.#learn(message.tab, message.ids);
				}
				break;
			case "claimed":
			case "progress":
				if (this.#yield(message.id, message.tab)) {
					this.#watch(message.id);
					this.#publish(message);
				}
				break;
			default:
				this.#ended(message);
		}
	}

	#learn(tab: string, ids: string[]): void {
		for (const id of ids) {
			if (this.#elsewhere.has(id)) {
				this.#elsewhere.set(id, 0);
			}
			this.#questions.get(id)?.decide(false);
		}
		this.#questions.forEach((question) => this.#answered(question, tab));
	}

	#answered(question: Question, tab: string): void {
		if (question.waitingFor.delete(tab) && question.waitingFor.size === 0) {
			question.decide(true);
		}
	}

	/** Another tab says that it has id. Whether it may: if this tab has it too, the one with the lower id keeps it. */
	#yield(id: string, tab: string): boolean {
		const claim = this.#claims.get(id);
		if (claim && this.#tab < tab) {
			this.tell({ id, kind: "claimed" });
			return false;
		}
		if (claim) {
			this.#claims.delete(id);
			claim.unlock();
			claim.lost();
		}
		return true;
	}

	#ended(news: TabNews): void {
		this.#elsewhere.delete(news.id);
		this.#publish(news);
	}

	#publish({ id, kind, sent }: TabNews): void {
		this.#listeners.forEach((listener) => listener({ id, kind, sent }));
	}

	#post(message: Message): void {
		this.#channel?.postMessage(message);
	}
}

function openChannel(name: string): BroadcastChannel | null {
	try {
		return new BroadcastChannel(name);
	} catch {
		return null; // none, or forbidden to sandboxed frames
	}
}

/** A Web Lock: what gives it back; null: another tab has it; undefined: there are no Web Locks here. */
function lock(name: string): Promise<(() => void) | null | undefined> {
	const { navigator } = globalThis as { navigator?: Partial<Navigator> };
	const locks = navigator?.locks;
	if (!locks) {
		return Promise.resolve(undefined);
	}
	return new Promise((resolve) => {
		locks
			.request(name, { ifAvailable: true }, (granted) => {
				if (!granted) {
					resolve(null);
					return undefined;
				}
				return new Promise<void>((unlock) => resolve(unlock));
			})
			.catch(() => resolve(undefined)); // forbidden to sandboxed frames
	});
}
