//go:build !linux

package erofs

func punch(File, int64, int64) bool { return false }
