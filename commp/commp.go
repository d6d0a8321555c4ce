// Package commp computes piece commitments: the root of a binary SHA-256 tree over bytes that are spread so that every
// 254 bits take 256 (docs/protocol/node.md 5). It needs no chain, and memory that does not depend on the size.
package commp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"sync"

	"crypto/sha256"
	commcid "github.com/filecoin-project/go-fil-commcid"
	"github.com/ipfs/go-cid"
)

// Sizes of the parts that are hashed independently: 4 MiB padded.
const (
	partPadded   = 4 << 20
	partUnpadded = partPadded / 128 * 127
	// MaxPadded is the largest piece.
	MaxPadded = 1 << 36
)

// Payload, Unpadded and Padded are the three sizes of a piece; they never stand for each other.
type (
	// Payload is the size of the bytes that were given.
	Payload uint64
	// Unpadded is the payload with zeros up to a piece size.
	Unpadded uint64
	// Padded is what a sector stores: unpadded x 128/127, a power of two.
	Padded uint64
)

// PaddedFor is the smallest piece that holds a payload.
func PaddedFor(n Payload) Padded {
	quads := (uint64(n) + 126) / 127
	if quads <= 1 {
		return 128
	}
	return 128 << bits.Len64(quads-1)
}

// Unpadded is the size before the spreading.
func (p Padded) Unpadded() Unpadded { return Unpadded(p / 128 * 127) }

// Piece is a commitment with its sizes.
type Piece struct {
	CID     cid.Cid
	Payload Payload
	Padded  Padded
}

type node [32]byte

// Writer computes the commitment of what is written to it, on all cores.
type Writer struct {
	buf   []byte
	n     uint64
	parts []chan node
	stack []levelled
	sem   chan struct{}
	wg    sync.WaitGroup
}

type levelled struct {
	level int
	node  node
}

// NewWriter returns a Writer that hashes on up to workers goroutines; 0 means as many as there are cores.
func NewWriter(workers int) *Writer {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Writer{buf: make([]byte, 0, partUnpadded), sem: make(chan struct{}, workers)}
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		k := min(len(p), partUnpadded-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p = p[k:]
		if len(w.buf) == partUnpadded {
			w.dispatchChunk()
		}
	}
	w.n += uint64(total)
	if w.n > MaxPadded/128*127 {
		return total, fmt.Errorf("more than %d bytes do not fit into a piece", uint64(MaxPadded/128*127))
	}
	return total, nil
}

// dispatchChunk hashes the full buffer on another goroutine and folds in what is finished, in order.
func (w *Writer) dispatchChunk() {
	part := w.buf
	ch := make(chan node, 1)
	w.parts = append(w.parts, ch)
	w.sem <- struct{}{}
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		ch <- treeRoot(part, partPadded)
		<-w.sem
	}()
	w.buf = make([]byte, 0, partUnpadded)
	for len(w.parts) > cap(w.sem) {
		w.foldResults()
	}
}

func (w *Writer) foldResults() {
	w.pushLevel(levelled{levelOfSize(partPadded), <-w.parts[0]})
	w.parts = w.parts[1:]
}

// pushLevel is a binary counter: two subtrees of one level become one of the next.
func (w *Writer) pushLevel(l levelled) {
	for len(w.stack) > 0 && w.stack[len(w.stack)-1].level == l.level {
		top := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		l = levelled{l.level + 1, parentNode(&top.node, &l.node)}
	}
	w.stack = append(w.stack, l)
}

// levelOfSize is the height of a subtree over padded bytes.
func levelOfSize(padded int) int { return bits.TrailingZeros64(uint64(padded)) - 5 }

// Sum returns the commitment of everything written. The Writer must not be used afterwards.
func (w *Writer) Sum() (Piece, error) {
	for len(w.parts) > 0 {
		w.foldResults()
	}
	w.wg.Wait()
	if w.n == 0 {
		return Piece{}, errors.New("an empty payload has no piece commitment")
	}
	padded := PaddedFor(Payload(w.n))
	if len(w.buf) > 0 {
		size := int(PaddedFor(Payload(len(w.buf))))
		w.pushLevel(levelled{levelOfSize(size), treeRoot(w.buf, size)})
	}
	want := levelOfSize(int(padded))
	for len(w.stack) > 1 || w.stack[0].level < want {
		top := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		z := zeroNode(top.level)
		w.pushLevel(levelled{top.level + 1, parentNode(&top.node, &z)})
	}
	c, err := commcid.DataCommitmentV1ToCID(w.stack[0].node[:])
	return Piece{c, Payload(w.n), padded}, err
}

