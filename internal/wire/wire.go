// Package wire reads and writes the CBOR maps and tuples of the market's messages and records. One list of
// fields serves the map form, the tuple form of old peers, and both directions.
//
// A reader takes the keys of a map in any order, skips unknown ones, and refuses duplicate or missing ones;
// every length is bounded before anything is allocated (retrievalmarket spec 2.1).
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// Limits of one message.
const (
	MaxString = 8192
	MaxDepth  = 512 // a UnixFS path selector nests six levels a segment (D22)
	MaxItem   = 64 << 10
	MaxList   = 8192
)

// Field is one named member.
type Field struct {
	Name     string
	Write    func(w *cbg.CborWriter) error
	Read     func(r *cbg.CborReader) error
	Optional bool // may be missing in the map form; keeps its present value

	tuple *Field // how it stands inside a tuple, where that differs
}

// AsTuple gives the fields the form of the tuple generation: maps in them become arrays too.
func AsTuple(fields []Field) []Field {
	out := make([]Field, len(fields))
	for i, f := range fields {
		out[i] = f.asTuple()
	}
	return out
}

func (f Field) asTuple() Field {
	if f.tuple != nil {
		return *f.tuple
	}
	return f
}

// WriteMap writes the fields as a map in their order.
func WriteMap(w io.Writer, fields []Field) error {
	cw := cbg.NewCborWriter(w)
	if err := cw.WriteMajorTypeHeader(cbg.MajMap, uint64(len(fields))); err != nil {
		return err
	}
	for _, f := range fields {
		if err := writeText(cw, f.Name); err != nil {
			return err
		}
		if err := f.Write(cw); err != nil {
			return fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return nil
}

// WriteTuple writes the fields as an array in their order.
func WriteTuple(w io.Writer, fields []Field) error {
	cw := cbg.NewCborWriter(w)
	if err := cw.WriteMajorTypeHeader(cbg.MajArray, uint64(len(fields))); err != nil {
		return err
	}
	for _, f := range fields {
		if err := f.Write(cw); err != nil {
			return fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return nil
}

// ReadMap reads a map.
func ReadMap(r io.Reader, name string, fields []Field) error {
	cr := cbg.NewCborReader(r)
	maj, n, err := cr.ReadHeader()
	if err != nil {
		return err
	}
	if maj != cbg.MajMap || n > MaxList {
		return fmt.Errorf("%s: not a CBOR map of at most %d keys", name, MaxList)
	}
	seen := make([]bool, len(fields))
	for range n {
		key, err := readText(cr, 256)
		if err != nil {
			return fmt.Errorf("%s: key: %w", name, eof(err))
		}
		if err := readMember(cr, name, key, fields, seen); err != nil {
			return err
		}
	}
	for i, f := range fields {
		if !seen[i] && !f.Optional {
			return fmt.Errorf("%s: required field %s is missing", name, f.Name)
		}
	}
	return nil
}

func readMember(cr *cbg.CborReader, name, key string, fields []Field, seen []bool) error {
	for i, f := range fields {
		if f.Name != key {
			continue
		}
		if seen[i] {
			return fmt.Errorf("%s: field %s appears twice", name, key)
		}
		seen[i] = true
		if err := f.Read(cr); err != nil {
			return fmt.Errorf("%s: field %s: %w", name, key, eof(err))
		}
		return nil
	}
	if _, err := ReadRaw(cr, MaxItem, MaxDepth); err != nil {
		return fmt.Errorf("%s: unknown field %.40q: %w", name, key, eof(err))
	}
	return nil
}

// ReadTuple reads an array of exactly the fields.
func ReadTuple(r io.Reader, name string, fields []Field) error {
	cr := cbg.NewCborReader(r)
	maj, n, err := cr.ReadHeader()
	if err != nil {
		return err
	}
	if maj != cbg.MajArray || n != uint64(len(fields)) {
		return fmt.Errorf("%s: not a CBOR array of %d items", name, len(fields))
	}
	for _, f := range fields {
		if err := f.Read(cr); err != nil {
			return fmt.Errorf("%s: field %s: %w", name, f.Name, eof(err))
		}
	}
	return nil
}

func eof(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Decode reads one object from data and refuses trailing bytes.
func Decode(data []byte, v cbg.CBORUnmarshaler) error {
	r := bytes.NewReader(data)
	if err := v.UnmarshalCBOR(r); err != nil {
		return err
	}
	if r.Len() > 0 {
		return fmt.Errorf("%d bytes after the end of the object", r.Len())
	}
	return nil
}

// Encode returns the CBOR of v.
func Encode(v cbg.CBORMarshaler) ([]byte, error) {
	var b bytes.Buffer
	err := v.MarshalCBOR(&b)
	return b.Bytes(), err
}

func writeText(w *cbg.CborWriter, s string) error {
	if len(s) > MaxString {
		return fmt.Errorf("text of %d bytes is above the limit of %d", len(s), MaxString)
	}
	if err := w.WriteMajorTypeHeader(cbg.MajTextString, uint64(len(s))); err != nil {
		return err
	}
	_, err := io.WriteString(w, s)
	return err
}

func readText(r *cbg.CborReader, limit uint64) (string, error) {
	maj, n, err := r.ReadHeader()
	if err != nil {
		return "", err
	}
	if maj != cbg.MajTextString {
		return "", fmt.Errorf("major type %d where text was expected", maj)
	}
	if n > limit {
		return "", fmt.Errorf("text of %d bytes is above the limit of %d", n, limit)
	}
	buf := make([]byte, n)
	_, err = io.ReadFull(r, buf)
	return string(buf), err
}

// Text is a string, which may hold bytes that are not UTF-8.
func Text[T ~string](name string, v *T) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return writeText(w, string(*v)) },
		Read: func(r *cbg.CborReader) error {
			s, err := readText(r, MaxString)
			*v = T(s)
			return err
		}}
}

// Peer is a peer id: text of the raw multihash bytes.
func Peer(name string, v *peer.ID) Field { return Text(name, v) }

// Uint is an unsigned number.
func Uint[T ~uint64](name string, v *T) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return w.WriteMajorTypeHeader(cbg.MajUnsignedInt, uint64(*v)) },
		Read: func(r *cbg.CborReader) error {
			maj, n, err := r.ReadHeader()
			if err == nil && maj != cbg.MajUnsignedInt {
				err = fmt.Errorf("major type %d where an unsigned number was expected", maj)
			}
			*v = T(n)
			return err
		}}
}

