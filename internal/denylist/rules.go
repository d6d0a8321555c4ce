package denylist

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// rule is where a rule stands and what it says.
type rule struct {
	line  uint32
	list  uint16
	allow bool
	legal bool
}

// after reports whether a rule stands behind another one.
func (r rule) after(o rule) bool {
	return r.list > o.list || r.list == o.list && r.line >= o.line
}

// beginning is a rule for all paths below a CID that begin with a text.
type beginning struct {
	prefix string
	rule   rule
}

// Kinds of keys.
const (
	kindExact  = 'e' // multihash, path
	kindHidden = 'h' // multihash of the text
	kindHex    = 'x' // SHA-256 of the older text
)

// rules are all rules of all lists.
type rules struct {
	lists  []string
	count  int
	exact  map[[16]byte]rule
	begins map[[16]byte][]beginning // by multihash
	// hashes are the functions of hidden rules: a look-up makes one hash for each.
	hashes []uint64
	older  bool // there are rules of the older form
}

func newRules() *rules {
	return &rules{exact: map[[16]byte]rule{}, begins: map[[16]byte][]beginning{}}
}

// list is the number of a list.
func (r *rules) list(name string) uint16 {
	if i := slices.Index(r.lists, name); i >= 0 {
		return uint16(i)
	}
	r.lists = append(r.lists, name)
	return uint16(len(r.lists) - 1)
}

// add adds the rule of a line.
func (r *rules) add(line string, list uint16, n uint32) error {
	words := strings.Fields(line)
	at := rule{line: n, list: list}
	for _, hint := range words[1:] {
		at.legal = at.legal || hint == "status=451"
	}
	text, allow := strings.CutPrefix(words[0], "!")
	at.allow = allow
	var err error
	switch {
	case strings.HasPrefix(text, "//"):
		err = r.addHidden(text[2:], at)
	case strings.HasPrefix(text, "/ipfs/"):
		err = r.addPlain(text[len("/ipfs/"):], at)
	case strings.HasPrefix(text, "/ipns/"):
		return nil // names are not resolved here
	default:
		err = errors.New("it begins neither with /ipfs/ nor with //")
	}
	if err == nil {
		r.count++
	}
	return err
}

func (r *rules) addPlain(text string, at rule) error {
	first, path, _ := strings.Cut(text, "/")
	whole, starred := strings.CutSuffix(first, "*") // /ipfs/CID*
	c, err := cid.Decode(whole)
	if err != nil {
		return fmt.Errorf("%.100q is no CID", first)
	}
	if decoded, err := url.PathUnescape(path); err == nil {
		path = decoded
	}
	path, begins := strings.CutSuffix(path, "*")
	if begins || starred {
		k := keyOf(kindExact, string(c.Hash()))
		r.begins[k] = append(r.begins[k], beginning{path, at})
		return nil
	}
	r.exact[keyOf(kindExact, string(c.Hash()), strings.Trim(path, "/"))] = at
	return nil
}

func (r *rules) addHidden(text string, at rule) error {
	if sum, err := hex.DecodeString(text); err == nil && len(sum) == sha256.Size {
		r.exact[keyOf(kindHex, string(sum))], r.older = at, true
		return nil
	}
	hash, err := mh.FromB58String(text)
	if err != nil {
		return fmt.Errorf("%.100q is neither a multihash nor a SHA-256", text)
	}
	d, err := mh.Decode(hash)
	if err != nil {
		return err
	}
	if _, err := mh.GetHasher(d.Code); err != nil {
		return fmt.Errorf("the hash function %#x is not known", d.Code)
	}
	if !slices.Contains(r.hashes, d.Code) {
		r.hashes = append(r.hashes, d.Code)
	}
	r.exact[keyOf(kindHidden, string(hash))] = at
	return nil
}

// last is the last rule that fits.
func (r *rules) last(c cid.Cid, path string) (best rule, found bool) {
	if r.count == 0 {
		return rule{}, false
	}
	take := func(k rule) {
		if !found || k.after(best) {
			best, found = k, true
		}
	}
	look := func(key [16]byte) {
		if k, ok := r.exact[key]; ok {
			take(k)
		}
	}
	hash := string(c.Hash())
	look(keyOf(kindExact, hash, path))
	if len(r.begins) > 0 {
		for _, b := range r.begins[keyOf(kindExact, hash)] {
			if strings.HasPrefix(path, b.prefix) {
				take(b.rule)
			}
		}
	}
	r.hidden(c, path, look)
	return best, found
}

// hidden looks up the hashes of what a CID and a path are in hidden rules.
func (r *rules) hidden(c cid.Cid, path string, look func([16]byte)) {
	if len(r.hashes) > 0 {
		text := c.Hash().B58String()
		if path != "" {
			text += "/" + path
		}
		for _, code := range r.hashes {
			if sum, err := mh.Sum([]byte(text), code, -1); err == nil {
				look(keyOf(kindHidden, string(sum)))
			}
		}
	}
	if r.older {
		v1 := cid.NewCidV1(c.Prefix().Codec, c.Hash())
		sum := sha256.Sum256([]byte(v1.String() + "/" + path))
		look(keyOf(kindHex, string(sum[:])))
	}
}
