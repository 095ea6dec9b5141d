package store

import (
	"strings"

	"gantry/upload"
)

// CheckKey refuses keys that could be mistaken for others, or are none; op names the store.
func CheckKey(op, key string) error {
	bad := len(key) > 512 || strings.ContainsAny(key, "\x00\\")
	for part := range strings.SplitSeq(key, "/") {
		bad = bad || part == "." || part == ".." || part == ""
	}
	if bad {
		return upload.Errorf(upload.Invalid, op, key, "That is no key of an object.")
	}
	return nil
}
