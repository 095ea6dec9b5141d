// The real program, and what the tests ask it behind the browser's back.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const binary = path.resolve(process.env.GANTRY ?? new URL("../../../bin/gantry", import.meta.url).pathname);

/** A new directory, removed with everything in it at the end of the scope. */
export async function temporary(scope) {
	const dir = await fs.mkdtemp(path.join(process.env.E2E_DIR ?? os.tmpdir(), "gantry-e2e-"));
	scope.after(() => fs.rm(dir, { recursive: true, force: true, maxRetries: 5 }));
	return dir;
}

export class Server {
	address = "127.0.0.1:0"; // any free port at first, the same one later
	/** Flags of the next start. */
	flags;
	#management = "127.0.0.1:0";
	#dir;
	#token;
	#process = null;
	#log = "";

	/** Starts one with its data in a directory of its own. With a token it lets nobody else in. */
	static async start(scope, { flags = [], token = null } = {}) {
		const server = new Server();
		server.#dir = await temporary(scope);
		server.flags = flags;
		scope.after(() => server.kill());
		await server.setToken(token);
		await server.run();
		return server;
	}

	/** Takes another token, from the next start on. */
	async setToken(token) {
		this.#token = token;
		if (token !== null) await fs.writeFile(path.join(this.#dir, "token"), token, { mode: 0o600 });
	}

	async run() {
		const args = ["serve", "--listen", this.address, "--management", this.#management, "--log-level", "warn"];
		args.push("--data", path.join(this.#dir, "data"), ...this.flags);
		if (this.#token !== null) args.push("--token-file", path.join(this.#dir, "token"));
		const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("GANTRY")));
		const child = spawn(binary, args, { env, stdio: ["ignore", "pipe", "pipe"] });
		this.#process = child;
		child.stderr.on("data", (text) => (this.#log += text));
		const failed = once(child, "exit").then(([code]) => {
			throw new Error(`${binary} ${args.join(" ")}\nended with ${code}:\n${this.#log}`);
		});
		failed.catch(() => {}); // it is awaited only until the server listens
		const listening = new Promise((resolve) => {
			createInterface({ input: child.stdout }).on("line", (line) => {
				const [, what, address] = line.match(/^(listening|management) on http:\/\/(\S+)$/) ?? [];
				if (what === "management") this.#management = address;
				if (what === "listening") this.address = address;
				if (this.#management.endsWith(":0") || this.address.endsWith(":0")) return;
				resolve();
			});
		});
		await Promise.race([listening, failed]);
	}

	/** kill -9 */
	async kill() {
		const child = this.#process;
		if (child === null || child.exitCode !== null || child.signalCode !== null) return;
		const gone = once(child, "exit");
		child.kill("SIGKILL");
		await gone;
	}

	async request(target, { headers = {}, ...init } = {}) {
		const authorization = this.#token === null ? {} : { authorization: `Bearer ${this.#token}` };
		const answer = await fetch(`http://${this.address}${target}`, { ...init, headers: { ...authorization, ...headers } });
		if (!answer.ok) throw new Error(`${init.method ?? "GET"} ${target}: ${answer.status} ${await answer.text()}`);
		return answer;
	}

	async json(target, init) {
		return (await this.request(target, init)).json();
	}

	/** All of a listing's pages. */
	async #all(target) {
		const items = [];
		for (let cursor = ""; ; ) {
			const page = await this.json(`${target}?limit=500${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
			items.push(...page.items);
			if (!page.next_cursor) return items;
			cursor = page.next_cursor;
		}
	}

	files() {
		return this.#all("/v1/files");
	}

	uploads() {
		return this.#all("/v1/uploads");
	}

	/** The SHA-256 of a file's bytes, downloaded. */
	async sha256(id) {
		const hash = createHash("sha256");
		await pipeline(Readable.fromWeb((await this.request(`/v1/files/${id}/content`)).body), hash);
		return hash.digest("hex");
	}

	/** Opens an upload and sends its chunks from a local file, but does not complete it: see finish. */
	async send(file, name) {
		const headers = { "content-type": "application/json" };
		const upload = await this.json("/v1/uploads", { method: "POST", headers, body: JSON.stringify({ name, size: file.size }) });
		const handle = await fs.open(file.path);
		const chunk = Buffer.alloc(upload.chunk_size);
		for (let index = 0; index < upload.chunk_count; index++) {
			const { bytesRead } = await handle.read(chunk, 0, chunk.length, index * chunk.length);
			await this.request(`/v1/uploads/${upload.id}/chunks/${index}`, { method: "PUT", body: chunk.subarray(0, bytesRead) });
		}
		await handle.close();
		return upload.id;
	}

	async finish(uploadID) {
		return this.json(`/v1/uploads/${uploadID}/complete`, { method: "POST" });
	}

	/** Waits until a file is in its store: before that its content is not known well enough to be uploaded instantly. */
	async stored(id) {
		for (;;) {
			const file = await this.json(`/v1/files/${id}`);
			if (file.location === "store") return file;
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
	}
}
