package config_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"gantry/config"
)

// So does the page about stores of theirs.
func TestStoresAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/stores/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range config.StoreSettings() {
		row := fmt.Sprintf("| `%s` | %s | %s |\n", s.Key, strings.ReplaceAll(s.Default, "!", " (needed)"), s.Help)
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/stores/README.md lacks this row:\n%s", row)
		}
	}
	for _, s := range config.RuleSettings() {
		if row := fmt.Sprintf("| `%s` | %s |\n", s.Key, s.Help); !strings.Contains(string(page), row) {
			t.Errorf("docs/stores/README.md lacks this row:\n%s", row)
		}
	}
}

// The table in the operator's manual says of every setting what the program says.
func TestSettingsAreDocumented(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range config.Settings() {
		value := "–"
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		row := fmt.Sprintf("| `--%s` | `%s` | %s | %s |\n", s.Flag, s.Env, value, s.Help)
		if !strings.Contains(string(manual), row) {
			t.Errorf("docs/operations.md lacks this row:\n%s", row)
		}
	}
}
