package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/gateway"
)

// failureOf is the JSON body of a failure.
type failureOf struct {
	Error   string `json:"error"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
	Segment string `json:"segment"`
	List    string `json:"list"`
	Line    int    `json:"line"`
}

func (a answer) failure(t *testing.T) (f failureOf) {
	t.Helper()
	require.NoError(t, json.Unmarshal(a.body, &f), "%s", a.body)
	return f
}

// TestRequests (T-01; G-03, G-09): each row of the table of requests has its status and its code, before anything is looked up that a later row
// would need.
func TestRequests(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(nil)
	root, absent := tr.root.String(), "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	long := strings.Repeat("a/", 40)
	short, err := mh.Encode([]byte("short digest"), mh.SHA2_256)
	require.NoError(t, err)
	for _, tc := range []struct {
		at, accept string
		status     int
		code       string
	}{
		{"/ipfs/" + root, "", 400, "format_missing"},
		{"/ipfs/" + root, "text/html", 406, "not_acceptable"},
		{"/ipfs/" + root, "application/vnd.ipld.car;version=2", 406, "not_acceptable"},
		{"/ipfs/" + root, "application/vnd.ipld.car;q=0", 406, "not_acceptable"},
		{"/ipfs/" + root + "?format=tar", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&format=raw", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&car-version=2", "", 406, "not_acceptable"},
		{"/ipfs/" + root + "?format=car&dag-scope=most", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&dups=maybe", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&dups=y&car-dups=n", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&order=bfs", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&blockLimit=-1", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&filename=a%2Fb", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&filename=" + strings.Repeat("a", 256), "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&entity-bytes=5", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&entity-bytes=%2B1:2", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&entity-bytes=-0:2", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&entity-bytes=0:%202", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&entity-bytes=9:1", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "?format=car&entity-bytes=0:99999999999999999999", "", 400, "bad_parameter"},
		{"/ipfs/" + root + "/docs?format=raw", "", 400, "path_with_raw"},
		{"/ipfs/" + root + "/docs/%2e%2e?format=car", "", 400, "bad_path"},
		{"/ipfs/" + root + "/docs%2Fbig.bin?format=car", "", 400, "bad_path"},
		{"/ipfs/" + root + "/" + long + "?format=car", "", 400, "bad_path"},
		{"/ipfs/" + root + "/" + strings.Repeat("a", 4096) + "?format=car", "", 400, "bad_path"},
		{"/ipfs/nocid?format=car", "", 400, "bad_cid"},
		{"/ipfs/" + strings.Repeat("b", 600) + "?format=car", "", 400, "bad_cid"},
		{"/ipfs/" + cid.NewCidV1(cid.Raw, short).String() + "?format=car", "", 400, "bad_cid"},
		{"/ipfs/" + cid.NewCidV1(cid.Raw, identity(t, 129)).String() + "?format=raw", "", 400, "bad_cid"},
		{"/ipfs/" + absent + "?format=car", "", 404, "not_found"},
		{"/ipfs/" + absent + "?format=raw", "", 404, "not_found"},
		{"/ipfs/" + root + "/docs/none?format=car", "", 404, "path_not_found"},
		{"/ipfs/" + root + "/docs/small.txt/below?format=car", "", 404, "path_not_found"},
		{"/ipfs/" + root + "/shards/none?format=car", "", 404, "path_not_found"},
		{"/ipns/example.org", "", 501, "not_implemented"},
		{"/", "", 404, "not_found"},
		{"/routing/v1/providers/" + root, "", 404, "not_found"},
		{"/piece/" + root, "", 400, "bad_cid"},
		{"/piece/" + pieceOf(t, []byte("nothing")).CID.String(), "", 404, "not_found"},
	} {
		var headers []string
		if tc.accept != "" {
			headers = []string{"Accept", tc.accept}
		}
		a := c.get(tc.at, headers...)
		require.Equal(t, tc.status, a.StatusCode, "%s %s: %s", tc.at, tc.accept, a.body)
		require.Equal(t, tc.code, a.failure(t).Error, tc.at)
		require.NotEmpty(t, a.failure(t).Message)
		require.LessOrEqual(t, len(a.body), 600, tc.at)
		require.Equal(t, "*", a.Header.Get("Access-Control-Allow-Origin"))
		require.Empty(t, a.Header.Get("Etag"))
		want := "no-store"
		if tc.status == 404 {
			want = "public, max-age=60"
		}
		require.Equal(t, want, a.Header.Get("Cache-Control"), tc.at)
	}
	require.Equal(t, "none", c.get("/ipfs/"+root+"/docs/none?format=car").failure(t).Segment)
	require.Equal(t, 412, c.get("/ipfs/"+absent+"?format=car", "Cache-Control", "only-if-cached").StatusCode)
	a := c.do(http.MethodPost, "/ipfs/"+root+"?format=car")
	require.Equal(t, 405, a.StatusCode)
	require.Equal(t, "GET, HEAD, OPTIONS", a.Header.Get("Allow"))
	for _, at := range []string{"/healthz", "/readyz"} {
		require.Equal(t, 200, c.get(at).StatusCode)
	}
}

func identity(t *testing.T, n int) mh.Multihash {
	h, err := mh.Encode(bytes.Repeat([]byte("x"), n), mh.IDENTITY)
	require.NoError(t, err)
	return h
}

func pieceOf(t *testing.T, data []byte) commp.Piece {
	p, err := commp.Compute(bytes.NewReader(data))
	require.NoError(t, err)
	return p
}

// TestNegotiation: the parameter wins over Accept, the better quality and the exact type win, and the answer says what it is.
func TestNegotiation(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(nil)
	for _, tc := range []struct{ query, accept, want string }{
		{"", "application/vnd.ipld.raw", "application/vnd.ipld.raw"},
		{"", "application/vnd.ipld.car", "application/vnd.ipld.car; version=1; order=dfs; dups=n"},
		{"", "*/*", "application/vnd.ipld.car; version=1; order=dfs; dups=n"},
		{"", "text/html, application/*;q=0.8", "application/vnd.ipld.car; version=1; order=dfs; dups=n"},
		{"", "application/vnd.ipld.car;dups=y;order=unk", "application/vnd.ipld.car; version=1; order=dfs; dups=y"},
		{"", "application/vnd.ipld.car;q=0.1, application/vnd.ipld.raw;q=0.2", "application/vnd.ipld.raw"},
		{"", "*/*, application/vnd.ipld.raw", "application/vnd.ipld.raw"},
		{"format=raw", "application/vnd.ipld.car", "application/vnd.ipld.raw"},
		{"format=car", "application/vnd.ipld.car;dups=y", "application/vnd.ipld.car; version=1; order=dfs; dups=y"},
		{"format=car&dups=n", "application/vnd.ipld.car;dups=y", "application/vnd.ipld.car; version=1; order=dfs; dups=n"},
	} {
		a := c.get("/ipfs/"+tr.small.String()+"?"+tc.query, "Accept", tc.accept)
		require.Equal(t, 200, a.StatusCode, "%v: %s", tc, a.body)
		require.Equal(t, tc.want, a.Header.Get("Content-Type"), "%v", tc)
		require.Equal(t, tc.query == "", a.Header.Get("Content-Location") != "", "%v", tc)
	}
	a := c.get("/ipfs/"+tr.root.String()+"?dag-scope=block", "Accept", "application/vnd.ipld.car;dups=y")
	again := c.get(a.Header.Get("Content-Location"))
	require.Equal(t, a.Header.Get("Etag"), again.Header.Get("Etag"))
	require.Equal(t, a.body, again.body)
}

// TestHeaders (G-04, G-06): what a client can rely on stands in the headers of GET, of HEAD without a read, and of 304.
func TestHeaders(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(nil)
	at := "/ipfs/" + tr.root.String() + "/%C3%BC%20b?format=car"
	a := c.get(at)
	require.Equal(t, 200, a.StatusCode, "%s", a.body)
	require.Equal(t, "/ipfs/"+tr.root.String()+"/%C3%BC%20b", a.Header.Get("X-Ipfs-Path"))
	require.Equal(t, "ipfs://"+tr.root.String()+"/%C3%BC%20b", a.Header.Get("Ipfs-Uri"))
	require.Empty(t, a.Header.Get("X-Ipfs-Roots"))
	require.Equal(t, "public, max-age=29030400, immutable", a.Header.Get("Cache-Control"))
	require.Equal(t, "nosniff", a.Header.Get("X-Content-Type-Options"))
	require.Equal(t, "none", a.Header.Get("Accept-Ranges"))
	require.Equal(t, "4194304;max=8388608;car=?1", a.Header.Get("Cartage-Window"))
	require.Equal(t, `attachment; filename="`+tr.root.String()+`.car"`, a.Header.Get("Content-Disposition"))
	require.NotEmpty(t, a.Header.Get("X-Request-Id"))
	require.Regexp(t, `^"all-[a-z2-7]{26}\.car"$`, a.Header.Get("Etag"))
	require.Empty(t, a.Header.Get("Cartage-Price"))
	require.Equal(t, tr.root.String(), c.get("/ipfs/"+tr.root.String()+"?format=car").Header.Get("X-Ipfs-Roots"))
	require.Contains(t, c.get(at+"&filename=%C3%BC.car").Header.Get("Content-Disposition"), "filename*=UTF-8''%C3%BC.car")

	tags := map[string]bool{}
	for _, q := range []string{"", "&dups=y", "&dag-scope=block", "&entity-bytes=0:5", "&entity-bytes=0:6", "&blockLimit=1"} {
		tags[c.do(http.MethodHead, at+q).Header.Get("Etag")] = true
	}
	require.Len(t, tags, 6)

	for _, tag := range []string{a.Header.Get("Etag"), `"x", ` + a.Header.Get("Etag"), "W/" + a.Header.Get("Etag"), "*"} {
		n := c.get(at, "If-None-Match", tag)
		require.Equal(t, 304, n.StatusCode)
		require.Empty(t, n.body)
		require.Equal(t, a.Header.Get("Etag"), n.Header.Get("Etag"))
	}
	require.Equal(t, 200, c.get(at, "If-None-Match", `"other"`).StatusCode)

	// Identity CIDs are answered by themselves.
	inline := cid.NewCidV1(cid.Raw, identity(t, 3)).String()
	require.Equal(t, "xxx", string(c.get("/ipfs/"+inline+"?format=raw").body))
	_, blocks := cids(t, c.get("/ipfs/"+inline+"?format=car").body)
	require.Empty(t, blocks)
	require.Empty(t, c.get("/ipfs/bafkqaaa?format=raw").body)
}

// TestCORS: a browser of any origin may ask, pay and read; the preflight allows the name of the header that a stock client sends.
func TestCORS(t *testing.T) {
	tr := newTree(t)
	c := tr.serve(nil)
	a := c.do(http.MethodOptions, "/ipfs/"+tr.root.String(), "Origin", "https://app.example", "Access-Control-Request-Method", "GET",
		"Access-Control-Request-Headers", "access-control-expose-headers,payment-signature,range")
	require.Equal(t, 204, a.StatusCode)
	require.Equal(t, "*", a.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "86400", a.Header.Get("Access-Control-Max-Age"))
	for _, name := range []string{"PAYMENT-SIGNATURE", "X-PAYMENT", "Access-Control-Expose-Headers", "Range", "Cartage-Piece-Proof"} {
		require.Contains(t, a.Header.Get("Access-Control-Allow-Headers"), name)
	}
	for _, name := range []string{"PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "Content-Range", "Cartage-Price", "Retry-After"} {
		require.Contains(t, a.Header.Get("Access-Control-Expose-Headers"), name)
	}
	require.Empty(t, a.Header.Get("Access-Control-Allow-Credentials"))
}

// TestCARRanges (T-04, G-07): any split of a CAR into ranges joins to the whole, through two gateways; raw blocks have ranges too.
func TestCARRanges(t *testing.T) {
	tr := newTree(t)
	c, other := tr.serve(nil), tr.serve(nil)
	for _, at := range []string{"/ipfs/" + tr.root.String() + "?format=car", "/ipfs/" + tr.root.String() + "/docs?format=car&dups=y", "/ipfs/" + tr.big.String() + "?format=raw"} {
		whole := c.get(at)
		require.Equal(t, 200, whole.StatusCode)
		size, tag := len(whole.body), whole.Header.Get("Etag")
		rapid.Check(t, func(rt *rapid.T) {
			var joined []byte
			for len(joined) < size {
				from := len(joined)
				to := from + rapid.IntRange(0, size-from-1).Draw(rt, "length")
				by := c
				if rapid.Bool().Draw(rt, "other") {
					by = other
				}
				part := by.get(at, "Range", fmt.Sprintf("bytes=%d-%d", from, to), "If-Range", tag)
				require.Equal(rt, 206, part.StatusCode)
				require.Equal(rt, fmt.Sprintf("bytes %d-%d/%d", from, to, size), part.Header.Get("Content-Range"))
				require.Equal(rt, int64(to-from+1), part.ContentLength)
				require.Equal(rt, "bytes", part.Header.Get("Accept-Ranges"))
				joined = append(joined, part.body...)
			}
			require.Equal(rt, whole.body, joined)
		})
		require.Equal(t, whole.body[size-5:], c.get(at, "Range", "bytes=-5").body)
		require.Equal(t, whole.body[3:], c.get(at, "Range", "bytes=3-").body)
		require.Equal(t, whole.body[3:], c.get(at, "Range", fmt.Sprintf("bytes=3-%d", size+1000)).body)
		outside := c.get(at, "Range", fmt.Sprintf("bytes=%d-", size))
		require.Equal(t, 416, outside.StatusCode)
		require.Equal(t, fmt.Sprintf("bytes */%d", size), outside.Header.Get("Content-Range"))
		for _, ignored := range []string{"bytes=0-1,3-4", "blocks=0-1", "bytes=5-2", "bytes=a-b", "bytes=-", "bytes= -1-2"} {
			require.Equal(t, 200, c.get(at, "Range", ignored).StatusCode, ignored)
		}
		for _, tag := range []string{`"other"`, "W/" + tag, "Mon, 02 Jan 2006 15:04:05 GMT"} {
			require.Equal(t, 200, c.get(at, "Range", "bytes=0-1", "If-Range", tag).StatusCode)
		}
	}
}

// onePiece is Pieces with one piece in memory.
type onePiece struct {
	piece commp.Piece
	data  []byte
}

type bytesFile struct{ *bytes.Reader }

func (bytesFile) Close() error { return nil }

func (o onePiece) Piece(_ context.Context, c cid.Cid) (gateway.Piece, error) {
	if !c.Equals(o.piece.CID) {
		return gateway.Piece{}, gateway.ErrNotFound
	}
	return gateway.Piece{CID: c, Size: uint64(len(o.data)), Padded: uint64(o.piece.Padded),
		Open: func(context.Context) (gateway.ReaderAtCloser, error) { return bytesFile{bytes.NewReader(o.data)}, nil }}, nil
}

// TestPieceRanges (T-05, G-18): version 1 is the payload, version 2 as much as it says, with zeros behind the payload, and never less.
func TestPieceRanges(t *testing.T) {
	tr := newTree(t)
	data := bytes.Repeat([]byte("piece of data. "), 200_000) // more than one buffer
	p := pieceOf(t, data)
	c := tr.serve(func(cfg *gateway.Config) { cfg.Pieces = onePiece{p, data} })
	a := c.get("/piece/" + p.CID.String())
	require.Equal(t, 200, a.StatusCode, "%s", a.body)
	require.Equal(t, data, a.body)
	require.Equal(t, fmt.Sprintf(`"%s.%d"`, p.CID, len(data)), a.Header.Get("Etag"))
	require.Equal(t, "bytes", a.Header.Get("Accept-Ranges"))
	v2 := func(size int) string {
		q := p
		q.Payload = commp.Payload(size)
		c, err := commp.V2(q)
		require.NoError(t, err)
		return "/piece/" + c.String()
	}
	require.Equal(t, data, c.get(v2(len(data))).body)
	more := append(bytes.Clone(data), make([]byte, 100_000)...)
	require.Equal(t, more, c.get(v2(len(more))).body)
	require.Equal(t, more[len(data)-5:len(data)+5], c.get(v2(len(more)), "Range", fmt.Sprintf("bytes=%d-%d", len(data)-5, len(data)+4)).body)
	require.Equal(t, make([]byte, 7), c.get(v2(len(more)), "Range", "bytes=-7").body)
	require.Equal(t, 404, c.get(v2(len(data)-1000)).StatusCode)
	require.Equal(t, 416, c.get("/piece/"+p.CID.String(), "Range", fmt.Sprintf("bytes=%d-", len(data))).StatusCode)
	require.Equal(t, int64(len(data)), c.do(http.MethodHead, "/piece/"+p.CID.String()).ContentLength)
	require.Equal(t, 400, c.get("/piece/"+p.CID.String()+"/x").StatusCode)
}
