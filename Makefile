# The verbs of Lazaret. `make demo` and `make test` need a C linker, Rust by rustup, and nothing else.
#
#   make demo [IMAGE=…]   builds, mounts a sample (or IMAGE) confined, shows it and the proof, unmounts
#   make test             runs every check; ends with `N passed, N failed, N skipped`
#   make prove            the promises of SECURITY.md, each with pass or fail and the figures of its tests
#   make vm               boots KERNEL (linux-image-amd64, Debian's) in a machine of its own, and shows there what this one lacks:
#                         limits of a cgroup that hold, and a mount, its proof and a user's mount on another kernel
#   make vm-stick         the same with a USB controller and a Debian in it: sticks that are plugged in, pulled out while they
#                         are read, ejected and exchanged, by the daemon, its units and udisks2
#   make mutate           walks COUNT (100000) mutated images, from number SEED (0) on
#   make verdicts         compares check and e2fsck -fn on COUNT (100000) images with one field changed, from number SEED (0) on
#   make fuzz             runs the targets of tests/fuzz for TIME (60) seconds each, or TARGET alone on every core
#   make fuzz-repro       runs FILE, what a run was ended by, makes it small and keeps it as a test
#   make fuzz-report      what was run in all, and what of the source the kept inputs reach
#   make fuzz-planted     shows that bugs which were planted are found, each within TIME (600) seconds, or BUG alone
#   make bench            measures beside the kernel and fuse2fs: ROUNDS (5), ONLY a part of a workload's name
#   make lint             formatting, clippy, dependencies, and the source held to the design
#   make install          DESTDIR= PREFIX= (/usr/local): programs, man pages, completions, units, rules; nothing is turned on
#   make deb              a Debian package of the same, into target/debian

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := demo
.PHONY: demo test prove vm vm-stick mutate verdicts fuzz fuzz-repro fuzz-report fuzz-planted fuzz-asked fuzz-file fuzzers bench lint install deb cargo-deb tools

# Tests and programs are built with one profile, into one place, where the tests look for the programs.
PROFILE := --profile checks
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

# As root the tests have mounts of their own: whatever else on this machine copies a mount namespace, as a container does that
# starts, would keep theirs alive for as long as it runs, and the tests hold every end to a second.
ALONE := $(shell test "$$(id -u)" = 0 && unshare --mount true 2>/dev/null && echo unshare --mount)

demo:
	cargo build --release
	folder=$$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
	"$$folder/$$(rustc --print host-tuple)/release/lazaret" demo $(if $(IMAGE),"$(IMAGE)")

test: tools cargo-deb
	cargo build --workspace $(PROFILE)
	log=$$(mktemp)
	trap 'rm -f "$$log"' EXIT
	status=0
	$(ALONE) cargo test --workspace --no-fail-fast $(PROFILE) 2>&1 | tee "$$log" || status=$$?
	awk -v status="$$status" '
	    /^test result:/ { passed += $$4; failed += $$6; skipped += $$8 }
	    END {
	        # A test that never came to its result line, or that did not compile, has failed too.
	        if (status != 0 && failed == 0) failed = 1
	        print ""
	        print passed + 0 " passed, " failed + 0 " failed, " skipped + 0 " skipped"
	        exit failed > 0 || passed == 0
	    }' "$$log"

# Runs the tests that SECURITY.md names.
prove: tools cargo-deb
	cargo build --workspace $(PROFILE)
	records=$$(mktemp) log=$$(mktemp)
	trap 'rm -f "$$records" "$$log"' EXIT
	tests=$$(grep -o 'tests/tests/[a-z_]*\.rs' SECURITY.md | sed 's,.*/\(.*\)\.rs,--test \1,' | sort -u)
	LAZARET_PROVE=$$records LAZARET_KILLS=1000 LAZARET_CYCLES=1000 LAZARET_PLUGS=200 LAZARET_STALL=30 $(ALONE) cargo test --no-fail-fast $(PROFILE) --package lazaret-tests $$tests >"$$log" 2>&1 ||
	    grep -B1 -A12 -e '^---- .*' -e '^error' "$$log" || true
	cargo run --quiet $(PROFILE) --package lazaret-tests --bin prove -- "$$records"

