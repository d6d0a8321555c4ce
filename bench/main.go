// Bench moves the same DAGs between two processes in every way that there is, ours and other people's, in interleaved rounds, and
// writes medians with their spread and their ratio to the ceiling as a table, as JSON and as a plot.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

type options struct {
	size   int
	rounds int
	only   string
	out    string
	set    string
	prof   string
	again  bool
	rows   []row
	dags   []dag
}

func main() {
	var o options
	mib := flag.Int("mib", 256, "size of each DAG in MiB")
	flag.IntVar(&o.rounds, "rounds", 7, "interleaved rounds")
	flag.StringVar(&o.only, "only", "", "rows whose name contains this")
	flag.StringVar(&o.out, "out", "../docs/benchmarks", "folder of the table; empty: print only")
	flag.StringVar(&o.set, "set", "transports", "what is compared: transports, conditions (slow stores, slow links), file (into CARv2 files), many (a deal for each MiB, all at once) or crowd (many clients of one piece)")
	flag.StringVar(&o.prof, "profile", "", "folder for profiles of CPU and allocation of both ends of each transfer")
	flag.BoolVar(&o.again, "again", false, "make the table of the last run anew from its rounds")
	child := flag.String("child", "", "internal: serve or fetch")
	which := flag.Int("row", 0, "internal: which row")
	what := flag.Int("dag", 0, "internal: which DAG")
	flag.Parse()
	o.size, o.rows, o.dags = *mib<<20, rows, dags
	switch o.set {
	case "conditions":
		o.rows, o.dags = conditions, dags[:1]
	case "many":
		o.rows, o.dags = many, dags[:1]
	case "crowd":
		o.rows, o.dags = crowds, dags[:1]
	case "file":
		o.rows = files
	case "transports":
	default:
		fmt.Fprintf(os.Stderr, "no set is called %q\n", o.set)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch *child {
	case "serve":
		end := profile(o.prof, "serve")
		err = serve(ctx, o.rows[*which].of(o.dags[*what].size(o.size)), o.dags[*what], o.size)
		end()
	case "fetch":
		end := profile(o.prof, "fetch")
		err = fetch(ctx, o.rows[*which].of(o.dags[*what].size(o.size)))
		end()
	default:
		err = compare(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// sample is one transfer: what both ends used.
type sample struct {
	Row    string  `json:"row"`
	DAG    string  `json:"dag"`
	Round  int     `json:"round"`
	Bytes  uint64  `json:"bytes"`
	CPU    float64 `json:"cpu_seconds"`
	Wall   float64 `json:"wall_seconds"`
	Client uint64  `json:"client_peak_rss_bytes"`
	Idle   uint64  `json:"client_idle_rss_bytes"`
	Server uint64  `json:"server_peak_rss_bytes"`
	Rests  uint64  `json:"server_idle_rss_bytes"` // before the transfer
	Alloc  uint64  `json:"allocated_bytes"`
	Most   [2]int  `json:"goroutines"` // at most, of the client and the server
	Signed uint64  `json:"vouchers,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// compare runs all rows round by round.
func compare(ctx context.Context, o options) error {
	if o.again {
		return write(nil, o)
	}
	var all []sample
	for round := range o.rounds {
		for d := range o.dags {
			for r := range o.rows {
				if !strings.Contains(o.rows[r].name, o.only) && r > 0 || !o.rows[r].fits(o.dags[d], o.dags[d].size(o.size)) {
					continue
				}
				s, err := once(ctx, r, d, o)
				if err != nil {
					s.Error = err.Error()
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				s.Row, s.DAG, s.Round = o.rows[r].name, o.dags[d].name, round
				all = append(all, s)
				fmt.Fprintf(os.Stderr, "round %d of %d, %s, %s: %.2f CPU-s, %.2f s %s\n", round+1, o.rounds, s.DAG, s.Row, s.CPU, s.Wall, s.Error)
			}
		}
	}
	return write(all, o)
}

// write prints the table and keeps it with the rounds; without rounds, with those of the last run.
func write(all []sample, o options) error {
	rounds := filepath.Join(o.out, o.set+".json")
	if o.again {
		data, err := os.ReadFile(rounds)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, &all); err != nil {
			return err
		}
	}
	text := table(all, o)
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	data, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"README.md": []byte(text), "transports.json": data, "transports.svg": []byte(plot(all, o))}
	if o.set != "transports" {
		files = map[string][]byte{o.set + ".md": []byte(text), o.set + ".json": data}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(o.out, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// process is a child with its ends.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	tmp string // for its files
}

func start(ctx context.Context, kind string, r, d int, o options) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, "-child", kind, "-row", fmt.Sprint(r), "-dag", fmt.Sprint(d), "-mib", fmt.Sprint(o.size>>20), "-set", o.set, "-profile", o.prof)
	cmd.Stderr = os.Stderr
	tmp, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, in, json.NewDecoder(out), tmp}, cmd.Start()
}

func (p *process) end() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
	_ = os.RemoveAll(p.tmp)
}

// once is one transfer between two fresh processes.
func once(ctx context.Context, r, d int, o options) (s sample, err error) {
	server, err := start(ctx, "serve", r, d, o)
	if err != nil {
		return s, err
	}
	defer server.end()
	var from hello
	if err := server.out.Decode(&from); err != nil {
		return s, fmt.Errorf("server: %w", err)
	}
	client, err := start(ctx, "fetch", r, d, o)
	if err != nil {
		return s, err
	}
	defer client.end()
	if _, err := fmt.Fprintln(server.in, "begin"); err != nil {
		return s, err
	}
	if err := json.NewEncoder(client.in).Encode(from); err != nil {
		return s, err
	}
	var got, gave result
	if err := client.out.Decode(&got); err != nil {
		return s, fmt.Errorf("client: %w", err)
	}
	if _, err := fmt.Fprintln(server.in, "end"); err != nil {
		return s, err
	}
	if err := server.out.Decode(&gave); err != nil {
		return s, fmt.Errorf("server: %w", err)
	}
	return sample{Bytes: got.Bytes, CPU: got.CPU + gave.CPU, Wall: got.Wall, Client: got.RSS, Idle: got.Idle, Server: gave.RSS, Rests: gave.Idle, Alloc: got.Alloc + gave.Alloc, Most: [2]int{got.Goroutines, gave.Goroutines}, Signed: got.Signed, Error: got.Error}, nil
}
