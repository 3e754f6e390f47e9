# Two targets are all that a visitor needs: make demo and make test. The others are for those who work on lockfs.

GO         ?= go
PREFIX     ?= /usr/local
SBIN       ?= /sbin
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME   ?= 1m
SEEDS      ?= 20000
CHAOS      ?= 10
PEERS      ?=

.DEFAULT_GOAL := build

.PHONY: build
build: ## the binary, build/lockfs
	$(GO) build -o build/lockfs ./cmd/lockfs

.PHONY: demo
demo: ## a tour that checks itself; mounts in this directory and leaves nothing behind
	@examples/demo.sh

.PHONY: test
test: ## every check and test there is, as CI: installs what they need (as root), allows no skips
	@tests/all.sh

.PHONY: check
check: build ## the tests alone, with what is installed
	$(GO) vet ./...
	$(GO) test ./...
	LOCKFS_BIN=build/lockfs examples/run.sh

.PHONY: race
race: ## the packages with goroutines, under the race detector
	$(GO) test -race ./lockd/... ./fs/... ./cluster/... ./cmd/...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (1m)
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

.PHONY: sim-long
sim-long: ## the simulation with SEEDS (20000) seeds
	LOCKFS_SIM_SEEDS=$(SEEDS) $(GO) test -count=1 -timeout 0 -run TestSim -v ./lockd/sim

.PHONY: chaos
chaos: ## leaders killed, trees stormed, slots fought for and names watched on several hosts, CHAOS (10) times as often as make test does
	LOCKFS_CHAOS=$(CHAOS) $(GO) test -count=1 -timeout 0 -v -run 'TestLeaderKilled|TestTree|TestInotify|TestExclusion' ./tests/cluster

.PHONY: deadlocks
deadlocks: ## 1000 random runs on several hosts in fake time, half of them without a deadlock
	LOCKFS_DEADLOCK_RUNS=500 $(GO) test -count=1 -timeout 0 -run TestRandomDeadlocks -v ./lockd

.PHONY: bench
bench: build ## what calls cost, beside go-fuse's loopback doing the same; then 100,000 locks
	LOCKFS_BIN=build/lockfs tests/bench/run.sh

.PHONY: bench-peers
bench-peers: ## lockfs beside etcd, ZooKeeper, Redis and flock(2), on this machine in one run; results in build/peers
	tests/peers/run.sh $(PEERS)

.PHONY: scale
scale: build ## what HOSTS (60) hosts and FILES (1000000) files cost, on this machine
	LOCKFS_BIN=build/lockfs tests/scale/run.sh

.PHONY: man
man: build ## manual pages, build/man
	build/lockfs man build/man

.PHONY: golden
golden: ## rewrite the golden help texts
	$(GO) test ./cmd/cli -update

.PHONY: install
install: build man ## into PREFIX (/usr/local), and mount.lockfs into SBIN (/sbin), where mount(8) looks for it
	install -D -m 755 build/lockfs $(DESTDIR)$(PREFIX)/bin/lockfs
	install -d $(DESTDIR)$(SBIN) $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8
	ln -sfn $(PREFIX)/bin/lockfs $(DESTDIR)$(SBIN)/mount.lockfs
	install -m 644 build/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 build/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8

.PHONY: clean
clean: ## remove what make makes
	rm -rf build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14