KERNEL := linux-image-amd64
# What runs there, as root.
define GUEST
set -e
cd "$(CURDIR)/tests"
"$$programs/lazaret" doctor
"$$programs/lazaret" demo
"$$test" --nocapture --test-threads 1 group
sh vm/guest "$$programs"
endef
export GUEST

vm vm-stick: TOOLS += qemu-system-x86_64=qemu-system-x86 busybox=busybox-static depmod=kmod cpio=cpio pgrep=procps xz=xz-utils
vm: tools
	cargo build --workspace $(PROFILE)
	test=$$(cargo test --no-run $(PROFILE) --package lazaret-tests --test limits --message-format json |
	    grep -o '"executable":"[^"]*limits-[^"]*"' | cut -d'"' -f4)
	tests/vm/run "$(CURDIR)/target/vm" $(KERNEL) "programs='$${test%/deps/*}'; test='$$test'; $$GUEST"

# The programs are those of the tests, in a package, and the root is the one that they enter.
vm-stick: tools cargo-deb
	package=$$($(MAKE) --no-print-directory deb BUILD="$(PROFILE)" PACKAGES=--workspace)
	root=$$(cargo run --quiet $(PROFILE) --package lazaret-tests --bin debian)
	tests/vm/sticks "$(CURDIR)/target/vm" $(KERNEL) "$$root" "$$package"

COUNT := 100000
SEED := 0

mutate: tools
	LAZARET_MUTATE_COUNT=$(COUNT) LAZARET_MUTATE_SEED=$(SEED) cargo test $(PROFILE) --package lazaret-tests \
	    --test mutations -- --nocapture mutated_images

verdicts: tools
	LAZARET_VERDICTS_COUNT=$(COUNT) LAZARET_VERDICTS_SEED=$(SEED) cargo test $(PROFILE) --package lazaret-tests \
	    --test verdicts -- --nocapture one_field

TIME := 60
TARGET :=
FILE :=
BUG :=
# Images, first inputs, the corpus that grows, what ended a run, and the record of all runs.
FUZZED := $(CURDIR)/target/fuzz
FUZZ := cargo run --quiet $(PROFILE) --package lazaret-tests --bin fuzz --
PLANTED :=
# Without a sanitizer, and without the checks of the standard library's own unsafe code: what parses has none, and is twice
# as fast so. What is never called is not linked, and only what is fuzzed is counted.
FUZZERS = RUSTFLAGS="-Zub-checks=no $(PLANTED)" RUSTC_WRAPPER="$(CURDIR)/tests/fuzz/instrument" cargo +nightly fuzz build \
    --fuzz-dir tests/fuzz --release --strip-dead-code --sanitizer none --no-trace-compares --target-dir
HOST := $(shell rustc --print host-tuple 2>/dev/null)

fuzzers: TOOLS += c++=g++
fuzzers: tools
	rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
	command -v cargo-fuzz >/dev/null || (cd / && cargo install cargo-fuzz --locked)
	$(FUZZ) prepare "$(FUZZED)"

# What was asked for is looked at before anything is built.
fuzz-asked:
	[[ "$(TIME)" =~ ^[1-9][0-9]*$$ ]] || { echo "make: TIME=$(TIME): seconds, at least 1" >&2; exit 2; }
	test -z "$(TARGET)" || grep -q target! tests/fuzz/fuzz_targets/"$(TARGET)".rs 2>/dev/null ||
	    { echo "make: TARGET=$(TARGET): there is no such target; tests/fuzz/README.md lists them" >&2; exit 2; }

fuzz-file:
	test -f "$(FILE)" || { echo "make: FILE=$(FILE): say FILE=, what a run was ended by" >&2; exit 2; }

fuzz: fuzz-asked fuzzers
	$(FUZZERS) "$(FUZZED)/build"
	# Ctrl-C ends the targets; what they did is recorded all the same.
	trap '' INT
	$(FUZZ) run "$(FUZZED)" "$(FUZZED)/build/$(HOST)/release" $(TIME) $(TARGET)

