package sign

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func newKey(t *testing.T) (PrivateKey, Keys, string) {
	t.Helper()
	public, private, err := Generate("")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	for p, text := range map[string][]byte{path: private, path + ".pub": public} {
		if err := os.WriteFile(p, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := ReadPrivateKey(path, "")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeys(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return key, keys, path
}

func TestDefaultKeys(t *testing.T) {
	if _, err := Default(); err != nil {
		t.Error(err)
	}
}

func TestSignature(t *testing.T) {
	key, keys, path := newKey(t)
	other, others, _ := newKey(t)
	message := []byte("what is signed")
	signature := key.Sign(message, "v1 file")
	tests := []struct {
		name               string
		keys               Keys
		message, signature []byte
		comment, want      string
	}{
		{"good", keys, message, signature, "v1 file", ""},
		{"one key of several", append(others, keys...), message, signature, "v1 file", ""},
		{"another message", keys, []byte("what was signed"), signature, "v1 file", "was changed"},
		{"another release", keys, message, signature, "v2 file", `is of "v1 file", want "v2 file"`},
		{"another key", others, message, signature, "v1 file", "not trusted"},
		{"by another key", keys, message, other.Sign(message, "v1 file"), "v1 file", "not trusted"},
		{"no key", nil, message, signature, "v1 file", "no public key is trusted"},
		{"no signature", keys, message, nil, "v1 file", "minisign's format"},
		{"a long one", keys, message, append(signature[:len(signature):len(signature)], make([]byte, MaxSignature)...), "v1 file", "minisign's format"},
		{"something behind", keys, message, append(signature[:len(signature):len(signature)], '\n'), "v1 file", "form"},
		{"line ends of DOS", keys, message, []byte(strings.Replace(string(signature), "\n", "\r\n", 1)), "v1 file", "form"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.keys.Verify(tt.message, tt.signature, tt.comment)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if !keys.Trust(key) || keys.Trust(other) {
		t.Error("Trust mistakes the keys")
	}
	// As it is given in the environment, beside a file.
	both, err := ReadKeys(key.Public() + ", " + path + ".pub")
	if err != nil || len(both) != 2 {
		t.Errorf("%d keys, %v", len(both), err)
	}
	for _, bad := range []string{"nothing", path, os.DevNull} {
		if _, err := ReadKeys(bad); err == nil {
			t.Errorf("ReadKeys takes %q", bad)
		}
	}
}

// Every bit of a signature counts, those of its comments too.
func TestEveryBitOfASignature(t *testing.T) {
	key, keys, _ := newKey(t)
	message := []byte("what is signed")
	signature := key.Sign(message, "v1 file")
	for i := range signature {
		for bit := range 8 {
			changed := append([]byte(nil), signature...)
			changed[i] ^= 1 << bit
			if keys.Verify(message, changed, "v1 file") == nil {
				t.Fatalf("bit %d of byte %d, %q, does not count", bit, i, signature[i])
			}
		}
	}
}

// encrypted is a key for this test alone, with the password "secret" and a
// derivation that costs little: that of real ones takes seconds and 1 GB.
const encrypted = "untrusted comment: minisign encrypted secret key\n" +
	"RWRTY0IyAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AgAAAAAAAAAAAEAAAAAAAXAkAKLWoiBban6EfBJsqK2s1RHDVmyrqn23u1HXZzna1AqE7slT9JpacT465eWaIwwzcYnCiNhn6e6cmRKHsrdxGn6derkEQFG/h6cLxrlr3qs3iRIxGyc6aBiU7JXOVUakl+ROCTBo=\n"

const encryptedPublic = "RWSCBZQE/EcrD12APTpr9Vjn8oehAR9YudICNBS1TNp2TniWG5XgOlzl"

func TestEncryptedKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(encrypted), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ReadPrivateKey(path, "secret")
	if err != nil || key.Public() != encryptedPublic {
		t.Errorf("%s, %v", key.Public(), err)
	}
	if _, err := ReadPrivateKey(path, ""); err == nil || !strings.Contains(err.Error(), "LUMINA_KEY_PASSWORD") {
		t.Errorf("without the password: %v", err)
	}
	if _, err := ReadPrivateKey(path, "wrong"); err == nil || !strings.Contains(err.Error(), "the password is wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
	_, _, plain := newKey(t)
	if _, err := ReadPrivateKey(plain+".pub", ""); err == nil {
		t.Error("a public key signs")
	}
}

// The minisign program verifies our signatures and makes ones that we take.
func TestMinisign(t *testing.T) {
	program, err := exec.LookPath("minisign")
	if err != nil {
		t.Skip("minisign is not installed")
	}
	key, keys, path := newKey(t)
	file := filepath.Join(t.TempDir(), "message")
	message := []byte("what is signed")
	if err := errors.Join(os.WriteFile(file, message, 0o644), os.WriteFile(file+".minisig", key.Sign(message, "v1 file"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "-V", "-p", path+".pub", "-m", file).CombinedOutput(); err != nil {
		t.Fatalf("minisign refuses our signature: %v\n%s", err, out)
	}
	if out, err := exec.Command(program, "-S", "-s", path, "-m", file, "-t", "v1 file").CombinedOutput(); err != nil {
		t.Fatalf("minisign refuses our key: %v\n%s", err, out)
	}
	signature, err := os.ReadFile(file + ".minisig")
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Verify(message, signature, "v1 file"); err != nil {
		t.Errorf("%v\n%s", err, signature)
	}
}

func FuzzVerify(f *testing.F) {
	_, private, err := Generate("")
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "key")
	if err := os.WriteFile(path, private, 0o600); err != nil {
		f.Fatal(err)
	}
	key, err := ReadPrivateKey(path, "")
	if err != nil {
		f.Fatal(err)
	}
	keys, err := ReadKeys(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	good := key.Sign([]byte("m"), "c")
	f.Add(good)
	f.Fuzz(func(t *testing.T, signature []byte) {
		canonical := strings.Replace(string(signature), minisignComment, untrustedComment, 1)
		if err := keys.Verify([]byte("m"), signature, "c"); err == nil && canonical != string(good) {
			t.Errorf("forged: %q", signature)
		}
	})
}
