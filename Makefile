# What each target does is in scripts/; this file only names them. `make` lists them.
.POSIX:
.PHONY: help build test lint check fuzz bench chaos soak

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

build: ## build the static binaries into this folder
	CGO_ENABLED=0 go build -trimpath -o . ./cmd/...

test: ## run all tests: with the race detector, then those that count allocations
	@scripts/test

lint: ## check the code without running it: gofumpt, vet, staticcheck, go.mod
	@scripts/lint

check: lint test ## all that a change must pass: lint and test

fuzz: ## fuzz each target for FUZZTIME (60s); FUZZDIR=policy fuzzes those in one folder
	@scripts/fuzz

chaos: ## run raw attacks and faults at full length, then a soak of SOAK (8m)
	@scripts/chaos

soak: ## run the tests of stores at full length, and with 100,000 registrations
	@scripts/soak

bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...
