// A plugin of type "uploader" for Uppy: its Dashboard, or any other of its interfaces, then uploads to a Gantry server,
// in parallel chunks, resumable and instant. For @uppy/core 5 and 6, which whoever uses Uppy has.
//
//	new Uppy().use(Dashboard, { target: "#here" }).use(Gantry, { endpoint: "https://files.example.com" })

import { BasePlugin, type Body, type Meta, type Uppy, type UppyFile } from "@uppy/core";
import { errorDetail, errorInWords } from "./element/phases.js";
import { UploadError } from "./problem.js";
import { language, type Text, text } from "./text.js";
import type { AddOptions, UploaderOptions, UploadView } from "./types.js";
import { Uploader } from "./uploader.js";

/** What the plugin needs of an Uploader. */
export type UploaderForUppy = Pick<
	Uploader,
	"add" | "get" | "on" | "pause" | "resume" | "retry" | "cancel" | "remove" | "close"
>;

export interface GantryOptions extends Partial<Omit<UploaderOptions, "metadata">> {
	/** The plugin's id in Uppy; default "Gantry". */
	id?: string;
	/** The Uploader to use, for pages that have one already. It is not closed with the plugin. */
	uploader?: UploaderForUppy;
	/** Which of a file's meta fields the server keeps with it. Default: all but those that it keeps anyway. */
	allowedMetaFields?: string[];
}

/** What Uppy sets itself, and the server knows without it. */
const ownFields: ReadonlySet<string> = new Set(["name", "type", "relativePath"]);

/** One of Uppy's files that is being uploaded. */
interface Job {
	readonly fileID: string;
	/** Uppy waits for it: called when there is nothing to do any more, whether it went well or not. */
	done(): void;
}

export default class Gantry<M extends Meta, B extends Body> extends BasePlugin<GantryOptions, M, B> {
	readonly #uploader: UploaderForUppy;
	readonly #text: Text = text(language());
	/** By the upload's id. A job that ended stays until its file is removed or tried again. */
	readonly #jobs = new Map<string, Job>();
	#unsubscribe: (() => void)[] = [];

	constructor(uppy: Uppy<M, B>, options: GantryOptions = {}) {
		super(uppy, options);
		this.id = options.id ?? "Gantry";
		this.type = "uploader";
		this.#uploader = options.uploader ?? new Uploader({ ...options, endpoint: options.endpoint ?? "" });
	}

	override install(): void {
		this.#setResumable(true);
		this.uppy.addUploader(this.#upload);
		const { uppy } = this;
		const pause = (file: UppyFile<M, B> | undefined, paused: boolean): void =>
			this.#each((id) => this.#pause(id, paused), file?.id);
		const pauseAll = (): void => this.#each((id) => this.#pause(id, true));
		const resumeAll = (): void => this.#each((id) => this.#pause(id, false));
		const removed = (file: UppyFile<M, B>): void => this.#each((id) => this.#drop(id), file.id);
		uppy.on("upload-pause", pause);
		uppy.on("pause-all", pauseAll);
		uppy.on("resume-all", resumeAll);
		uppy.on("file-removed", removed);
		this.#unsubscribe = [
			() => uppy.off("upload-pause", pause),
			() => uppy.off("pause-all", pauseAll),
			() => uppy.off("resume-all", resumeAll),
			() => uppy.off("file-removed", removed),
			this.#uploader.on("change", (u, before) => this.#changed(u, before)),
			this.#uploader.on("retrying", (u, reason) => this.#stalled(u, reason)),
		];
	}

	override uninstall(): void {
		this.#setResumable(false);
		this.uppy.removeUploader(this.#upload);
		for (const off of this.#unsubscribe.splice(0)) {
			off();
		}
		if (!this.opts.uploader) {
			this.#uploader.close();
		}
		for (const job of this.#jobs.values()) {
			job.done();
		}
		this.#jobs.clear();
	}

	#setResumable(resumableUploads: boolean): void {
		this.uppy.setState({ capabilities: { ...this.uppy.getState().capabilities, resumableUploads } });
	}

	/** Calls act with the upload of a file, or with all. */
	#each(act: (id: string) => void, fileID?: string): void {
		for (const [id, job] of [...this.#jobs]) {
			if (fileID === undefined || job.fileID === fileID) {
				act(id);
			}
		}
	}

