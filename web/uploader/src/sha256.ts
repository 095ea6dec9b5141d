// SHA-256 (FIPS 180-4) of many short messages of one length: the leaves and nodes of a Merkle tree, which is what a proof is made
// of. Four are digested at a time with WebAssembly's 128-bit vectors, which makes 790 MB of leaves per CPU second where hash-wasm,
// one message after the other, makes 300. An instant upload of a large file waits for little else, so this is our own;
// everything else is digested by libraries, see digests.ts.

import { sha256 } from "@noble/hashes/sha2.js";

/** Bytes of a digest. */
export const hashSize = 32;

/**
 * Cuts data into messages of length bytes (the last may have fewer), digests each with the byte prefix before it, and returns
 * the digests, one after the other.
 */
export type DigestMany = (prefix: number, length: number, data: Uint8Array) => Uint8Array;

/** Four lanes, or one message after the other by @noble/hashes where WebAssembly is missing, refused or too old. */
export function digester(): DigestMany {
	try {
		return fourLanes();
	} catch {
		return oneByOne;
	}
}

/** In plain JavaScript. */
export const oneByOne: DigestMany = (prefix, length, data) => {
	const digests = new Uint8Array(Math.ceil(data.length / length) * hashSize);
	const message = new Uint8Array(1 + length);
	message[0] = prefix;
	for (let i = 0; i * length < data.length; i++) {
		const piece = data.subarray(i * length, (i + 1) * length);
		message.set(piece, 1);
		digests.set(sha256(message.subarray(0, 1 + piece.length)), i * hashSize);
	}
	return digests;
};

const k = roots(64, 1 / 3);
const initial = roots(8, 1 / 2);

/** The first 32 bits of the fractional parts of roots of the first primes: where SHA-256's constants are from. */
function roots(count: number, exponent: number): Int32Array {
	const found: number[] = [];
	for (let n = 2; found.length < count; n++) {
		if (found.every((prime) => n % prime !== 0)) {
			found.push(n);
		}
	}
	return Int32Array.from(found, (prime) => (prime ** exponent % 1) * 2 ** 32);
}

/** How long a message of length bytes and its prefix are with SHA-256's padding. */
function paddedLength(length: number): number {
	return Math.ceil((1 + length + 9) / 64) * 64;
}

/** Writes what is around length bytes of content in padded, which is zero there. */
function pad(padded: Uint8Array, prefix: number, length: number): void {
	padded[0] = prefix;
	padded[1 + length] = 0x80;
	new DataView(padded.buffer, padded.byteOffset).setUint32(padded.length - 4, (1 + length) * 8);
}

const lanes = 4;

/**
 * Four lanes of WebAssembly. Throws where that is missing, refused by the CSP, or without vectors (Safari before 16.4).
 *
 * The memory has the digests of four messages, and then the four padded messages, of which only the content changes from one
 * call to the next. They may have 16,000 bytes.
 */
export function fourLanes(): DigestMany {
	const instance = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes()));
	const { memory, digest } = instance.exports as unknown as {
		memory: WebAssembly.Memory;
		digest(messages: number, stride: number, blocks: number): void;
	};
	const bytes = new Uint8Array(memory.buffer);
	const words = new Uint32Array(memory.buffer, 0, lanes * 8);
	const messages = lanes * hashSize;
	let prepared = "";
	const digestMany: DigestMany = (prefix, length, data) => {
		const stride = paddedLength(length);
		if (prepared !== `${prefix} ${length}`) {
			prepared = `${prefix} ${length}`;
			for (let lane = 0; lane < lanes; lane++) {
				const message = bytes.subarray(messages + lane * stride, messages + (lane + 1) * stride);
				message.fill(0);
				pad(message, prefix, length);
			}
		}
		const full = Math.floor(data.length / length);
		const out = new DataView(new ArrayBuffer(Math.ceil(data.length / length) * hashSize));
		for (let i = 0; i < full; i += lanes) {
			const filled = Math.min(lanes, full - i);
			for (let lane = 0; lane < filled; lane++) {
				const at = (i + lane) * length;
				bytes.set(data.subarray(at, at + length), messages + lane * stride + 1);
			}
			digest(messages, stride, stride / 64);
			for (let lane = 0; lane < filled; lane++) {
				for (let j = 0; j < 8; j++) {
					out.setUint32((i + lane) * hashSize + 4 * j, words[j * lanes + lane]!);
				}
			}
		}
		const digests = new Uint8Array(out.buffer);
		if (data.length % length > 0) {
			const last = data.subarray(full * length);
			digests.set(digestMany(prefix, last.length, last), full * hashSize);
		}
		return digests;
	};
	return digestMany;
}

type Code = number[];

/**
 * A WebAssembly module (core specification 2.0, section 5) with one memory and one function: digest(messages, stride, blocks)
 * digests four padded messages that lie stride bytes apart, and stores the eight words of the hashes at 0, those of the
 * four lanes beside each other. Made here since a compiler's output would be longer, and nobody could read it.
 */
