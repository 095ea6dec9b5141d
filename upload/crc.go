package upload

import "hash/crc32"

// Castagnoli is the table of CRC-32C (RFC 3720), which processors compute in hardware.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

const castagnoliReversed = 0x82f63b78

// CombineCRC32C returns the CRC-32C of a‖b from the CRCs of a and of b and the length of b, without
// their bytes, so that the CRC of a file follows from those of its chunks.
//
// It multiplies by x^(8·lenB) in GF(2) (M. Adler, zlib crc32_combine).
func CombineCRC32C(crcA, crcB uint32, lenB int64) uint32 {
	if lenB <= 0 {
		return crcA
	}
	power := uint32(1 << 23) // x^8 in the reflected representation
	result := uint32(1 << 31)
	for n := lenB; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = mulMod(power, result)
		}
		power = mulMod(power, power)
	}
	return mulMod(result, crcA) ^ crcB
}

// mulMod multiplies two polynomials modulo the CRC's, bits reflected.
func mulMod(a, b uint32) uint32 {
	var product uint32
	for mask := uint32(1 << 31); mask != 0; mask >>= 1 {
		if a&mask != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ castagnoliReversed
		} else {
			b >>= 1
		}
	}
	return product
}
