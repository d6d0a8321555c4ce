// Command mount serves blocks from a source of its own through the dagstore.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net/url"
	"os"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
)

// memory is an archive in memory.
type memory struct{ *bytes.Reader }

func (m memory) Size() (int64, error)                          { return m.Reader.Size(), nil }
func (m memory) Close() error                                  { return nil }
func (m memory) Open(context.Context) (dagstore.Reader, error) { return m, nil }

func main() {
	ctx := context.Background()
	block := []byte("the block that was mounted\n")
	c := must(cid.NewPrefixV1(cid.Raw, 0x12).Sum(block))
	section := append(c.Bytes(), block...)
	archive := append(append(must(carstore.V1Header(c)), byte(len(section))), section...)
	s := must(dagstore.OpenConfig(ctx, dagstore.Config{Dir: must(os.MkdirTemp("", "mount")), Mounts: map[string]dagstore.Scheme{
		"memory": func(*url.URL) (dagstore.Mount, error) { return memory{bytes.NewReader(archive)}, nil },
	}}))
	shard := must(s.Register(ctx, dagstore.Source{Mount: "memory://it"}))
	a := must(s.Acquire(ctx, shard.Piece))
	fmt.Print(string(must(a.Get(c))))
	must(0, a.Close(), s.Close())
}

func must[T any](v T, errs ...error) T {
	for _, err := range errs {
		if err != nil {
			log.Fatal(err)
		}
	}
	return v
}