# The folder of what ended a run has the name of its target.
fuzz-repro: fuzz-file fuzz-asked fuzzers
	file=$$(realpath "$(FILE)")
	target=$(if $(TARGET),$(TARGET),$$(basename "$$(dirname "$$file")"))
	# An input without an end is ended.
	once() { LAZARET_FUZZ_IMAGES="$(FUZZED)/images" timeout 60 $(FUZZ) once "$$target" "$$1"; }
	# What a fuzzer asserts besides, and how long it takes with counters in it, only its own program tells.
	program() { LAZARET_FUZZ_IMAGES="$(FUZZED)/images" timeout 60 "$(FUZZED)/build/$(HOST)/release/$$target" -timeout=10 "$$1"; }
	code=0
	once "$$file" || code=$$?
	case $$code in
	1) exit 1 ;;
	esac
	$(FUZZERS) "$(FUZZED)/build" "$$target"
	if test $$code = 0 && program "$$file" >/dev/null 2>&1; then
	    echo "$$target takes it: nothing is wrong"
	    exit 0
	fi
	small=$$(mktemp)
	trap 'rm -f "$$small"' EXIT
	cp "$$file" "$$small"
	LAZARET_FUZZ_IMAGES="$(FUZZED)/images" "$(FUZZED)/build/$(HOST)/release/$$target" -minimize_crash=1 -runs=100000 \
	    -timeout=10 -max_total_time=$(TIME) -exact_artifact_path="$$small" "$$file" >/dev/null 2>&1 || true
	# What ended a run after others need not do so by itself.
	if once "$$small" >/dev/null 2>&1 && program "$$small" >/dev/null 2>&1; then cp "$$file" "$$small"; fi
	kept=tests/fuzz/regressions/$$target/$$(sha256sum "$$small" | cut -c1-16)
	mkdir -p "$$(dirname "$$kept")"
	cp "$$small" "$$kept"
	case $$target in image | check | changing) $(FUZZ) explain "$$kept" ;; esac
	echo "$$(stat -c %s "$$file") bytes became $$(stat -c %s "$$kept"); the tests run them from now on: $$kept"

fuzz-report: fuzzers
	rustup component add llvm-tools --toolchain nightly
	llvm=$$(rustc +nightly --print sysroot)/lib/rustlib/$(HOST)/bin
	export RUSTFLAGS="-C instrument-coverage --cfg counted" CARGO_PROFILE_CHECKS_STRIP=none LAZARET_FUZZ_MUTATIONS=0
	export LLVM_PROFILE_FILE="$(FUZZED)/coverage.profraw"
	test=$$(cargo +nightly test --no-run $(PROFILE) --target-dir "$(FUZZED)/covered" --package lazaret-tests \
	    --test fuzzing --message-format json | grep -o '"executable":"[^"]*fuzzing-[^"]*"' | cut -d'"' -f4)
	unset RUSTFLAGS CARGO_PROFILE_CHECKS_STRIP
	said=$$(LAZARET_FUZZ_IMAGES="$(FUZZED)/images" "$$test" every_target) || { echo "$$said" >&2; exit 1; }
	"$$llvm/llvm-profdata" merge -sparse "$(FUZZED)/coverage.profraw" -o "$(FUZZED)/coverage.profdata"
	"$$llvm/llvm-cov" export -summary-only -instr-profile "$(FUZZED)/coverage.profdata" "$$test" >"$(FUZZED)/coverage.json"
	$(FUZZERS) "$(FUZZED)/build" edges
	edges="$(FUZZED)/build/$(HOST)/release/edges"
	LAZARET_FUZZ_IMAGES="$(FUZZED)/images" "$$edges" "$(FUZZED)/seeds" "$(FUZZED)/corpus" >"$(FUZZED)/edges"
	$(FUZZ) report "$(FUZZED)" "$(FUZZED)/coverage.json" "$(FUZZED)/edges" "$$edges"

