// Checksums of chunks, made while the file is hashed: they cost no second reading.

import { base64 } from "./base64.js";

/** Of hash-wasm, with the polynomial of CRC-32C. */
export interface CRC {
	init(): unknown;
	update(data: Uint8Array): unknown;
	digest(format: "binary"): Uint8Array;
}

/** The polynomial of CRC-32C (RFC 3720, B.4), its bits in reverse order. */
export const castagnoli = 0x82f63b78;

export class ChunkSums {
	#whole: boolean; // all of this chunk went by

	/**
	 * Calls done for each chunk that goes by as a whole, with its CRC-32C as RFC 9530 has it in Content-Digest: base64 of 4 bytes.
	 * at: where the bytes begin. chunk, size: bytes.
	 */
	constructor(
		private readonly crc: CRC,
		private readonly chunk: number,
		private readonly size: number,
		private at: number,
		private readonly done: (index: number, crc32c: string) => void,
	) {
		crc.init();
		this.#whole = at % chunk === 0;
	}

	update(data: Uint8Array): void {
		for (let from = 0; from < data.length; ) {
			const part = data.subarray(from, from + this.chunk - (this.at % this.chunk));
			if (this.#whole) {
				this.crc.update(part);
			}
			from += part.length;
			this.at += part.length;
			if (this.at % this.chunk === 0 || this.at === this.size) {
				if (this.#whole) {
					this.done(Math.ceil(this.at / this.chunk) - 1, base64(this.crc.digest("binary")));
				}
				this.crc.init();
				this.#whole = true;
			}
		}
	}
}
