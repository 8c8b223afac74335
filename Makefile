# Everything a person types here. `make demo` and `make test` get what they need
# by themselves; the rest is for those who work on the code.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# NVML's functions are looked up where they are called. A compiler that has programs look
# all of them up when they start (Ubuntu's) would make an agent that starts nowhere but on a
# machine whose driver has them all.
LAZY := -extldflags=-Wl,-z,lazy
LDFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=v1.37.2-ainode.$(VERSION)
GO ?= go
BUILD := .build

CONTROLLER_GEN := $(GO) run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0
GOLANGCI_LINT_VERSION := v2.15.0
KREW_VERSION := v0.5.0

# go-nvml's header marks half of NVML's own functions as deprecated.
export CGO_CFLAGS := -g -O2 -Wno-deprecated-declarations
export GOFLAGS := $(GOFLAGS) -ldflags=$(LAZY)

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: needs ## the whole story on this machine: cluster, AI node, pods; leaves it running (needs root)
	@$(GO) run ./e2e/cmd/story up --dir .demo

.PHONY: demo-down
demo-down: ## unbinds the demo's node, deletes its config and takes everything away
	@$(GO) run ./e2e/cmd/story down --dir .demo

.PHONY: build
build: ## the programs, into .build/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ ./plugin/cmd/kubectl-ainode ./webhook/cmd/ainode-webhook ./nodeagent/cmd/nvidia-smi-simulated
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS) $(LAZY)' -o $(BUILD)/ ./nodeagent/cmd/ainode-agent

.PHONY: generate
generate: ## deep copies, CRDs and SUPPORT.md from the code
	$(CONTROLLER_GEN) object paths=./api/v1alpha1/... crd paths=./api/v1alpha1/... output:crd:dir=charts/ainode/files/crds
	$(GO) test ./api/contract -run Support -update

.PHONY: verify
verify: needs lint ## what is generated is current; vet, lint, the rules of the house, the krew manifest
	@before=$$(git status --porcelain; git diff | sha256sum); $(MAKE) --no-print-directory generate; \
	after=$$(git status --porcelain; git diff | sha256sum); \
	if [ "$$before" != "$$after" ]; then echo "generated files were not current: commit what 'make generate' wrote"; git status --short; exit 1; fi
	$(GO) vet -tags gpu,long ./... # no file has the opposite of a tag: these are all
	cd e2e/devcluster && $(GO) vet . ./internal/...
	@if [ -n "$$(gofmt -l $$(git ls-files '*.go'))" ]; then echo "not gofmt'ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; fi
	$(GO) test ./e2e/house/...
	$(MAKE) --no-print-directory krew
	for os in linux darwin windows; do GOOS=$$os CGO_ENABLED=0 $(GO) build -o /dev/null ./plugin/cmd/kubectl-ainode || exit 1; done

# A module of its own: the check is krew's, and its dependencies are none of ours.
.PHONY: krew
krew: $(BUILD)/validate-krew-manifest-$(KREW_VERSION) ## krew's own check of krew.yaml, the offline half
	cp krew.yaml $(BUILD)/ainode.yaml && $< -manifest $(BUILD)/ainode.yaml -skip-install

$(BUILD)/validate-krew-manifest-$(KREW_VERSION):
	@mkdir -p $(BUILD)/krew && cd $(BUILD)/krew && rm -f go.mod go.sum && \
	$(GO) mod init krew-check && $(GO) get sigs.k8s.io/krew/cmd/validate-krew-manifest@$(KREW_VERSION) && \
	$(GO) build -o $(abspath $@) sigs.k8s.io/krew/cmd/validate-krew-manifest

.PHONY: lint
lint: $(BUILD)/golangci-lint-$(GOLANGCI_LINT_VERSION)
	$< run ./...

