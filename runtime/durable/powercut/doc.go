// Package powercut is for tests on Linux: a file system on a disk whose every
// write is recorded, and that disk as it would be had the power failed at a
// moment.
//
// The disk is a file that qemu-storage-daemon serves, with its blklogwrites
// driver, to a loop device. The log is that of the kernel's dm-log-writes
// (Documentation/admin-guide/device-mapper/log-writes.rst): what was flushed
// before a moment is on the disk, of what was written since some is.
package powercut
