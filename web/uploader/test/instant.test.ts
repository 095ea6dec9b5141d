import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type Challenge, Hasher, type Proof } from "../src/hasher.js";
import { type Server, startServer } from "./gantry.js";
import { useInlineWorkers } from "./worker.js";

// What the hasher says is believed by the real server.

interface Answer {
	status: "challenge" | "complete" | "continue";
	challenge: Challenge;
	instant: boolean;
	file: { name: string; sha1: string };
}

const MiB = 1 << 20;
let server: Server;
let hasher: Hasher;

beforeAll(async () => {
	useInlineWorkers();
	hasher = new Hasher("/hash.worker.js");
	server = await startServer();
}, 600_000);

afterAll(async () => {
	hasher.close();
	await server.stop();
	vi.unstubAllGlobals();
});

async function post<T>(path: string, body: BodyInit): Promise<T> {
	const type = typeof body === "string" ? "application/json" : "application/octet-stream";
	const response = await fetch(server.url + path, { method: "POST", body, headers: { "Content-Type": type } });
	expect(response.status, await response.clone().text()).toBeLessThan(300);
	return (await response.json()) as T;
}

const ask = (id: string, sha1: string, proof?: Proof): Promise<Answer> =>
	post(`/v1/uploads/${id}/instant`, JSON.stringify({ sha1, proof }));

/** Uploads content by plain HTTP and waits until the transfer has computed its root: before, it is known to nobody. */
async function stored(content: Blob): Promise<void> {
	const { id } = await post<{ id: string }>("/v1/files?name=first.bin", content);
	const url = `${server.url}/v1/files/${id}`;
	await vi.waitFor(async () => expect(await (await fetch(url)).json()).toMatchObject({ location: "store" }), 30_000);
}

async function open(size: number, hint?: string): Promise<{ id: string; known: string }> {
	return post("/v1/uploads", JSON.stringify({ name: "again.bin", size, hint }));
}

it.each([MiB, MiB + 1, 3 * MiB + 4096, 5 * MiB + 4097, 8 * MiB - 1])("instant upload of %i bytes", async (size) => {
	const content = new Blob([randomBytes(size)]);
	await stored(content);
	const { id, known } = await open(size, await hasher.hint(content));
	expect(known).toBe("maybe");
	const signal = new AbortController().signal;
	const sha1 = await hasher.hash(content, { tree: true, signal, progress: () => {} });
	const { status, challenge } = await ask(id, sha1);
	expect(status).toBe("challenge");
	const answer = await ask(id, sha1, await hasher.prove(content, challenge, signal));
	expect(answer).toMatchObject({ status: "complete", instant: true, file: { name: "again.bin", sha1 } });
}, 60_000);

it("a proof of other content is not taken", async () => {
	const bytes = randomBytes(2 * MiB);
	const content = new Blob([bytes]);
	await stored(content);
	const signal = new AbortController().signal;
	const sha1 = await hasher.hash(content, { signal, progress: () => {} });
	const { id } = await open(bytes.length);
	const { challenge } = await ask(id, sha1);
	bytes[bytes.length - 1]! ^= 1;
	expect((await ask(id, sha1, await hasher.prove(new Blob([bytes]), challenge, signal))).status).toBe("continue");
	const again = await ask(id, sha1);
	expect((await ask(id, sha1, await hasher.prove(content, again.challenge, signal))).status).toBe("complete");
}, 60_000);
