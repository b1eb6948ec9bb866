package sign_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/abdul-abdi/lumina/release/sign"
)

// A signature covers the message and a comment, so that the message of one release
// cannot be passed off as that of another.
func ExampleKeys_Verify() {
	dir, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	_, private, err := sign.Generate("")
	if err != nil {
		fmt.Println(err)
		return
	}
	file := filepath.Join(dir, "lumina.key")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	key, err := sign.ReadPrivateKey(file, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := sign.ReadKeys(key.Public())
	if err != nil {
		fmt.Println(err)
		return
	}

	message := []byte("the catalog")
	signature := key.Sign(message, "v1")
	fmt.Println(keys.Verify(message, signature, "v1"))
	fmt.Println(keys.Verify(message, signature, "v2") != nil)
	fmt.Println(keys.Verify([]byte("another"), signature, "v1") != nil)
	// Output:
	// <nil>
	// true
	// true
}