	#pause(id: string, paused: boolean): void {
		if (paused) {
			this.#uploader.pause(id);
		} else {
			this.#uploader.resume(id);
		}
	}

	/** Uppy took the file off its list. */
	#drop(id: string): void {
		const job = this.#jobs.get(id);
		this.#jobs.delete(id);
		void this.#uploader.cancel(id);
		this.#uploader.remove(id);
		job?.done();
	}

	/** Uppy calls it with the files to upload, also with those that failed and are to be tried again. */
	readonly #upload = async (fileIDs: string[]): Promise<void> => {
		const files = this.uppy.getFilesByIds(fileIDs).filter((file) => !file.error && !file.progress.uploadComplete);
		this.uppy.emit("upload-start", files);
		await Promise.all(files.map((file) => this.#uploadFile(file)));
	};

	async #uploadFile(file: UppyFile<M, B>): Promise<void> {
		if (file.isRemote || !file.data) {
			const error = new UploadError(
				"remote_file",
				"This file is not on this device",
				"Download it, then add it from here.",
			);
			this.uppy.emit("upload-error", file, this.#inWords(error));
			return;
		}
		const failed = [...this.#jobs].find(([, job]) => job.fileID === file.id)?.[0];
		const retried = failed !== undefined && this.#uploader.get(failed)?.phase === "failed";
		const id = retried ? failed : (await this.#uploader.add(file.data, this.#addOptions(file)))[0]?.id;
		if (id === undefined || !this.uppy.getFile(file.id)) {
			return; // Removed meanwhile.
		}
		await new Promise<void>((done) => {
			this.#jobs.set(id, { fileID: file.id, done });
			if (retried) {
				this.#uploader.retry(id);
			} else if (this.uppy.getFile(file.id)?.isPaused) {
				this.#uploader.pause(id);
			}
			const u = this.#uploader.get(id);
			if (u) {
				this.#changed(u, u); // It may be at its end already.
			}
		});
	}

	#addOptions(file: UppyFile<M, B>): AddOptions {
		const path = String(file.meta.relativePath ?? "")
			.split("/")
			.slice(0, -1)
			.join("/");
		const fields = this.opts.allowedMetaFields ?? Object.keys(file.meta).filter((field) => !ownFields.has(field));
		const meta: Readonly<Record<string, unknown>> = file.meta;
		const metadata = Object.fromEntries(
			fields.filter((field) => meta[field] != null).map((field) => [field, String(meta[field])]),
		);
		// In Uppy the name can be edited: that is the one in meta.
		return { name: file.meta.name, path, metadata };
	}

	#changed(u: UploadView, before: UploadView): void {
		const job = this.#jobs.get(u.id);
		const file = job && this.uppy.getFile(job.fileID);
		if (!job || !file) {
			return;
		}
		if (u.phase === "checking") {
			const value = u.hashed / Math.max(u.size, 1);
			this.uppy.emit("preprocess-progress", file, {
				mode: "determinate",
				message: this.#text.t("phase.checking"),
				value,
			});
		} else if (before.phase === "checking") {
			this.uppy.emit("preprocess-complete", file);
		}
		switch (u.phase) {
			case "done":
			case "instant":
				this.#succeeded(u, file);
				job.done();
				break;
			case "failed":
				this.#failed(u, file);
				job.done();
				break;
			case "cancelled":
				this.#jobs.delete(u.id);
				this.uppy.removeFile(file.id);
				job.done();
				break;
			default:
				this.#progressed(u, file);
		}
	}

	#progressed(u: UploadView, file: UppyFile<M, B>): void {
		const uploadStarted = file.progress.uploadStarted ?? Date.now();
		this.uppy.emit("upload-progress", file, { uploadStarted, bytesUploaded: u.sending, bytesTotal: u.size });
	}

	#succeeded(u: UploadView, file: UppyFile<M, B>): void {
		const endpoint = this.opts.endpoint?.replace(/\/+$/, "") ?? "";
		const uploadURL = u.file ? `${endpoint}/v1/files/${u.file.id}/content` : undefined;
		// Uppy lets each uploader say what a body is. Ours is the file as the HTTP API tells it.
		const body = { ...u.file } as unknown as B;
		this.uppy.emit("upload-success", file, {
			status: 200,
			body,
			bytesUploaded: u.size,
			...(uploadURL && { uploadURL }),
		});
	}

	#failed(u: UploadView, file: UppyFile<M, B>): void {
		if (u.error) {
			this.uppy.emit("upload-error", file, this.#inWords(u.error), { status: u.error.status });
		}
	}

	#stalled(u: UploadView, reason: UploadError): void {
		const file = this.uppy.getFile(this.#jobs.get(u.id)?.fileID ?? "");
		// The first time may be chance, and what is told once need not be told at every try.
		if (file && u.attempt === 2) {
			const { message, details } = this.#inWords(reason);
			this.uppy.emit("upload-stalled", { message, details }, [file]);
		}
	}

	/** Uppy shows the message, and the details to who asks for them, or one after the other. */
	#inWords(error: UploadError): { name: string; message: string; details: string } {
		const details = [
			errorDetail(this.#text, error),
			error.requestId && this.#text.t("error.request", { id: error.requestId }),
		];
		const message = errorInWords(this.#text, error).replace(/[^.。]$/, "$&.");
		return { name: error.code, message, details: details.filter(Boolean).join(" ") };
	}
}
