// Package ipfsstore is the blocks of an IPFS node, over its RPC API (block/stat, block/get, block/put), as a blockstore (node
// spec 2.7). It asks the node for what it has, not for what it could find: nothing is fetched from its network.
package ipfsstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipldformat "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multicodec"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
)

// callTime bounds one call, and atOnce how many of a PutMany are under way.
const (
	callTime = time.Minute
	atOnce   = 8
)

var (
	// ErrUnsupported is what an operation answers that the API does not have.
	ErrUnsupported = errors.New("not supported over the API of an IPFS node")
	// ErrOtherCid means that the node stored a block under another CID than was meant.
	ErrOtherCid = errors.New("the IPFS node stored the block under another CID")
)

// Store is the blocks of an IPFS node. It is safe for concurrent use.
type Store struct {
	base   string
	client *http.Client
}

var _ blockstore.Blockstore = (*Store)(nil)

// New returns the store behind an API address: a URL such as http://127.0.0.1:5001, or a multiaddress such as
// /ip4/127.0.0.1/tcp/5001. No client is the default one.
func New(api string, client *http.Client) (*Store, error) {
	if strings.HasPrefix(api, "/") {
		a, err := multiaddr.NewMultiaddr(api)
		if err != nil {
			return nil, fmt.Errorf("address %q of an IPFS node: %w", api, err)
		}
		kind, host, err := manet.DialArgs(a)
		if err == nil && !strings.HasPrefix(kind, "tcp") {
			err = errors.New("it has no TCP port")
		}
		if err != nil {
			return nil, fmt.Errorf("address %q of an IPFS node: %w", api, err)
		}
		api = "http://" + host
	}
	u, err := url.Parse(api)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("address %q of an IPFS node: write it as http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001", api)
	}
	if client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = atOnce
		client = &http.Client{Transport: t}
	}
	return &Store{strings.TrimSuffix(u.String(), "/") + "/api/v0/", client}, nil
}

// maxAnswer bounds what is read of an answer that is no block.
const maxAnswer = 64 << 10

// callNode makes one call; the caller closes the body.
func (s *Store) callNode(ctx context.Context, what string, args url.Values, body io.Reader, kind string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+what+"?"+args.Encode(), body)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("IPFS node: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	var e struct{ Message string }
	if json.Unmarshal(text, &e) != nil || e.Message == "" {
		e.Message = strings.TrimSpace(string(text))
	}
	json404 := resp.StatusCode == http.StatusNotFound && strings.Contains(resp.Header.Get("Content-Type"), "json")
	if what != "block/put" && (json404 || isNotFound(e.Message)) {
		return nil, errNotFound
	}
	return nil, fmt.Errorf("IPFS node: %s: %s: %s", what, resp.Status, e.Message)
}

var errNotFound = errors.New("not found")

// isNotFound knows the ways in which versions of IPFS nodes say that they do not have a block.
func isNotFound(message string) bool {
	m := strings.ToLower(message)
	for _, s := range []string{"block not found", "could not find", "merkledag: not found", "blockservice: key not found", "block was not found locally"} {
		if strings.Contains(m, s) {
			return true
		}
	}
	return false
}

// offlineArgs is a question about a block that the node has.
func offlineArgs(c cid.Cid) url.Values { return url.Values{"arg": {c.String()}, "offline": {"true"}} }

// GetSize implements blockstore.Blockstore.
func (s *Store) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if data, ok := carstore.Inlined(c); ok {
		return len(data), nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := s.callNode(ctx, "block/stat", offlineArgs(c), nil, "")
	if errors.Is(err, errNotFound) {
		return 0, ipldformat.ErrNotFound{Cid: c}
	}
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var v struct{ Size *int }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&v); err != nil || v.Size == nil || *v.Size < 0 {
		return 0, fmt.Errorf("IPFS node: block/stat of %s: no size in the answer (%w)", c, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return *v.Size, nil
}

// Has implements blockstore.Blockstore.
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.GetSize(ctx, c)
	if ipldformat.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Get implements blockstore.Blockstore; the block is checked against its CID.
func (s *Store) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if data, ok := carstore.Inlined(c); ok {
		return blocks.NewBlockWithCid(data, c)
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := s.callNode(ctx, "block/get", offlineArgs(c), nil, "")
	if errors.Is(err, errNotFound) {
		return nil, ipldformat.ErrNotFound{Cid: c}
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, carstore.MaxBlock+1))
	if err != nil {
		return nil, fmt.Errorf("IPFS node: block/get of %s: %w", c, err)
	}
	if len(data) > carstore.MaxBlock {
		return nil, fmt.Errorf("IPFS node: block %s is above the limit of %d bytes", c, carstore.MaxBlock)
	}
	if err := carstore.Verify(c, data); err != nil {
		return nil, fmt.Errorf("IPFS node: %w", err)
	}
	return blocks.NewBlockWithCid(data, c)
}

// Put implements blockstore.Blockstore. The CID that the node answers has to be the one that is meant (R-P1).
func (s *Store) Put(ctx context.Context, b blocks.Block) error {
	c := b.Cid()
	if _, ok := carstore.Inlined(c); ok {
		return nil
	}
	p := c.Prefix()
	args := url.Values{"cid-codec": {multicodec.Code(p.Codec).String()}, "mhtype": {mh.Codes[p.MhType]}, "mhlen": {strconv.Itoa(p.MhLength)}, "allow-big-block": {"true"}, "pin": {"false"}}
	if args.Get("mhtype") == "" {
		return fmt.Errorf("put block %s: multihash 0x%x has no name that an IPFS node knows", c, p.MhType)
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("data", "block")
	if err == nil {
		_, err = part.Write(b.RawData())
	}
	if err = errors.Join(err, form.Close()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := s.callNode(ctx, "block/put", args, &body, form.FormDataContentType())
	if err != nil {
		return fmt.Errorf("put block %s: %w", c, err)
	}
	defer resp.Body.Close()
	var v struct{ Key string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&v); err != nil {
		return fmt.Errorf("put block %s: IPFS node: %w", c, err)
	}
	got, err := cid.Decode(v.Key)
	if err != nil {
		return fmt.Errorf("put block %s: IPFS node answers %q: %w", c, v.Key, err)
	}
	if !bytes.Equal(got.Hash(), c.Hash()) || got.Prefix().Codec != p.Codec {
		return fmt.Errorf("%w: %s instead of %s", ErrOtherCid, got, c)
	}
	return nil
}

// PutMany implements blockstore.Blockstore: several at once. After an error some blocks may be there.
func (s *Store) PutMany(ctx context.Context, list []blocks.Block) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	slots := make(chan struct{}, atOnce)
	for _, b := range list {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.Put(ctx, b); err != nil {
				mu.Lock()
				if first == nil {
					first = err
				}
				mu.Unlock()
				cancel()
			}
		})
	}
	wg.Wait()
	if first != nil {
		return first
	}
	return ctx.Err()
}

// DeleteBlock implements blockstore.Blockstore.
func (s *Store) DeleteBlock(context.Context, cid.Cid) error { return ErrUnsupported }

// AllKeysChan implements blockstore.Blockstore.
func (s *Store) AllKeysChan(context.Context) (<-chan cid.Cid, error) { return nil, ErrUnsupported }
