// What Gantry's uploader is compared with, without a dashboard, which could only make it slower.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

/** Uploads a file to tusd with Uppy's defaults and returns the milliseconds it took. */
window.uppy = (file, endpoint) =>
	new Promise((resolve, reject) => {
		const uppy = new Uppy().use(Tus, { endpoint, storeFingerprintForResuming: false });
		uppy.on("complete", ({ failed }) => {
			const took = performance.now() - begun;
			uppy.destroy();
			if (failed.length > 0) reject(new Error(failed[0].error));
			else resolve(took);
		});
		const begun = performance.now();
		uppy.addFile({ name: file.name, type: file.type, data: file });
		void uppy.upload();
	});
