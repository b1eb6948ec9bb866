package github_test

import (
	"fmt"

	"github.com/abdul-abdi/lumina/release/github"
)

func ExampleParseRepo() {
	fmt.Println(github.ParseRepo("me/images"))
	_, err := github.ParseRepo("images")
	fmt.Println(err)
	// Output:
	// me/images <nil>
	// repository "images": want OWNER/REPO
}
