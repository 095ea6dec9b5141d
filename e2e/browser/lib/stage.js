// What most tests need: the server, the network before it, a browser, and the page in it.
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import path from "node:path";
import { Browser, plainHost } from "./browser.js";
import { MiB, makeFile, sha256 } from "./files.js";
import { UploaderPage, until } from "./page.js";
import { Proxy } from "./proxy.js";
import { Scope } from "./scope.js";
import { Server, temporary } from "./server.js";

/** A file with which something can be done in the middle of its upload: see Stage.begin. */
export const middling = 128 * MiB;

export class Stage {
	/**
	 * plain: the page is at http://nas.local; such a server needs a token, which is entered.
	 * keepsHandles: the user has allowed the page to read files again after a reload.
	 * browser: Playwright's options.
	 */
	static async set(t, { flags, token = null, plain = false, keepsHandles = false, browser = {} } = {}) {
		const stage = new Stage();
		const scope = Scope.of(t);
		stage.token = plain ? (token ?? "a token for the tests") : token;
		stage.server = await Server.start(scope, { flags, token: stage.token });
		stage.proxy = await Proxy.start(stage.server.address);
		scope.after(() => stage.proxy.stop());
		stage.origin = `http://${plain ? plainHost : "localhost"}:${stage.proxy.port}`;
		const profile = await temporary(scope);
		stage.browser = await Browser.start(scope, profile, { keepsHandles: keepsHandles ? stage.origin : null, ...browser });
		stage.dir = await temporary(scope);
		stage.page = await stage.open();
		return stage;
	}

	/** Opens the page in a tab. */
	async open() {
		const page = new UploaderPage(await this.browser.tab(this.origin));
		if (this.token !== null) await page.signIn(this.token);
		return page.ready();
	}

	file(name, size) {
		return makeFile(this.dir, name, size);
	}

	async rename(file, name) {
		await fs.rename(file.path, this.local(name));
		return { ...file, name, path: this.local(name) };
	}

	local(...names) {
		return path.join(this.dir, ...names);
	}

	/** Adds a file of `middling` bytes and waits until some chunks have arrived. The network is so slow that the rest takes long. */
	async begin(file) {
		this.proxy.limit(16 * MiB);
		await this.page.add([file.path]);
		await this.untilSent(40 * MiB);
		this.proxy.limit(4 * MiB);
	}

	/** Waits until so many bytes of files have gone out since the start, or since the last proxy.forget(). */
	async untilSent(bytes) {
		await until(`${Math.round(bytes)} bytes are sent`, () => this.proxy.contentBytes >= bytes);
	}

	/** Waits until the server has the one file of this name, and compares its bytes with the local ones. */
	async untilSame(file, name = file.name.normalize("NFC")) {
		const found = await until(`the server has ${name}`, async () => (await this.server.files()).find((f) => f.name === name), 120);
		assert.equal(found.size, file.size);
		assert.equal(await this.server.sha256(found.id), await sha256(file), `${name} has other bytes on the server`);
		return found;
	}
}
