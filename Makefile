# Lumina's build. `make help` lists what there is.
ARCH    ?= $(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX  ?= $(HOME)/.local

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK    = github.com/kisielk/errcheck@v1.9.0
ACTIONLINT  = github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GOTESTSUM   = gotest.tools/gotestsum@v1.13.0
GUEST       = $(foreach a,amd64 arm64,initramfs/out/initramfs-$(a).cpio.zst)
PAGE        = runtime/app/page
APP         = $(PAGE)/out/index.html
NOTICES     = release/licences/out/THIRD_PARTY_NOTICES.md
GUEST_GO    = $(shell find initramfs -name '*.go' ! -name '*_test.go')
ALL_GO      = $(shell find . -name '*.go')

.PHONY: all help quickstart setup kernel kernels kernel-full guest app build man notices deb install check test test-kvm test-kvm-stock lint typecheck-darwin suite fuzz recipes bench clean
all: build

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1:\2/p' Makefile | awk -F: '{printf "%-20s %s\n", $$1, $$2}'
	@echo 'Variables: ARCH=amd64|arm64 (of kernel), VERSION, PREFIX (of install), FUZZTIME'

# The main job from nothing: packages, kernel, CLI, an image of a real Debian, a command run in it.
quickstart: ## from nothing to a command in a VM, packages, kernel, program and an image of Debian
	./setup.sh
	$(MAKE) kernel build
	./quickstart.sh

# Debian packages that building and testing need.
setup: ## install the Debian packages that building and testing need
	./setup.sh --test

kernel: ## build the guest kernel for ARCH; what was built before comes from the cache
	kernel-config/build.sh $(ARCH)
	kernel-config/loader/build.sh $(ARCH)

kernels: ## build the guest kernels for amd64 and arm64
	$(MAKE) kernel ARCH=amd64
	$(MAKE) kernel ARCH=arm64

# The agent has no loop that needs a signal to be interrupted in, and its
# CPUs do not change: neither is looked after, at every turn of a slow,
# emulated machine.
GUEST_DEBUG = asyncpreemptoff=1,updatemaxprocs=0

# Another kernel, beside those of the program: with the drivers of clouds, other
# hypervisors and bare machines, KVM and tracing. What exports disks for them, and
# tests that need it, take it from the same cache.
kernel-full: ## build the amd64 kernel of exported disks: every driver, KVM, tracing
	mkdir -p bin
	go run ./kernel-config/full bin/kernel-full-amd64

# Init and agent, for both architectures, packed for embedding.
guest: $(GUEST) ## build init and agent for both architectures

initramfs/out/initramfs-%.cpio.zst: $(GUEST_GO) go.mod
	CGO_ENABLED=0 GOOS=linux GOARCH=$* go build -trimpath -ldflags '-s -w -buildid= -X runtime.godebugDefault=$(GUEST_DEBUG)' -o initramfs/out/init-$* ./initramfs/cmd/init
	go run ./initramfs/cmd/mkinitramfs initramfs/out/init-$* $@
	rm -f initramfs/out/init-$*

# The page of lumina app: TypeScript, bundled with noVNC and xterm.js.
app: $(APP) ## build the page of lumina app

$(APP): $(wildcard $(PAGE)/src/* $(PAGE)/*.json $(PAGE)/build.sh $(PAGE)/index.html)
	$(PAGE)/build.sh
	touch $@

build: bin/lumina ## build bin/lumina, with guests, kernels and the app's page in it

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

bin/lumina: $(GUEST) $(APP) $(NOTICES) $(ALL_GO) go.mod $(wildcard kernel-config/out/*)
	CGO_ENABLED=$(CGO) go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/lumina
	$(CODESIGN) $@

# Man pages and completion scripts, from the commands themselves.
man: ## make man pages and completion scripts in bin/manual
	rm -rf bin/manual
	go run -tags manual -ldflags '-X main.version=$(VERSION)' ./cmd/lumina manual bin/manual

# The licences of others' software in the program, from the modules themselves.
notices: $(NOTICES) ## make the third-party notices that the program carries

$(NOTICES): go.mod $(APP) kernel-config/version release/notices/main.go
	go run ./release/notices > $@.new
	mv $@.new $@

deb: build man ## pack bin/lumina as bin/lumina.deb
	release/deb.sh bin/lumina "$(VERSION)" $(shell go env GOARCH) bin/manual bin/lumina.deb

install: build man ## install bin/lumina, man pages and completion below PREFIX
	mkdir -p $(PREFIX)/bin
	install -m 0755 bin/lumina $(PREFIX)/bin/lumina
	mkdir -p $(addprefix $(PREFIX)/share/,man/man1 bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	install -m 0644 bin/manual/man1/*.1 $(PREFIX)/share/man/man1
	install -m 0644 bin/manual/completions/lumina $(PREFIX)/share/bash-completion/completions/lumina
	install -m 0644 bin/manual/completions/_lumina $(PREFIX)/share/zsh/site-functions/_lumina
	install -m 0644 bin/manual/completions/lumina.fish $(PREFIX)/share/fish/vendor_completions.d/lumina.fish

# Before each commit: no root, no QEMU, no kernel, no network beyond Go modules. The tests
# are not vetted again: lint has done so.
check: lint ## lint and the short tests, in under two minutes, without root
	go test -short -vet=off ./...

# A test that fails is run once more, so that one bad moment of an emulated machine
# does not cost a run of 20 minutes. Both results are printed, the first one in
# full: a test that passes only the second time is a bug to be found. The command
# line's tests have the host to themselves: their VMs are slow beside a compiler.
TEST = go run $(GOTESTSUM) --format=standard-quiet --rerun-fails=1 --rerun-fails-run-root-test --rerun-fails-max-failures=10

# Everything CI checks: lint, the macOS sources, unit and end-to-end tests.
test: setup kernels kernel-full build lint typecheck-darwin ## what CI runs, packages, kernels, lint, unit and end-to-end tests
	$(TEST) --packages="$$(go list ./... | grep -v '/cmd/lumina$$')" -- -race -timeout 30m
	$(TEST) --packages=./cmd/lumina -- -race -timeout 60m
	LUMINA_KVMLAB=short go test -count=1 -timeout 20m ./cmd/lumina/kvmlab

# KVM, on any amd64 host: lumina's own tests in a VM with an emulated SVM. make test
# has a short form of it, if the kernel is there.
test-kvm: setup kernels kernel-full build ## end-to-end tests on KVM, in a VM that is a host
	LUMINA_KVMLAB=whole go test -count=1 -v -timeout 2h ./cmd/lumina/kvmlab

# The same in a VM that has nothing of lumina: Debian 12 on its own kernel. ARCH=arm64
# has it on an emulated CPU of arm64, and runs the short form.
test-kvm-stock: setup kernels build ## end-to-end tests on KVM of Debian's own kernel, ARCH=amd64 or arm64
	LUMINA_KVMLAB=stock-$(ARCH) go test -count=1 -v -timeout 2h ./cmd/lumina/kvmlab

# What may fail without a word: closing what was read or is given up (what was written
# is closed with its error), removing what is left over, printing to a terminal, and
# bufio's writers, which keep their first error for Flush.
UNCHECKED = ^([cC]lose|CloseNow)$$,os:^Remove,fmt:^Fprint,bufio:^Write

lint: ## gofmt, vet, staticcheck, errcheck, shellcheck, actionlint
	@test -z "$$(gofmt -l .)" || { echo "not gofmt-clean:"; gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(ERRCHECK) -ignoretests -ignore '$(UNCHECKED)' ./...
	shellcheck kernel-config/build.sh kernel-config/loader/build.sh setup.sh quickstart.sh $(PAGE)/build.sh recipes/build.sh builder/compare.sh runtime/compare.sh runtime/density.sh release/install.sh release/mac-check.sh release/deb.sh release/formula.sh .ci/run .ci/bare
	$(PAGE)/build.sh --check
	go run $(ACTIONLINT) .github/workflows/*.yml

# The sources that only a Mac compiles, those with cgo against the real vz.
typecheck-darwin: ## check the sources that only a Mac compiles
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go vet ./...
	GOOS=darwin GOARCH=amd64 CGO_ENABLED=0 go vet ./...
	go test ./runtime/vz/typecheck

# The drivers' suite, as a table: over a driver in memory, QEMU, and the driver for macOS
# over a simulated framework, without VMs and with.
suite: kernel build ## run the drivers' suite, and print which rule each driver keeps
	go test -json -count=1 -run '^(TestFake|TestSuite|TestSuiteInMemory)$$' ./runtime/vm/vmtest ./runtime/qemu ./runtime/vz | go run ./runtime/vm/vmtest/table

# Every parser of what guests and images send, for FUZZTIME each.
FUZZTIME ?= 60s
fuzz: ## fuzz every parser for FUZZTIME each
	@set -e; grep -rlE '^func Fuzz' --include=*_test.go . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(grep -rhoE '^func Fuzz[A-Za-z0-9]+' "$$dir"/*_test.go | cut -d' ' -f2); do \
			go test -run xxx -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$dir"; \
		done; \
	done

# Each shipped image, built, booted and tested.
recipes: build ## build, boot and test every image of recipes/
	recipes/build.sh

# The figures of README.md, on this machine. Needs the image that quickstart makes.
bench: build ## measure the figures of README.md on this machine
	bin/lumina bench boot --image debian
	bin/lumina bench session --image debian
	builder/compare.sh

clean: ## remove what was built, but not the kernels
	rm -rf bin initramfs/out/*.zst $(PAGE)/node_modules $(PAGE)/out/*.* $(PAGE)/out/licences
