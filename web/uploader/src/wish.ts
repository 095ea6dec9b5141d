// Which chunk size to wish for.

const MiB = 1 << 20;
const LEAST = MiB;
const MOST = 64 * MiB;
/** Seconds that a chunk should take: less is wasted on round trips, more is lost when it fails. */
const AIM = 4;
/** Bodies below this say more about round trips than about the speed. */
const TELLING = MiB / 2;

/**
 * An upload has one chunk size, so what is learned from one counts for the next. The server takes the power of two that is
 * nearest above.
 */
export class ChunkWish {
	#speed: number | null = null; // of one request, bytes a second

	/** fixed: bytes; always wished for. */
	constructor(private readonly fixed: number | undefined) {}

	learned(bytes: number, ms: number): void {
		if (bytes >= TELLING && ms > 0) {
			const speed = (bytes / ms) * 1000;
			this.#speed = this.#speed === null ? speed : this.#speed + (speed - this.#speed) * 0.2;
		}
	}

	/** Bytes, for a file of so many. */
	of(size: number): number {
		if (this.fixed !== undefined) {
			return this.fixed;
		}
		const usual = size > 1024 * MiB ? 16 * MiB : 8 * MiB;
		if (this.#speed === null) {
			return usual;
		}
		const wish = 2 ** Math.round(Math.log2(this.#speed * AIM));
		// More than usual only if enough chunks remain for all lanes.
		const most = Math.max(usual, 2 ** Math.floor(Math.log2(Math.max(size / 8, 1))));
		return Math.min(Math.max(wish, LEAST), most, MOST);
	}
}