fuzz-planted: TIME := 600
fuzz-planted: PLANTED := --cfg planted
fuzz-planted: fuzz-asked fuzzers
	$(FUZZERS) "$(FUZZED)/planted-build"
	RUSTFLAGS="--cfg planted -C target-feature=+crt-static" cargo build --release --package lazaret-worker --features fuzz \
	    --target-dir "$(FUZZED)/planted-worker"
	cp "$(FUZZED)/planted-worker/$(HOST)/release/lazaret-worker" "$(FUZZED)/planted-build/$(HOST)/release/"
	LAZARET_FUZZ_IMAGES="$(FUZZED)/images" $(FUZZ) planted "$(FUZZED)" "$(FUZZED)/planted-build/$(HOST)/release" $(TIME) \
	    $(if $(BUG),"$(BUG)")

ROUNDS := 5
ONLY :=

# Programs as they are released, but with their symbols, for the profile. Images and figures are kept in target/bench.
bench: TOOLS += fuse2fs=fuse2fs valgrind=valgrind perf=linux-perf
bench: tools
	export CARGO_PROFILE_RELEASE_STRIP=none
	folder=$$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/bench
	cargo build --release --package lazaret --package lazaret-worker --target-dir "$$folder"
	LAZARET_BENCH_PROGRAMS="$$folder/$$(rustc --print host-tuple)/release" LAZARET_BENCH_KEPT="$$folder" \
	    LAZARET_BENCH_ROUNDS=$(ROUNDS) LAZARET_BENCH_ONLY="$(ONLY)" \
	    cargo bench $(PROFILE) --package lazaret-tests --bench bench

lint:
	rustup component add clippy rustfmt 2>/dev/null || true
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets $(PROFILE) -- -D warnings
	cargo clippy --package lazaret-worker --features fuzz $(PROFILE) -- -D warnings
	# Outside the workspace, whose settings are not meant for it; to optimise it takes longer than it ever runs.
	command -v cargo-deny >/dev/null || (cd / && cargo install cargo-deny --locked --debug)
	cargo deny --log-level error check -A unused-wrapper bans licenses sources
	if timeout 120 cargo deny --log-level off fetch db 2>/dev/null; then
	    cargo deny --log-level error check advisories
	else
	    echo "lint: the database of advisories cannot be fetched; known vulnerabilities were not looked for"
	fi
	cargo test $(PROFILE) --package lazaret-tests --test tidy

DESTDIR :=
PREFIX := /usr/local
# Where libmount looks for helpers, whatever the prefix is. Empty: none is put there, and mount(8) and udisks2 find none.
HELPERS := /usr/sbin
# How what is installed is built, and of what.
BUILD := --release
PACKAGES := --package lazaret --package lazaret-worker
# Where a zsh looks that the system's packages fill; Debian's is another than that of everybody else.
ZSH := site-functions

# Under sudo(8) Rust is his who has called it, and so is what is built.
CALLER := $(shell test "$$(id -u)" = 0 && test "$${SUDO_USER:-root}" != root && \
    echo sudo -u "$$SUDO_USER" -H env "PATH=$$PATH:$$(getent passwd "$$SUDO_USER" | cut -d: -f6)/.cargo/bin")

