// Package config is the configuration of a home: a TOML file with comments, and the folders beside it.
package config

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/adrg/xdg"
)

// Config is what config.toml holds. A zero value of a limit means its default.
type Config struct {
	Network   Network   `toml:"network" comment:"Where this node listens."`
	API       API       `toml:"api" comment:"What holders of tokens may do here."`
	Ledger    Ledger    `toml:"ledger" comment:"The ledger that payment channels live on. Without one only free deals are possible."`
	Lotus     Lotus     `toml:"lotus" comment:"A Filecoin chain, instead of a ledger."`
	Retrieval Retrieval `toml:"retrieval" comment:"How this node retrieves."`
	Transfer  Transfer  `toml:"transfer" comment:"How transfers are kept alive."`
	DAGStore  DAGStore  `toml:"DAGStore" comment:"How pieces are kept readable."`
	Credit    Credit    `toml:"credit" comment:"What a provider sends before it is paid, and to whom. All figures may be 0: then only what is paid in advance leaves."`
	Gateway   Gateway   `toml:"gateway" comment:"Serving pieces over HTTP."`
	X402      X402      `toml:"x402" comment:"Selling over HTTP for a token of an EVM chain, to any client of x402."`
	Client    Client    `toml:"Client" comment:"The IPFS node of this node."`
	// Limits are what others may cost this node, by the names of internal/limits.
	Limits  map[string]any `toml:"limits,omitempty" comment:"What others may cost this node; cartage limits lists the keys, for example deals_peer = 64 or memory_node = \"256MiB\"."`
	Log     Log            `toml:"log" comment:"What the daemon says on stderr."`
	Storage Storage        `toml:"storage" comment:"Storage deals: proposing them, and taking them."`
}

// Network says where the node listens.
type Network struct {
	Listen []string `toml:"listen" comment:"libp2p multiaddresses: /ip4/0.0.0.0/tcp/7110, with /ws behind it for WebSocket, or /ip4/0.0.0.0/udp/7110/quic-v1"`
	API    string   `toml:"api" comment:"address of the JSON-RPC server; loopback only; with port 0 another one at each start"`
	Ops    string   `toml:"ops" comment:"address of /healthz, /readyz and /metrics, without a token, for example 127.0.0.1:7112; empty: none"`
	PProf  string   `toml:"pprof" comment:"address of the profiler of Go, loopback only; empty: none"`
}

// Log says what a daemon logs.
type Log struct {
	Level  string `toml:"level" hot:"yes" choices:"debug info warn error" comment:"debug, info, warn or error: what is less is not logged"`
	Format string `toml:"format" choices:"text json" comment:"text, or json: an object a line"`
}

// API says what holders of tokens may do.
type API struct {
	Paths []string `toml:"paths" comment:"folders below which tokens without admin may name files of this machine; empty: none"`
}

// Ledger says how to reach the ledger.
type Ledger struct {
	URL       string `toml:"url" comment:"for example http://127.0.0.1:4000, https://host:4000 or unix:///path; empty: no ledger"`
	TokenFile string `toml:"token_file" comment:"file with the bearer token of the ledger"`
	CertFile  string `toml:"cert_file" comment:"file with the certificate of the ledger, if its URL begins with https://"`
	// Watch is how often payment channels are looked after; 0: as the settle window of the chain wants it.
	Watch Auto `toml:"watch" comment:"how often channels are looked at: settling ones are redeemed, settled ones collected; auto: a twentieth of the settle window, 1s to 30s; never more than a quarter of it"`
	// MinSettleWindow is the shortest settle window of a chain on which vouchers are taken.
	MinSettleWindow Auto `toml:"min_settle_window" comment:"vouchers are taken only on a chain that gives at least so much time between settle and collect; auto: 1h, 10s on a development ledger"`
}

// Lotus says how to reach the node of a Filecoin chain.
type Lotus struct {
	API       string `toml:"api" comment:"for example http://127.0.0.1:1234/rpc/v1; empty: no Filecoin chain"`
	TokenFile string `toml:"token_file" comment:"file with a token that may sign; its wallet must hold the keys of this node's wallet"`
}

// Retrieval has the limits of a client.
type Retrieval struct {
	CacheBytes    int64 `toml:"cache_bytes" unit:"bytes" hot:"yes" comment:"how much retrieved data is kept for a next time (least recently used goes first)"`
	QueueParallel int   `toml:"queue_parallel" min:"1" max:"1024" comment:"how many retrievals of the queue run at a time"`
	MaxExposure   int64 `toml:"max_exposure" unit:"bytes" comment:"how many bytes may be paid for at once: the largest payment interval that is proposed"`
	// Into is where retrievals go that do not say.
	Into string `toml:"into" hot:"yes" choices:"car store" comment:"car: a file for each payload; store: the blocks of all payloads together, which stay"`
}

