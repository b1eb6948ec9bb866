// Package qcow2 reads and writes disk images in QEMU's format (docs/interop/qcow2.txt in
// its sources).
package qcow2

// Magic is how every image begins.
const Magic = "QFI\xfb"
