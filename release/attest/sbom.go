// Package attest says what an image is made of and from: an SBOM (SPDX 2.3)
// and its provenance (an in-toto statement of SLSA's kind). Both follow from
// the image alone, so that the same image gives the same bytes.
package attest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" // SPDX demands it of files; nothing trusts it
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/abdul-abdi/lumina/builder/erofs"
	"github.com/abdul-abdi/lumina/release/catalog"
	"github.com/abdul-abdi/lumina/runtime/image"
)

// What is read of an image's root file system at most: who publishes an image
// need not have made it.
const (
	maxStatus   = 64 << 20 // bytes of a package database
	maxPackages = 50_000
	maxFiles    = 20_000 // where there is no package database
)

// document is an SPDX 2.3 document; see the specification's JSON schema.
type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	Comment           string         `json:"comment,omitempty"`
	Packages          []spdxPackage  `json:"packages"`
	Files             []spdxFile     `json:"files,omitempty"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string        `json:"SPDXID"`
	Name             string        `json:"name"`
	Version          string        `json:"versionInfo,omitempty"`
	Supplier         string        `json:"supplier,omitempty"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	Homepage         string        `json:"homepage,omitempty"`
	SourceInfo       string        `json:"sourceInfo,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	Copyright        string        `json:"copyrightText"`
	Purpose          string        `json:"primaryPackagePurpose,omitempty"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
}

