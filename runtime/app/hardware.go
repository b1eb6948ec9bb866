package app

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// Hardware says why a desktop of an architecture cannot have some of it here; "" where
// it can.
type Hardware struct {
	TPM        string `json:"no_tpm,omitempty"`
	SecureBoot string `json:"no_secure_boot,omitempty"`
}

func (s *server) hardware(r *http.Request, _ none) (any, error) {
	arch := r.URL.Query().Get("arch")
	if arch == "" {
		arch = s.library.host.Arch
	}
	if err := checkArch(arch); err != nil {
		return nil, err
	}
	return s.lacks(arch), nil
}

func (s *server) lacks(arch string) (h Hardware) {
	if s.NoDriver != nil {
		return Hardware{s.NoDriver.Error(), s.NoDriver.Error()}
	}
	tpm, can := s.Driver.(vm.TPMDriver)
	if !can {
		const none = "this system's driver has neither TPMs nor Secure Boot"
		return Hardware{none, none}
	}
	if err := tpm.CheckTPM(arch); err != nil {
		h.TPM = err.Error()
	}
	if err := s.trySecureBoot(arch); err != nil {
		h.SecureBoot = err.Error()
	}
	return h
}

// trySecureBoot makes the firmware's variables for Secure Boot, and throws them away.
func (s *server) trySecureBoot(arch string) error {
	f, err := os.CreateTemp("", "lumina-")
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(os.Remove(f.Name()), s.Driver.WriteVariables(arch, true, f))
}

func checkArch(arch string) error {
	if arch != "amd64" && arch != "arm64" {
		return bad{fmt.Errorf("architecture %q: want amd64 or arm64", arch)}
	}
	return nil
}
