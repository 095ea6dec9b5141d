// The digests of the worker. SHA-1 and CRC-32C are hash-wasm's, SHA-256 is sha256.ts's. Where WebAssembly is missing or refused by
// the CSP, @noble/hashes has both SHA in plain JavaScript, at a fifth of the speed.

import { sha1 } from "@noble/hashes/legacy.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { createCRC32, createSHA1 } from "hash-wasm";
import { castagnoli, type CRC } from "./chunksums.js";
import { type DigestMany, digester } from "./sha256.js";

export interface SHA1 {
	/** Begins a new digest. */
	init(): unknown;
	update(data: Uint8Array): unknown;
	/** Lower-case hex. Ends the digest. */
	digest(): string;
	/** null: this implementation cannot. */
	save(): Uint8Array | null;
	/** Throws, and changes nothing, if state is not one that this implementation saved. */
	load(state: Uint8Array): unknown;
}

/** Made once: a WebAssembly memory that is not used any more holds address space until it is collected. */
export class Digests {
	#sha1?: Promise<SHA1>;
	#sha256?: DigestMany;
	#crc?: Promise<CRC | null>;

	get sha1(): Promise<SHA1> {
		return (this.#sha1 ??= createSHA1().catch(() => new PlainSHA1()));
	}

	get sha256(): DigestMany {
		return (this.#sha256 ??= digester());
	}

	/** null: none without WebAssembly. The server's check of the whole has to do then. */
	get crc(): Promise<CRC | null> {
		return (this.#crc ??= createCRC32(castagnoli).catch(() => null));
	}
}

/** Without states: @noble/hashes has none that could be stored. */
class PlainSHA1 implements SHA1 {
	#hash = sha1.create();

	init(): void {
		this.#hash = sha1.create();
	}

	update(data: Uint8Array): void {
		this.#hash.update(data);
	}

	digest(): string {
		return bytesToHex(this.#hash.digest());
	}

	save(): null {
		return null;
	}

	load(): never {
		throw new Error("This state was saved by another implementation of SHA-1. Hash from the beginning.");
	}
}
