.PHONY: build test race lint bench demo soak planted release interop-x402
build:
	CGO_ENABLED=0 go build -p 2 -o bin/cartage ./cmd/cartage
test:
	go test ./...
race:
	go test -race -p 2 ./...
lint: ## golangci-lint of the version in tools/go.mod
	go tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners --timeout 20m
bench:
	go run -C bench .
	go run -C bench . -set file
	go run -C bench . -set conditions -mib 128
	go run -C bench . -set many -mib 1000
	go run -C bench . -set crowd -mib 48
	go test -run '^$$' -bench . -benchmem ./commp ./paych/... ./datatransfer/...
demo:
	go run ./cmd/cartage demo
soak:
	go test -timeout 24h ./internal/sim -sim.seeds=200000
	go test -count=20 -run 'TestPaidRetrieval|TestPullSequences' ./internal/testnet ./datatransfer/impl
	CARTAGE_ATTACKS=full go test -timeout 90m -run TestAttacks -v ./internal/testnet
	CARTAGE_KILL_ROUNDS=300 go test -timeout 90m -run TestKillRounds -v ./cmd/cartage
	CARTAGE_FLIPS=1000 go test -timeout 60m -run TestFlips -v ./internal/node
	CARTAGE_KILLS=1000 go test -timeout 30m -run Scenario48 ./paych/ledger
	go test -timeout 30m -run TestModel ./paych/ledger -rapid.checks=10000
	CARTAGE_SOAK=10000 go test -C interop -timeout 60m -run TestFreeDeals .
interop-x402: ## Node, and Chromium for browsers
	interop/x402/run
planted:
	go run ./internal/sim/planted
release: ## what a version is published as, into dist/: make release VERSION=v0.2.0
	go run -C tools/release . -version "$(VERSION)" -out "$(CURDIR)/dist"