type spdxFile struct {
	SPDXID           string     `json:"SPDXID"`
	Name             string     `json:"fileName"`
	Checksums        []checksum `json:"checksums"`
	LicenseConcluded string     `json:"licenseConcluded"`
	Copyright        string     `json:"copyrightText"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const noAssertion = "NOASSERTION"

func newPackage(id, name, version, purpose string) spdxPackage {
	return spdxPackage{SPDXID: id, Name: name, Version: version, Purpose: purpose, DownloadLocation: noAssertion,
		LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, Copyright: noAssertion}
}

// SBOM lists what an image holds: its kernel, its initramfs and the packages
// of its root file system, or the files of one without a database of dpkg or apk.
func SBOM(ctx context.Context, h *image.Handle, entry *catalog.Image) ([]byte, error) {
	rootfs, err := h.Open(image.Rootfs)
	if err != nil {
		return nil, err
	}
	defer rootfs.Close()
	root, err := goerofs.Open(rootfs)
	if err != nil {
		return nil, fmt.Errorf("reading the root file system of image %q: %w", h.Name, err)
	}
	const top = "SPDXRef-image"
	doc := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: entry.ID + " " + entry.Version,
		DocumentNamespace: "https://github.com/abdul-abdi/lumina/spdx/" + url.PathEscape(entry.ID) + "-" + entry.Files["image.json"].SHA256,
		CreationInfo:      creationInfo{Created: h.Created.UTC().Format(time.RFC3339), Creators: []string{"Tool: lumina"}},
		Relationships:     []relationship{{"SPDXRef-DOCUMENT", "DESCRIBES", top}},
	}
	img := newPackage(top, entry.Name, entry.Version, "OPERATING-SYSTEM")
	img.SourceInfo = strings.TrimSpace("made from " + h.Source.Public() + " " + h.Source.Digest)
	img.Checksums = []checksum{{"SHA256", h.Files[image.Rootfs].SHA256}}
	kernel := newPackage("SPDXRef-kernel", "linux", h.Image.Kernel.Version, "OPERATING-SYSTEM")
	kernel.Checksums = []checksum{{"SHA256", h.Files[image.Kernel].SHA256}}
	agent := newPackage("SPDXRef-initramfs", "lumina-initramfs", "", "OPERATING-SYSTEM")
	agent.Checksums = []checksum{{"SHA256", h.Files[image.Initramfs].SHA256}}
	doc.Packages = []spdxPackage{img, kernel, agent}

	packages, err := debianPackages(root)
	if err != nil {
		return nil, fmt.Errorf("listing the packages of image %q: %w", h.Name, err)
	}
	alpine, err := alpinePackages(root)
	if err != nil {
		return nil, fmt.Errorf("listing the packages of image %q: %w", h.Name, err)
	}
	packages = append(packages, alpine...)
	doc.Packages = append(doc.Packages, packages...)
	if len(packages) == 0 {
		var complete bool
		if doc.Files, complete, err = listFiles(ctx, root); err != nil {
			return nil, fmt.Errorf("listing the files of image %q: %w", h.Name, err)
		}
		if !complete {
			doc.Comment = fmt.Sprintf("The image has more than %d files; the others are not listed.", maxFiles)
		}
	}
	for _, p := range doc.Packages[1:] {
		doc.Relationships = append(doc.Relationships, relationship{top, "CONTAINS", p.SPDXID})
	}
	for _, f := range doc.Files {
		doc.Relationships = append(doc.Relationships, relationship{top, "CONTAINS", f.SPDXID})
	}
	return encode(doc)
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	return b.Bytes(), nil
}

// debianPackages reads dpkg's database: one file, or, in distroless images, one
// for each package.
func debianPackages(root fs.FS) ([]spdxPackage, error) {
	files := []string{"var/lib/dpkg/status"}
	entries, err := fs.ReadDir(root, "var/lib/dpkg/status.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".md5sums") && len(files) <= maxPackages {
			files = append(files, path.Join("var/lib/dpkg/status.d", e.Name()))
		}
	}
	var packages []spdxPackage
	distribution := debianName(root)
	for _, name := range files {
		f, err := root.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		fields, err := readStatus(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, p := range fields {
			packages = append(packages, debianPackage(p, distribution))
		}
	}
	sort.SliceStable(packages, func(i, j int) bool { return packages[i].SPDXID < packages[j].SPDXID })
	for i := 1; i < len(packages); i++ {
		if packages[i].SPDXID == packages[i-1].SPDXID {
			return nil, fmt.Errorf("package %s is listed twice", packages[i].Name)
		}
	}
	return packages, nil
}

// readStatus reads the stanzas of installed packages; see deb822(5).
func readStatus(r io.Reader) ([]map[string]string, error) {
	all, err := readStanzas(r, strings.ToLower)
	return slices.DeleteFunc(all, func(fields map[string]string) bool {
		// status.d has no Status field: all that is there is installed.
		status := fields["status"]
		return fields["package"] == "" || status != "" && !strings.HasSuffix(status, " installed")
	}), err
}

// readStanzas reads lines of fields, NAME:VALUE, in stanzas between empty lines.
func readStanzas(r io.Reader, name func(string) string) ([]map[string]string, error) {
	limited := &io.LimitedReader{R: r, N: maxStatus + 1}
	var all []map[string]string
	current := map[string]string{}
	end := func() {
		if len(current) > 0 {
			all = append(all, current)
			current = map[string]string{}
		}
	}
	lines := bufio.NewReader(limited)
	for {
		line, err := lines.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		text := strings.TrimRight(line, "\r\n")
		key, value, ok := strings.Cut(text, ":")
		switch {
		case strings.TrimSpace(text) == "":
			end()
		case text[0] == ' ' || text[0] == '\t': // continues a field that is not used
		case ok:
			current[name(key)] = strings.TrimSpace(value)
		}
		if len(all) > maxPackages || limited.N == 0 {
			return nil, fmt.Errorf("more than %d packages or %d bytes", maxPackages, maxStatus)
		}
		if err != nil {
			end()
			return all, nil
		}
	}
}

// alpinePackages reads apk's database (apk-installed(5)).
func alpinePackages(root fs.FS) ([]spdxPackage, error) {
	var f fs.File
	err := fs.ErrNotExist
	for _, name := range []string{"lib/apk/db/installed", "usr/lib/apk/db/installed"} {
		if f, err = root.Open(name); err == nil {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stanzas, err := readStanzas(f, func(name string) string { return name })
	if err != nil {
		return nil, fmt.Errorf("apk's database: %w", err)
	}
	var packages []spdxPackage
	seen := map[string]bool{}
	for _, fields := range stanzas {
		name, version, arch := fields["P"], fields["V"], fields["A"]
		id := "SPDXRef-apk-" + spdxID(name) + "-" + spdxID(version)
		if name == "" || seen[id] {
			continue
		}
		seen[id] = true
		p := newPackage(id, name, version, "")
		if h := fields["U"]; strings.HasPrefix(h, "http://") || strings.HasPrefix(h, "https://") {
			p.Homepage = h
		}
		if o := fields["o"]; o != "" {
			p.SourceInfo = "built from source package " + o
		}
		if l := fields["L"]; l != "" {
			p.SourceInfo = strings.TrimSpace(p.SourceInfo + "; the package says its licence is " + l)
		}
		purl := "pkg:apk/alpine/" + purlEscape(name) + "@" + purlEscape(version)
		if arch != "" {
			purl += "?arch=" + purlEscape(arch)
		}
		p.ExternalRefs = []externalRef{{"PACKAGE-MANAGER", "purl", purl}}
		packages = append(packages, p)
	}
	sort.SliceStable(packages, func(i, j int) bool { return packages[i].SPDXID < packages[j].SPDXID })
	return packages, nil
}

func debianPackage(fields map[string]string, distribution string) spdxPackage {
	name, version, arch := fields["package"], fields["version"], fields["architecture"]
	p := newPackage("SPDXRef-deb-"+spdxID(name)+"-"+spdxID(arch), name, version, "")
	if m := fields["maintainer"]; m != "" {
		p.Supplier = "Organization: " + strings.NewReplacer("<", "(", ">", ")").Replace(m)
	}
	if h := fields["homepage"]; strings.HasPrefix(h, "http://") || strings.HasPrefix(h, "https://") {
		p.Homepage = h
	}
	if s := fields["source"]; s != "" {
		p.SourceInfo = "built from source package " + s
	}
	purl := "pkg:deb/" + distribution + "/" + purlEscape(name) + "@" + purlEscape(version)
	if arch != "" {
		purl += "?arch=" + purlEscape(arch)
	}
	p.ExternalRefs = []externalRef{{"PACKAGE-MANAGER", "purl", purl}}
	return p
}

// purlEscape encodes what package URLs encode: all but letters, digits and these.
func purlEscape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_~:", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// debianName is the distribution's name in package URLs.
func debianName(root fs.FS) string {
	f, err := root.Open("usr/lib/os-release")
	if err != nil {
		return "debian"
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "ID="); ok {
			if id = strings.Trim(id, `"'`); id != "" && spdxID(id) == id {
				return id
			}
		}
	}
	return "debian"
}

