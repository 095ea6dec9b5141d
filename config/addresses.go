package config

import (
	"fmt"
	"io"
	"regexp"
)

// Addresses is one URL or several, separated by commas. Passwords in it are never printed or logged;
// string(a) has them.
type Addresses string

// passwords are all that comes before the last host, because a password that was not escaped may have any
// sign in it, and parameters.
var passwords = regexp.MustCompile(`//.*@|password=[^&,]*`)

func (a Addresses) String() string {
	return passwords.ReplaceAllStringFunc(string(a), func(secret string) string {
		if secret[0] == '/' {
			return "//[redacted]@"
		}
		return "password=[redacted]"
	})
}

// Format prints it without passwords whatever the verb.
func (a Addresses) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// MarshalText keeps passwords out of JSON and logs.
func (a Addresses) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
