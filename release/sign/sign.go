// Package sign signs and verifies releases, as minisign does: its keys and
// signatures are those of the minisign program.
package sign

import (
	"bytes"
	_ "embed" // trusted.pub
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"aead.dev/minisign"
)

// What is read of keys and signatures at most, in bytes.
const (
	maxKey       = 64 << 10
	MaxSignature = 4 << 10
)

//go:embed trusted.pub
var trusted string

// Keys are public keys that are trusted.
type Keys []minisign.PublicKey

// Default are the keys that this lumina trusts by itself.
func Default() (Keys, error) { return parse(trusted) }

// ReadKeys reads the keys that s gives: keys as minisign prints them, or files
// of such, separated by commas.
func ReadKeys(s string) (Keys, error) {
	var keys Keys
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		text := item
		var key minisign.PublicKey
		if key.UnmarshalText([]byte(item)) != nil {
			b, err := readFile(item)
			if err != nil {
				return nil, fmt.Errorf("public key %q is neither a key nor a file that can be read: %w", item, err)
			}
			text = string(b)
		}
		more, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("public key %q: %w", item, err)
		}
		if len(more) == 0 {
			return nil, fmt.Errorf("public key %q: the file holds no key", item)
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// parse reads keys, one a line; other lines are comments.
func parse(text string) (Keys, error) {
	var keys Keys
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "untrusted comment:") {
			continue
		}
		var key minisign.PublicKey
		if err := key.UnmarshalText([]byte(line)); err != nil {
			return nil, fmt.Errorf("%.80q is not a minisign public key", line)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Trust says whether a private key's signatures are trusted.
func (k Keys) Trust(key PrivateKey) bool {
	for _, public := range k {
		if public.Equal(key.key.Public()) {
			return true
		}
	}
	return false
}

// Check returns an error when there is no key.
func (k Keys) Check() error {
	if len(k) == 0 {
		return errors.New("no public key is trusted: set LUMINA_PUBLIC_KEY to the publisher's, which lumina pull also takes with --public-key")
	}
	return nil
}

// ErrSignature is wrapped when a signature does not verify.
var ErrSignature = errors.New("the signature is not valid")

// Verify verifies the signature of a message and that the comment signed with
// it is the wanted one, which keeps the message of one release from being taken
// for that of another.
func (k Keys) Verify(message, signature []byte, comment string) error {
	if err := k.Check(); err != nil {
		return err
	}
	var s minisign.Signature
	if len(signature) > MaxSignature || s.UnmarshalText(signature) != nil {
		return fmt.Errorf("%w: it is not in minisign's format", ErrSignature)
	}
	// The library ignores the unsigned comment and some other bytes. What is
	// accepted has one form only.
	canonical, err := s.MarshalText()
	if err != nil || !bytes.Equal(signature, canonical) ||
		s.UntrustedComment != untrustedComment && s.UntrustedComment != minisignComment {
		return fmt.Errorf("%w: its form is not that of minisign", ErrSignature)
	}
	for _, key := range k {
		if key.ID() != s.KeyID {
			continue
		}
		if !minisign.Verify(key, message, signature) {
			return fmt.Errorf("%w: the signed file or the signature was changed", ErrSignature)
		}
		if s.TrustedComment != comment {
			return fmt.Errorf("%w: it is of %q, want %q", ErrSignature, s.TrustedComment, comment)
		}
		return nil
	}
	return fmt.Errorf("%w: it is of key %016X, which is not trusted; if you trust it, set LUMINA_PUBLIC_KEY to it, which lumina pull also takes with --public-key", ErrSignature, s.KeyID)
}

// KeyID names the key of a signature that was verified.
func KeyID(signature []byte) string {
	var s minisign.Signature
	_ = s.UnmarshalText(signature) // it was, when it was verified
	return fmt.Sprintf("%016X", s.KeyID)
}

const (
	untrustedComment = "signature of a lumina release"
	minisignComment  = "signature from minisign secret key" // the program's default
)

// PrivateKey signs.
type PrivateKey struct{ key minisign.PrivateKey }

// Generate makes a pair of keys, as the texts of their files. The private one
// is encrypted unless the password is empty.
func Generate(password string) (public, private []byte, err error) {
	pub, key, err := minisign.GenerateKey(nil)
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key: %w", err)
	}
	if password == "" {
		private, err = key.MarshalText()
	} else {
		private, err = minisign.EncryptKey(password, key)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the private key: %w", err)
	}
	public, err = pub.MarshalText()
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the public key: %w", err)
	}
	return append(public, '\n'), append(private, '\n'), nil
}

// ReadPrivateKey reads a private key's file.
func ReadPrivateKey(path, password string) (PrivateKey, error) {
	b, err := readFile(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("reading the private key: %w; make one with: lumina release keygen", err)
	}
	b = bytes.TrimSpace(b)
	var k PrivateKey
	switch {
	case !minisign.IsEncrypted(b):
		err = k.key.UnmarshalText(b)
	case password == "":
		return PrivateKey{}, fmt.Errorf("private key %q is encrypted: set LUMINA_KEY_PASSWORD", path)
	default:
		k.key, err = minisign.DecryptKey(password, b)
	}
	if err != nil {
		return PrivateKey{}, fmt.Errorf("private key %q: not a minisign key, or the password is wrong: %w", path, err)
	}
	return k, nil
}

// Public is the public key, as trusted keys are given.
func (k PrivateKey) Public() string {
	public, _ := k.key.Public().(minisign.PublicKey)
	return public.String()
}

// Sign signs a message together with a comment.
func (k PrivateKey) Sign(message []byte, comment string) []byte {
	r := minisign.NewReader(bytes.NewReader(message))
	_, _ = io.Copy(io.Discard, r) // memory does not fail
	return r.SignWithComments(k.key, comment, untrustedComment)
}

func readFile(path string) ([]byte, error) {
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