function moduleBytes(): Uint8Array<ArrayBuffer> {
	const [messages, stride, blocks] = [0, 1, 2];
	const local = (i: number): number => 3 + i;
	const [h, v, w, t] = [local(0), local(8), local(16), local(32)];

	const get = (i: number): Code => [0x20, ...leb(i)];
	const set = (i: number, value: Code): Code => [...value, 0x21, ...leb(i)];
	const int = (n: number): Code => [0x41, ...leb(n)];
	const vector = (op: number, ...operands: Code[]): Code => [...operands.flat(), 0xfd, ...leb(op)];
	const splat = (n: number): Code => vector(0x11, int(n));
	const add = (...terms: Code[]): Code => terms.reduce((a, b) => vector(0xae, a, b));
	const xor = (a: Code, b: Code): Code => vector(0x51, a, b);
	const choose = (mask: Code, ones: Code, zeros: Code): Code => vector(0x52, ones, zeros, mask);
	const shiftRight = (i: number, n: number): Code => vector(0xad, get(i), int(n));
	const rotate = (i: number, n: number): Code => vector(0x50, shiftRight(i, n), vector(0xab, get(i), int(32 - n)));
	const shuffle = (a: number, b: number, bytes: number[]): Code => [...vector(0x0d, get(a), get(b)), ...bytes];

	const body: Code = [];
	const emit = (...code: Code[]): void => code.forEach((c) => c.forEach((byte) => body.push(byte)));

	initial.forEach((word, i) => emit(set(h + i, splat(word))));
	emit([0x03, 0x40]); // loop
	for (let quarter = 0; quarter < 4; quarter++) {
		// Four words of each lane, to big-endian, and across: a local w has the same word of all lanes.
		let pointer = get(messages);
		for (let lane = 0; lane < lanes; lane++) {
			emit(set(v + lane, [...vector(0x00, pointer), 0, ...leb(16 * quarter)]));
			pointer = [...pointer, ...get(stride), 0x6a];
		}
		const low = [3, 2, 1, 0, 19, 18, 17, 16, 7, 6, 5, 4, 23, 22, 21, 20];
		const high = low.map((byte) => byte + 8);
		const first = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];
		const second = first.map((byte) => byte + 8);
		for (const [i, half] of [low, high].entries()) {
			const word = w + 4 * quarter + 2 * i;
			emit(set(t, shuffle(v, v + 1, half)), set(t + 1, shuffle(v + 2, v + 3, half)));
			emit(set(word, shuffle(t, t + 1, first)), set(word + 1, shuffle(t, t + 1, second)));
		}
	}
	for (let i = 0; i < 8; i++) {
		emit(set(v + i, get(h + i)));
	}
	for (let round = 0; round < 64; round++) {
		// Instead of moving eight values on, the next round calls them by the next names.
		const [a, b, c, d, e, f, g, last] = Array.from({ length: 8 }, (_, i) => v + ((i + 64 - round) % 8)) as [
			number, number, number, number, number, number, number, number,
		];
		const wi = w + (round % 16);
		if (round >= 16) {
			const [x, y] = [w + ((round + 1) % 16), w + ((round + 14) % 16)];
			const s0 = xor(xor(rotate(x, 7), rotate(x, 18)), shiftRight(x, 3));
			const s1 = xor(xor(rotate(y, 17), rotate(y, 19)), shiftRight(y, 10));
			emit(set(wi, add(get(wi), s0, get(w + ((round + 9) % 16)), s1)));
		}
		const s1 = xor(xor(rotate(e, 6), rotate(e, 11)), rotate(e, 25));
		const s0 = xor(xor(rotate(a, 2), rotate(a, 13)), rotate(a, 22));
		const majority = choose(xor(get(a), get(b)), get(c), get(a));
		emit(set(t, add(get(last), s1, choose(get(e), get(f), get(g)), splat(k[round]!), get(wi))));
		emit(set(d, add(get(d), get(t))), set(last, add(get(t), s0, majority)));
	}
	for (let i = 0; i < 8; i++) {
		emit(set(h + i, add(get(h + i), get(v + i))));
	}
	emit(set(messages, [...get(messages), ...int(64), 0x6a]));
	emit(get(blocks), int(1), [0x6b, 0x22, ...leb(blocks), 0x0d, 0, 0x0b]); // once more while --blocks is not 0
	for (let i = 0; i < 8; i++) {
		emit([...vector(0x0b, int(0), get(h + i)), 0, ...leb(16 * i)]);
	}
	body.push(0x0b);

	const text = (s: string): Code => [s.length, ...new TextEncoder().encode(s)];
	const section = (id: number, content: Code): Code => [id, ...leb(content.length), ...content];
	const code = [1, ...leb(34), 0x7b, ...body]; // 34 locals, all vectors
	return Uint8Array.from([
		...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
		...section(1, [1, 0x60, 3, 0x7f, 0x7f, 0x7f, 0]),
		...section(3, [1, 0]),
		...section(5, [1, 0, 1]), // one page of 64 KiB
		...section(7, [2, ...text("memory"), 2, 0, ...text("digest"), 0, 0]),
		...section(10, [1, ...leb(code.length), ...code]),
	]);
}

/** Signed LEB128, which is unsigned LEB128 too for the numbers that stand where that is wanted. */
function leb(n: number): Code {
	const code: Code = [];
	for (;;) {
		const byte = n & 0x7f;
		n >>= 7;
		if ((n === 0 && (byte & 0x40) === 0) || (n === -1 && (byte & 0x40) !== 0)) {
			return [...code, byte];
		}
		code.push(byte | 0x80);
	}
}
