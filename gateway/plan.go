package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/carstore"
)

// plan is a body that is known before its first byte: a header and sections. An open one has too many of them to be known.
type plan struct {
	tag       string // Etag, with its quotes
	header    []byte
	sections  []section
	ends      []uint64 // where each section ends in the body
	open      bool
	truncated bool // by the limit of blocks
	// generation of the denier that was asked.
	generation uint64
}

// size is the length of the body of a closed plan.
func (p *plan) size() uint64 {
	if len(p.ends) == 0 {
		return uint64(len(p.header))
	}
	return p.ends[len(p.ends)-1]
}

// at is the first section that is not wholly before an offset of the body.
func (p *plan) at(offset uint64) int {
	return sort.Search(len(p.ends), func(i int) bool { return p.ends[i] > offset })
}

// begin is where a section begins in the body.
func (p *plan) begin(i int) uint64 {
	if i == 0 {
		return uint64(len(p.header))
	}
	return p.ends[i-1]
}

// weight is about how many bytes of memory a plan takes.
func (p *plan) weight() int64 {
	n := int64(len(p.header) + 256)
	for _, s := range p.sections {
		n += int64(s.cid.ByteLen()) + 48
	}
	return n + 8*int64(len(p.ends))
}

// etag is the strong tag of a CAR: of everything that its body is a function of.
func (q request) etag() string {
	h := sha256.New()
	fmt.Fprintf(h, "%d\x00%s\x00%s\x00%s\x00", plannerVersion, q.root.KeyString(), strings.Join(q.path, "/"), q.scope)
	if q.bytes != nil {
		fmt.Fprintf(h, "%d:%d", q.bytes.First, q.bytes.Last)
	}
	fmt.Fprintf(h, "\x00%t\x00%d", q.dups, q.blockLimit)
	return `"` + string(q.scope) + "-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:16])) + `.car"`
}

// planner makes plans, and keeps them.
type planner struct {
	blocks Blocks
	deny   Denier
	limits *Limits
	cache  *planCache
}

// plan returns the plan of a request, from the cache or made by one of those who ask for it at the same time.
func (p *planner) plan(ctx context.Context, q request, pay func(int) error) (*plan, error) {
	tag := q.etag()
	for {
		pl, wait := p.cache.get(tag)
		switch {
		case pl != nil && pl.generation == p.generation():
			return pl, nil
		case pl != nil:
			p.cache.drop(tag)
			continue
		case wait == nil: // it is ours to make
			return p.fill(ctx, q, tag, pay)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fill makes a plan and puts it into the cache.
func (p *planner) fill(ctx context.Context, q request, tag string, pay func(int) error) (pl *plan, err error) {
	defer func() { p.cache.put(tag, pl) }() // also after a panic: others wait
	return p.make(ctx, q, pay)
}

func (p *planner) generation() uint64 {
	if p.deny == nil {
		return 0
	}
	return p.deny.Generation()
}

// make walks the index for a plan.
func (p *planner) make(ctx context.Context, q request, pay func(int) error) (*plan, error) {
	pl := &plan{tag: q.etag(), generation: p.generation()}
	var err error
	if pl.header, err = carstore.V1Header(q.root); err != nil {
		return nil, err
	}
	end := uint64(len(pl.header))
	w := p.walk(ctx, pay, bounds{inner: p.limits.PlanBytes, visits: 4 * p.limits.PlanBlocks, depth: p.limits.Depth, links: p.limits.Links})
	w.dups = q.dups
	w.emit = func(s section) error {
		if len(pl.sections) == p.limits.PlanBlocks {
			return errOpen
		}
		end += s.size()
		pl.sections, pl.ends = append(pl.sections, s), append(pl.ends, end)
		if q.blockLimit > 0 && uint64(len(pl.sections)) == q.blockLimit {
			return errEnough
		}
		return nil
	}
	switch err := w.run(q); {
	case errors.Is(err, errEnough):
		pl.truncated = true
	case errors.Is(err, errOpen):
		return &plan{tag: pl.tag, header: pl.header, open: true, generation: pl.generation}, nil
	case err != nil:
		return nil, err
	}
	return pl, nil
}

func (p *planner) walk(ctx context.Context, pay func(int) error, b bounds) *walk {
	return &walk{ctx: ctx, blocks: p.blocks, deny: p.deny, bounds: b, pay: pay, seen: map[string]Place{}}
}

// single is the place of a block that is served by itself.
func (p *planner) single(ctx context.Context, c cid.Cid) (Place, error) {
	w := p.walk(ctx, nil, bounds{})
	place, err := w.find(c)
	var f *failure
	if errors.As(err, &f) && f.code == BlockMissing {
		return place, fail(http.StatusNotFound, NotFound, "%s is not here", c).withHint("Ask another gateway.")
	}
	return place, err
}
