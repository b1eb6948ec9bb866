package desktop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/runtime/desktop/iso"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/statefile"
	"github.com/abdul-abdi/lumina/runtime/vm"
)

// parts are what a machine is made of. Its driver has what it needs of the files
// once it has started the machine; the network is needed until it ends.
type parts struct {
	spec    vm.DesktopSpec
	files   files
	network *network.Network
}

// open opens the parts of a desktop that its bundle has.
func (m *Manifest) open(dir string) (_ *parts, err error) {
	p := &parts{spec: vm.DesktopSpec{ID: m.ID, Name: m.Name, Arch: m.Architecture, CPUs: m.CPUs, Memory: vm.RoundUp(m.Memory),
		Common: m.Family == Windows, Identifier: m.Identifier, HardwareModel: m.HardwareModel}}
	defer func() {
		if err != nil {
			p.files.close()
		}
	}()
	if p.spec.Disk, err = p.files.open(filepath.Join(dir, diskFile), os.O_RDWR); err != nil {
		return nil, err
	}
	if p.spec.Variables, err = p.files.open(filepath.Join(dir, m.firmwareFile()), os.O_RDWR); err != nil {
		return nil, err
	}
	p.spec.SecureBoot = m.SecureBoot
	if m.TPM {
		if p.spec.TPM, err = p.files.open(filepath.Join(dir, tpmFile), os.O_RDWR|os.O_CREATE); err != nil {
			return nil, err
		}
	}
	if m.Drivers != "" {
		p.spec.Drivers, err = p.files.image(m.Drivers)
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("its second ISO %q is gone; lumina desktop set %s --drivers none boots without it", m.Drivers, m.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := wholeSectors(p.spec.Disk); err != nil {
		return nil, err
	}
	if err := p.spec.Check(); err != nil {
		return nil, err
	}
	mac, err := net.ParseMAC(m.MAC)
	if err != nil {
		return nil, err
	}
	if p.network, err = m.Network.Open(network.Options{}, mac); err != nil {
		return nil, err
	}
	if p.network != nil {
		p.spec.Network = &vm.NIC{MAC: mac, Socket: p.network.Device(), MTU: 1500}
	}
	return p, nil
}

// wholeSectors lengthens a disk of any size, which an older lumina made, to what
// every driver takes.
func wholeSectors(disk *os.File) error {
	info, err := disk.Stat()
	if err != nil || info.Size()%vm.SectorSize == 0 {
		return err
	}
	return disk.Truncate(vm.RoundUp(info.Size()))
}

// files are opened for a machine.
type files struct {
	all   []*os.File
	named bool     // temporary ones have a name, which the driver opens
	gone  []string // names of temporary ones
}

func (f *files) open(name string, flag int) (*os.File, error) {
	file, err := os.OpenFile(name, lockFlags|flag, 0o600)
	if err == nil {
		var info os.FileInfo
		if info, err = file.Stat(); err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is %w: it is not a file", filepath.Base(name), statefile.ErrDamaged)
		}
		if err != nil {
			file.Close()
			return nil, err
		}
		f.all = append(f.all, file)
	}
	return file, err
}

// image opens an ISO.
func (f *files) image(name string) (*os.File, error) {
	file, err := iso.Open(name)
	if err == nil {
		f.all = append(f.all, file)
	}
	return file, err
}

// temporary makes a file that ends with the others.
func (f *files) temporary(dir string, content io.Reader) (*os.File, error) {
	file, err := os.CreateTemp(dir, ".kernel-*")
	if err != nil {
		return nil, err
	}
	f.all = append(f.all, file)
	if f.named {
		f.gone = append(f.gone, file.Name())
	} else if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	_, err = io.Copy(file, content)
	return file, err
}

func (f *files) close() {
	for _, file := range f.all {
		file.Close()
	}
	for _, name := range f.gone {
		os.Remove(name)
	}
}

func namesDisks(driver vm.DesktopDriver) bool {
	d, ok := driver.(vm.NamedDisks)
	return ok && d.NamesDisks()
}

func (s *supervisor) addISO(spec *vm.DesktopSpec, o Options, files *files) (err error) {
	path := o.ISO
	if path == "" {
		path = s.m.ISO
	}
	if path == "" || path == NoISO {
		if o.Capture {
			return errors.New("there is no ISO to take a kernel from")
		}
		return nil
	}
	spec.ISO, err = files.image(path)
	if errors.Is(err, os.ErrNotExist) && o.ISO == "" {
		return fmt.Errorf("its ISO %q is gone: name another one, or %q", path, NoISO)
	}
	if err != nil || !o.Capture {
		return err
	}
	image, err := iso.ReadFile(spec.ISO)
	if err != nil {
		return fmt.Errorf("installation ISO %q: %w", path, err)
	}
	kernel, err := image.Kernel(s.m.Architecture)
	if err != nil {
		return fmt.Errorf("installation ISO %q: %w", path, err)
	}
	spec.Direct = &vm.DirectBoot{CommandLine: kernel.CommandLine}
	if spec.Direct.Kernel, err = files.temporary(s.dir, kernel.Kernel); err != nil {
		return fmt.Errorf("taking the kernel out of %q: %w", path, err)
	}
	if spec.Direct.Initrd, err = files.temporary(s.dir, kernel.Initrd); err != nil {
		return fmt.Errorf("taking the initial RAM disk out of %q: %w", path, err)
	}
	return nil
}
