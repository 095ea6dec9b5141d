// The states of the page that are looked at: by people in screenshots, by axe for those who cannot see.
import { KiB, MiB } from "./files.js";
import { until } from "./page.js";

/** Makes twenty files of some sizes and kinds. */
async function twenty(stage) {
	const names = ["Holiday in Norway.mp4", "report-2026-final.pdf", "季度报告（最终版）.pptx", "backup-2026-11-24.tar.zst", "IMG_2041.heic"];
	const files = [];
	for (let i = 0; i < 20; i++) {
		const name = names[i] ?? `IMG_${2042 + i}.heic`;
		files.push(await stage.file(name, i < 4 ? (i + 1) * 12 * MiB : 700 * KiB + i * 1000));
	}
	return files;
}

/** Each brings a fresh stage into a state. */
export const scenes = {
	async empty() {},

	async busy(stage) {
		stage.proxy.limit(6 * MiB);
		const files = await twenty(stage);
		await stage.page.add(files.map((file) => file.path));
		await stage.untilSent(8 * MiB);
	},

	async done(stage) {
		const files = await twenty(stage);
		await stage.page.add(files.map((file) => file.path));
		await until("all are on the server", async () => (await stage.server.files()).length === files.length);
		for (const file of await stage.server.files()) await stage.server.stored(file.id);
	},

	async failed(stage) {
		await stage.server.kill();
		stage.server.flags = ["--max-size", "20MiB"];
		await stage.server.run();
		const files = await twenty(stage);
		await stage.page.add(files.slice(0, 6).map((file) => file.path));
		await until("some have failed", async () => (await stage.page.uploads.locator("[data-phase=failed]").count()) > 0);
	},

	async offline(stage) {
		await scenes.busy(stage);
		await stage.browser.context.setOffline(true);
		await stage.proxy.refuse();
		await stage.page.tab.getByText("You are offline").waitFor();
	},

	async interrupted(stage) {
		await scenes.busy(stage);
		await stage.page.tab.reload();
		await stage.page.goOn.waitFor();
	},
};