// spdxID makes s fit an SPDX identifier, one to one: '.' stays, what SPDX does
// not allow becomes its code.
func spdxID(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "-x%02X", c)
		}
	}
	return b.String()
}

// listFiles lists regular files in order of their names, with their digests.
func listFiles(ctx context.Context, root fs.FS) (files []spdxFile, complete bool, err error) {
	errMany := errors.New("many")
	buf := make([]byte, 256<<10)
	places := erofs.Places{}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				err = places.Check(name, info)
			}
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if len(files) == maxFiles {
			return errMany
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		old, sum := sha1.New(), sha256.New()
		if _, err := io.CopyBuffer(io.MultiWriter(old, sum), struct{ io.Reader }{f}, buf); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		files = append(files, spdxFile{
			SPDXID: fmt.Sprintf("SPDXRef-file-%d", len(files)+1), Name: "./" + strings.ToValidUTF8(name, "\uFFFD"),
			Checksums:        []checksum{{"SHA1", hex.EncodeToString(old.Sum(nil))}, {"SHA256", hex.EncodeToString(sum.Sum(nil))}},
			LicenseConcluded: noAssertion, Copyright: noAssertion,
		})
		return nil
	})
	if errors.Is(err, errMany) {
		return files, false, nil
	}
	return files, true, err
}
