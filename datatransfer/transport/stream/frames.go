package stream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/wire"
)

// A frame is its kind, the length of its body as four bytes, the most significant first, and the body (docs/protocol/stream.md).
type kind byte

const (
	kindAsk     kind = 1 // from the recipient, first: what it asks for
	kindMessage kind = 2 // a data-transfer message, either way
	kindBlocks  kind = 3 // from the sender: sections of a CAR, one after the other
	kindEnd     kind = 4 // from the sender, last: how it ended
	kindStop    kind = 5 // from the recipient: send no more
)

// Bounds of what a peer may claim.
const (
	headerSize  = 5
	maxAsk      = 2 << 20
	maxMessage  = message.MaxMessage
	maxEnd      = 2048
	maxSelector = 64 << 10
	maxCid      = 256
	// MaxBlock is the largest block that is carried.
	MaxBlock  = carstore.MaxBlock
	maxBlocks = runSize + MaxBlock + maxCid + varint.MaxLenUvarint63
	// runSize is how many bytes of small blocks go into one frame.
	runSize = 1 << 20
)

func (k kind) limit() uint32 {
	switch k {
	case kindAsk:
		return maxAsk
	case kindMessage:
		return maxMessage
	case kindBlocks:
		return maxBlocks
	case kindEnd:
		return maxEnd
	}
	return 0
}

func header(k kind, size int) [headerSize]byte {
	var h [headerSize]byte
	h[0] = byte(k)
	binary.BigEndian.PutUint32(h[1:], uint32(size))
	return h
}

// readHeader reads the head of a frame and bounds what it claims.
func readHeader(r io.Reader) (kind, int, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, err
	}
	k, size := kind(h[0]), binary.BigEndian.Uint32(h[1:])
	if k < kindAsk || k > kindStop {
		return 0, 0, fmt.Errorf("frame of unknown kind %d", k)
	}
	if size > k.limit() {
		return 0, 0, fmt.Errorf("frame of kind %d claims %d bytes: the limit is %d", k, size, k.limit())
	}
	return k, int(size), nil
}

func readBody(r io.Reader, size int) ([]byte, error) {
	var b bytes.Buffer // grows with what really comes
	if n, err := io.CopyN(&b, r, int64(size)); err != nil {
		return nil, fmt.Errorf("frame ends after %d of %d bytes: %w", n, size, unexpected(err))
	}
	return b.Bytes(), nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, errCut) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func frame(k kind, body []byte) []byte {
	h := header(k, len(body))
	return append(h[:], body...)
}

func messageFrame(m dt.Message) ([]byte, error) {
	body, err := encode(m)
	if err != nil {
		return nil, err
	}
	return frame(kindMessage, body), nil
}

