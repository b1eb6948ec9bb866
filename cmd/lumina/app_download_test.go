package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A system of the catalogue is downloaded in the wizard: how far it is, that it goes on
// where the connection broke, and that another file than the catalogue's is refused.
func TestAppDownload(t *testing.T) {
	needsProgram(t)
	content := readFile(t, startsISO(t)) // another ISO than the vendor's
	const tag = `"of this file"`
	const halfway = "Math.abs((document.querySelector('progress')?.value ?? 0) - 0.5) < 0.01"
	half := make(chan struct{}) // closed when the first half was seen
	var other atomic.Bool       // it answers with a page instead
	var ranges atomic.Value
	ranges.Store("")
	vendor := vendorOf(t, "cdimage.debian.org", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "-amd64-netinst.iso") {
			http.NotFound(w, r)
			return
		}
		if other.Load() {
			_, _ = io.WriteString(w, "<!DOCTYPE html><title>Log in first</title>")
			return
		}
		w.Header().Set("ETag", tag)
		if from := r.Header.Get("Range"); from != "" {
			ranges.Store(from + " of " + r.Header.Get("If-Range"))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		for tick, sent := time.NewTicker(time.Second), len(content)/2; ; sent++ {
			select {
			case <-half:
				panic(http.ErrAbortHandler) // the connection breaks
			case <-r.Context().Done():
				return
			case <-tick.C: // one that brings nothing for a minute is given up
				_, _ = w.Write(content[sent : sent+1])
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	here := filepath.Join(t.TempDir(), "home")
	a, _ := startApp(t, here, nil, vendor...)
	a.browser = newBrowser(t, a.url)
	a.click(t, "another system", named(".tile", "Another system"))
	a.click(t, "Debian", named(".tile", "Debian 12"))
	a.wait(t, "its name", "document.querySelector('form input[type=text]')?.value === 'debian-12'")
	a.axe(t, "the wizard, of a system")
	a.click(t, "nothing of the network", named(".radio", "nothing"))
	a.click(t, "Download", named("#create", "Download and start"))
	a.wait(t, "that half has come", halfway+" && document.querySelector('[role=status]').textContent.startsWith('downloading, ')")
	a.axe(t, "a download")
	if err := a.call(t, "Page.reload", nil, nil); err != nil {
		t.Fatal(err)
	}
	a.wait(t, "the same, once it was loaded again", halfway)
	close(half)
	a.wait(t, "that its digest is wrong", "document.querySelector('.wrong.box')?.textContent.includes('013f5b44670d')")
	a.axe(t, "a wrong download")
	var from int
	if _, err := fmt.Sscanf(ranges.Load().(string), "bytes=%d- of "+tag, &from); err != nil || from < len(content)/2 {
		t.Errorf("it went on with %q, %v", ranges.Load(), err)
	}
	keptNothing := func() {
		t.Helper()
		if left, _ := filepath.Glob(filepath.Join(here, "cache", "iso", "*")); len(left) > 0 {
			t.Errorf("it keeps %q", left)
		}
	}
	keptNothing()
	a.click(t, "Try again", named("button", "Try again"))
	a.wait(t, "what was wished, and no job", "location.hash.includes('system=debian-12-amd64') && document.querySelector('form input[type=text]')?.value === 'debian-12' && document.querySelector('[name=network][value=none]').checked")
	// What is no ISO at all is no ISO the next time, either.
	other.Store(true)
	a.click(t, "Download", named("#create", "Download and start"))
	a.wait(t, "that it is no ISO", "document.querySelector('.wrong.box')?.textContent.includes('not an ISO 9660 image')")
	keptNothing()
	if r := a.lumina(t, "desktop", "ls"); strings.Contains(r.stdout, "debian-12") {
		t.Errorf("it made %s", r.stdout)
	}
}

// vendorOf has a server answer for a vendor's name, and returns the environment in which a
// program finds it: a proxy, and the authority that the server's certificate is of.
func vendorOf(t *testing.T, name string, answer http.HandlerFunc) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(answer)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != name+":443" {
			http.Error(w, "not here", http.StatusForbidden)
			return
		}
		to, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		w.WriteHeader(http.StatusOK)
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		go func() {
			_, _ = io.Copy(to, client)
			to.Close()
		}()
		_, _ = io.Copy(client, to)
	}))
	t.Cleanup(proxy.Close)
	return []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + file}
}
