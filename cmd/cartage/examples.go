package main

import (
	"maps"
	"strings"

	"github.com/spf13/cobra"
)

// What the examples name.
const (
	exampleCID     = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
	examplePiece   = "baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq"
	exampleAddress = "f147vhnqqqggrsapb2bqn4ghtynbyi6qycyzrwhia"
	exampleChannel = "f27zkx2ghkkutxume2trgdul7cybtrwwc3uswcguq"
	examplePeer    = "/ip4/203.0.113.7/tcp/7110/p2p/12D3KooWKF57VgriLWrwBwrCbqwiaT4cURundp1NyNpAYDF8iz4S"
)

// examples are the calls that the help of a verb shows, by the verb; verbs that are not here say theirs where they are made.
func examples() map[string][]string {
	all := dataExamples()
	maps.Copy(all, operatorExamples())
	return all
}

// dataExamples are those of the verbs that buy, sell and store.
func dataExamples() map[string][]string {
	return map[string][]string{
		"ask":                       {"ask show"},
		"ask show":                  {"ask show"},
		"ask set":                   {"ask set --price-per-byte 2", "ask set --price-per-gib 1073741824 --payment-interval 1MiB"},
		"cat":                       {"cat " + exampleCID + "/readme.txt --provider " + examplePeer + " --budget 1000nanoFIL", "cat " + exampleCID + " --range 0:1023 --provider " + examplePeer},
		"commp":                     {"commp piece.car", "commp --expect " + examplePiece + " piece.car"},
		"dagstore":                  {"dagstore list-shards"},
		"dagstore destroy-shard":    {"dagstore destroy-shard " + examplePiece},
		"dagstore doctor":           {"dagstore doctor"},
		"dagstore gc":               {"dagstore gc"},
		"dagstore import-pieces":    {"dagstore import-pieces /mnt/pieces"},
		"dagstore initialize-all":   {"dagstore initialize-all --concurrency 2"},
		"dagstore initialize-shard": {"dagstore initialize-shard " + examplePiece},
		"dagstore list-shards":      {"dagstore list-shards", "dagstore list-shards --state Errored"},
		"dagstore lookup-pieces":    {"dagstore lookup-pieces " + exampleCID},
		"dagstore recover-shard":    {"dagstore recover-shard " + examplePiece},
		"dagstore register-shard":   {"dagstore register-shard " + examplePiece + " /mnt/pieces/a.car"},
		"deal":                      {"deal " + exampleCID + " f01000 0.0000000005FIL 518400"},
		"deal list":                 {"deal list"},
		"deal resume":               {"deal resume bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"},
		"deal status":               {"deal status bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy --miner f01000"},
		"deals show":                {"deals show o17", "deals show c1796048157011474052"},
		"demo":                      {"demo", "demo --size 16MiB --json"},
		"drop":                      {"drop 3"},
		"find":                      {"find " + exampleCID + " --provider " + examplePeer, "find " + exampleCID + " --piece " + examplePiece + " --provider " + examplePeer},
		"generate-car":              {"generate-car movie.mp4 movie.car"},
		"import":                    {"import movie.mp4", "import --car archive.car"},
		"local":                     {"local"},
		"ls":                        {"ls " + exampleCID, "ls " + exampleCID + "/docs --provider " + examplePeer},
		"provide":                   {"provide movie.mp4", "provide set.car --partial"},
		"query-ask":                 {"query-ask f01000"},
		"repoint":                   {"repoint 3 /mnt/movies/movie.mp4"},
		"retrieve":                  {"retrieve " + exampleCID + " -o movie.mp4 --provider " + examplePeer + " --budget 0.1FIL", "retrieve " + exampleCID + "/docs -o docs --provider " + examplePeer, "retrieve " + exampleCID + " --piece " + examplePiece + " --price 0.01FIL/GiB --pay-to " + exampleAddress + " -o movie.mp4 --provider " + examplePeer + " --budget 0.1FIL"},
		"stat":                      {"stat " + exampleCID},
		"storage":                   {"storage deals"},
		"storage ask":               {"storage ask"},
		"storage deals":             {"storage deals"},
		"storage import-data":       {"storage import-data bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy piece.car"},
		"storage set-ask":           {"storage set-ask"},
	}
}

