package protocol

import (
	"encoding"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// A message is binary where it implements encoding.BinaryAppender and
// encoding.BinaryUnmarshaler: those of an exec, which come by the thousand, and
// those that a restored guest begins with, whose CPU is an emulator that sees
// each line of code for the first time. All others are JSON.
//
// A number is a varint, a string its length and its bytes, a list its length and
// its items.
var (
	_ encoding.BinaryAppender    = Request{}
	_ encoding.BinaryUnmarshaler = (*Request)(nil)
	_ encoding.BinaryAppender    = Configure{}
	_ encoding.BinaryUnmarshaler = (*Configure)(nil)
	_ encoding.BinaryAppender    = Configured{}
	_ encoding.BinaryUnmarshaler = (*Configured)(nil)
	_ encoding.BinaryAppender    = Exec{}
	_ encoding.BinaryUnmarshaler = (*Exec)(nil)
	_ encoding.BinaryAppender    = Exit{}
	_ encoding.BinaryUnmarshaler = (*Exit)(nil)
)

// appendMessage appends the payload of a message; nil has none.
func appendMessage(b []byte, v any) ([]byte, error) {
	switch m := v.(type) {
	case nil:
		return b, nil
	case encoding.BinaryAppender:
		return m.AppendBinary(b)
	}
	payload, err := json.Marshal(v)
	return append(b, payload...), err
}

// Decode reads the payload of a message into v; nil for one without.
func Decode(payload []byte, v any) error {
	var err error
	switch m := v.(type) {
	case nil:
		if len(payload) > 0 {
			err = fmt.Errorf("%d bytes where none are due", len(payload))
		}
	case encoding.BinaryUnmarshaler:
		err = m.UnmarshalBinary(payload)
	default:
		err = json.Unmarshal(payload, v)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// body is the message of a request's operation: nil when it has none.
func (r *Request) body() any {
	switch r.Op {
	case OpConfigure:
		return field(&r.Configure)
	case OpRoom:
		return field(&r.Room)
	case OpExec:
		return field(&r.Exec)
	case OpLogs:
		return field(&r.Logs)
	case OpKill:
		return field(&r.Kill)
	case OpDial, OpDatagrams:
		return field(&r.Dial)
	case OpCopyIn:
		return field(&r.CopyIn)
	case OpCopyOut:
		return field(&r.CopyOut)
	case OpUnpack:
		return field(&r.Unpack)
	case OpLayer:
		return field(&r.Layer)
	case OpShare:
		return field(&r.Share)
	}
	return nil
}

// field is what p points to, which is made when it is missing.
func field[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

// AppendBinary appends version, operation, and the operation's message.
func (r Request) AppendBinary(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(r.Version))
	b = appendString(b, string(r.Op))
	return appendMessage(b, r.body())
}

// UnmarshalBinary reads what AppendBinary wrote. Of another version it reads
// nothing but that.
func (r *Request) UnmarshalBinary(b []byte) error {
	d := decoder{rest: b}
	*r = Request{Version: d.int()}
	if d.err != nil || r.Version != Version {
		return d.err
	}
	if r.Op = Op(d.string()); d.err != nil {
		return d.err
	}
	return Decode(d.rest, r.body())
}

const (
	configureTemplate = 1 << iota
	configureNetwork
)

const (
	mountReadOnly = 1 << iota
	mountServed
)

// AppendBinary appends the fields in their order.
func (c Configure) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, flag(c.Template, configureTemplate)|flag(c.Network != nil, configureNetwork))
	b = appendString(b, c.Hostname)
	b = appendString(b, c.MachineID)
	b = appendString(b, string(c.Seed))
	if n := c.Network; n != nil {
		b = appendString(b, n.MAC)
		b = appendString(b, n.Address)
		b = appendString(b, n.Gateway)
		b = appendStrings(b, n.DNS)
		b = appendStrings(b, n.Search)
		b = binary.AppendUvarint(b, uint64(n.MTU))
	}
	b = binary.AppendUvarint(b, uint64(len(c.Mounts)))
	for _, m := range c.Mounts {
		b = appendString(b, m.Disk)
		b = appendString(b, m.Share)
		b = appendString(b, m.Path)
		b = append(b, flag(m.ReadOnly, mountReadOnly)|flag(m.Served, mountServed))
	}
	b = binary.AppendUvarint(b, uint64(len(c.Hosts)))
	for _, h := range c.Hosts {
		b = appendString(b, h.Name)
		b = appendString(b, h.Address)
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote.
func (c *Configure) UnmarshalBinary(b []byte) error {
	d := decoder{rest: b}
	flags := d.flags(configureTemplate | configureNetwork)
	*c = Configure{Template: flags&configureTemplate != 0, Hostname: d.string(), MachineID: d.string(), Seed: []byte(d.string())}
	if flags&configureNetwork != 0 {
		c.Network = &Interface{MAC: d.string(), Address: d.string(), Gateway: d.string(), DNS: d.strings(), Search: d.strings(), MTU: d.int()}
	}
	for range d.count(4) {
		m := Mount{Disk: d.string(), Share: d.string(), Path: d.string()}
		flags := d.flags(mountReadOnly | mountServed)
		m.ReadOnly, m.Served = flags&mountReadOnly != 0, flags&mountServed != 0
		c.Mounts = append(c.Mounts, m)
	}
	for range d.count(2) {
		c.Hosts = append(c.Hosts, Host{Name: d.string(), Address: d.string()})
	}
	return d.end()
}

// AppendBinary appends the fields in their order.
func (c Configured) AppendBinary(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(c.Marks)))
	for _, m := range c.Marks {
		b = appendString(b, m.Name)
		b = binary.AppendUvarint(b, uint64(m.At))
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote.
func (c *Configured) UnmarshalBinary(b []byte) error {
	d := decoder{rest: b}
	*c = Configured{}
	for range d.count(2) {
		c.Marks = append(c.Marks, Mark{Name: d.string(), At: time.Duration(d.uint(1 << 62))})
	}
	return d.end()
}

const (
	execShell = 1 << iota
	execStdin
	execDetach
	execTerminal
)

// AppendBinary appends the fields in their order.
func (e Exec) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, flag(e.Shell, execShell)|flag(e.Stdin, execStdin)|flag(e.Detach, execDetach)|flag(e.Terminal != nil, execTerminal))
	b = appendStrings(b, e.Args)
	b = appendStrings(b, e.Env)
	b = appendString(b, e.Dir)
	b = appendString(b, e.User)
	if t := e.Terminal; t != nil {
		b = binary.AppendUvarint(b, uint64(t.Rows))
		b = binary.AppendUvarint(b, uint64(t.Columns))
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote.
func (e *Exec) UnmarshalBinary(b []byte) error {
	d := decoder{rest: b}
	flags := d.flags(execShell | execStdin | execDetach | execTerminal)
	*e = Exec{Shell: flags&execShell != 0, Stdin: flags&execStdin != 0, Detach: flags&execDetach != 0,
		Args: d.strings(), Env: d.strings(), Dir: d.string(), User: d.string()}
	if flags&execTerminal != 0 {
		e.Terminal = &TerminalSize{Rows: uint16(d.uint(1<<16 - 1)), Columns: uint16(d.uint(1<<16 - 1))}
	}
	return d.end()
}

// AppendBinary appends the fields in their order.
func (e Exit) AppendBinary(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(e.Code))
	return binary.AppendUvarint(b, uint64(e.Signal)), nil
}

// UnmarshalBinary reads what AppendBinary wrote.
func (e *Exit) UnmarshalBinary(b []byte) error {
	d := decoder{rest: b}
	// What wait(2) can say, so that no code becomes another one on its way: an exit
	// with 256 would end the host's program with 0.
	*e = Exit{Code: int(d.uint(255)), Signal: int(d.uint(maxSignal))}
	return d.end()
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// decoder takes values off a payload. After an error they are zero.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%s, %d bytes before the end", what, len(d.rest))
	}
	d.rest = nil
}

func (d *decoder) uint(most uint64) uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 || n > most {
		d.fail("not a number that can be")
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) int() int { return int(d.uint(1<<31 - 1)) }

func (d *decoder) string() string {
	n := d.uint(MaxMessage)
	if n > uint64(len(d.rest)) {
		d.fail("a string is cut")
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

// count is the length of a list whose items take at least so many bytes each.
func (d *decoder) count(item int) int {
	n := d.uint(MaxMessage)
	if n > uint64(len(d.rest)/item) {
		d.fail("a list is cut")
		return 0
	}
	return int(n)
}

func (d *decoder) strings() []string {
	var list []string
	for range d.count(1) {
		list = append(list, d.string())
	}
	return list
}

func (d *decoder) flags(known byte) byte {
	if len(d.rest) == 0 || d.rest[0]&^known != 0 {
		d.fail("not flags that are known")
		return 0
	}
	f := d.rest[0]
	d.rest = d.rest[1:]
	return f
}

func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("more than was due")
	}
	return d.err
}
