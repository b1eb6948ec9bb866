package session_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/abdul-abdi/lumina/runtime/session"
)

// A filter chooses among the sessions of a state directory; here there are none.
func ExampleParseFilter() {
	home, err := os.MkdirTemp("", "lumina-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(home)
	f, err := session.ParseFilter([]string{"name=^web", "label=team=a"})
	fmt.Println(len(f.Names), f.Labels, err)
	all, err := session.List(context.Background(), home)
	fmt.Println(len(all), err)
	_, err = session.Open(home, "web")
	fmt.Println(errors.Is(err, session.ErrNotFound))
	// Output:
	// 1 [team=a] <nil>
	// 0 <nil>
	// true
}
