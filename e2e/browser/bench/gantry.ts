// Gantry's uploader and its hasher, alone on a page.
import { Hasher } from "../../../web/uploader/src/hasher.js";
import { Uploader } from "../../../web/uploader/src/index.js";

declare global {
	interface Window {
		gantry(file: File, endpoint: string, instant: boolean): Promise<{ took: number; phase: string }>;
		hashing(file: File): Promise<number>;
	}
}

/** Uploads a file and returns the milliseconds it took, and whether it was "done" or "instant". */
window.gantry = async (file, endpoint, instant) => {
	const uploader = new Uploader({ endpoint, instant, remember: false, workerURL: "/hash.worker.js" });
	try {
		const ended = new Promise<string>((resolve, reject) => {
			uploader.on("complete", (upload) => resolve(upload.phase));
			uploader.on("error", (upload) => reject(new Error(`${upload.error?.code}: ${upload.error?.detail}`)));
		});
		const begun = performance.now();
		await uploader.add(file);
		const phase = await ended;
		return { took: performance.now() - begun, phase };
	} finally {
		uploader.close();
	}
};

/** Hashes a file as the uploader does and returns the milliseconds it took. */
window.hashing = async (file) => {
	const hasher = new Hasher("/hash.worker.js");
	try {
		const begun = performance.now();
		await hasher.hash(file, { signal: new AbortController().signal, progress() {} });
		return performance.now() - begun;
	} finally {
		hasher.close();
	}
};
