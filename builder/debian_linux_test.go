package builder

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The scripts of packages do not get the caller's secrets.
func TestEnvironmentOfMmdebstrap(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte("#!/bin/sh\nenv\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, value := range map[string]string{"GITHUB_TOKEN": "secret1", "LUMINA_KEY_PASSWORD": "secret2", "lc_x": "secret3",
		"https_proxy": "http://proxy.test", "HTTP_PROXY": "http://proxy.test:1", "TMPDIR": dir} {
		t.Setenv(name, value)
	}
	var got bytes.Buffer
	if err := mmdebstrap(t.Context(), nil, &got); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.String(), "secret") {
		t.Errorf("it gets:\n%s", &got)
	}
	var missing error
	for _, line := range []string{"https_proxy=http://proxy.test\n", "HTTP_PROXY=http://proxy.test:1\n", "TMPDIR=" + dir + "\n", "PATH=" + dir + ":"} {
		if !strings.Contains(got.String(), line) {
			missing = errors.Join(missing, errors.New(line))
		}
	}
	if missing != nil {
		t.Errorf("it does not get: %v", missing)
	}
}
