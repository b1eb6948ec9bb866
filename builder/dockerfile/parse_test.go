package dockerfile

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// What cannot be built says why, with its line, and leaves nothing.
func TestRefused(t *testing.T) {
	b := newBench(t)
	b.write(t, "evil.tar", archive(t, false, tar.Header{Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o644}), 0o644)
	for _, tt := range []struct{ text, want string }{
		{"", "Dockerfile: file with no instructions"},
		{"RUN x", "Dockerfile:1: it has no FROM"},
		{"FROM scratch\nCOPY f /\x00f", "Dockerfile:2: it has a NUL byte"},
		{"FROM scratch\nRUNN x", "Dockerfile:2: unknown instruction: RUNN (did you mean RUN?)"},
		{"# syntax=other/frontend:1\nFROM scratch", `Dockerfile:1: syntax "other/frontend:1": Lumina reads`},
		{"FROM $NONE", "Dockerfile:1: FROM $NONE: after its variables are replaced nothing is left"},
		{"FROM --platform=windows/amd64 x", "Dockerfile:1: FROM --platform=windows/amd64: want linux/amd64 or linux/arm64"},
		{"FROM --platform=linux/arm64 scratch", "Dockerfile:1: the stage is made for linux/arm64, and linux/amd64 was asked for"},
		{"FROM scratch\nENV A=${X", `Dockerfile:2: failed to process "${X": syntax error: missing '}'`},
		{"FROM scratch\n\nLABEL \"a=${X:\"", "Dockerfile:3: failed to process "},
		{"FROM scratch\nWORKDIR /${X", "missing '}'"},
		{"FROM scratch\nEXPOSE ${X", "missing '}'"},
		{"FROM scratch\nCOPY ${X /", "missing '}'"},
		{"FROM scratch\nADD ${X /", "missing '}'"},
		{"FROM scratch\nUSER ${X:?who}", "X: who"},
		{"FROM scratch\nCOPY <<E /x\n${X\nE", "missing '}'"},
		{"FROM scratch\nENV A=" + strings.Repeat("${X:-", 1001) + strings.Repeat("}", 1001), "more than 1000 variables"},
		{"FROM scratch\nCOPY --from=127.0.0.1:1/none:1 /a /b", "Dockerfile:2: from=127.0.0.1:1/none:1: "},
		{"FROM scratch\nRUN --mount=type=bind,from=127.0.0.1:1/none:1,target=/x true", "Dockerfile:2: from=127.0.0.1:1/none:1: "},
		{"FROM scratch\nCOPY none /", `Dockerfile:2: "none" not found`},
		{"FROM scratch\nCOPY node_modules/x /", `Dockerfile:2: "node_modules/x" not found: the ignore file excludes it`},
		{"FROM scratch\n\nCOPY out /", `Dockerfile:3: "out" not found`},
		{"FROM scratch\nCOPY ../../etc/passwd /", `Dockerfile:2: "../../etc/passwd" not found`},
		{"FROM scratch\nCOPY a.txt b.sh /x", "Dockerfile:2: several sources go into a directory: end the destination \"/x\" with a slash"},
		{"FROM scratch\nCOPY a.txt /x\nCOPY a.txt /x/y", "Dockerfile:3: /x: there is something else than a directory"},
		{"FROM scratch\nCOPY a.txt /x/sub\nCOPY d /x", "Dockerfile:3: /x/sub is a directory in the source, but not in the image"},
		{"FROM scratch\nCOPY --chown=who a.txt /x", `Dockerfile:2: "who" is not in the image's /etc/passwd`},
		{"FROM scratch\nCOPY --chmod=9 a.txt /x", "Dockerfile:2: --chmod=9: want an octal number"},
		{"FROM scratch\nCOPY --from=$X a.txt /x", "Dockerfile:2: from=$X: variables are not expanded here"},
		{"FROM scratch\nCOPY --from=3 a.txt /x", "Dockerfile:2: from=3: there is no such stage before this one"},
		{"FROM scratch\nCOPY --from=late a.txt /x\nFROM scratch AS late\nFROM scratch\nCOPY --from=0 /x /", "Dockerfile:2: from=late: that stage is not before this one"},
		{"FROM scratch\nCOPY https://x.test/y /", "Dockerfile:2: COPY https://x.test/y: a URL can only be fetched by ADD"},
		{"FROM scratch\nADD git@x.test:y /", "Dockerfile:2: ADD git@x.test:y: a git repository cannot be added"},
		{"FROM scratch\nADD https://x.test/y.git#v1 /", "a git repository cannot be added"},
		{"FROM oci:/x:latest", "FROM oci:/x:latest: a Dockerfile cannot name images outside of registries and this host's store; write NAME here, and --build-context NAME=oci:/x:latest"},
		{"ARG A=mmdebstrap:bookworm\nFROM $A", "FROM mmdebstrap:bookworm: a Dockerfile cannot name images outside"},
		{"FROM scratch\nCOPY --from=docker-archive:/etc/shadow / /", "Dockerfile:2: from=docker-archive:/etc/shadow: a Dockerfile cannot name images outside"},
		{"FROM scratch\nRUN --mount=from=oci-archive:/etc/shadow,target=/x y", "Dockerfile:2: from=oci-archive:/etc/shadow: a Dockerfile cannot name images outside"},
		{"FROM scratch\nCOPY a.txt /\nCOPY --from=nowhere.test/x /a /b", "Dockerfile:3: from=nowhere.test/x: reading image"},
		{"FROM scratch\nRUN --mount=from=nowhere.test/x,target=/x y", "Dockerfile:2: from=nowhere.test/x: reading image"},
		{"ARG I=nowhere.test/x\nFROM scratch AS a\nFROM $I", "Dockerfile:3: FROM nowhere.test/x: reading image"},
		{"FROM scratch\nADD --checksum=sha256:00 a.txt /", "Dockerfile:2: ADD --checksum is for one source, a URL"},
		{"FROM scratch\nADD evil.tar /", `entry "../evil" leads out of the destination`},
		{"FROM scratch\nRUN --mount=type=ssh x", "Dockerfile:2: RUN --mount=type=ssh: there is no SSH agent"},
		{"FROM scratch\nRUN --mount=type=cache,target=/x,from=y x", "Dockerfile:2: --mount at /x: a cache begins empty"},
		{"FROM scratch\nRUN --mount=type=cache,target=/x,source=y x", "Dockerfile:2: --mount at /x: a cache begins empty"},
		{"FROM nowhere.test/x\nEXPOSE 99999", `Dockerfile:2: EXPOSE "99999": want PORT`},
		{"FROM nowhere.test/x\nSTOPSIGNAL BLA", `Dockerfile:2: STOPSIGNAL "BLA": want a signal's name or number`},
		{"FROM nowhere.test/x\nSTOPSIGNAL \"SIGTERM\"\nARG P=80\nEXPOSE $P \"81\"", "nowhere.test"},
		{"FROM nowhere.test/x\nRUN --mount=type=foo x", `Dockerfile:2: unsupported mount type "foo"`},
		{"FROM nowhere.test/x\nRUN --mount=type=cache x", "Dockerfile:2: --mount=type=cache: a target is missing"},
		{"FROM nowhere.test/x\nRUN --mount=type=tmpfs,target=/ x", "Dockerfile:2: --mount at /: the target is the root"},
		{"FROM nowhere.test/x\nRUN --mount=type=tmpfs,target=/x,size=zz x", "Dockerfile:2: invalid value for size: zz"},
		{"FROM nowhere.test/x\nRUN --mount=type=cache,target=/x,sharing=foo x", `Dockerfile:2: unsupported sharing value "foo"`},
		{"FROM nowhere.test/x\nARG S=locked\nRUN --mount=type=cache,target=/$S,sharing=$S x", "nowhere.test"},
		{"FROM nowhere.test/x\nRUN --mount=type=secret,id=zz,required x", `Dockerfile:2: --mount=type=secret: secret "zz" is required; give it with --secret id=zz,src=FILE`},
		{"FROM nowhere.test/x\nRUN --mount=type=secret,target=/etc/key,required=true x", `Dockerfile:2: --mount at /etc/key: secret "key" is required; give it with`},
		{"FROM scratch\nRUN --network=host x", "Dockerfile:2: RUN --network=host: a VM does not have the host's network"},
		{"FROM scratch\nRUN --security=insecure x", "Dockerfile:2: RUN --security=insecure:"},
		{"FROM scratch\nRUN --device=x y", "Dockerfile:2: RUN --device:"},
		{"FROM scratch\nEXPOSE 99999", `Dockerfile:2: EXPOSE "99999": want PORT`},
		{"FROM scratch\nHEALTHCHECK --start-interval=1s CMD x", "Dockerfile:2: HEALTHCHECK --start-interval"},
		{"FROM scratch\nSTOPSIGNAL BLA", `Dockerfile:2: STOPSIGNAL "BLA": want a signal's name or number`},
		{"FROM scratch\nSTOPSIGNAL SIGRTMIN+16", `STOPSIGNAL "SIGRTMIN+16"`},
		{"FROM scratch\nSTOPSIGNAL 0", `STOPSIGNAL "0"`},
		{"FROM scratch\nCOPY ['a.txt', '/x/']", `a list is JSON, with double quotes and commas: ["SRC", "DST"]`},
		{"FROM scratch\nCOPY --chown=:1 a.txt /", `Dockerfile:2: owner ":1": it begins with a user`},
		{"FROM scratch\nVOLUME \"$NONE\"", "Dockerfile:2: VOLUME: a path is empty"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			_, err := b.build(t, "made", tt.text, func(o *Options) {
				o.Start = func(context.Context, Start) (VM, error) { return nil, errors.New("a VM was started") }
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(b.home, "images", "*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// FuzzParse reads any bytes: what is no Dockerfile is refused, nothing ends the
// program.
func FuzzParse(f *testing.F) {
	for _, s := range []string{base, "FROM a\nRUN <<E\nx\nE", "# escape=`\nFROM a\nRUN --mount=type=cache,target=/x y", "ARG A=${B:-c}\nFROM $A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		file, err := Parse(strings.NewReader(s), "Dockerfile")
		if err != nil {
			return
		}
		_ = Check(Options{File: file, Log: NewLog(io.Discard)}, "amd64")
	})
}
