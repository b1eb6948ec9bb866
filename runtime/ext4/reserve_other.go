//go:build !linux

package ext4

import "os"

// Reserve does nothing: this system cannot take room for a part of a file.
func Reserve(*os.File, int64) error { return nil }