$(BUILD)/golangci-lint-$(GOLANGCI_LINT_VERSION):
	@mkdir -p $(BUILD) && echo "building golangci-lint $(GOLANGCI_LINT_VERSION) (a few minutes, once)"
	@GOBIN=$(abspath $(BUILD)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv $(BUILD)/golangci-lint $@

# What failed is said once more as the last thing: which test, or which one never ended,
# scrolls away above the others' lines and the goroutines of a hang.
TEST_LOG := $(BUILD)/test.log
TOLD = 2>&1 | tee $(TEST_LOG) || { echo; echo "What failed (all of it is in $(TEST_LOG)):"; \
	grep -E '^ *--- FAIL|^FAIL|^panic: |^[[:space:]]+Test[^ ]+ \([0-9hms.]+\)$$|\[build failed\]' $(TEST_LOG); exit 1; }

# The story, admission and binding bring up clusters: they need root and take minutes;
# everything else runs before them, so that a small mistake is told soon. A test's
# time includes the first build of containerd, on whatever the machine has free.
.PHONY: test
test: needs unit ## units, the rules of the house; story, admission and binding on real parts: all but long, gpu and the yardstick (needs root)
	cd e2e/devcluster && $(GO) test ./internal/...
	$(GO) test -v -count=1 -timeout 35m ./e2e/story $(TOLD)
	$(GO) test -v -count=1 -timeout 35m ./e2e/admission $(TOLD)
	$(GO) test -v -count=1 -timeout 35m ./e2e/binding $(TOLD)

.PHONY: unit
unit: needs ## the tests that need no cluster (needs root: some mount, and start containerd)
	@mkdir -p $(BUILD)
	$(GO) test -timeout 15m $$($(GO) list ./... | grep -vE '/e2e/(story|admission|binding)$$') $(TOLD)

# Not part of test: it waits for an hour, and does nothing meanwhile.
.PHONY: test-long
test-long: needs ## what takes longer than make test may: metrics-server and an autoscaler, an older Kubernetes, an hour of idle streams and of no API (needs root, 90 minutes)
	$(GO) test -v -count=1 -tags long -timeout 30m ./e2e/metrics
	$(GO) test -v -count=1 -tags long -timeout 1h ./e2e/older
	$(GO) test -v -count=1 -tags long -timeout 2h -run 'ForAnHour$$' ./nodeagent/internal/pods

# Not part of test: it takes a card. Without NVIDIA's driver it says so, passes nothing
# off for a pass, and fails nothing; with one it is strict.
.PHONY: test-gpu
test-gpu: ## real NVIDIA cards: found, measured and followed as nvidia-smi has it, and a CUDA program in a pod (needs root and a card)
	@if ! command -v nvidia-smi >/dev/null && [ ! -e /dev/nvidiactl ]; then \
	  echo "test-gpu: no NVIDIA driver on this machine (neither nvidia-smi nor /dev/nvidiactl): nothing was measured"; exit 0; fi; \
	$(MAKE) --no-print-directory needs; date -u; nvidia-smi; \
	$(GO) test -v -count=1 -tags gpu -timeout 20m -run '^TestReal' ./nodeagent/internal/gpu ./nodeagent/internal/pods

# Not part of test and verify: three runs of the suite take the better part of an hour,
# and its first build a quarter of one.
.PHONY: conformance
conformance: PACKAGES += curl:curl nc:netcat-openbsd
conformance: needs ## Kubernetes' own node tests on a kubelet and on an AI node, into docs/conformance.md (needs root, an hour)
	@$(GO) run ./e2e/cmd/conformance --dir $(BUILD)/conformance

.PHONY: bench-admission
bench-admission: ## the webhook against the least a webhook can do and against the habit (2½ minutes)
	@$(GO) test ./webhook/internal/admission -run '^$$' -bench '^BenchmarkAdmission$$' -benchtime 1x

.PHONY: bench-storage
bench-storage: needs ## a bucket read through a pod's mount and by the same FUSE client by hand (needs root, 2 minutes)
	@$(GO) test ./nodeagent/internal/pods -run '^$$' -bench '^BenchmarkStorage$$' -benchtime 1x

FUZZTIME ?= 1m
.PHONY: fuzz
fuzz: ## every fuzz target, a minute each (FUZZTIME=10m for longer)
	@for t in FuzzDecode FuzzEvaluate FuzzStrip FuzzPatch; do $(GO) test ./api/contract -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) || exit 1; done
	@$(GO) test ./webhook/internal/admission -run '^$$' -fuzz '^FuzzReview$$' -fuzztime $(FUZZTIME)
	@$(GO) test ./plugin/internal/check -run '^$$' -fuzz '^FuzzAnyFile$$' -fuzztime $(FUZZTIME)

# A bare machine: the Go toolchain is asked for, the distribution's packages are
# installed where they are missing.
PACKAGES := gcc:gcc runc:runc iptables:iptables ip:iproute2 busybox:busybox-static bash-static:bash-static git:git s3fs:s3fs mkfs.ext4:e2fsprogs
.PHONY: needs
needs:
	@command -v $(GO) >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl (a Go from 1.21 on fetches it by itself)"; exit 1; }
	@missing=; for p in $(PACKAGES); do command -v $${p%%:*} >/dev/null || missing="$$missing $${p##*:}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then echo "missing packages:$$missing. As root: apt-get install -y$$missing"; exit 1; fi; \
	  echo "installing$$missing"; \
	  DEBIAN_FRONTEND=noninteractive apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends$$missing >/dev/null; \
	fi

.PHONY: clean
clean: ## what was built here (run demo-down first)
	rm -rf $(BUILD) .demo dist
