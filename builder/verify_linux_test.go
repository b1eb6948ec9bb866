package builder

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/builder/buildertest"
	"github.com/abdul-abdi/lumina/builder/cosign"
	"github.com/abdul-abdi/lumina/builder/oci"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// keyPair makes a pair of keys as the help says, and gives the public one's file.
func keyPair(t *testing.T) (*cosign.PrivateKey, *cosign.PublicKey, string) {
	t.Helper()
	dir := t.TempDir()
	buildertest.Run(t, "sh", "-ec", "cd "+dir+"; "+cosign.HowToMake)
	key, err := cosign.ReadPrivateKey(filepath.Join(dir, "cosign.key"), "")
	if err != nil {
		t.Fatal(err)
	}
	public, err := cosign.ReadPublicKey(filepath.Join(dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return key, public, filepath.Join(dir, "cosign.pub")
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", url, resp.Status, err, b)
	}
	return b
}

// What is signed is pulled by those who trust the key, and nothing else is; of what
// is not, nothing is left.
func TestSignedImages(t *testing.T) {
	key, public, publicFile := keyPair(t)
	otherKey, other, _ := keyPair(t)
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	create(t, o)
	registry := buildertest.Registry(t)
	push := func(ref string, send func(context.Context, PushOptions) (string, error), with *cosign.PrivateKey) string {
		t.Helper()
		digest, err := send(t.Context(), PushOptions{Name: "test", Reference: ref, Store: o.Store, CacheDir: o.CacheDir, Sign: with})
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	pulled := func(ref string, trust *cosign.PublicKey) (Options, error) {
		p := options(t, ref)
		p.Trust = trust
		_, err := Pull(t.Context(), p)
		return p, err
	}
	refused := func(ref string, trust *cosign.PublicKey, want string) {
		t.Helper()
		p, err := pulled(ref, trust)
		if !errors.Is(err, oci.ErrNotSigned) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Pull(%s) = %v, want a line with %q", ref, err, want)
		}
		if left := files(filepath.Dir(p.CacheDir)); left != "" {
			t.Errorf("left of %s: %s", ref, left)
		}
	}
	for name, send := range map[string]func(context.Context, PushOptions) (string, error){"container": Push, "artifact": PushArtifact} {
		ref := registry + "/team/" + name + ":1"
		push(ref, send, nil)
		refused(ref, public, "no signature at all")
		digest := push(ref, send, key)
		refused(ref, other, "none of 1 signatures")
		p, err := pulled(ref, public)
		if err != nil {
			t.Fatal(err)
		}
		if !isVerified(p.Store, "test", public) || isVerified(p.Store, "test", other) {
			t.Errorf("%s: it is not known whose signature it has", name)
		}
		// Signed again it has one signature; by another it has both.
		repository := "http://" + registry + "/v2/team/" + name
		count := func() (m v1.Manifest) {
			if err := json.Unmarshal(get(t, repository+"/manifests/"+strings.Replace(digest, ":", "-", 1)+".sig"), &m); err != nil {
				t.Fatal(err)
			}
			return m
		}
		push(ref, send, key)
		m := count()
		if len(m.Layers) != 1 || m.Layers[0].MediaType != "application/vnd.dev.cosign.simplesigning.v1+json" {
			t.Fatalf("%s: signed twice: %+v", name, m)
		}
		// OpenSSL, which knows nothing of this program, agrees.
		dir := t.TempDir()
		signed, err := base64.StdEncoding.DecodeString(m.Layers[0].Annotations["dev.cosignproject.cosign/signature"])
		if err != nil {
			t.Fatal(err)
		}
		text := get(t, repository+"/blobs/"+m.Layers[0].Digest.String())
		want := `{"critical":{"identity":{"docker-reference":"` + registry + "/team/" + name + `"},"image":{"docker-manifest-digest":"` + digest + `"},"type":"cosign container image signature"},"optional":null}`
		if string(text) != want {
			t.Errorf("%s: signed is %s, want %s", name, text, want)
		}
		for file, b := range map[string][]byte{"text": text, "signature": signed} {
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		buildertest.Run(t, "openssl", "dgst", "-sha256", "-verify", publicFile, "-signature", filepath.Join(dir, "signature"), filepath.Join(dir, "text"))
		if program, err := exec.LookPath("cosign"); err == nil { // it is in no package of Debian's
			buildertest.Run(t, program, "verify", "--key", publicFile, "--insecure-ignore-tlog=true", ref)
		}
		push(ref, send, otherKey)
		if m := count(); len(m.Layers) != 2 {
			t.Errorf("%s: signed by two: %+v", name, m)
		}
		for _, trust := range []*cosign.PublicKey{public, other} {
			if _, err := pulled(ref, trust); err != nil {
				t.Errorf("%s, signed by two: %v", name, err)
			}
		}
	}
	// Of an index it is the index that is signed, as cosign has it.
	arm := o
	arm.Name, arm.Architecture, arm.Reference = "arm", "arm64", "oci:"+writeLayout(t, "arm64", layer(t, file("a", "arm")))
	create(t, arm)
	index := registry + "/team/index:1"
	if _, err := PushIndex(t.Context(), []string{"test", "arm"}, PushOptions{Reference: index, Store: o.Store, CacheDir: o.CacheDir, Sign: key}); err != nil {
		t.Fatal(err)
	}
	if _, err := pulled(index, public); err != nil {
		t.Error(err)
	}
	refused(index, other, "none of 1 signatures")
	// A signature of one manifest is none of another.
	of := func(name string) (string, string) {
		ref := registry + "/moved/" + name + ":1"
		return ref, push(ref, map[bool]func(context.Context, PushOptions) (string, error){true: Push, false: PushArtifact}[name == "container"], nil)
	}
	ref, digest := of("container")
	s, err := key.Sign(registry+"/moved/container", "sha256:"+strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	hash, size, err := v1.SHA256(bytes.NewReader(s.Payload))
	if err != nil {
		t.Fatal(err)
	}
	wrong := oci.Layer{MediaType: cosign.MediaType, Digest: hash, DiffID: hash, Size: size, Annotations: map[string]string{cosign.Annotation: s.Base64},
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s.Payload)), nil }}
	if _, err := oci.Push(t.Context(), registry+"/moved/container:"+strings.Replace(digest, ":", "-", 1)+".sig", []byte("{}"), nil, []oci.Layer{wrong}, nil); err != nil {
		t.Fatal(err)
	}
	refused(ref, public, "it is of \"sha256:000")
	if _, err := pulled("oci:"+writeLayout(t, "amd64", layer(t, file("a", "x"))), public); err == nil || !strings.Contains(err.Error(), "not an image reference of a registry") {
		t.Errorf("a layout: %v", err)
	}
}

