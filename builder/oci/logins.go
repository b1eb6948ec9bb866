package oci

import (
	"context"
	"fmt"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// loginTimeout is for what knows a login: a helper may ask the user for a password.
const loginTimeout = 5 * time.Minute

// logins are those of docker login and podman login. Their file may be a FIFO, or on a
// server that does not answer, and a credential helper may be silent: neither can be
// interrupted, so that it is left behind when the context ends.
type logins struct{}

func (l logins) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return l.ResolveContext(context.Background(), target)
}

func (logins) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginTimeout, fmt.Errorf("the login for %s has not come for %v: its file (config.json of $DOCKER_CONFIG or ~/.docker, or $REGISTRY_AUTH_FILE) or its credential helper does not answer", target.RegistryStr(), loginTimeout))
	defer cancel()
	type result struct {
		auth authn.Authenticator
		err  error
	}
	found := make(chan result, 1)
	go func() {
		auth, err := authn.Resolve(ctx, authn.DefaultKeychain, target)
		found <- result{auth, err}
	}()
	select {
	case r := <-found:
		return r.auth, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
