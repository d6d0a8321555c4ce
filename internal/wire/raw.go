package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/filecoin-project/go-address"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// ReadRaw reads one CBOR item of at most limit bytes and depth levels and returns its bytes.
func ReadRaw(r io.Reader, limit, depth int) ([]byte, error) {
	cr := cbg.NewCborReader(r)
	var out bytes.Buffer
	if err := copyItem(cr, &out, limit, depth); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func copyItem(r *cbg.CborReader, out *bytes.Buffer, limit, depth int) error {
	if depth == 0 {
		return errors.New("nested too deep")
	}
	if isFloat, err := copyFloat(r, out); isFloat || err != nil {
		return err
	}
	maj, n, err := r.ReadHeader()
	if err != nil {
		return err
	}
	if err := cbg.NewCborWriter(out).WriteMajorTypeHeader(maj, n); err != nil {
		return err
	}
	children := uint64(0)
	switch maj {
	case cbg.MajByteString, cbg.MajTextString:
		if n > uint64(limit) || out.Len()+int(n) > limit {
			return fmt.Errorf("item is larger than %d bytes", limit)
		}
		_, err := io.CopyN(out, r, int64(n))
		return err
	case cbg.MajArray:
		children = n
	case cbg.MajMap:
		if n > uint64(limit) {
			return fmt.Errorf("map of %d keys is above the limit", n)
		}
		children = 2 * n
	case cbg.MajTag:
		children = 1
	case cbg.MajUnsignedInt, cbg.MajNegativeInt:
	case cbg.MajOther:
		if n != 20 && n != 21 && n != 22 {
			return errors.New("short floats and undefined values are not dag-cbor")
		}
	}
	if children > uint64(limit) {
		return fmt.Errorf("list of %d items is above the limit", children)
	}
	for range children {
		if out.Len() > limit {
			return fmt.Errorf("item is larger than %d bytes", limit)
		}
		if err := copyItem(r, out, limit, depth-1); err != nil {
			return eof(err)
		}
	}
	return nil
}

// Deferred is an item kept as it came; nil is written as null, and null is read as an item of the byte f6.
func Deferred(name string, v **cbg.Deferred) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error {
			if *v == nil || len((*v).Raw) == 0 {
				_, err := w.Write(cbg.CborNull)
				return err
			}
			_, err := w.Write((*v).Raw)
			return err
		},
		Read: func(r *cbg.CborReader) error {
			raw, err := ReadRaw(r, MaxItem, MaxDepth)
			*v = &cbg.Deferred{Raw: raw}
			return err
		}}
}

// List is an array of items.
func List[T any](name string, v *[]T, item func(*T) Field) Field {
	f := list(name, v, item)
	t := list(name, v, func(x *T) Field { return item(x).asTuple() })
	f.tuple = &t
	return f
}

func list[T any](name string, v *[]T, item func(*T) Field) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error {
			if err := w.WriteMajorTypeHeader(cbg.MajArray, uint64(len(*v))); err != nil {
				return err
			}
			for i := range *v {
				if err := item(&(*v)[i]).Write(w); err != nil {
					return err
				}
			}
			return nil
		},
		Read: func(r *cbg.CborReader) error {
			maj, n, err := r.ReadHeader()
			if err != nil {
				return err
			}
			if maj != cbg.MajArray || n > MaxList {
				return fmt.Errorf("not a list of at most %d items", MaxList)
			}
			*v = nil
			for range n {
				var t T
				if err := item(&t).Read(r); err != nil {
					return eof(err)
				}
				*v = append(*v, t)
			}
			return nil
		}}
}

// Map is a nested map of fields.
func Map(name string, fields []Field) Field {
	t := Tuple(name, AsTuple(fields))
	return Field{Name: name, tuple: &t,
		Write: func(w *cbg.CborWriter) error { return WriteMap(w, fields) },
		Read:  func(r *cbg.CborReader) error { return ReadMap(r, name, fields) }}
}

// Tuple is a nested array of fields.
func Tuple(name string, fields []Field) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return WriteTuple(w, fields) },
		Read:  func(r *cbg.CborReader) error { return ReadTuple(r, name, fields) }}
}

// EncodeTuple returns the fields as an array: the form of stored records.
func EncodeTuple(fields []Field) ([]byte, error) {
	var b bytes.Buffer
	err := WriteTuple(&b, fields)
	return b.Bytes(), err
}

// DecodeTuple reads an array of exactly the fields and refuses trailing bytes; name is for the error.
func DecodeTuple(data []byte, name string, fields []Field) error {
	r := bytes.NewReader(data)
	if err := ReadTuple(r, name, fields); err != nil {
		return err
	}
	if r.Len() > 0 {
		return fmt.Errorf("%s: %d bytes after its end", name, r.Len())
	}
	return nil
}

// Bytes is a byte string of at most limit bytes.
func Bytes(name string, v *[]byte, limit uint64) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return cbg.WriteByteArray(w, *v) },
		Read: func(r *cbg.CborReader) error {
			b, err := cbg.ReadByteArray(r, limit)
			*v = b
			return err
		}}
}

// OptAddress is an address whose undefined value is written as no bytes.
func OptAddress(name string, v *address.Address) Field {
	return Field{Name: name,
		Write: func(w *cbg.CborWriter) error { return cbg.WriteByteArray(w, v.Bytes()) },
		Read: func(r *cbg.CborReader) error {
			b, err := cbg.ReadByteArray(r, address.MaxAddressStringLength)
			*v = address.Undef
			if err != nil || len(b) == 0 {
				return err
			}
			*v, err = address.NewFromBytes(b)
			return err
		}}
}

// CheckClaims reads only the headers of the CBOR item at the start of data, and refuses a length or a count that cannot be
// kept by the bytes behind it. After it a decoder that believes its input allocates at most what was sent.
func CheckClaims(data []byte) error {
	at := uint64(0)
	end := uint64(len(data))
	for open := uint64(1); open > 0; open-- {
		r := bytes.NewReader(data[at:])
		maj, n, err := cbg.NewCborReader(r).ReadHeader()
		if err != nil {
			return eof(err)
		}
		at = end - uint64(r.Len())
		left := end - at
		switch maj {
		case cbg.MajByteString, cbg.MajTextString:
			if n > left {
				return fmt.Errorf("a string of %d bytes is announced and %d follow", n, left)
			}
			at += n
		case cbg.MajMap:
			if n > left/2 {
				return fmt.Errorf("a map of %d keys is announced and %d bytes follow", n, left)
			}
			open += 2 * n
		case cbg.MajArray:
			if n > left {
				return fmt.Errorf("a list of %d items is announced and %d bytes follow", n, left)
			}
			open += n
		case cbg.MajTag:
			open++
		}
	}
	return nil
}

// copyFloat copies a float of 64 bits, the only kind that dag-cbor has: its bytes are not a length, which the header of any
// other item is.
func copyFloat(r *cbg.CborReader, out *bytes.Buffer) (bool, error) {
	b, err := r.ReadByte()
	if err != nil {
		return false, err
	}
	if b != 0xfb {
		return false, r.UnreadByte()
	}
	out.WriteByte(b)
	_, err = io.CopyN(out, r, 8)
	return true, eof(err)
}
