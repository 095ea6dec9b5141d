// What a page does with an uploader.

import { onTestFinished } from "vitest";
import type { Phase, UploaderOptions, UploadView } from "../src/types.js";
import { Uploader } from "../src/uploader.js";
import { useInlineWorkers } from "./worker.js";

/** An uploader without memory and delays; it is closed after the test. */
export function uploader(options: Partial<UploaderOptions> = {}): Uploader {
	useInlineWorkers();
	const up = new Uploader({ endpoint: "http://server", remember: false, workerURL: "/hash.worker.js", retryDelays: Array(50).fill(0), ...options });
	onTestFinished(() => up.close());
	return up;
}

/** Waits for the upload to come into one of these phases; fails if it ends in another. */
export function until(up: Uploader, id: string, ...phases: Phase[]): Promise<UploadView> {
	return new Promise((resolve, reject) => {
		const look = (): boolean => {
			const u = up.get(id);
			if (u && phases.includes(u.phase)) {
				resolve(u);
			} else if (u && ["done", "instant", "failed", "cancelled"].includes(u.phase)) {
				reject(new Error(`It ended as ${u.phase}: ${u.error?.code} ${u.error?.detail}`));
			} else {
				return false;
			}
			return true;
		};
		if (!look()) {
			const off = up.on("change", (u) => u.id === id && look() && off());
		}
	});
}
