// Package e2e tests the real binary from outside: over HTTP, with kill -9 and with a look at the data
// directory afterwards. It has no code but tests.
package e2e
