package protocol

import "fmt"

// Unpack writes the tar archive that follows, as Stdin frames, into the guest.
type Unpack struct {
	// Staged is where: a tree that the guest's processes do not see until a
	// Layer mounts it. When it is empty, the guest's root.
	Staged string `json:"staged,omitempty"`
	// Memory keeps a staged tree off the disk.
	Memory bool `json:"memory,omitempty"`
}

// Layer begins a layer: what is changed from now on is kept apart from all that
// was changed before.
type Layer struct {
	// Dir is made if it is missing.
	Dir    string       `json:"dir,omitempty"`
	Mounts []LayerMount `json:"mounts,omitempty"`
}

// LayerMount is something that the guest's root has until the layer's end, and
// that is no part of the layer. It is a staged tree, a disk, or a file system in
// memory.
type LayerMount struct {
	Path     string `json:"path"`
	Staged   string `json:"staged,omitempty"` // the file or directory "data" of a tree
	Disk     string `json:"disk,omitempty"`   // a serial number
	ReadOnly bool   `json:"read_only,omitempty"`
	// Of a file system in memory.
	Size int64 `json:"size,omitempty"` // bytes
	// Of a disk's directory, when it is made.
	Mode     uint32 `json:"mode,omitempty"`
	UID, GID uint32
}

// BuildDisk is the serial number of a disk that layers' mounts name, by its
// place among them.
func BuildDisk(n int) string { return fmt.Sprintf("build%d", n) }
