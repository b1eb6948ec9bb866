package main

import (
	"strings"
	"testing"
)

// What cannot have Rosetta is told before anything is fetched.
func TestRosettaIsOfArm64(t *testing.T) {
	r := lumina(t, "images", "create", "translated", "--rosetta", "--platform", "linux/amd64", "--from", "oci:/none:latest")
	if r.code != 2 || !strings.Contains(r.stdout+r.stderr, "--platform linux/arm64") {
		t.Errorf("code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}
