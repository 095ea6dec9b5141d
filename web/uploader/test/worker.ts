import { vi } from "vitest";
import { type FromWorker, serve, type ToWorker, type WorkerPort } from "../src/jobs.js";

/** What was started in place of workers; each runs the real worker's code, and messages are cloned as the browser clones them. */
export const workers: InlineWorker[] = [];

export class InlineWorker {
	onmessage: ((event: { data: FromWorker }) => void) | null = null;
	onerror: ((event: { message: string }) => void) | null = null;
	readonly received: ToWorker[] = [];
	ended = false;
	readonly #port: WorkerPort = {
		onmessage: null,
		postMessage: (message) => {
			const data = structuredClone(message);
			setImmediate(() => this.ended || this.onmessage?.({ data }));
		},
	};

	constructor(readonly url: string) {
		workers.push(this);
		serve(this.#port);
	}

	postMessage(message: ToWorker): void {
		this.received.push(message);
		const data = structuredClone(message);
		setImmediate(() => this.ended || this.#port.onmessage?.({ data } as MessageEvent<ToWorker>));
	}

	terminate(): void {
		this.ended = true;
	}
}

/** From here on `new Worker` makes these. */
export function useInlineWorkers(): void {
	workers.length = 0;
	vi.stubGlobal("Worker", InlineWorker);
}

/** A browser that has none. */
export function noWebAssembly(): void {
	vi.stubGlobal("WebAssembly", undefined);
}

/** A page whose CSP has no "wasm-unsafe-eval". */
export function refuseWebAssembly(): void {
	const refuse = () => Promise.reject(new WebAssembly.CompileError("violates the Content Security Policy"));
	const { CompileError } = WebAssembly;
	vi.stubGlobal("WebAssembly", { CompileError, compile: refuse, instantiate: refuse });
}
