// Package encoding turns vouchers and results into dag-cbor and back.
package encoding

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	cbor "github.com/ipfs/go-ipld-cbor"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/schema"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// Encodable is a CBOR marshaler, an IPLD node, or a type that go-ipld-cbor knows.
type Encodable any

// Decoder makes values of one type; every call returns a fresh value that shares nothing with its input.
type Decoder interface {
	DecodeFromCbor([]byte) (Encodable, error)
	DecodeFromNode(datamodel.Node) (Encodable, error)
}

// Encode returns the dag-cbor of value; nil is null.
func Encode(value Encodable) ([]byte, error) {
	switch v := value.(type) {
	case nil:
		return []byte{0xf6}, nil
	case cbg.CBORMarshaler:
		var b bytes.Buffer
		err := v.MarshalCBOR(&b)
		return b.Bytes(), err
	case datamodel.Node:
		if tn, ok := v.(schema.TypedNode); ok {
			v = tn.Representation()
		}
		return ipld.Encode(v, dagcbor.Encode)
	}
	return cbor.DumpObject(value)
}

// EncodeToNode returns value as a generic node; nil is the null node.
func EncodeToNode(value Encodable) (datamodel.Node, error) {
	data, err := Encode(value)
	if err != nil {
		return nil, err
	}
	return decodeNode(data, basicnode.Prototype.Any)
}

func decodeNode(data []byte, p datamodel.NodePrototype) (datamodel.Node, error) {
	return ipld.DecodeUsingPrototype(data, dagcbor.Decode, p)
}

// NewDecoder returns a decoder for values of the type of example.
func NewDecoder(example Encodable) (Decoder, error) {
	if n, ok := example.(datamodel.Node); ok {
		p := n.Prototype()
		if tp, ok := p.(schema.TypedPrototype); ok {
			p = tp.Representation()
		}
		return nodeDecoder{p}, nil
	}
	t := reflect.TypeOf(example)
	if t == nil || t.Kind() != reflect.Pointer {
		return nil, errors.New("type must be a pointer")
	}
	if _, ok := example.(cbg.CBORUnmarshaler); ok {
		return marshalerDecoder{t.Elem()}, nil
	}
	data, err := cbor.DumpObject(example)
	if err != nil {
		return nil, errors.New("Object type did not encode")
	}
	if err := cbor.DecodeInto(data, reflect.New(t.Elem()).Interface()); err != nil {
		return nil, errors.New("Object type did not decode")
	}
	return reflectDecoder{t.Elem()}, nil
}

type nodeDecoder struct{ p datamodel.NodePrototype }

func (d nodeDecoder) DecodeFromCbor(data []byte) (Encodable, error) { return decodeNode(data, d.p) }

func (d nodeDecoder) DecodeFromNode(n datamodel.Node) (Encodable, error) {
	b := d.p.NewBuilder()
	if err := datamodel.Copy(n, b); err != nil {
		return nil, err
	}
	return b.Build(), nil
}

type marshalerDecoder struct{ t reflect.Type }

func (d marshalerDecoder) DecodeFromCbor(data []byte) (Encodable, error) {
	v := reflect.New(d.t).Interface()
	r := bytes.NewReader(data)
	if err := v.(cbg.CBORUnmarshaler).UnmarshalCBOR(r); err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%d bytes after the end of the object", r.Len())
	}
	return v, nil
}

func (d marshalerDecoder) DecodeFromNode(n datamodel.Node) (Encodable, error) {
	return decodeEncoded(n, d.DecodeFromCbor)
}

type reflectDecoder struct{ t reflect.Type }

func (d reflectDecoder) DecodeFromCbor(data []byte) (Encodable, error) {
	if _, err := decodeNode(data, basicnode.Prototype.Any); err != nil { // one object and nothing behind it
		return nil, err
	}
	v := reflect.New(d.t).Interface()
	return v, cbor.DecodeInto(data, v)
}

func (d reflectDecoder) DecodeFromNode(n datamodel.Node) (Encodable, error) {
	return decodeEncoded(n, d.DecodeFromCbor)
}

func decodeEncoded(n datamodel.Node, decode func([]byte) (Encodable, error)) (Encodable, error) {
	if tn, ok := n.(schema.TypedNode); ok {
		n = tn.Representation()
	}
	data, err := ipld.Encode(n, dagcbor.Encode)
	if err != nil {
		return nil, err
	}
	return decode(data)
}