// What was pulled without a key, or with another, is not taken for signed.
func TestObtainSigned(t *testing.T) {
	key, public, _ := keyPair(t)
	_, other, _ := keyPair(t)
	o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "content"))))
	create(t, o)
	ref := buildertest.Registry(t) + "/team/tools:1"
	push := PushOptions{Name: "test", Reference: ref, Store: o.Store, CacheDir: o.CacheDir}
	if _, err := Push(t.Context(), push); err != nil {
		t.Fatal(err)
	}
	p := options(t, "")
	p.Name = ""
	obtain := func(ref string, policy PullPolicy, trust *cosign.PublicKey) (string, error) {
		p.Trust = trust
		return Obtain(t.Context(), ref, policy, p, nil)
	}
	name, err := obtain(ref, PullMissing, nil)
	if err != nil {
		t.Fatal(err)
	}
	made := func() os.FileInfo {
		// Its root may be another image's, too.
		info, err := os.Stat(filepath.Join(filepath.Dir(p.CacheDir), "images", name, image.Initramfs))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	before := made()
	for _, policy := range PullPolicies {
		for _, what := range []string{ref, name} { // the name, too
			if _, err := obtain(what, policy, public); !errors.Is(err, oci.ErrNotSigned) {
				t.Errorf("Obtain(%s, %s) of what is not signed = %v", what, policy, err)
			}
		}
	}
	if !os.SameFile(before, made()) {
		t.Error("what was refused was installed")
	}
	push.Sign = key
	if _, err := Push(t.Context(), push); err != nil {
		t.Fatal(err)
	}
	if _, err := obtain(ref, PullMissing, public); err != nil {
		t.Fatal(err)
	}
	signed := made()
	if os.SameFile(before, signed) {
		t.Error("the image that was there was taken for signed")
	}
	for _, policy := range PullPolicies {
		if got, err := obtain(ref, policy, public); err != nil || got != name || !os.SameFile(signed, made()) {
			t.Errorf("Obtain(%s) of what is here, signed = %q, %v", policy, got, err)
		}
		if _, err := obtain(ref, policy, other); !errors.Is(err, oci.ErrNotSigned) {
			t.Errorf("Obtain(%s) with another key = %v", policy, err)
		}
	}
}

