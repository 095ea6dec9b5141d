package config_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"gantry/config"
)

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
