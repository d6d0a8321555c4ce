package stream

import (
	"bufio"
	"errors"
	"net"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-varint"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// output writes frames; the first error stays.
type output struct {
	s   network.Stream
	buf []byte // a frame of small blocks, with room for its head
	err error
}

func (o *output) fail(err error) {
	if o.err == nil {
		o.err = err
	}
}

func (o *output) write(data []byte) {
	if o.err != nil {
		return
	}
	_ = o.s.SetWriteDeadline(time.Now().Add(writeLimit))
	if _, err := o.s.Write(data); err != nil {
		o.fail(err)
	}
}

func section(buf []byte, c cid.Cid, size int) []byte {
	key := c.KeyString()
	return append(append(buf, varint.ToUvarint(uint64(len(key)+size))...), key...)
}

func (o *output) add(c cid.Cid, data []byte) {
	if len(o.buf) == 0 {
		if o.buf == nil {
			o.buf = make([]byte, 0, gather+large+maxCid+headerSize+varint.MaxLenUvarint63)
		}
		o.buf = o.buf[:headerSize]
	}
	o.buf = append(section(o.buf, c, len(data)), data...)
}

func (o *output) flush() {
	if len(o.buf) == 0 {
		return
	}
	h := header(kindBlocks, len(o.buf)-headerSize)
	copy(o.buf, h[:])
	o.write(o.buf)
	o.buf = o.buf[:0]
}

// head begins a frame of one block, whose bytes follow without being copied.
func (o *output) head(c cid.Cid, size int) {
	head := section(make([]byte, headerSize, headerSize+maxCid+varint.MaxLenUvarint63), c, size)
	h := header(kindBlocks, len(head)-headerSize+size)
	copy(head, h[:])
	o.write(head)
}

// try writes for a short time, and returns how much was written and whether the recipient is slow.
func (o *output) try(data []byte) (n int, slow bool) {
	if o.err != nil {
		return 0, false
	}
	_ = o.s.SetWriteDeadline(time.Now().Add(slowAfter))
	n, err := o.s.Write(data)
	var timed net.Error
	if errors.As(err, &timed) && timed.Timeout() {
		return n, true
	}
	if err != nil {
		o.fail(err)
	}
	return n, false
}

func (o *output) message(m dt.Message) {
	out, err := messageFrame(m)
	if err != nil {
		o.fail(err)
		return
	}
	o.write(out)
}

func (o *output) end(how outcome, text string) { o.write(endFrame(how, text)) }

// close ends a stream on which nothing was sent, when the recipient has taken what was said.
func (o *output) close(in *bufio.Reader) {
	_ = o.s.CloseWrite()
	_ = o.s.SetReadDeadline(time.Now().Add(askLimit))
	for o.err == nil {
		k, size, err := readHeader(in)
		if err != nil {
			break
		}
		if _, err := in.Discard(size); err != nil || k == kindStop {
			break
		}
	}
	_ = o.s.Reset()
}
