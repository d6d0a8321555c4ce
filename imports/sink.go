package imports

import (
	"os"

	"github.com/ipfs/go-cid"
)

// refSink keeps nodes, and notes where leaves lie.
type refSink struct {
	nodes []nodeBlock
	refs  refs
	files map[string]int
	bytes uint64
}

type nodeBlock struct {
	c    cid.Cid
	data []byte
}

// sourceIndex is the number of a file, noted as it is now.
func (s *refSink) sourceIndex(path string) (int, error) {
	if n, ok := s.files[path]; ok {
		return n, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	n := len(s.refs.sources)
	s.files[path] = n
	s.refs.sources = append(s.refs.sources, source{path, st.Size(), st.ModTime().UnixNano()})
	return n, nil
}

// Leaf implements Sink.
func (s *refSink) Leaf(c cid.Cid, data []byte, at Leaf) error {
	n, err := s.sourceIndex(at.Path)
	s.bytes += uint64(len(data))
	s.refs.rows = append(s.refs.rows, row{c.Hash(), n, at.Offset, len(data)})
	return err
}

// Node implements Sink.
func (s *refSink) Node(c cid.Cid, data []byte) error {
	s.nodes = append(s.nodes, nodeBlock{c, append([]byte(nil), data...)})
	return nil
}
