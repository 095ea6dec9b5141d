// Package lint holds the rules of the house that no ready-made linter knows: who may import whom, how
// goroutines and sleeps are owned, that documents and code say the same. It has no code but tests,
// and uses the standard library only.
package lint
