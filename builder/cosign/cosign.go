// Package cosign signs and verifies images of registries as cosign does with a
// key: an ECDSA signature of a small text that holds the digest of a manifest. Its
// keys and signatures are those of the cosign program; there is no certificate, and
// no transparency log is asked.
package cosign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// What a registry keeps of a signature (cosign, specs/SIGNATURE_SPEC.md).
const (
	MediaType  = "application/vnd.dev.cosign.simplesigning.v1+json"
	Annotation = "dev.cosignproject.cosign/signature"

	payloadType = "cosign container image signature"
)

// What is read of keys and signatures at most, in bytes.
const (
	maxKey     = 64 << 10
	MaxPayload = 64 << 10
)

// ErrSignature is wrapped when a signature does not verify.
var ErrSignature = errors.New("the signature is not valid")

// Signature is what is kept of one.
type Signature struct {
	Payload []byte
	Base64  string // of the ASN.1 form
}

// payload is what is signed.
type payload struct {
	Critical critical       `json:"critical"`
	Optional map[string]any `json:"optional"`
}

type critical struct {
	Identity struct {
		Reference string `json:"docker-reference"`
	} `json:"identity"`
	Image struct {
		Digest string `json:"docker-manifest-digest"`
	} `json:"image"`
	Type string `json:"type"`
}

// PrivateKey signs.
type PrivateKey struct{ key *ecdsa.PrivateKey }

// PublicKey verifies.
type PublicKey struct {
	key *ecdsa.PublicKey
	der []byte
}

// ReadPrivateKey reads a key's file: one of cosign generate-key-pair, which the
// password opens, or one of openssl's in PEM.
func ReadPrivateKey(path, password string) (*PrivateKey, error) {
	block, err := readPEM(path, "PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
	if err != nil {
		return nil, fmt.Errorf("private key %q: %w", path, err)
	}
	der := block.Bytes
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err := x509.ParseECPrivateKey(der)
		if err != nil {
			return nil, fmt.Errorf("private key %q: %w", path, err)
		}
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return nil, fmt.Errorf("private key %q: %w", path, err)
		}
	case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		if der, err = encrypted.Decrypt(der, []byte(password)); err != nil {
			return nil, fmt.Errorf("private key %q is encrypted, and LUMINA_KEY_PASSWORD or COSIGN_PASSWORD does not open it: %w", path, err)
		}
	}
	any, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("private key %q: %w", path, err)
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key %q: %w", path, otherKind(any))
	}
	if err := checkCurve(key.Curve); err != nil {
		return nil, fmt.Errorf("private key %q: %w", path, err)
	}
	return &PrivateKey{key}, nil
}

// ReadPublicKey reads a key's file, in PEM.
func ReadPublicKey(path string) (*PublicKey, error) {
	block, err := readPEM(path, "PUBLIC KEY")
	if err != nil {
		return nil, fmt.Errorf("public key %q: %w", path, err)
	}
	any, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key %q: %w", path, err)
	}
	key, ok := any.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("public key %q: %w", path, otherKind(any))
	}
	if err := checkCurve(key.Curve); err != nil {
		return nil, fmt.Errorf("public key %q: %w", path, err)
	}
	return publicKey(key)
}

func publicKey(key *ecdsa.PublicKey) (*PublicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return &PublicKey{key, der}, err
}

func otherKind(key any) error {
	kind := "of another kind"
	switch key.(type) {
	case *rsa.PrivateKey, *rsa.PublicKey:
		kind = "RSA"
	case ed25519.PrivateKey, ed25519.PublicKey:
		kind = "Ed25519"
	}
	return fmt.Errorf("it is %s, want ECDSA on P-256, which these make: %s", kind, HowToMake)
}

func checkCurve(c elliptic.Curve) error {
	if c != elliptic.P256() {
		return fmt.Errorf("its curve is %s, want P-256, which these make: %s", c.Params().Name, HowToMake)
	}
	return nil
}

// HowToMake are the commands that make a pair of keys.
const HowToMake = "openssl ecparam -name prime256v1 -genkey -noout -out cosign.key; openssl ec -in cosign.key -pubout -out cosign.pub"

// readPEM reads the first block of a file that is of one of these types.
func readPEM(path string, types ...string) (*pem.Block, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	has := ""
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		for _, t := range types {
			if block.Type == t {
				return block, nil
			}
		}
		if block.Type != "EC PARAMETERS" {
			has = block.Type
		}
	}
	switch {
	case has == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("it is encrypted as openssl does it: openssl pkey -in FILE -out PLAIN opens it, cosign import-key-pair --key PLAIN encrypts it as cosign does")
	case has != "":
		return nil, fmt.Errorf("it holds a %.40q, want a %s in PEM", has, types[0])
	}
	return nil, fmt.Errorf("it holds no %s in PEM; these make a pair: %s", types[0], HowToMake)
}

func readFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, errors.New("it is a directory")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO without a writer reads as empty
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	if err == nil && len(b) > maxKey {
		err = fmt.Errorf("it is longer than %d bytes", maxKey)
	}
	return b, err
}

// Public is the other half of the key.
func (k *PrivateKey) Public() (*PublicKey, error) { return publicKey(&k.key.PublicKey) }

// Sign signs a manifest, by its digest. Repository is where it is, HOST/NAME.
func (k *PrivateKey) Sign(repository, digest string) (Signature, error) {
	var p payload
	p.Critical.Type, p.Critical.Identity.Reference, p.Critical.Image.Digest = payloadType, repository, digest
	text, err := json.Marshal(p)
	if err != nil {
		return Signature{}, err
	}
	return k.signText(text)
}

func (k *PrivateKey) signText(text []byte) (Signature, error) {
	sum := sha256.Sum256(text)
	signed, err := ecdsa.SignASN1(rand.Reader, k.key, sum[:])
	if err != nil {
		return Signature{}, fmt.Errorf("signing: %w", err)
	}
	return Signature{text, base64.StdEncoding.EncodeToString(signed)}, nil
}

// ID names the key: the SHA-256 of its DER form.
func (k *PublicKey) ID() string {
	sum := sha256.Sum256(k.der)
	return hex.EncodeToString(sum[:])
}

// Verify verifies that a signature is this key's, of the manifest with a digest.
// As for cosign, the name of the repository is not part of what it says.
func (k *PublicKey) Verify(s Signature, digest string) error {
	signed, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(s.Payload) > MaxPayload {
		return fmt.Errorf("%w: it is not in cosign's format", ErrSignature)
	}
	sum := sha256.Sum256(s.Payload)
	if !ecdsa.VerifyASN1(k.key, sum[:], signed) {
		return fmt.Errorf("%w: it is of another key, or what it signs was changed", ErrSignature)
	}
	// Nothing is read of what the key did not sign.
	var p payload
	d := json.NewDecoder(bytes.NewReader(s.Payload))
	if err := d.Decode(&p); err != nil || p.Critical.Type != payloadType {
		return fmt.Errorf("%w: the key signed something else than an image", ErrSignature)
	}
	if p.Critical.Image.Digest != digest || digest == "" {
		return fmt.Errorf("%w: it is of %.80q, want %s", ErrSignature, p.Critical.Image.Digest, digest)
	}
	return nil
}