// An image that is to be fetched as it is has the same bound as one to be made.
func TestPullMaxSize(t *testing.T) {
	o := options(t, "oci:"+writeLayout(t, "amd64", repeated(t, 2<<20)))
	create(t, o)
	registry := buildertest.Registry(t)
	for name, send := range map[string]func(context.Context, PushOptions) (string, error){"container": Push, "artifact": PushArtifact} {
		ref := registry + "/" + name + ":1"
		if _, err := send(t.Context(), PushOptions{Name: "test", Reference: ref, Store: o.Store, CacheDir: o.CacheDir}); err != nil {
			t.Fatal(err)
		}
		p := options(t, "")
		p.MaxSize = 1 << 20
		if _, err := Obtain(t.Context(), ref, PullMissing, p, nil); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: Obtain() = %v, want ErrTooLarge", name, err)
		}
	}
}

// exchanging is a registry that answers the first question for a tag with one manifest, as
// another registry does, and every later one with that of another tag. A question for a
// digest is answered so, too, if lies is set.
func exchanging(t *testing.T, registry, tag, other string, lies bool) string {
	t.Helper()
	to, err := url.Parse("http://" + registry)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := false
	proxy := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if before, what, ok := strings.Cut(r.URL.Path, "/manifests/"); ok && (what == tag || lies && strings.HasPrefix(what, "sha256:")) {
			if asked {
				r.URL.Path = before + "/manifests/" + other
			}
			asked = true
		}
		mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// A registry that answers with what is signed when the signature is looked at, and with
// something else when the image is fetched, gets what is signed installed, or nothing.
func TestExchangedAfterVerification(t *testing.T) {
	key, public, _ := keyPair(t)
	registry := buildertest.Registry(t)
	made := map[string]Options{}
	for _, content := range []string{"signed", "hostile"} {
		o := options(t, "oci:"+writeLayout(t, "amd64", layer(t, file("a", "what is "+content))))
		create(t, o)
		made[content] = o
	}
	content := func(o Options, name string) string {
		h, err := o.Store.Open(name)
		if err != nil {
			return err.Error()
		}
		defer h.Close()
		b, err := os.ReadFile(h.Path(image.Rootfs))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("signed %t, hostile %t", bytes.Contains(b, []byte("what is signed")), bytes.Contains(b, []byte("what is hostile")))
	}
	for kind, send := range map[string]func(context.Context, PushOptions) (string, error){"container": Push, "artifact": PushArtifact} {
		for content, sign := range map[string]*cosign.PrivateKey{"signed": key, "hostile": nil} {
			o := made[content]
			if _, err := send(t.Context(), PushOptions{Name: "test", Reference: registry + "/" + kind + ":" + content, Store: o.Store, CacheDir: o.CacheDir, Sign: sign}); err != nil {
				t.Fatal(err)
			}
		}
		for _, lies := range []bool{false, true} {
			p := options(t, exchanging(t, registry, "signed", "hostile", lies)+"/"+kind+":signed")
			p.Name, p.Trust = "got", public
			_, err := Pull(t.Context(), p)
			switch got := content(p, "got"); {
			case !lies && (err != nil || got != "signed true, hostile false"):
				t.Errorf("%s, the tag exchanged: %v; it is %s", kind, err, got)
			case lies && (err == nil || p.Store.Has("got")):
				t.Errorf("%s, its digest answered with another: %v; it is %s", kind, err, got)
			}
		}
	}
}
