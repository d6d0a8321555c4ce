package buyer

import (
	"context"
	"errors"
	"io"
	"net/url"
	"time"

	"github.com/ipfs/go-cid"
	varint "github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/reason"
)

// maxCID bounds the CID of a section.
const maxCID = 512

// fetch is an order that is being fetched. It is the Blocks of its own walk: a block that is looked for and not here is the next that the gateway
// sends.
type fetch struct {
	b        *Buyer
	base     *url.URL
	order    Order
	quote    Quote
	ctx      context.Context
	header   uint64 // bytes of the CAR before its first section
	window   uint64
	feed     feed
	fetched  bool          // the section that is told next came out of the feed
	renewed  bool          // since the last window that came
	resumed  bool          // the last request of an earlier run was looked at
	stream   io.ReadCloser // a whole answer, from a gateway without ranges
	streamAt uint64        // of its next byte in the CAR
	progress Progress
	// An offer whose scheme and price hold for the windows that follow.
	pattern     *x402.Offer
	patternRate accounting.Rate
	offered     time.Time
}

var _ gateway.Blocks = (*fetch)(nil)

func (f *fetch) close() {
	if f.stream != nil {
		_ = f.stream.Close()
	}
}

// skipHeader reads the header of a whole answer. Its roots are nothing that has to be known.
func (f *fetch) skipHeader() error {
	n, err := varint.ReadUvarint(oneByte{f.stream})
	if err != nil || n > maxHeader {
		return reason.BlockUnexpected.Errorf("the gateway sent no CAR")
	}
	_, err = io.CopyN(io.Discard, f.stream, int64(n))
	f.streamAt = f.header
	return err
}

// maxHeader bounds the header of a CAR.
const maxHeader = 64 << 10

// oneByte reads single bytes.
type oneByte struct{ io.Reader }

// ReadByte implements io.ByteReader.
func (o oneByte) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(o.Reader, b[:])
	return b[0], err
}

// Find implements gateway.Blocks.
func (f *fetch) Find(_ context.Context, c cid.Cid) (gateway.Place, error) {
	if size, ok := f.order.Store.Size(c); ok {
		f.fetched = false
		return gateway.Place{Size: uint32(size)}, nil
	}
	data, err := f.section(c)
	if err != nil {
		return gateway.Place{}, err
	}
	if err := f.order.Store.Put(c, data); err != nil {
		return gateway.Place{}, err
	}
	f.fetched = true
	f.progress.Blocks++
	f.progress.Bytes += uint64(len(data))
	return gateway.Place{Size: uint32(len(data))}, nil
}

// Read implements gateway.Blocks.
func (f *fetch) Read(_ context.Context, c cid.Cid, _ gateway.Place, _ []byte) ([]byte, error) {
	return f.order.Store.Get(c)
}

// told moves on behind a section.
func (f *fetch) told(_ cid.Cid, size uint64) error {
	if !f.fetched {
		if err := f.feed.skip(size); err != nil {
			return err
		}
	}
	f.progress.Position += size
	if f.order.Report != nil {
		f.order.Report(f.progress)
	}
	return f.ctx.Err()
}

// section takes the next section, which has to be that of a block.
func (f *fetch) section(want cid.Cid) ([]byte, error) {
	n, err := varint.ReadUvarint(&f.feed)
	if err != nil {
		return nil, f.bad(err)
	}
	if n < uint64(want.ByteLen()) || n > carstore.MaxBlock+maxCID {
		return nil, reason.BlockUnexpected.Errorf("the gateway sent a section of %d bytes where block %s comes next", n, want)
	}
	buf := make([]byte, n)
	if err := f.feed.read(buf); err != nil {
		return nil, f.bad(err)
	}
	size, got, err := cid.CidFromBytes(buf)
	if err != nil || !got.Equals(want) {
		return nil, reason.BlockUnexpected.Errorf("the gateway sent another block than %s, which comes next", want)
	}
	if err := carstore.Verify(got, buf[size:]); err != nil {
		return nil, reason.HashMismatch.Wrap(err)
	}
	return buf[size:], nil
}

// bad names the error of a varint.
func (f *fetch) bad(err error) error {
	if errors.Is(err, varint.ErrOverflow) || errors.Is(err, varint.ErrNotMinimal) {
		return reason.BlockUnexpected.Errorf("the gateway sent no section: %w", err)
	}
	return err
}

// feed is the CAR from a position on, in windows that are fetched when they are needed.
type feed struct {
	pos  uint64 // of the next byte in the CAR
	data []byte // what was fetched from there on
	more func(from uint64) ([]byte, error)
	one  [1]byte
}

// ReadByte implements io.ByteReader.
func (f *feed) ReadByte() (byte, error) {
	err := f.read(f.one[:])
	return f.one[0], err
}

// read fills a buffer.
func (f *feed) read(p []byte) error {
	for len(p) > 0 {
		if len(f.data) == 0 {
			data, err := f.more(f.pos)
			if err != nil {
				return err
			}
			if len(data) == 0 {
				return io.ErrUnexpectedEOF
			}
			f.data = data
		}
		n := copy(p, f.data)
		p, f.data = p[n:], f.data[n:]
		f.pos += uint64(n)
	}
	return nil
}

// skip goes on behind bytes that are not needed, and fetches nothing for that.
func (f *feed) skip(n uint64) error {
	f.data = f.data[min(n, uint64(len(f.data))):]
	f.pos += n
	return nil
}
