package stream

import (
	"bufio"
	"io"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// What a hostile peer needs to speak the protocol.
var (
	MessageFrame = messageFrame
	EndFrame     = endFrame
	Section      = section
)

const (
	Ended   = ended
	Missing = missing
)

// BlocksFrame is a frame of sections.
func BlocksFrame(sections []byte) []byte { return frame(kindBlocks, sections) }

// RawFrame is a frame of any kind that claims any size.
func RawFrame(k byte, claims int, body []byte) []byte {
	h := header(kind(k), claims)
	return append(h[:], body...)
}

// AskFrame is a question.
func AskFrame(root cid.Cid, selector ipld.Node, has int64, m dt.Message) ([]byte, error) {
	q := question{root: root, selector: selector, has: has, msg: m}
	body, err := q.marshal()
	return frame(kindAsk, body), err
}

// ReadAsk reads a question.
func ReadAsk(r io.Reader) (has int64, m dt.Message, err error) {
	_, size, err := readHeader(r)
	if err != nil {
		return 0, nil, err
	}
	body, err := readBody(r, size)
	if err != nil {
		return 0, nil, err
	}
	var q question
	err = q.unmarshal(body)
	return q.has, q.msg, err
}

// ReadFrame reads any frame.
func ReadFrame(r *bufio.Reader) (k byte, body []byte, err error) {
	kk, size, err := readHeader(r)
	if err != nil {
		return 0, nil, err
	}
	body, err = readBody(r, size)
	return byte(kk), body, err
}