// Transfer has the restart policy.
type Transfer struct {
	RestartDebounce    Duration `toml:"restart_debounce" comment:"quiet time after a broken connection before the transfer is restarted"`
	MaxRestarts        uint32   `toml:"max_restarts" comment:"restarts without any data before a transfer is given up"`
	AcceptTimeout      Duration `toml:"accept_timeout" comment:"how long a provider may take to accept a deal"`
	IdleTimeout        Duration `toml:"idle_timeout" comment:"how long a deal may stand still"`
	PaymentWaitTimeout Duration `toml:"payment_wait_timeout" comment:"how long a provider waits for a payment"`
}

// DAGStore has the limits of the store of pieces, by the names that operators know. Zeros are the defaults.
type DAGStore struct {
	RootDir                   string   `comment:"root directory; empty: dagstore in the home"`
	MaxConcurrentIndex        int      `comment:"how many pieces are read for their index at once"`
	MaxConcurrentReadyFetches int      `comment:"how many pieces are copied at once that cannot be read at random"`
	TransientQuota            int64    `unit:"bytes" comment:"bytes that such copies may take"`
	ReaderIdle                Duration `comment:"how long the file of a piece stays open after its last reader"`
	RecoverAttempts           int      `min:"-1" comment:"how often a failed piece is read again because somebody wants it; -1 is never"`
}

// Client says where an IPFS node is, by the names that operators know.
type Client struct {
	IpfsMAddr string `comment:"its RPC API, for example /ip4/127.0.0.1/tcp/5001: data of storage deals that was not imported is read from it; empty: none"`
}

// Storage says how storage deals are proposed and taken.
type Storage struct {
	ChainView string   `toml:"chain_view" comment:"JSON file with what has to be known of a chain: head, providers, accounts; empty: no storage deals"`
	Miner     string   `toml:"miner" comment:"address of this provider on that chain, for example f01000; empty: no deals are taken"`
	Filter    []string `toml:"filter" comment:"command that decides about each deal: JSON on its input, exit code 0 accepts, else its output is the reason"`
	SkipRules []string `toml:"skip_rules" comment:"rules of taking deals that do not apply here, by name"`
	// The data of online deals.
	StagingQuota int64    `toml:"staging_quota" unit:"bytes" comment:"bytes that the arriving data of online deals may take; 0: 256 GiB"`
	StagingIdle  Duration `toml:"staging_idle" comment:"how long the transfer of such data may bring nothing"`
}

// Duration is a time.Duration as text.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Auto is a Duration of which 0, as text "auto", means that the node decides.
type Auto time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Auto) MarshalText() ([]byte, error) {
	if d == 0 {
		return []byte("auto"), nil
	}
	return Duration(d).MarshalText()
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Auto) UnmarshalText(b []byte) error {
	if string(b) == "auto" {
		*d = 0
		return nil
	}
	return (*Duration)(d).UnmarshalText(b)
}

// Default is the configuration of a new home.
func Default() Config {
	return Config{
		Log:     Log{Level: "info", Format: "text"},
		Network: Network{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, API: "127.0.0.1:0"},
		DAGStore: DAGStore{MaxConcurrentIndex: 5, MaxConcurrentReadyFetches: 5, TransientQuota: 32 << 30,
			ReaderIdle: Duration(30 * time.Second), RecoverAttempts: 1},
		Storage:   Storage{StagingQuota: 256 << 30, StagingIdle: Duration(30 * time.Minute)},
		Retrieval: Retrieval{CacheBytes: 10 << 30, MaxExposure: 8 << 20, Into: "car", QueueParallel: 4},
		Credit:    defaultCredit(),
		Gateway:   defaultGateway(),
		X402:      defaultX402(),
		Transfer: Transfer{
			RestartDebounce: Duration(200 * time.Millisecond), MaxRestarts: 12, AcceptTimeout: Duration(10 * time.Minute),
			IdleTimeout: Duration(time.Hour), PaymentWaitTimeout: Duration(time.Hour),
		},
	}
}

// Home is a folder with everything of a node.
type Home struct{ Dir string }

// Find returns the home to use: the flag, else $CARTAGE_HOME, else the XDG data folder.
func Find(flag string) (Home, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv("CARTAGE_HOME")
	}
	if dir == "" {
		dir = filepath.Join(xdg.DataHome, "cartage")
	}
	abs, err := filepath.Abs(dir)
	return Home{abs}, err
}

// Path is a path inside the home.
func (h Home) Path(parts ...string) string {
	return filepath.Join(append([]string{h.Dir}, parts...)...)
}

// ErrNoHome means that the home was not initialised.
var ErrNoHome = errors.New("no home here")
