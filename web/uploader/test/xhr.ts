// XMLHttpRequest over fetch, as far as the uploader uses it. Node has none.

export class FetchXHR {
	upload: { onprogress: ((event: { loaded: number }) => void) | null; onload: (() => void) | null } = {
		onprogress: null,
		onload: null,
	};
	onload: (() => void) | null = null;
	onerror: (() => void) | null = null;
	status = 0;
	responseText = "";
	#method = "";
	#url = "";
	#headers: Record<string, string> = {};
	#answer: Headers | null = null;
	#abort = new AbortController();

	open(method: string, url: string): void {
		this.#method = method;
		this.#url = url;
	}

	setRequestHeader(name: string, value: string): void {
		this.#headers[name] = value;
	}

	getResponseHeader(name: string): string | null {
		return this.#answer?.get(name) ?? null;
	}

	abort(): void {
		this.#abort.abort();
	}

	/** The half of the body is told as sent before it is, and all of it before the answer is there. */
	async send(body: Blob): Promise<void> {
		await null;
		try {
			if (body.size > 0) {
				this.upload.onprogress?.({ loaded: Math.floor(body.size / 2) });
			}
			const response = await fetch(this.#url, { method: this.#method, headers: this.#headers, body, signal: this.#abort.signal });
			this.upload.onprogress?.({ loaded: body.size });
			this.upload.onload?.();
			this.responseText = await response.text();
			this.status = response.status;
			this.#answer = response.headers;
		} catch {
			if (!this.#abort.signal.aborted) {
				this.onerror?.();
			}
			return;
		}
		this.onload?.();
	}
}
