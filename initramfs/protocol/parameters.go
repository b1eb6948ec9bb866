package protocol

// Parameter is the name of one of the kernel's parameters that the guest's init
// reads. ../PROTOCOL.md lists them all.
type Parameter string

// The parameters.
const (
	// ParamTransport is how the agent is reached: TransportSerial or TransportVsock.
	ParamTransport Parameter = "lumina.transport"
	// ParamOff is how the machine is powered off: OffReset where it has no other way.
	ParamOff Parameter = "lumina.off"
	// ParamLogLevel is the kernel's level of messages once init runs.
	ParamLogLevel Parameter = "lumina.loglevel"
	// ParamBegins is a word that init writes to the console when it begins.
	ParamBegins Parameter = "lumina.begins"
	// ParamInit is the image's own init, which runs as PID 1: systemd.
	ParamInit Parameter = "lumina.init"
	// ParamRosetta is the tag of the share that has the host's translator.
	ParamRosetta Parameter = "lumina.rosetta"
	// ParamHost is HostNone in a guest that no host configures: an exported disk.
	ParamHost Parameter = "lumina.host"
	// ParamRehearse is RehearseOff in a template's guest that does not rehearse.
	ParamRehearse Parameter = "lumina.rehearse"
	// ParamRoot is RootLater in a guest whose root is not to be read before it is
	// configured.
	ParamRoot Parameter = "lumina.root"
	// ParamDisk names the partitions of an exported disk, ParamISO an exported ISO.
	ParamDisk Parameter = "lumina.disk"
	ParamISO  Parameter = "lumina.iso"
)

// Values of parameters.
const (
	TransportSerial = "serial"
	TransportVsock  = "vsock"
	OffReset        = "reset"
	HostNone        = "none"
	RehearseOff     = "0"
	RootLater       = "later"
)

// Is is the parameter with a value, a word of the kernel's command line.
func (p Parameter) Is(value string) string { return string(p) + "=" + value }