// Bool is true or false.
func Bool(name string, v *bool) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return cbg.WriteBool(w, *v) },
		Read: func(r *cbg.CborReader) error {
			maj, n, err := r.ReadHeader()
			if err == nil && (maj != cbg.MajOther || n != 20 && n != 21) {
				err = errors.New("not a boolean")
			}
			*v = n == 21
			return err
		}}
}

// Amount is a token amount; a negative one is refused, an unset one is written as zero.
func Amount(name string, v *abi.TokenAmount) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return v.MarshalCBOR(w) },
		Read: func(r *cbg.CborReader) error {
			b, err := cbg.ReadByteArray(r, big.BigIntMaxSerializedLen)
			if err != nil {
				return err
			}
			a, err := big.FromBytes(b)
			if err != nil {
				return fmt.Errorf("amount is malformed: %w", err)
			}
			if a.LessThan(big.Zero()) {
				return fmt.Errorf("amount %s is negative", a)
			}
			if again, err := a.Bytes(); err != nil || !bytes.Equal(again, b) {
				return fmt.Errorf("amount is malformed: %x is not the only form of %s", b, a)
			}
			*v = a
			return nil
		}}
}

// Address is an address; the undefined one cannot be written.
func Address(name string, v *address.Address) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return v.MarshalCBOR(w) },
		Read:  func(r *cbg.CborReader) error { return v.UnmarshalCBOR(r) }}
}

// Cid is a CID; the undefined one cannot be written.
func Cid(name string, v *cid.Cid) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error {
			if !v.Defined() {
				return fmt.Errorf("failed to write cid field %s: undefined cid", name)
			}
			return cbg.WriteCid(w, *v)
		},
		Read: func(r *cbg.CborReader) error {
			c, err := cbg.ReadCid(r)
			*v = c
			return err
		}}
}

// Object is a value that encodes itself.
func Object(name string, v interface {
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
}) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return v.MarshalCBOR(w) },
		Read:  func(r *cbg.CborReader) error { return v.UnmarshalCBOR(r) }}
}

// Nullable makes null stand for a nil pointer.
func Nullable[T any](name string, v **T, inner func(*T) Field) Field {
	f := nullable(name, v, inner)
	t := nullable(name, v, func(x *T) Field { return inner(x).asTuple() })
	f.tuple = &t
	return f
}

func nullable[T any](name string, v **T, inner func(*T) Field) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error {
			if *v == nil {
				_, err := w.Write(cbg.CborNull)
				return err
			}
			return inner(*v).Write(w)
		},
		Read: func(r *cbg.CborReader) error {
			null, err := readNull(r)
			if err != nil || null {
				*v = nil
				return err
			}
			t := new(T)
			*v = t
			return inner(t).Read(r)
		}}
}

// readNull consumes a null if the next item is one.
func readNull(r *cbg.CborReader) (bool, error) {
	b, err := r.ReadByte()
	if err != nil {
		return false, err
	}
	if b == cbg.CborNull[0] {
		return true, nil
	}
	return false, r.UnreadByte()
}
