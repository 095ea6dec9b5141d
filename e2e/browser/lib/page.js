// The page as its users know it: by roles and accessible names, by the parts of the element and the phase of each upload.
import { browserName, drop } from "./browser.js";

/** Waits until a condition holds and returns what it gave. what: words for when it does not, or a function that gives them. */
export async function until(what, condition, seconds = 60) {
	const deadline = performance.now() + seconds * 1000;
	for (;;) {
		const value = await condition();
		if (value) return value;
		if (performance.now() > deadline) throw new Error(`not within ${seconds} s: ${typeof what === "function" ? what() : what}`);
		await new Promise((resolve) => setTimeout(resolve, 25));
	}
}

export class UploaderPage {
	/** tab: Playwright's page, with Gantry's loaded. */
	constructor(tab) {
		this.tab = tab;
		this.zone = tab.locator("gantry-uploader [part=drop-zone]"); // in any language
		this.uploads = tab.locator("gantry-uploader [part=list] [role=list]");
	}

	/** Waits until files may be dropped. */
	async ready() {
		await this.zone.waitFor();
		return this;
	}

	/** Gives the page files by path: by a drop, or where that cannot be done (Firefox) as if chosen. */
	async add(paths) {
		if (browserName === "chromium") await this.drop(paths);
		else await this.choose(paths);
	}

	async drop(paths) {
		const box = await this.zone.boundingBox();
		await drop(this.tab, { x: box.x + box.width / 2, y: box.y + box.height / 2 }, paths);
	}

	/** Gives the page files as if they had been chosen in a dialog. The picker with handles is nothing that a test can use. */
	async choose(paths) {
		await this.tab.locator("input[data-choose=files]").setInputFiles(paths);
	}

	/** Presses a button that opens the dialog for files, and chooses some. */
	async chooseBy(button, paths) {
		const [chooser] = await Promise.all([this.tab.waitForEvent("filechooser"), button.click()]);
		await chooser.setFiles(paths);
	}

	/** Lets uploads of an earlier page go on, with their files. */
	get goOn() {
		return this.tab.getByRole("button", { name: "Go on", exact: true });
	}

	/** The row of the upload of this name. It is in the document only while it is in sight. */
	row(name) {
		return this.uploads.locator(`[data-phase][aria-label^=${JSON.stringify(`${name},`)}]`).first();
	}

	async phase(name) {
		const row = this.row(name);
		return (await row.count()) > 0 ? row.getAttribute("data-phase") : null;
	}

	/** Waits for one of the phases. Ends at once if the upload has ended in another one. */
	async untilPhase(name, phases, seconds = 60) {
		const wanted = [phases].flat();
		const seen = [];
		const look = async () => {
			const phase = await this.phase(name);
			if (seen.at(-1) !== phase) seen.push(phase);
			if (phase === "failed" && !wanted.includes(phase)) throw new Error(`${name} failed: ${await this.row(name).innerText()}`);
			return wanted.includes(phase) && phase;
		};
		return until(() => `${name} is ${wanted.join(" or ")}; it was ${seen.join(", ")}`, look, seconds);
	}

	/** What fraction is done, in percent, as screen readers are told. */
	async percent(name) {
		return Number(await this.row(name).getByRole("progressbar").first().getAttribute("aria-valuenow"));
	}

	async press(what, name) {
		await this.tab.getByRole("button", { name: `${what} ${name}`, exact: true }).click();
	}

	/** Enters the token that the page asks for. */
	async signIn(token) {
		await this.tab.getByLabel("Token", { exact: true }).fill(token);
		await this.tab.getByRole("button", { name: "Continue" }).click();
	}
}