// operatorExamples are those of the verbs of who runs a node.
func operatorExamples() map[string][]string {
	return map[string][]string{
		"":                  {"init --yes", "get " + exampleCID + "/movie.mp4 -o movie.mp4 --budget 0.1FIL --provider " + examplePeer, "daemon --provide"},
		"config":            {"config show"},
		"daemon":            {"daemon", "daemon --provide --listen /ip4/0.0.0.0/tcp/7110 --listen /ip4/0.0.0.0/udp/7110/quic-v1"},
		"earnings":          {"earnings"},
		"earnings deals":    {"earnings deals"},
		"faucet":            {"faucet"},
		"gateway":           {"gateway check http://127.0.0.1:8080"},
		"gateway earnings":  {"gateway earnings"},
		"gateway redeem":    {"gateway redeem"},
		"gateway check":     {"gateway check http://127.0.0.1:8080", "gateway check http://127.0.0.1:8080 " + exampleCID},
		"info":              {"info"},
		"init":              {"init --yes", "init --yes --ledger http://127.0.0.1:4000 --ledger-token-file ledger/token"},
		"ledger":            {"--home ledger ledger init --dev", "--home ledger ledger serve"},
		"ledger info":       {"--home ledger ledger info"},
		"ledger init":       {"--home ledger ledger init --dev"},
		"ledger mint":       {"--home ledger ledger mint " + exampleAddress + " 5FIL"},
		"ledger repair":     {"--home ledger ledger repair --from-log"},
		"ledger serve":      {"--home ledger ledger serve"},
		"ledger verify":     {"--home ledger ledger verify"},
		"limits":            {"limits", "limits --json"},
		"log":               {"log level debug"},
		"paych":             {"paych list"},
		"paych collect":     {"paych collect " + exampleChannel + " --dry-run", "paych collect " + exampleChannel},
		"paych list":        {"paych list"},
		"paych redeem":      {"paych redeem " + exampleChannel + " --dry-run", "paych redeem " + exampleChannel},
		"paych restored":    {"paych restored"},
		"paych settle":      {"paych settle " + exampleChannel + " --dry-run", "paych settle " + exampleChannel},
		"paych show":        {"paych show " + exampleChannel},
		"paych vouchers":    {"paych vouchers " + exampleChannel},
		"peers":             {"peers debts"},
		"peers debts":       {"peers debts"},
		"spend":             {"spend"},
		"token":             {"token list"},
		"wallet":            {"wallet balance"},
		"wallet balance":    {"wallet balance"},
		"wallet default":    {"wallet default " + exampleAddress},
		"wallet export":     {"wallet export " + exampleAddress},
		"wallet import":     {"wallet import key.json"},
		"wallet list":       {"wallet list"},
		"wallet new":        {"wallet new"},
		"wallet passphrase": {"--wallet-passphrase-file secret wallet passphrase"},
		"wallet remove":     {"wallet remove " + exampleAddress},
	}
}

// exitCodes is what the help of every verb ends with. A verb that has codes of its own says them before.
const exitCodes = `Exit codes:
  0 done    1 it failed    2 called or configured wrongly    3 not reachable
  4 not authorised    5 not found    6 price or funds    7 refused
  8 what was checked is wrong    9 timed out    130 interrupted
`

// completeHelp gives every verb its examples, and the help the exit codes.
func completeHelp(root *cobra.Command) {
	all := examples()
	eachCommand(root, func(cmd *cobra.Command) {
		_, verb, _ := strings.Cut(cmd.CommandPath(), " ")
		if cmd.Example == "" {
			for _, e := range all[verb] {
				cmd.Example += "  " + root.Name() + " " + e + "\n"
			}
			cmd.Example = strings.TrimSuffix(cmd.Example, "\n")
		}
	})
	root.SetUsageTemplate(root.UsageTemplate() + "\n" + exitCodes)
}

// eachCommand calls f for a command and all below it.
func eachCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, f)
	}
}
