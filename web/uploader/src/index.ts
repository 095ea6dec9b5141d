export { UploadError, type LocalCode } from "./problem.js";
export type * from "./types.js";
export { Uploader } from "./uploader.js";