func encode(m dt.Message) ([]byte, error) {
	var b bytes.Buffer
	if err := m.ToNet(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// version is that of the frames; a sender refuses any other.
const version = 1

// question is the body of the first frame.
type question struct {
	held     bool // answer the message, and send nothing
	has      int64
	root     cid.Cid
	selector ipld.Node
	msg      dt.Message
}

func (q *question) fields(v, flags, has *uint64, selector, msg *[]byte) []wire.Field {
	return []wire.Field{wire.Uint("Version", v), wire.Uint("Flags", flags), wire.Uint("Has", has), wire.Cid("Root", &q.root),
		wire.Bytes("Selector", selector, maxSelector), wire.Bytes("Message", msg, maxMessage)}
}

const flagHeld = 1

func (q *question) marshal() ([]byte, error) {
	var sel bytes.Buffer
	if err := dagcbor.Encode(q.selector, &sel); err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	selector := sel.Bytes()
	if len(selector) > maxSelector {
		return nil, fmt.Errorf("selector of %d bytes is above the limit of %d", len(selector), maxSelector)
	}
	msg, err := encode(q.msg)
	if err != nil {
		return nil, err
	}
	v, flags, has := uint64(version), uint64(0), uint64(q.has)
	if q.held {
		flags = flagHeld
	}
	return wire.EncodeTuple(q.fields(&v, &flags, &has, &selector, &msg))
}

func (q *question) unmarshal(data []byte) error {
	var v, flags, has uint64
	var selector, msg []byte
	if err := wire.DecodeTuple(data, "question", q.fields(&v, &flags, &has, &selector, &msg)); err != nil {
		return err
	}
	if v != version {
		return fmt.Errorf("question of version %d: this side speaks %d", v, version)
	}
	if has > 1<<62 {
		return fmt.Errorf("position %d is above any number of blocks", has)
	}
	q.held, q.has = flags&flagHeld != 0, int64(has)
	if _, err := wire.ReadRaw(bytes.NewReader(selector), maxSelector, wire.MaxDepth+64); err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	b := basicnode.Prototype.Any.NewBuilder()
	if err := dagcbor.Decode(b, bytes.NewReader(selector)); err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	q.selector = b.Build()
	m, err := message.FromNet(bytes.NewReader(msg))
	if err != nil {
		return err
	}
	q.msg = m
	return nil
}

// outcome is how a sender ended.
type outcome byte

const (
	ended   outcome = 0 // everything was sent
	missing outcome = 1 // the sender does not have a block
	refused outcome = 2
	stopped outcome = 3 // as the recipient wished
)

func endFrame(o outcome, text string) []byte {
	return frame(kindEnd, append([]byte{byte(o)}, text[:min(len(text), maxEnd-1)]...))
}

// sections reads the blocks of a frame.
type sections struct {
	r    *bufio.Reader
	left int
	buf  []byte       // recycled: what next returns is good until the next call
	wait func() error // called before more is waited for than has come
	from *spares
	lent *[]byte // buf, if it is one of from
}

// grow makes room for a section.
func (s *sections) grow(size int) {
	if cap(s.buf) >= size {
		return
	}
	s.giveBack()
	if size <= lentBuffer/8 || size > lentBuffer {
		s.buf = make([]byte, size)
		return
	}
	s.lent = s.from.block()
	s.buf = *s.lent
}

// giveBack gives the room for a large block back, when what next returned last is not needed any more.
func (s *sections) giveBack() {
	if s.lent != nil {
		s.from.blocks.Put(s.lent)
		s.lent, s.buf = nil, nil
	} else if cap(s.buf) > lentBuffer {
		s.buf = nil
	}
}

// next reads the section of an expected block. Which block it is, is compared and not believed.
func (s *sections) next(want cid.Cid) ([]byte, error) {
	size, n, err := s.length()
	if err != nil {
		return nil, err
	}
	key := want.KeyString()
	if size < uint64(len(key)) || size > uint64(MaxBlock+maxCid) || size > uint64(s.left-n) {
		return nil, fmt.Errorf("%w: a section of %d bytes, %d are left of its frame", errWrongBlock, size, s.left-n)
	}
	s.left -= n + int(size)
	if s.r.Buffered() < int(size) {
		if err := s.wait(); err != nil {
			return nil, err
		}
	}
	s.grow(int(size))
	b := s.buf[:size]
	if _, err := io.ReadFull(s.r, b); err != nil {
		return nil, unexpected(err)
	}
	if string(b[:len(key)]) != key {
		return nil, fmt.Errorf("%w: not %s", errWrongBlock, want)
	}
	data := b[len(key):]
	if err := verify(want, data); err != nil {
		return nil, fmt.Errorf("%w: %w", errWrongBlock, err)
	}
	return data, nil
}

// length reads the length of a section, and how many bytes it took.
func (s *sections) length() (size uint64, n int, err error) {
	if s.r.Buffered() < varint.MaxLenUvarint63 {
		if err := s.wait(); err != nil {
			return 0, 0, err
		}
	}
	size, err = varint.ReadUvarint(s.r)
	if err != nil {
		return 0, 0, unexpected(err)
	}
	n = varint.UvarintSize(size)
	if n > s.left {
		return 0, 0, fmt.Errorf("%w: a section goes on behind its frame", errWrongBlock)
	}
	return size, n, nil
}

var errWrongBlock error = reason.HashMismatch.Errorf("the sender sent another block than the one that follows")