install:
	$(CALLER) cargo build $(BUILD) $(PACKAGES)
	$(CALLER) cargo build $(BUILD) $(PACKAGES) --example pages
	folder=$$($(CALLER) cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
	profile=$(lastword $(subst -,,$(BUILD)))
	built=$$folder/$$($(CALLER) rustc --print host-tuple)/$$profile
	pages=$$(mktemp -d)
	trap 'rm -rf "$$pages"' EXIT
	"$$built/examples/pages" "$$pages"
	mkdir "$$pages/man/man5"
	cp broker/dist/man/*.5 "$$pages/man/man5"
	to=$(DESTDIR)$(PREFIX)
	program() { install -D -m 755 "$$1" "$$2"; }
	file() { install -D -m 644 "$$1" "$$2"; }
	each() { for one in $$1; do test ! -f "$$one" || file "$$one" "$$2/$${one##*/}"; done; }
	program "$$built/lazaret" "$$to/bin/lazaret"
	for name in worker agent; do program "$$built/lazaret-$$name" "$$to/libexec/lazaret/lazaret-$$name"; done
	for section in 1 5 8; do each "$$pages/man/man$$section/*" "$$to/share/man/man$$section"; done
	file "$$pages/completions/bash/lazaret" "$$to/share/bash-completion/completions/lazaret"
	file "$$pages/completions/zsh/_lazaret" "$$to/share/zsh/$(ZSH)/_lazaret"
	file "$$pages/completions/fish/lazaret.fish" "$$to/share/fish/vendor_completions.d/lazaret.fish"
	each 'broker/dist/setup/*' "$$to/share/lazaret/setup"
	each 'broker/dist/*.toml' "$$to/share/lazaret"
	each 'broker/dist/udev/*.rules' "$$to/lib/udev/rules.d"
	each 'broker/dist/systemd/*.service' "$$to/lib/systemd/system"
	each 'broker/dist/systemd/user/*.service' "$$to/lib/systemd/user"
	# They name the program where a package has it.
	find "$$to/lib" -name 'lazaret*.service' -exec sed -i 's,/usr/bin/lazaret,$(PREFIX)/bin/lazaret,' {} +
	each 'README.md SECURITY.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE' "$$to/share/doc/lazaret"
	if test -n "$(HELPERS)"; then
	    install -d "$(DESTDIR)$(HELPERS)"
	    for name in mount.lazaret mount.fuse.lazaret mount.fuseblk.lazaret; do
	        ln -srf "$$to/bin/lazaret" "$(DESTDIR)$(HELPERS)/$$name"
	    done
	    for name in mount.fuse.lazaret mount.fuseblk.lazaret; do
	        echo '.so man8/mount.lazaret.8' >"$$to/share/man/man8/$$name.8"
	    done
	fi

# The package holds what `make install` puts under /usr.
deb: cargo-deb
	# broker/Cargo.toml names this place.
	staged=$(CURDIR)/target/staged
	package=$(CURDIR)/target/debian/lazaret.deb
	rm -rf "$$staged"
	$(MAKE) --no-print-directory install DESTDIR="$$staged" PREFIX=/usr ZSH=vendor-completions \
	    BUILD="$(BUILD)" PACKAGES="$(PACKAGES)"
	# What Debian has in another place or under another name.
	rm "$$staged/usr/share/doc/lazaret/"{CHANGELOG.md,LICENSE-*}
	mkdir -p "$${package%/*}"
	cd broker && cargo deb --no-build --no-strip --quiet --output "$$package" >/dev/null
	echo "$$package"

cargo-deb:
	command -v cargo-deb >/dev/null || (cd / && cargo install cargo-deb --locked --debug)

# What the tests call, and the Debian package that has it.
TOOLS := mke2fs=e2fsprogs debugfs=e2fsprogs fusermount3=fuse3 strace=strace losetup=mount umount=mount \
         setpriv=util-linux unshare=util-linux partx=util-linux script=bsdutils sfdisk=fdisk sgdisk=gdisk tar=tar cc=gcc \
         getfattr=attr fsverity=fsverity udevadm=udev systemd-analyze=systemd dbus-daemon=dbus-daemon \
         Xvfb=xvfb dunst=dunst import=imagemagick debootstrap=debootstrap nsenter=util-linux

tools:
	missing=
	for tool in $(TOOLS); do
	    command -v "$${tool%=*}" >/dev/null || missing+=" $${tool#*=}"
	done
	# Static programs are linked with libc.a.
	test -e "$$(cc -print-file-name=libc.a 2>/dev/null || true)" || missing+=" libc6-dev"
	missing=$$(printf '%s\n' $$missing | sort -u | xargs)
	# What an installer makes and a minimal root lacks; fusermount3 looks a mount up there before it unmounts it.
	if test ! -e /etc/mtab && test "$$(id -u)" = 0; then
	    echo "linking /etc/mtab to /proc/self/mounts"
	    ln -s ../proc/self/mounts /etc/mtab
	fi
	if test -z "$$missing"; then
	    exit 0
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then
	    echo "installing: $$missing"
	    apt-get update -qq
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null
	else
	    echo "missing, and some tests will be skipped without: $$missing"
	fi
