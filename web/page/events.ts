// Server-sent events over fetch: EventSource cannot send a token.

export interface ServerEvent {
	name: string;
	data: string;
}

/** Reads events off a stream as the HTML standard has them (event, data, comments); yields also for comments, with name "", as a sign of life. */
export async function* parseEvents(stream: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
	const reader = stream.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
	let rest = "";
	let event: ServerEvent = { name: "", data: "" };
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (done) return;
			const lines = (rest + value).split("\n");
			rest = lines.pop() ?? "";
			for (const line of lines) {
				const text = line.endsWith("\r") ? line.slice(0, -1) : line;
				if (text === "" || text.startsWith(":")) {
					yield event;
					if (text === "") event = { name: "", data: "" };
				} else if (text.startsWith("event:")) event.name = text.slice(6).trim();
				else if (text.startsWith("data:")) event.data += (event.data && "\n") + text.slice(5).trim();
			}
		}
	} finally {
		void reader.cancel().catch(() => {});
	}
}

/** "live": events come. "polling": the server has no events. "away": it does not answer; tried again. "idle": nobody looks. */
export type LiveState = "live" | "polling" | "away" | "idle";

export interface LiveOptions {
	/** GET /v1/events. Throws if the answer is not ok; `status` of what it throws is looked at for 404. */
	open: (signal: AbortSignal) => Promise<Response>;
	/** An event came. */
	heard: (event: ServerEvent) => void;
	/** Load the lists, because there are no events. */
	poll: () => void;
	state: (state: LiveState) => void;
	/** Milliseconds between polls. */
	pollEvery?: number;
	/** Milliseconds without even a comment after which the connection is taken for dead: the server sends one every 15 s. */
	silence?: number;
}

/** Keeps the page's connection for events: opens it again with back-off, and polls where there is none. */
export class Live {
	#running: AbortController | null = null;

	constructor(private readonly options: LiveOptions) {}

	/** Does nothing if it runs. */
	start(): void {
		if (this.#running) return;
		this.#running = new AbortController();
		void this.#run(this.#running.signal);
	}

	/** A tab that nobody looks at gives its connection back: HTTP/1.1 has six for all tabs. */
	stop(): void {
		this.#running?.abort();
		this.#running = null;
		this.options.state("idle");
	}

	async #run(stop: AbortSignal): Promise<void> {
		const { open, heard, poll, state, pollEvery = 5000, silence = 45_000 } = this.options;
		for (let failures = 0; !stop.aborted;) {
			// One for each connection, so that silence ends that one alone.
			const connection = new AbortController();
			const end = (): void => connection.abort();
			stop.addEventListener("abort", end);
			let watchdog = setTimeout(end, silence);
			try {
				const answer = await open(connection.signal);
				for await (const event of parseEvents(answer.body ?? new Blob().stream())) {
					if (stop.aborted) return;
					failures = 0;
					clearTimeout(watchdog);
					watchdog = setTimeout(end, silence);
					state("live");
					if (event.name) heard(event);
				}
			} catch (error) {
				if (stop.aborted) return;
				if ((error as { status?: number }).status === 404) {
					state("polling");
					while (await pause(pollEvery, stop)) poll();
					return;
				}
				if ((error as { status?: number }).status === 401) {
					// Nobody wants to give a token: signing in starts this again.
					this.stop();
					return;
				}
			} finally {
				clearTimeout(watchdog);
				stop.removeEventListener("abort", end);
			}
			state("away");
			await pause(backoff(failures++), stop);
		}
	}
}

/** Milliseconds before try n+1: 1 s doubling to 30 s, half of it by chance, so that not all pages come back at once. */
export function backoff(n: number, random = Math.random()): number {
	return Math.min(1000 * 2 ** n, 30_000) * (0.5 + random / 2);
}

/** Waits; false at once if stopped meanwhile. Coming online ends the wait. */
function pause(ms: number, stop: AbortSignal): Promise<boolean> {
	return new Promise((resolve) => {
		const end = (): void => {
			clearTimeout(timer);
			stop.removeEventListener("abort", end);
			globalThis.removeEventListener?.("online", end);
			resolve(!stop.aborted);
		};
		const timer = setTimeout(end, ms);
		stop.addEventListener("abort", end);
		globalThis.addEventListener?.("online", end);
	});
}
