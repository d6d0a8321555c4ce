package node

import (
	"net/url"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Ref is what somebody names: a DAG and a path in it.
type Ref struct {
	Root cid.Cid
	Path string // of UnixFS names, or with Fields of the data model
	// Fields says that the path is one of the data model.
	Fields bool
}

// refHint says how a DAG is named.
const refHint = "Write it as bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi, with /PATH behind it if you like, /ipfs/CID, ipfs://CID or https://CID.ipfs.HOST."

// ParseRef reads CID[/PATH], /ipfs/CID[/PATH], ipfs://CID[/PATH], https://CID.ipfs.HOST[/PATH], https://HOST/ipfs/CID[/PATH], and the same with
// ipld, whose path is one of the data model. In the forms of a URL a path is unescaped, and what is behind ? or # does not count.
func ParseRef(text string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, reason.Usage.Errorf("%q names no DAG: %s", text, why).WithHint(refHint)
	}
	space, rest := "ipfs", text
	switch scheme, _, isURL := strings.Cut(text, "://"); {
	case isURL:
		u, err := url.Parse(text)
		if err != nil {
			return bad("it is no URL")
		}
		if space, rest = splitURL(u); space == "" {
			return bad("a URL is ipfs://CID, https://CID.ipfs.HOST or https://HOST/ipfs/CID, this is one of " + scheme)
		}
	case strings.HasPrefix(text, "/"):
		space, rest, _ = strings.Cut(text[1:], "/")
	}
	root, path, _ := strings.Cut(rest, "/")
	switch space {
	case "ipfs", "ipld":
	case "ipns":
		return bad("names of ipns are not looked up, name the CID")
	default:
		return bad("/" + space + "/ is unknown, there are /ipfs/ and /ipld/")
	}
	c, err := cid.Decode(root)
	if err != nil {
		return bad(quoteOr(root, text) + "is not a CID")
	}
	return Ref{c, strings.Trim(path, "/"), space == "ipld"}, nil
}

// quoteOr names the part of a text that is wrong, if it is not all of it.
func quoteOr(part, text string) string {
	if part == text {
		return "it "
	}
	return "\"" + part + "\" "
}

// splitURL is the space that a URL names, and CID and path in it.
func splitURL(u *url.URL) (space, rest string) {
	switch u.Scheme {
	case "ipfs", "ipld", "ipns":
		return u.Scheme, u.Host + u.Path
	case "http", "https":
		for _, s := range []string{"ipfs", "ipld", "ipns"} {
			if root, _, ok := strings.Cut(u.Hostname(), "."+s+"."); ok {
				return s, root + u.Path
			}
		}
		space, rest, _ = strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	}
	return space, rest
}

// ParseCID reads a CID in one of the forms of ParseRef, or says what is wrong with it.
func ParseCID(s string) (cid.Cid, error) {
	r, err := ParseRef(s)
	if err == nil && r.Path != "" {
		err = reason.Usage.Errorf("%q names a part of a DAG, and this is about the whole", s).WithHint("Leave the path out: " + r.Root.String())
	}
	return r.Root, err
}

// parseProvider reads a multiaddress with /p2p/, or the id of a peer alone; the latter has no addresses.
func parseProvider(text string) (peer.AddrInfo, error) {
	if id, err := peer.Decode(text); err == nil {
		return peer.AddrInfo{ID: id}, nil
	}
	m, err := multiaddr.NewMultiaddr(text)
	if err == nil {
		info, err := peer.AddrInfoFromP2pAddr(m)
		if err == nil {
			return *info, nil
		}
	}
	return peer.AddrInfo{}, reason.Usage.Errorf("%q is not the address of a provider", text).
		WithHint("It looks like /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW..., or is the id alone of a peer that was met before.")
}
