package main

import (
	"cmp"
	"fmt"

	"github.com/abdul-abdi/lumina/builder/cosign"
)

// imageSigningKey is the key of --sign; nil for none.
func imageSigningKey(env *environment, file string) (*cosign.PrivateKey, error) {
	if file == "" {
		return nil, nil
	}
	key, err := cosign.ReadPrivateKey(file, cmp.Or(env.getenv("LUMINA_KEY_PASSWORD"), env.getenv("COSIGN_PASSWORD")))
	if err != nil {
		return nil, usageError{fmt.Errorf("--sign: %w", err)}
	}
	return key, nil
}

// verifyingKey is the key of --verify-key; nil for none.
func verifyingKey(file string) (*cosign.PublicKey, error) {
	if file == "" {
		return nil, nil
	}
	key, err := cosign.ReadPublicKey(file)
	if err != nil {
		return nil, usageError{fmt.Errorf("--verify-key: %w", err)}
	}
	return key, nil
}
