// Loading this makes <gantry-uploader> known to the page.

import { GantryUploader } from "./element.js";

export { GantryUploader, type UploaderLike } from "./element.js";
export { type Row, VirtualList, type VirtualListOptions } from "./list.js";
export { errorDetail, errorInWords, instantInWords, phaseInWords } from "./phases.js";

if (!customElements.get("gantry-uploader")) {
	customElements.define("gantry-uploader", GantryUploader);
}
