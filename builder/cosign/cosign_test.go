package cosign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/abdul-abdi/lumina/builder/buildertest"

	"golang.org/x/sys/unix"
)

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pkcs8(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func encode(kind string, b []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
}

func openssl(t *testing.T, command string) string {
	t.Helper()
	buildertest.Needs(t, "openssl")
	cmd := exec.Command("sh", "-ec", command)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// Keys as the programs write them that people make keys with.
func TestKeys(t *testing.T) {
	locked, err := encrypted.Encrypt(pkcs8(t), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, password, want string }{
		{"openssl ecparam", openssl(t, "openssl ecparam -name prime256v1 -genkey"), "", ""},
		{"openssl ecparam -noout", openssl(t, "openssl ecparam -name prime256v1 -genkey -noout"), "", ""},
		{"openssl genpkey", openssl(t, "openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"), "", ""},
		{"cosign", encode("ENCRYPTED SIGSTORE PRIVATE KEY", locked), "secret", ""},
		{"cosign of before", encode("ENCRYPTED COSIGN PRIVATE KEY", locked), "secret", ""},
		{"a wrong password", encode("ENCRYPTED SIGSTORE PRIVATE KEY", locked), "other", "LUMINA_KEY_PASSWORD"},
		{"no password", encode("ENCRYPTED SIGSTORE PRIVATE KEY", locked), "", "LUMINA_KEY_PASSWORD"},
		{"damaged", encode("ENCRYPTED SIGSTORE PRIVATE KEY", locked[:20]), "secret", "LUMINA_KEY_PASSWORD"},
		{"openssl's encryption", openssl(t, "openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -passout pass:x"), "x", "encrypted as openssl does it"},
		{"another curve", openssl(t, "openssl ecparam -name secp384r1 -genkey -noout"), "", "its curve is P-384"},
		{"RSA", openssl(t, "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 2>/dev/null"), "", "it is RSA"},
		{"Ed25519", openssl(t, "openssl genpkey -algorithm ed25519"), "", "it is Ed25519"},
		{"a public key", openssl(t, "openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout 2>/dev/null"), "", `holds a "PUBLIC KEY"`},
		{"minisign's", "untrusted comment: minisign encrypted secret key\nRWQ=\n", "", "no PRIVATE KEY in PEM"},
		{"nothing", "", "", "no PRIVATE KEY in PEM"},
		{"too long", strings.Repeat("x", maxKey+1), "", "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, err := ReadPrivateKey(write(t, tt.text), tt.password)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("ReadPrivateKey() = %v, want a line with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := key.Sign("example.com/team/tools", digest)
			if err != nil {
				t.Fatal(err)
			}
			public, err := key.Public()
			if err != nil {
				t.Fatal(err)
			}
			read, err := ReadPublicKey(write(t, encode("PUBLIC KEY", public.der)))
			if err != nil || read.ID() != public.ID() {
				t.Fatalf("ReadPublicKey() = %v", err)
			}
			if err := read.Verify(s, digest); err != nil {
				t.Error(err)
			}
		})
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if _, err := ReadPublicKey(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("ReadPublicKey(%q) = %v", path, err)
		}
	}
	if _, err := ReadPublicKey(write(t, openssl(t, "openssl ecparam -name secp384r1 -genkey -noout | openssl ec -pubout 2>/dev/null"))); err == nil || !strings.Contains(err.Error(), "P-384") {
		t.Errorf("a public key on another curve: %v", err)
	}
}

func testKey(t testing.TB) (*PrivateKey, *PublicKey) {
	t.Helper()
	key, err := ReadPrivateKey(write(t, encode("PRIVATE KEY", pkcs8(t))), "")
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

func signText(t testing.TB, key *PrivateKey, text string) Signature {
	t.Helper()
	s, err := key.signText([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What the key did not sign, or signed of something else, is refused.
func TestVerifyRefuses(t *testing.T) {
	key, public := testKey(t)
	good, err := key.Sign("example.com/tools", digest)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(text string) Signature { return signText(t, key, text) }
	other := strings.Replace(digest, "e", "f", 1)
	_, stranger := testKey(t)
	for _, tt := range []struct {
		name string
		key  *PublicKey
		s    Signature
		of   string
	}{
		{"another digest", public, good, other},
		{"no digest", public, signed(`{"critical":{"image":{"docker-manifest-digest":""},"type":"` + payloadType + `"}}`), ""},
		{"another key", stranger, good, digest},
		{"a changed text", public, Signature{[]byte(strings.Replace(string(good.Payload), digest, other, 1)), good.Base64}, other},
		{"no base64", public, Signature{good.Payload, "%"}, digest},
		{"no signature", public, Signature{good.Payload, ""}, digest},
		{"another type", public, signed(`{"critical":{"image":{"docker-manifest-digest":"` + digest + `"},"type":"atomic"}}`), digest},
		{"no JSON", public, signed(digest), digest},
		{"a list", public, signed(`[]`), digest},
		{"too long", public, signed(string(good.Payload) + strings.Repeat(" ", MaxPayload)), digest},
	} {
		if err := tt.key.Verify(tt.s, tt.of); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: Verify() = %v, want ErrSignature", tt.name, err)
		}
	}
	if err := public.Verify(good, digest); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	key, public := testKey(f)
	good, err := key.Sign("example.com/tools", digest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Payload, good.Base64)
	f.Add([]byte("{}"), "")
	f.Fuzz(func(t *testing.T, text []byte, signed string) {
		if public.Verify(Signature{text, signed}, digest) == nil && string(text) != string(good.Payload) {
			t.Errorf("taken: %q", text)
		}
	})
}

// A key that is a FIFO is not waited for.
func TestKeyThatIsAFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPublicKey(path); err == nil {
		t.Error("ReadPublicKey() = nil")
	}
}
