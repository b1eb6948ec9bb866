package desktop

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// SchemaVersion is of the manifests that this package writes. It reads older
// ones, and of newer ones says so.
const SchemaVersion = 2

// maxManifest bounds manifest.json, in bytes.
const maxManifest = 1 << 20

// Manifest is a desktop's manifest.json.
type Manifest struct {
	ID           string       `json:"id"`
	Name         string       `json:"name"`
	Family       Family       `json:"osFamily"`
	Variant      string       `json:"osVariant"`
	Architecture string       `json:"architecture"` // in Go's name; since version 2
	Memory       int64        `json:"memoryBytes"`
	CPUs         int          `json:"cpuCount"`
	DiskSize     int64        `json:"diskBytes"`
	Created      time.Time    `json:"createdAt"`
	LastBooted   *time.Time   `json:"lastBootedAt,omitempty"`
	MAC          string       `json:"macAddress"`
	Network      network.Mode `json:"networkMode"`
	ISO          string       `json:"installMedium,omitempty"` // path of an image; since version 2
	Drivers      string       `json:"driversISO,omitempty"`    // path of a second one
	// SecureBoot: its firmware starts what is signed only. TPM: it has one, of
	// version 2.0. Both stay as they are.
	SecureBoot bool `json:"secureBoot,omitempty"`
	TPM        bool `json:"tpm,omitempty"`
	// Identifier is the machine's, in its driver's form; HardwareModel that of a Mac.
	Identifier    []byte `json:"machineIdentifier,omitempty"`
	HardwareModel []byte `json:"hardwareModel,omitempty"`
	// Installing: its system is being installed, or was when that ended.
	Installing    bool `json:"installing,omitempty"`
	SchemaVersion int  `json:"schemaVersion"`

	// unknown are the fields of others, which are kept.
	unknown map[string]json.RawMessage
}

// Family is a kind of operating system.
type Family string

// The families.
const (
	Linux   Family = "linux"
	Windows Family = "windows"
	MacOS   Family = "macOS"
)

// Defaults of a desktop.
const (
	DefaultMemory   = 4 << 30
	DefaultCPUs     = 2
	DefaultDiskSize = 64 << 30
)

// fields are those of the struct, without its methods.
type fields Manifest

// UnmarshalJSON is part of [json.Unmarshaler].
func (m *Manifest) UnmarshalJSON(b []byte) error {
	var known fields
	if err := json.Unmarshal(b, &known); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &known.unknown); err != nil {
		return err
	}
	*m = Manifest(known)
	return nil
}

// MarshalJSON is part of [json.Marshaler].
func (m *Manifest) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal((*fields)(m))
	if err != nil || len(m.unknown) == 0 {
		return b, err
	}
	all := map[string]json.RawMessage{}
	for k, v := range m.unknown {
		all[k] = v
	}
	// What is left out because it is empty is not taken from what was read.
	for _, field := range []string{"lastBootedAt", "installMedium", "driversISO", "secureBoot", "tpm", "machineIdentifier", "hardwareModel", "installing"} {
		delete(all, field)
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// readManifest reads a bundle's manifest and fills in what older ones lack.
func readManifest(dir string) (*Manifest, error) {
	f, err := statefile.Open(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := statefile.ReadAll(f, maxManifest)
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("reading %s: %w", manifestFile, err)
	}
	if m.SchemaVersion > SchemaVersion {
		return nil, fmt.Errorf("%s has version %d, and %w, up to %d", manifestFile, m.SchemaVersion, errNewer, SchemaVersion)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m.ID = filepath.Base(dir) // whatever it says: a bundle may have been copied
	m.fill(dir, info.ModTime())
	if _, err := net.ParseMAC(m.MAC); err != nil {
		return nil, fmt.Errorf("reading %s: %w", manifestFile, err)
	}
	return m, nil
}

// fill gives values to fields that older manifests lack.
func (m *Manifest) fill(dir string, written time.Time) {
	set(&m.Name, "desktop-"+m.ID[:min(8, len(m.ID))])
	set(&m.Family, Linux)
	set(&m.Variant, "generic")
	set(&m.Architecture, goruntime.GOARCH)
	set(&m.Memory, DefaultMemory)
	set(&m.CPUs, DefaultCPUs)
	if info, err := os.Stat(filepath.Join(dir, diskFile)); err == nil {
		set(&m.DiskSize, info.Size())
	}
	if m.Created.IsZero() {
		m.Created = written.UTC()
	}
	set(&m.MAC, macOf(m.ID))
	set(&m.Network, network.ModeNAT)
	m.SchemaVersion = SchemaVersion
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// macOf makes a desktop's address: locally administered (IEEE 802, second bit of
// the first byte), and always the same.
func macOf(id string) string {
	sum := sha256.Sum256([]byte("lumina desktop " + id))
	return net.HardwareAddr{sum[0]&0xFC | 2, sum[1], sum[2], sum[3], sum[4], sum[5]}.String()
}

// write makes the manifest appear at once and whole.
func (m *Manifest) write(dir string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return err
	}
	file := filepath.Join(dir, manifestFile)
	if err := durable.Replace(file, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", manifestFile, err)
	}
	return durable.Sync(dir)
}
