# make help lists what there is.

SHELL       := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 60s
LINTER   := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
NPM_CI   := npm ci --omit=dev --no-fund --no-audit --loglevel=error

CLIENT := web-demo/page/lib/socket.io.min.js

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | while IFS=$$'\t' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

## Running

.PHONY: demo
demo: $(CLIENT) ## try it: the server and its demo page on http://127.0.0.1:3000/demo/
	trap 'exit 0' INT; $(GO) run -ldflags '-X main.version=$(VERSION)' . --dev

.PHONY: build
build: $(CLIENT) ## the binary, with the demo page inside: bin/jobwire
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/jobwire .

# The page's client script is an npm dependency; the binary embeds it from here.
$(CLIENT): web-demo/package-lock.json
	cd web-demo && $(NPM_CI)
	cp web-demo/node_modules/socket.io-client/dist/socket.io.min.js $@

## Testing

.PHONY: test
test: setup check test-go test-bench test-e2e ## everything; installs what it needs, names what it cannot

.PHONY: setup
setup:
	@test/e2e/setup.sh

.PHONY: check
check: ## gofmt and go vet
	@# Without names gofmt would wait for a program on its standard input.
	@files=$$(git ls-files -co --exclude-standard '*.go'); \
	if [ -z "$$files" ]; then echo "git lists no Go files here"; exit 1; fi; \
	unformatted=$$(gofmt -l $$files); \
	if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...

.PHONY: test-go
test-go: setup
	$(GO) test -race -timeout 20m -json $$($(GO) list ./... | grep -v /internal/store/) | node test/e2e/tally.mjs
	$(GO) test -race -short -timeout 20m -json ./internal/store/... | node test/e2e/tally.mjs
	@# Under the race detector the engine sends in another way: see internal/engine/send_linux.go.
	$(GO) test -timeout 5m -json ./internal/engine ./internal/realtime | node test/e2e/tally.mjs

.PHONY: test-bench
test-bench: setup
	cd test/bench && $(GO) vet ./... && $(GO) test -race -timeout 5m -json ./... | node ../e2e/tally.mjs

.PHONY: test-e2e
test-e2e: setup bin/jobwire-race test/e2e/node_modules/.installed
	cd test/e2e && JOBWIRE_BIN=../../bin/jobwire-race node --test --test-reporter=spec --test-reporter-destination=stdout \
		--test-reporter=./tally-reporter.mjs --test-reporter-destination=stderr $(E2E)

# The binary under test carries the race detector: what it finds ends the
# process with another code than 0, which the tests do not accept.
.PHONY: bin/jobwire-race
bin/jobwire-race: $(CLIENT)
	$(GO) build -race -ldflags '-X main.version=$(VERSION)' -o $@ .

.PHONY: chaos
chaos: setup bin/jobwire-race test/e2e/node_modules/.installed ## the long form of the tests that cut, kill and reload
	cd test/e2e && CHAOS=long POWERCUTS=200 JOBWIRE_BIN=../../bin/jobwire-race node --test --test-reporter=spec --test-concurrency=1 chaos.test.mjs power-cut.test.mjs

test/e2e/node_modules/.installed: test/e2e/package-lock.json
	cd test/e2e && $(NPM_CI)
	touch $@

.PHONY: test-all
test-all: test store chaos hostile reconnects ## test and its long forms

.PHONY: store
store: ## the long form of the tests that damage the store's files and cut its power
	$(GO) test -race -count=1 -timeout 1h ./internal/store/...

.PHONY: reconnects
reconnects: setup build test/e2e/node_modules/.installed ## a tab that comes and goes 200,000 times while its user is posted to; half an hour
	@# Without the race detector, which make test has in it: it triples the time.
	cd test/e2e && RECONNECTS=200000 JOBWIRE_BIN=../../bin/jobwire node --test --test-reporter=spec --test-concurrency=1 reconnect.test.mjs

.PHONY: hostile
hostile: ## the long form of the tests that attack; HOSTILE_SOAK=1h for a longer churn
	HOSTILE=full $(GO) test -race -count=1 -timeout 2h -v ./test/hostile

.PHONY: lint
lint: ## golangci-lint
	$(GO) run $(LINTER) run ./...

.PHONY: fuzz
fuzz: ## every fuzz target, FUZZTIME each (60s)
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

.PHONY: bench
bench: ## side by side with other servers
	$(MAKE) -C test/bench

.PHONY: clean
clean: ## remove what was built and installed
	rm -rf bin $(CLIENT) web-demo/node_modules test/e2e/node_modules test/e2e/artifacts
