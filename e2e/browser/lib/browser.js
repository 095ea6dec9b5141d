// Debian's browsers, each with a profile of its own on the disk: in a private window large blobs and file handles are not what
// they are for users.
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import { chromium, firefox } from "playwright-core";

/** Which browser the tests drive: "chromium" or "firefox". */
export const browserName = process.env.E2E_BROWSER ?? "chromium";

const executables = { chromium: "/usr/bin/chromium", firefox: "/usr/bin/firefox-esr" };

/** A host name that is not localhost: pages of http://nas.local do without crypto.subtle, Web Locks and file handles. */
export const plainHost = "nas.local";

/** The preference that "Allow on every visit" sets in the prompt for files, which no test can press. */
function chromiumPreferences(origin) {
	const allowed = { [`${origin},*`]: { last_modified: "13370000000000000", setting: 1 } };
	return { profile: { content_settings: { exceptions: { file_system_access_extended_permission: allowed } } } };
}

export class Browser {
	#context = null;
	#profile;
	#options;
	#faults = []; // what went wrong in pages

	/**
	 * Starts one. keepsHandles: files that were dropped on this origin may be read again after a reload.
	 * options: Playwright's for a context, such as viewport and colorScheme.
	 */
	static async start(scope, profile, { keepsHandles = null, ...options } = {}) {
		const browser = new Browser();
		browser.#profile = profile;
		browser.#options = options;
		await fs.mkdir(path.join(profile, "Default"), { recursive: true });
		if (keepsHandles !== null) {
			await fs.writeFile(path.join(profile, "Default", "Preferences"), JSON.stringify(chromiumPreferences(keepsHandles)));
		}
		scope.after(() => browser.close());
		await browser.run();
		return browser;
	}

	async run() {
		const executablePath = process.env.E2E_EXECUTABLE ?? executables[browserName];
		const common = { executablePath, headless: true, locale: "en-US", viewport: { width: 1440, height: 900 }, ...this.#options };
		if (browserName === "firefox") {
			const firefoxUserPrefs = { "network.dns.localDomains": plainHost };
			// WebDriver BiDi: Playwright's own protocol needs a patched Firefox.
			this.#context = await firefox.launchPersistentContext(this.#profile, { ...common, channel: "moz-firefox", firefoxUserPrefs });
		} else {
			const args = [`--host-resolver-rules=MAP ${plainHost} 127.0.0.1`, "--no-sandbox"];
			this.#context = await chromium.launchPersistentContext(this.#profile, { ...common, args });
		}
	}

	get context() {
		return this.#context;
	}

	/** Fails if anything went wrong in a page that no test has looked at: an error that nobody caught, a breach of its policy. */
	async close() {
		await this.#context?.close();
		this.#context = null;
		if (this.#faults.length > 0) throw new Error(`in the page:\n${this.#faults.slice(0, 3).join("\n")}`);
	}

	/** Ends all processes of the browser at once, as a crash does, and starts it again on the same profile. */
	async crash() {
		const context = this.#context;
		const session = await context.browser().newBrowserCDPSession();
		const { processInfo } = await session.send("SystemInfo.getProcessInfo");
		const gone = once(context, "close");
		for (const { id } of processInfo) {
			try {
				process.kill(id, "SIGKILL");
			} catch (error) {
				if (error.code !== "ESRCH") throw error; // it went with its parent
			}
		}
		await gone;
		await this.run();
	}

	/** A new tab on an address. */
	async tab(url) {
		const blank = this.#context.pages().find((page) => page.url() === "about:blank");
		const page = blank ?? (await this.#context.newPage());
		page.on("crash", () => this.#faults.push("the tab crashed"));
		page.on("pageerror", (error) => this.#faults.push(error.stack));
		page.on("console", (message) => {
			if (message.type() === "error" && /Content Security Policy|Trusted/.test(message.text())) this.#faults.push(message.text());
		});
		await page.goto(url);
		return page;
	}

	/** Resident memory of the processes that show pages, in bytes, and of the one that has the network. */
	async memory() {
		const session = await this.#context.browser().newBrowserCDPSession();
		const { processInfo } = await session.send("SystemInfo.getProcessInfo");
		await session.detach();
		const resident = async (types) => {
			const statuses = processInfo.filter(({ type }) => types.includes(type)).map(({ id }) => fs.readFile(`/proc/${id}/status`, "utf8"));
			return (await Promise.all(statuses)).reduce((sum, text) => sum + Number(text.match(/VmRSS:\s+(\d+) kB/)[1]) * 1024, 0);
		};
		return { tab: await resident(["renderer"]), browser: await resident(["browser", "utility"]) };
	}
}

/** Drops local files and folders on a place of a page, as a person does. */
export async function drop(page, { x, y }, paths) {
	const session = await page.context().newCDPSession(page);
	const data = { items: [], files: paths, dragOperationsMask: 1 };
	for (const type of ["dragEnter", "dragOver", "drop"]) await session.send("Input.dispatchDragEvent", { type, x, y, data });
	await session.detach();
}
