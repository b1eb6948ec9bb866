package runtime

import (
	"crypto/rand"
	"encoding/hex"
	"os"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/network"
	"github.com/abdul-abdi/lumina/runtime/vm"
	"github.com/abdul-abdi/lumina/runtime/volume"
)

// plan is a VM that is about to start: all of it but the scratch disk.
type plan struct {
	spec      vm.Spec // without the root's and the scratch disk
	root      *os.File
	network   *network.Network // nil for none, and when a VM has taken it over
	port      *os.File         // of the switch of a member; the driver has its own
	configure *protocol.Configure
	shares    []vm.Share // that this process serves
}

func (r *Runtime) plan(img *image.Handle, options VMOptions) (*plan, error) {
	files, err := openFiles(img, image.Kernel, image.Initramfs, image.Rootfs)
	if err != nil {
		closeDisks(options.disks)
		return nil, err
	}
	p := &plan{root: files[2], spec: vm.Spec{
		Arch:        img.Architecture,
		Kernel:      files[0],
		Initramfs:   files[1],
		CommandLine: img.Kernel.CommandLine,
		CPUs:        options.CPUs,
		Memory:      options.Memory,
		Nested:      options.Nested,
		Rosetta:     img.Rosetta,
	}}
	for n, d := range options.disks {
		p.spec.Disks = append(p.spec.Disks, vm.Disk{File: d.File, Lock: d.Lock, Serial: protocol.BuildDisk(n)})
	}
	if options.Init == image.InitSystemd {
		// The interface keeps the name by which it was configured.
		p.spec.CommandLine += " " + protocol.ParamInit.Is(image.InitSystemd) + " net.ifnames=0"
	}
	if options.whole != nil {
		p.spec.CommandLine += " " + protocol.ParamRoot.Is(protocol.RootLater)
	}
	if options.NoRehearsal {
		p.spec.CommandLine += " " + protocol.ParamRehearse.Is(protocol.RehearseOff)
	}
	if p.configure, err = newConfigure(); err != nil {
		p.close()
		return nil, err
	}
	if options.Hostname != "" {
		p.configure.Hostname = options.Hostname
	}
	if err := r.addVolumes(p, options.Volumes); err != nil {
		p.close()
		return nil, err
	}
	if err := p.addNetwork(options); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *plan) close() {
	closeFiles([]*os.File{p.spec.Kernel, p.spec.Initramfs, p.root})
	if p.network != nil {
		p.network.Close()
	}
	if p.port != nil {
		p.port.Close()
	}
	for _, d := range p.spec.Disks {
		closeFiles([]*os.File{d.File, d.Lock})
	}
}

// with is the whole machine, checked.
func (p *plan) with(scratch *os.File) (vm.Spec, error) {
	spec := p.spec
	spec.Disks = append([]vm.Disk{
		{File: p.root, Serial: protocol.DiskRoot, ReadOnly: true},
		{File: scratch, Serial: protocol.DiskScratch, Ephemeral: true},
	}, p.spec.Disks...)
	return spec, spec.Check()
}

func openFiles(img *image.Handle, names ...string) ([]*os.File, error) {
	var files []*os.File
	for _, name := range names {
		f, err := img.Open(name)
		if err != nil {
			closeFiles(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeDisks(disks []*volume.Disk) {
	for _, d := range disks {
		d.Close()
	}
}

// closeFiles closes files; nil is none.
func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func newConfigure() (*protocol.Configure, error) {
	b := make([]byte, 16+64)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	id := hex.EncodeToString(b[:16])
	return &protocol.Configure{Hostname: "lumina-" + id[:8], MachineID: id, Seed: b[16:]}, nil
}
