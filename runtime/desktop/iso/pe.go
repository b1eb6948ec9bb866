package iso

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// machines are the architectures of PE programs (PE format, "Machine Types").
var machines = map[uint16]string{
	0x8664: "amd64", 0xAA64: "arm64", 0x014C: "386", 0x01C0: "arm", 0x01C2: "arm", 0x01C4: "arm",
	0x5064: "riscv64", 0x6264: "loong64",
}

// maxPEHeader is where the header of a program begins at the latest.
const maxPEHeader = 1 << 20

// machineOf reads for which architecture a PE program is.
func machineOf(r io.ReaderAt) (string, error) {
	var dos [64]byte
	if _, err := r.ReadAt(dos[:], 0); err != nil || string(dos[:2]) != "MZ" {
		return "", errors.New("not a PE program")
	}
	at := int64(binary.LittleEndian.Uint32(dos[60:]))
	var head [6]byte
	if at > maxPEHeader {
		return "", errors.New("not a PE program")
	}
	if _, err := r.ReadAt(head[:], at); err != nil || string(head[:4]) != "PE\x00\x00" {
		return "", errors.New("not a PE program")
	}
	machine := binary.LittleEndian.Uint16(head[4:])
	if arch, ok := machines[machine]; ok {
		return arch, nil
	}
	return fmt.Sprintf("machine %#x", machine), nil
}
