// What the other tests stand on: the network between browser and server does what it is told.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { MiB, makeFile, sha256 } from "../lib/files.js";
import { Proxy } from "../lib/proxy.js";
import { Scope } from "../lib/scope.js";
import { Server, temporary } from "../lib/server.js";

test("the test's own network passes, counts, spoils, slows down, holds and refuses", async (t) => {
	const scope = Scope.of(t);
	const server = await Server.start(scope);
	const proxy = await Proxy.start(server.address);
	scope.after(() => proxy.stop());
	const file = await makeFile(await temporary(scope), "a", 3 * MiB);
	const body = Buffer.alloc(file.size, 7);
	const headers = { "content-digest": `sha-256=:${createHash("sha256").update(body).digest("base64")}:` };
	const post = (signal) => fetch(`http://127.0.0.1:${proxy.port}/v1/files?name=a`, { method: "POST", body, headers, signal });

	assert.equal((await post()).status, 201);
	assert.equal(proxy.requests[0].sent, body.length);

	proxy.corrupt((request) => request.path.startsWith("/v1/files") && request.sent > MiB);
	assert.equal((await post()).status, 422);
	assert.equal((await post()).status, 201);

	proxy.limit(6 * MiB);
	const begun = performance.now();
	assert.equal((await post()).status, 201);
	assert.ok(performance.now() - begun > 400, "3 MiB at 6 MiB/s take half a second");
	proxy.limit(Infinity);

	proxy.hold();
	const held = post(AbortSignal.timeout(300));
	await assert.rejects(held, { name: "TimeoutError" });
	proxy.release();
	assert.equal((await post()).status, 201);

	await proxy.refuse();
	await assert.rejects(post());
	await proxy.accept();
	assert.equal((await post()).status, 201);

	assert.equal(await server.sha256((await server.finish(await server.send(file, "b"))).id), await sha256(file));
});
