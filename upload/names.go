package upload

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on what a client may call a file.
const (
	MaxNameBytes     = 1024
	MaxPathBytes     = 4096
	MaxMetadataBytes = 16 << 10 // keys and values together
	MaxTypeBytes     = 255
)

// CheckName refuses what cannot be a file name anywhere. A name is data: it is never used as a path.
func CheckName(name string) error {
	switch {
	case name == "":
		return Errorf(InvalidName, "", "", "A file needs a name. Choose one.")
	case len(name) > MaxNameBytes:
		return Errorf(InvalidName, "", "", "The name is longer than %d bytes. Choose a shorter one.", MaxNameBytes)
	case name == "." || name == ".." || strings.Contains(name, "/"):
		return Errorf(InvalidName, "", "", "A name is not a path. Put the folder into \"path\".")
	}
	return checkText("name", name)
}

// CheckPath refuses what is not a relative folder: "a/b" is one, "" is none.
func CheckPath(path string) error {
	if path == "" {
		return nil
	}
	if len(path) > MaxPathBytes {
		return Errorf(InvalidName, "", "", "The path is longer than %d bytes. Choose a shorter one.", MaxPathBytes)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return Errorf(InvalidName, "", "", "A path is relative and clean. Choose one like \"photos/2026\".")
		}
	}
	return checkText("path", path)
}

// CheckMetadata bounds what is kept beside a file.
func CheckMetadata(metadata map[string]string) error {
	total := 0
	for key, value := range metadata {
		if key == "" {
			return Errorf(InvalidName, "", "", "A metadata key is empty. Choose one.")
		}
		if err := checkText("metadata key", key); err != nil {
			return err
		}
		if !utf8.ValidString(value) {
			return Errorf(InvalidName, "", "", "The metadata value of a key is not UTF-8. Send text.")
		}
		total += len(key) + len(value)
	}
	if total > MaxMetadataBytes {
		return Errorf(InvalidName, "", "", "The metadata is longer than %d bytes. Send less.", MaxMetadataBytes)
	}
	return nil
}

// CheckContentType bounds the media type, which is kept as the client gave it.
func CheckContentType(contentType string) error {
	if len(contentType) > MaxTypeBytes {
		return Errorf(InvalidName, "", "", "The content type is longer than %d bytes. Choose a shorter one.", MaxTypeBytes)
	}
	return checkText("content type", contentType)
}

func checkText(what, text string) error {
	if !utf8.ValidString(text) {
		return Errorf(InvalidName, "", "", "The %s is not UTF-8. Choose another.", what)
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return Errorf(InvalidName, "", "", "The %s contains control characters. Choose another.", what)
	}
	return nil
}

// CheckSize refuses sizes that cannot be: negative ones (UnknownSize is not passed here), and those
// over limit.
func CheckSize(size, limit int64) error {
	switch {
	case size < 0:
		return Errorf(InvalidSize, "", "", "A size is not negative. Send the file's length in bytes.")
	case size > limit:
		return Errorf(TooLarge, "", "", "The file is larger than this server takes: %d bytes at most. Send it in parts, or ask for a higher limit.", limit)
	}
	return nil
}
