package node

import (
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
)

const (
	someCID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
	oldCID  = "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR"
)

// TestParseRef: the forms in which people have a CID.
func TestParseRef(t *testing.T) {
	for text, want := range map[string]Ref{
		someCID:                                              {},
		someCID + "/":                                        {},
		someCID + "/a/b c%20.txt":                            {Path: "a/b c%20.txt"},
		"/ipfs/" + someCID:                                   {},
		"/ipfs/" + someCID + "/a":                            {Path: "a"},
		"/ipld/" + someCID + "/Links/0":                      {Path: "Links/0", Fields: true},
		"ipfs://" + someCID:                                  {},
		"ipfs://" + someCID + "/a%20b?filename=x#y":          {Path: "a b"},
		"ipld://" + someCID + "/Links":                       {Path: "Links", Fields: true},
		"https://" + someCID + ".ipfs.dweb.example":          {},
		"http://" + someCID + ".ipfs.localhost:8080/a/b?x=1": {Path: "a/b"},
		"https://" + someCID + ".ipld.dweb.example/Links/0":  {Path: "Links/0", Fields: true},
		"https://gateway.example/ipfs/" + someCID + "/docs/": {Path: "docs"},
		"https://gateway.example:80/ipld/" + someCID + "/a":  {Path: "a", Fields: true},
	} {
		got, err := ParseRef(text)
		require.NoError(t, err, text)
		want.Root = cid.MustParse(someCID)
		require.Equal(t, want, got, text)
	}
	got, err := ParseRef("ipfs://" + oldCID + "/a")
	require.NoError(t, err, "letters keep their case")
	require.Equal(t, Ref{Root: cid.MustParse(oldCID), Path: "a"}, got)
	for _, text := range []string{"", "/", "nonsense", "/ipfs/", "/ipfs/nonsense/a", "/ipns/example.org", "ipns://example.org", "https://gateway.example/", "https://gateway.example/" + someCID,
		"ftp://" + someCID, "ipfs://", "://", "https://%zz", "/ip4/127.0.0.1", "\x1b[31m"} {
		_, err := ParseRef(text)
		require.ErrorIs(t, err, reason.Usage, text)
		require.ErrorContains(t, err, "names no DAG", text)
	}
	_, err = ParseCID("ipfs://" + someCID + "/a")
	require.ErrorContains(t, err, "names a part")
	c, err := ParseCID("https://" + someCID + ".ipfs.dweb.example")
	require.NoError(t, err)
	require.Equal(t, someCID, c.String())
}

// TestNormalize: a part is named in one way.
func TestNormalize(t *testing.T) {
	got, err := Normalize(api.RetrieveRequest{CID: "ipfs://" + someCID + "/a/b", Range: "0:1"})
	require.NoError(t, err)
	require.Equal(t, api.RetrieveRequest{CID: someCID, Path: "a/b", Range: "0:1"}, got)
	again, err := Normalize(got)
	require.NoError(t, err)
	require.Equal(t, got, again)
	got, err = Normalize(api.RetrieveRequest{CID: "/ipld/" + someCID + "/Links/0/Hash"})
	require.NoError(t, err)
	require.Equal(t, api.RetrieveRequest{CID: someCID, DataSelector: "Links/0/Hash"}, got)
	_, err = Normalize(api.RetrieveRequest{CID: someCID + "/a", Path: "b"})
	require.ErrorIs(t, err, reason.Usage)
}

// TestParseProvider: an address, or the id alone.
func TestParseProvider(t *testing.T) {
	const id = "12D3KooWL5mGMKNkCFrFZn3yXzNeLyJ7ZBYg6pdHkZtUvdhJ7JHx"
	for text, addrs := range map[string]int{id: 0, "/p2p/" + id: 0, "/ip4/127.0.0.1/tcp/1/p2p/" + id: 1} {
		p, err := parseProvider(text)
		require.NoError(t, err, text)
		require.Equal(t, id, p.ID.String())
		require.Len(t, p.Addrs, addrs)
	}
	for _, text := range []string{"", "x", "/ip4/127.0.0.1/tcp/1", "/p2p/x", "http://a"} {
		_, err := parseProvider(text)
		require.ErrorIs(t, err, reason.Usage, text)
	}
}
