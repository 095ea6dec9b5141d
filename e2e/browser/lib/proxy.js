// A network between browser and server that does what networks do. It works on bytes, and follows HTTP/1.1 only as far as is
// needed to know where requests and their bodies begin: browsers send every body with its Content-Length.
import { once } from "node:events";
import net from "node:net";

const HEAD_END = Buffer.from("\r\n\r\n");

/** A request as it passed by: `sent` grows while its body goes through. */
class Request {
	/** When it began, in milliseconds of the epoch. */
	at = performance.timeOrigin + performance.now();
	sent = 0;
	corrupted = false;
	constructor(head) {
		const [line, ...fields] = head.split("\r\n");
		[this.method, this.path] = line.split(" ");
		this.headers = Object.fromEntries(fields.map((f) => [f.slice(0, f.indexOf(":")).toLowerCase(), f.slice(f.indexOf(":") + 1).trim()]));
		this.length = Number(this.headers["content-length"] ?? 0);
	}

	/** Whether its body is a chunk of an upload, or a whole small file. */
	get isContent() {
		return (this.method === "PUT" && /^\/v1\/uploads\/[^/]+\/chunks/.test(this.path)) || (this.method === "POST" && this.path.startsWith("/v1/files?"));
	}
}

export class Proxy {
	/** Every request since the start, or since forget(). */
	requests = [];
	#target;
	#listener = null;
	#port = 0;
	#sockets = new Set();
	#held = null; // a promise while nothing passes
	#release = null;
	#rate = Infinity; // bytes per second from browser to server
	#due = 0; // when the bytes that have passed are paid for, ms
	#corrupt = null;
	#watchers = [];

	/** Starts one before a server's address ("127.0.0.1:8080"), on a free port. */
	static async start(target) {
		const proxy = new Proxy();
		proxy.#target = target;
		await proxy.accept();
		return proxy;
	}

	get port() {
		return this.#port;
	}

	/** Bytes of files that have passed. */
	get contentBytes() {
		return this.requests.reduce((sum, r) => sum + (r.isContent ? r.sent : 0), 0);
	}

	forget() {
		this.requests = [];
	}

	/** Pulls the cable: nothing passes either way, and nobody is told. */
	hold() {
		this.#held ??= new Promise((resolve) => (this.#release = resolve));
	}

	release() {
		this.#release?.();
		this.#held = this.#release = null;
	}

	/** Resets all connections and refuses new ones. */
	async refuse() {
		const closed = once(this.#listener, "close");
		this.#listener.close();
		for (const socket of this.#sockets) socket.resetAndDestroy();
		await closed;
	}

	/** Listens, on the port of before. */
	async accept() {
		this.#listener = net.createServer({ pauseOnConnect: true }, (socket) => void this.#connect(socket));
		this.#listener.listen(this.#port, "127.0.0.1");
		await once(this.#listener, "listening");
		this.#port = this.#listener.address().port;
	}

	/** Bytes per second of all that browsers send. */
	limit(bytesPerSecond) {
		this.#rate = bytesPerSecond;
		this.#due = performance.now();
	}

	/** Flips a bit in the body of the next request for which `which` is true. */
	corrupt(which) {
		this.#corrupt = which;
	}

	/** The next request for which `which` is true, once it has begun. */
	next(which) {
		return new Promise((resolve) => this.#watchers.push({ which, resolve }));
	}

	async stop() {
		this.release();
		if (this.#listener.listening) await this.refuse();
	}

	async #connect(browser) {
		const [host, port] = this.#target.split(":");
		const server = net.connect({ host, port: Number(port) });
		for (const socket of [browser, server]) {
			this.#sockets.add(socket);
			socket.setNoDelay(true);
			socket.on("error", () => {}); // "close" follows
			socket.on("close", () => {
				this.#sockets.delete(socket);
				browser.destroy();
				server.destroy();
			});
		}
		await Promise.allSettled([this.#pump(browser, server, this.#reader()), this.#pump(server, browser, null)]);
	}

	async #pump(from, to, reader) {
		for await (const bytes of from) {
			if (reader) {
				await this.#pay(bytes.length);
				reader(bytes);
			}
			while (this.#held) await this.#held;
			if (!to.write(bytes)) await once(to, "drain");
		}
		to.end();
	}

	async #pay(bytes) {
		if (this.#rate === Infinity) return;
		this.#due = Math.max(this.#due, performance.now()) + (bytes / this.#rate) * 1000;
		const wait = this.#due - performance.now();
		if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait));
	}

	/** Follows the requests of one connection, and spoils what is to be spoilt, in place. */
	#reader() {
		let head = Buffer.alloc(0);
		let request = null;
		return (bytes) => {
			for (let at = 0; at < bytes.length; ) {
				if (request === null) {
					const before = head.length;
					head = Buffer.concat([head, bytes.subarray(at)]);
					const end = head.indexOf(HEAD_END);
					if (end < 0) return;
					at += end + HEAD_END.length - before;
					request = this.#begin(head.toString("latin1", 0, end));
					head = Buffer.alloc(0);
				} else {
					const n = Math.min(bytes.length - at, request.length - request.sent);
					if (n > 0 && !request.corrupted && this.#corrupt?.(request)) {
						bytes[at + (n >> 1)] ^= 0x10;
						request.corrupted = true;
						this.#corrupt = null;
					}
					request.sent += n;
					at += n;
				}
				if (request?.sent === request?.length) request = null;
			}
		};
	}

	#begin(head) {
		const request = new Request(head);
		this.requests.push(request);
		this.#watchers = this.#watchers.filter((w) => {
			if (!w.which(request)) return true;
			w.resolve(request);
			return false;
		});
		return request;
	}
}
