/** A new id: 130 random bits in 26 characters of base32hex, as the server's ids are. crypto.randomUUID is missing in insecure contexts. */
export function id(): string {
	return Array.from(crypto.getRandomValues(new Uint8Array(26)), (byte) => (byte & 31).toString(32)).join("");
}