// Compute reads r to its end.
func Compute(r io.Reader) (Piece, error) {
	w := NewWriter(0)
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 1<<20)); err != nil {
		w.wg.Wait()
		return Piece{}, err
	}
	return w.Sum()
}

// PadUp returns the commitment of a piece put at the start of a larger one.
func PadUp(p Piece, to Padded) (Piece, error) {
	raw, err := commcid.CIDToDataCommitmentV1(p.CID)
	if err != nil {
		return Piece{}, err
	}
	if to < p.Padded || to&(to-1) != 0 || to > MaxPadded {
		return Piece{}, fmt.Errorf("piece of %d bytes cannot be padded to %d", p.Padded, to)
	}
	n := node(raw)
	for l := levelOfSize(int(p.Padded)); l < levelOfSize(int(to)); l++ {
		z := zeroNode(l)
		n = parentNode(&n, &z)
	}
	c, err := commcid.DataCommitmentV1ToCID(n[:])
	return Piece{c, p.Payload, to}, err
}

// Commitment is the hash in the CID of a piece; other CIDs are refused.
func Commitment(piece cid.Cid) ([]byte, error) { return commcid.CIDToDataCommitmentV1(piece) }

func parentNode(a, b *node) node {
	var buf [64]byte
	copy(buf[:32], a[:])
	copy(buf[32:], b[:])
	out := node(sha256.Sum256(buf[:]))
	out[31] &= 0x3f
	return out
}

// zeroNode is the root of a subtree of zeros.
func zeroNode(l int) node {
	var n node
	for range l {
		n = parentNode(&n, &n)
	}
	return n
}

// treeRoot computes the root over unpadded bytes, with zeros up to padded.
func treeRoot(data []byte, padded int) node {
	quads := (len(data) + 126) / 127
	buf := make([]byte, quads*128)
	for q := range quads {
		var in [127]byte
		copy(in[:], data[q*127:])
		spreadBits(buf[q*128:q*128+128], &in)
	}
	n := len(buf) / 32
	for l, want := 0, levelOfSize(padded); l < want; l++ {
		if n%2 == 1 {
			z := zeroNode(l)
			copy(buf[n*32:], z[:])
			n++
		}
		for i := 0; i < n; i += 2 {
			h := sha256.Sum256(buf[i*32 : i*32+64])
			h[31] &= 0x3f
			copy(buf[i*16:], h[:])
		}
		n /= 2
	}
	return node(buf[:32])
}

// spreadBits puts two zero bits behind every 254 of 1016.
func spreadBits(out []byte, in *[127]byte) {
	_ = out[127]
	copy(out[:32], in[:32])
	out[31] &= 0x3f
	for i := 0; i < 32; i += 8 {
		binary.LittleEndian.PutUint64(out[32+i:], shiftedWord(in, 31+i, 2))
		binary.LittleEndian.PutUint64(out[64+i:], shiftedWord(in, 63+i, 4))
	}
	for i := 0; i < 24; i += 8 {
		binary.LittleEndian.PutUint64(out[96+i:], shiftedWord(in, 95+i, 6))
	}
	for i := 24; i < 31; i++ {
		out[96+i] = in[95+i]>>2 | in[96+i]<<6
	}
	out[63] &= 0x3f
	out[95] &= 0x3f
	out[127] = in[126] >> 2
}

// shiftedWord are eight bytes of a stream of bits, least significant first, that was moved by k bits: the byte at i gives its last k.
func shiftedWord(in *[127]byte, i int, k uint) uint64 {
	return binary.LittleEndian.Uint64(in[i:])>>(8-k) | uint64(in[i+8])<<(56+k)
}
