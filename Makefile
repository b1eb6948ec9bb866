# Lumina's build. See README.md; `make quickstart` and `make test` are all that a newcomer needs.
ARCH    ?= $(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX  ?= $(HOME)/.local

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT  = github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GUEST       = $(foreach a,amd64 arm64,initramfs/out/initramfs-$(a).cpio.zst)
VIEWER      = runtime/desktop/viewer
NOVNC       = $(VIEWER)/out/novnc/core/rfb.js
GUEST_GO    = $(shell find initramfs -name '*.go' ! -name '*_test.go')
ALL_GO      = $(shell find . -name '*.go')

.PHONY: all quickstart setup kernel kernels guest viewer build install test lint typecheck-darwin fuzz recipes bench clean
all: build

# The main job from nothing: packages, kernel, CLI, an image of a real Debian, a command run in it.
quickstart:
	./setup.sh
	$(MAKE) kernel build
	./quickstart.sh

# Debian packages that building and testing need.
setup:
	./setup.sh --test

kernel:
	kernel-config/build.sh $(ARCH)
	kernel-config/loader/build.sh $(ARCH)

kernels:
	$(MAKE) kernel ARCH=amd64
	$(MAKE) kernel ARCH=arm64

# The agent has no loop that needs a signal to be interrupted in, and its
# processors do not change: neither is looked after, at every turn of a slow,
# emulated machine.
GUEST_DEBUG = asyncpreemptoff=1,updatemaxprocs=0

# Init and agent, for both architectures, packed for embedding.
guest: $(GUEST)

initramfs/out/initramfs-%.cpio.zst: $(GUEST_GO) go.mod
	CGO_ENABLED=0 GOOS=linux GOARCH=$* go build -trimpath -ldflags '-s -w -buildid= -X runtime.godebugDefault=$(GUEST_DEBUG)' -o initramfs/out/init-$* ./initramfs/cmd/init
	go run ./initramfs/cmd/mkinitramfs initramfs/out/init-$* $@
	rm -f initramfs/out/init-$*

# noVNC, the page of lumina desktop open, for embedding.
viewer: $(NOVNC)

$(NOVNC): $(wildcard $(VIEWER)/novnc/*)
	$(VIEWER)/novnc/fetch.sh
	touch $@

build: bin/lumina

# On a Mac the driver needs cgo, and the program to be signed with what
# Virtualization.framework asks for; SIGN is the identity, "-" for none.
SIGN ?= -
ifeq ($(shell uname -s),Darwin)
CGO      = 1
CODESIGN = codesign --force --sign "$(SIGN)" $(if $(filter-out -,$(SIGN)),--options runtime --timestamp) --entitlements runtime/vz/lumina.entitlements
else
CGO      = 0
CODESIGN = @:
endif

bin/lumina: $(GUEST) $(NOVNC) $(VIEWER)/page.html $(VIEWER)/page.js $(ALL_GO) go.mod $(wildcard kernel-config/out/*)
	CGO_ENABLED=$(CGO) go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/lumina
	$(CODESIGN) $@

install: build
	mkdir -p $(PREFIX)/bin
	install -m 0755 bin/lumina $(PREFIX)/bin/lumina

# Everything CI checks: lint, the macOS sources, unit and end-to-end tests.
test: setup kernels build lint typecheck-darwin
	go test -race -timeout 60m ./...

lint:
	@test -z "$$(gofmt -l .)" || { echo "not gofmt-clean:"; gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	shellcheck kernel-config/build.sh kernel-config/loader/build.sh setup.sh quickstart.sh $(VIEWER)/novnc/fetch.sh recipes/build.sh builder/compare.sh release/install.sh .ci/run
	go run $(ACTIONLINT) .github/workflows/*.yml

# The sources that only a Mac compiles, those with cgo against the real vz.
typecheck-darwin:
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go vet ./...
	GOOS=darwin GOARCH=amd64 CGO_ENABLED=0 go vet ./...
	go test ./runtime/vz/...

# Every parser of what guests and images send, for FUZZTIME each.
FUZZTIME ?= 60s
fuzz:
	@set -e; grep -rlE '^func Fuzz' --include=*_test.go . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(grep -rhoE '^func Fuzz[A-Za-z0-9]+' "$$dir"/*_test.go | cut -d' ' -f2); do \
			go test -run xxx -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$dir"; \
		done; \
	done

# Each shipped image, built, booted and tested.
recipes: build
	recipes/build.sh

# The figures of README.md, on this machine. Needs the image that quickstart makes.
bench: build
	bin/lumina bench boot --image debian
	bin/lumina bench session --image debian
	builder/compare.sh

clean:
	rm -rf bin initramfs/out/*.zst $(VIEWER)/out/novnc
