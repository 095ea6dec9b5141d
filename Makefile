# Gantry. `make` alone lists what can be made.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TOOL := go tool -modfile=tools.mod
# ARGS is passed on: make run ARGS='--max-size 10GiB', make bench ARGS='-size 4GiB'.
ARGS ?=
# The end-to-end tests that say nothing of what is below: they run on every set-up. The others have their own.
ON_SERVERS := ^Test(Kill|TwoProcesses|Transfer.*|OneProcess.*)$$

# Those with stores of their own have databases enough on one of them.
STORES := ^Test(Stores|StoreAway|StoresMigrate|DirectUpload)$$

# store/rados needs librados and cgo. The second tag names the oldest Ceph whose librados will do.
CEPH := -tags ceph,pacific

.PHONY: help build build-ceph run test unit e2e e2e-cluster e2e-stores check fmt lint layers web web-check e2e-browser bench bench-many bench-stores bench-browser demo fuzz vuln clean soak docker-check image services services-down

help: ## list the targets
	@awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/gantry
	go build -trimpath -o bin/gantry ./cmd/gantry

build-ceph: ## build bin/gantry with stores in Ceph's RADOS (needs librados-dev and a C compiler)
	go build -trimpath $(CEPH) -o bin/gantry ./cmd/gantry

run: build ## start a server on http://127.0.0.1:8080 with its data in ./data
	./bin/gantry serve --listen 127.0.0.1:8080 --data ./data $(ARGS)

test: ## all tests, with real servers: with the race detector, then the real binary, killed and in a cluster
	scripts/test.sh $(MAKE) unit web-check e2e docker-check

unit: ## the tests of all packages, with the race detector
	go test -race -timeout 40m $$(go list ./... | grep -v '/e2e$$')
	scripts/with-librados.sh go test -race $(CEPH) ./store/rados

web: ## build web/dist, the page and the uploader, of their sources (needs npm)
	web/build.sh

web-check: ## what is in TypeScript: types, tests, and that web/dist is what the sources give
	scripts/web-check.sh

e2e: ## the tests of the real binary, among them 200 times kill -9, on each set-up
	go test -timeout 25m ./e2e $(ARGS)
	go test -timeout 15m ./e2e -run '$(ON_SERVERS)' -setup mariadb $(ARGS)
	go test -timeout 15m ./e2e -skip '^TestChaos$$|$(STORES)' -setup postgres $(ARGS)

e2e-cluster: ## three nodes and all that may befall them; the last line counts
	@scripts/e2e-cluster.sh $(ARGS)

e2e-stores: ## stores of each kind, with large files and killed processes; the last line counts
	@scripts/e2e-stores.sh $(ARGS)

e2e-browser: ## the page in Debian's Chromium, through a network that breaks: ARGS=-full (see e2e/browser/README.md)
	@scripts/e2e-browser.sh $(ARGS)

soak: ## an hour of random harm to a cluster of three nodes: ARGS='-for 10m -seed 7'
	go test ./e2e -count=1 -timeout 0 -run '^TestChaos$$' -v -for 1h $(ARGS)

docker-check: ## docker/ without a container engine: schemas, and the compose file's services as processes
	scripts/docker-check.sh $(ARGS)

image: ## the container image, with a Docker engine
	docker build -f docker/Dockerfile -t gantry .

services: ## start the real servers for tests and print where they are: eval "$(make -s services)"
	@scripts/services up

services-down: ## stop them and remove what they have
	@scripts/services down

check: ## formatting, linters, layers, dead code, modules: everything that needs no running
	scripts/check.sh

fmt: ## format all Go files
	$(TOOL) golangci-lint fmt ./...

lint: ## the linters of .golangci.yml
	$(TOOL) golangci-lint run ./...

layers: ## who may import whom, and the other rules of the house
	go test -count=1 ./internal/lint

bench: ## compare with tusd and nginx on this machine: ARGS='-size 4GiB -rounds 5' (see bench/README.md)
	scripts/bench.sh $(ARGS)

bench-many: ## several nodes, and what databases and Redis cost: ARGS='-blobs 10000000' (see bench/README.md)
	scripts/bench.sh -many -dirs /dev/shm $(ARGS)

bench-stores: ## transfers to Ceph and S3, beside rclone, s3cmd, rados and minio-go: ARGS='-size 2GiB' (see bench/README.md)
	scripts/bench.sh -stores -dirs /dev/shm $(ARGS)

bench-browser: ## the uploader in Chromium, beside Uppy with tusd: ARGS='-size 4GiB -rounds 9'
	@scripts/bench-browser.sh $(ARGS)

demo: ## the main job in a minute: upload, kill both ends, go on, compare, instant upload
	scripts/demo.sh

fuzz: ## run every fuzz test for FUZZTIME each (default 30s)
	scripts/fuzz.sh

vuln: ## known vulnerabilities in dependencies (needs the Go vulnerability database)
	$(TOOL) govulncheck ./...

clean: ## remove what was built (not ./data)
	rm -rf bin
