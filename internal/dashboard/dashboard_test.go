package dashboard_test

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/dashboard"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const hostile = `<script>alert(1)</script>"onload="x`

// standIn answers as a node does, and notes what it was asked to change.
type standIn struct {
	mu    sync.Mutex
	calls []string
	ask   api.Ask

	revoked bool
}

func (n *standIn) note(call string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, call)
}

func (n *standIn) noted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string{}, n.calls...)
}

// signIn knows two tokens: one for everything, one that may look only until it is revoked.
func (n *standIn) signIn(_ context.Context, token string) (*dashboard.Guest, error) {
	switch token {
	case "right":
		return everything(), nil
	case "reader":
		return &dashboard.Guest{Enter: func(ctx context.Context) (context.Context, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.revoked {
				return nil, errors.New("revoked")
			}
			return ctx, nil
		}}, nil
	}
	return nil, errors.New("unknown")
}

func everything() *dashboard.Guest {
	return &dashboard.Guest{Pay: true, Provide: true, Admin: true, Enter: func(ctx context.Context) (context.Context, error) { return ctx, nil }}
}

func (n *standIn) api() *api.Node {
	deals := []api.Deal{
		{ID: "p12D3KooWPeer/17", Role: "provider", Peer: "12D3KooWPeer", Root: "bafyroot", Status: "Ongoing", Bytes: 3 << 20, Owed: "6291456", Vouchered: "4194304", PricePerByte: "2", UnsealPrice: "0"},
		{ID: "c3", Role: "client", Peer: "=cmd()", Root: "bafyother", Status: "Errored", Message: hostile, Final: true, Reason: "peer-silent", Blame: "network", Owed: "0", Vouchered: "0", PricePerByte: "2", UnsealPrice: "0"},
	}
	channels := []api.PayChannel{{Channel: "f2channel", Direction: "inbound", From: "f1from", To: "f1to", Deposit: "100", Vouchered: "90", Redeemed: "10"}}
	return &api.Node{
		Status: func(context.Context) (*api.Status, error) {
			return &api.Status{Version: "v1.2.3", PeerID: "12D3KooWSelf", Checks: []api.Check{{ID: "ledger", State: "bad", Text: "away " + hostile, Fix: "start it"}, {ID: "disk", State: "ok", Text: "much"}},
				DealsOpen: 1, EarnedToday: "1000000000", Earned30: "2000000000", Unredeemed: "", Spent: "0", SpentToday: "", Unknown: map[string]string{"unredeemed": "ledger-away", "spent_today": "unknown"}}, nil
		},
		Deals: func(context.Context) ([]api.Deal, error) { return deals, nil },
		Orders: func(context.Context) ([]api.Order, error) {
			return []api.Order{{ID: "o9", Root: "bafyother", State: "parked", Reason: "peer-silent", Owner: "command", Budget: "1000", Spent: "10", Deals: []string{"c3"}, Output: hostile}}, nil
		},
		Pieces: func(context.Context) ([]api.Piece, error) {
			return []api.Piece{{Root: "bafyroot", PieceCID: "bagapiece", Bytes: 5, Blocks: 1, Path: hostile, State: "ready", Missing: 2}}, nil
		},
		Earnings: func(context.Context) (*api.Earnings, error) {
			return &api.Earnings{Owed: "5", Vouchered: "4", Redeemed: "3", Redeemable: "1", Lost: "0", Days: []api.EarnedDay{{Date: time.Now().UTC().Format(time.DateOnly), Vouchered: "4"}}}, nil
		},
		PayChannels: func(context.Context) ([]api.PayChannel, error) { return channels, nil },
		PayChVouchers: func(context.Context, string) ([]api.Voucher, error) {
			return []api.Voucher{{Lane: 1, Nonce: 2, Amount: "90", Deal: "p17"}}, nil
		},
		PayChPlan: func(context.Context, string) (*api.PayChPlan, error) {
			return &api.PayChPlan{Adds: "80", ToPayee: "90", ToPayer: "10", Redeemed: "10", Rest: "90"}, nil
		},
		RedeemPayCh:  func(_ context.Context, ch string) error { n.note("redeem " + ch); return nil },
		SettlePayCh:  func(_ context.Context, ch string) error { n.note("settle " + ch); return nil },
		CollectPayCh: func(_ context.Context, ch string) error { n.note("collect " + ch); return nil },
		Spending:     func(context.Context) (*api.Spending, error) { return &api.Spending{Vouchered: "0"}, nil },
		PeerDebts: func(context.Context) ([]api.Debt, error) {
			return []api.Debt{{Peer: "12D3KooWPeer", Amount: "7", Until: "2026-12-01T00:00:00Z"}}, nil
		},
		ForgivePeer: func(_ context.Context, peer string) (int, error) { n.note("forgive " + peer); return 1, nil },
		Limits: func(context.Context) ([]api.Limit, error) {
			return []api.Limit{{Name: "deals_peer", Text: "16", Hits: 3, InUse: 2}}, nil
		},
		ConfigShow: func(context.Context) ([]api.ConfigKey, error) {
			return []api.ConfigKey{{Key: "network.api", Value: hostile, Origin: "default"}}, nil
		},
		ConfigReload: func(context.Context) (*api.ConfigChange, error) {
			n.note("reload")
			return &api.ConfigChange{Restart: []string{"network.api"}}, nil
		},
		Version:    func(context.Context) (*api.Version, error) { return &api.Version{Version: "v1.2.3", Go: "go1.26"}, nil },
		Ask:        func(context.Context) (*api.Ask, error) { a := n.ask; return &a, nil },
		SetAsk:     func(_ context.Context, a api.Ask) (*api.Ask, error) { n.note("ask " + a.PricePerByte); return &a, nil },
		CancelDeal: func(_ context.Context, id string) error { n.note("cancel " + id); return nil },
		OrderResume: func(_ context.Context, r api.OrderResume) (*api.Retrieval, error) {
			n.note("resume " + r.ID + " " + r.Budget)
			return nil, nil
		},
		OrderCancel: func(_ context.Context, id string) (*api.Retrieval, error) { n.note("cancel " + id); return nil, nil },
	}
}

// browser is somebody who looks at the pages.
type browser struct {
	*testing.T
	http.Client
	site string
}

func open(t *testing.T, clock func() time.Time) (*browser, *standIn, *dashboard.Dashboard) {
	n := &standIn{ask: api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 1 << 20}}
	d, err := dashboard.New(dashboard.Config{API: n.api(), SignIn: n.signIn, Now: clock})
	require.NoError(t, err)
	srv := httptest.NewServer(d)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b := &browser{t, http.Client{Jar: jar}, srv.URL}
	t.Cleanup(func() {
		b.CloseIdleConnections()
		srv.Close()
	})
	return b, n, d
}

// answer is what came of a request, at the end of all redirections.
type answer struct {
	StatusCode int
	Header     http.Header
	URL        *url.URL
}

func (b *browser) get(path string) (answer, string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, b.site+path, nil)
	require.NoError(b, err)
	return b.send(req)
}

func (b *browser) post(path string, values url.Values) (answer, string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, b.site+path, strings.NewReader(values.Encode()))
	require.NoError(b, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.send(req)
}

func (b *browser) send(req *http.Request) (answer, string) {
	b.Helper()
	r, err := b.Do(req)
	require.NoError(b, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(b, err)
	return answer{r.StatusCode, r.Header, r.Request.URL}, string(text)
}

func (b *browser) signIn() {
	b.Helper()
	r, text := b.post("/sign-in", url.Values{"token": {"right"}})
	require.Equal(b, http.StatusOK, r.StatusCode)
	require.Contains(b, text, "Earned today")
}

var formText = regexp.MustCompile(`name="form" value="([^"]+)"`)

func (b *browser) form() string {
	b.Helper()
	_, text := b.get("/settings")
	m := formText.FindStringSubmatch(text)
	require.NotNil(b, m)
	return m[1]
}

var pages = []string{"/", "/deals", "/deals/p12D3KooWPeer%2F17", "/deals/c3", "/deals/o9", "/pieces", "/money", "/money/f2channel", "/peers", "/settings", "/search?q=bafyroot"}

// TestPagesNeedASession (O-44): without one every page is the sign-in page, and nothing is changed.
func TestPagesNeedASession(t *testing.T) {
	b, n, _ := open(t, nil)
	for _, path := range pages {
		r, text := b.get(path)
		require.Equal(t, "/sign-in", r.URL.Path, path)
		require.NotContains(t, text, "bafyroot")
	}
	r, _ := b.get("/live")
	require.Equal(t, http.StatusUnauthorized, r.StatusCode)
	for _, path := range []string{"/deals/c3/cancel", "/money/f2channel/redeem", "/settings/ask", "/settings/reload", "/peers/x/forgive"} {
		r, _ := b.post(path, url.Values{"price": {"9"}})
		require.Equal(t, http.StatusUnauthorized, r.StatusCode, path)
	}
	require.Empty(t, n.noted())
	r, text := b.post("/sign-in", url.Values{"token": {"wrong"}})
	require.Equal(t, http.StatusUnauthorized, r.StatusCode)
	require.Contains(t, text, "no token of this node")
}

// TestEveryPage (O-45, O-46): a page has the strict policy, needs no script, and shows what a peer or a file says as text.
func TestEveryPage(t *testing.T) {
	b, _, _ := open(t, nil)
	b.signIn()
	for _, path := range pages {
		r, text := b.get(path)
		require.Equal(t, http.StatusOK, r.StatusCode, path)
		require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			r.Header.Get("Content-Security-Policy"))
		require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
		require.NotContains(t, text, "<script>", path)
		require.NotContains(t, text, ` style="`, path)
		require.NotRegexp(t, ` on[a-z]+="`, text, path)
		require.Contains(t, text, `<main id="main">`)
		require.Contains(t, text, `href="#main"`)
	}
	_, text := b.get("/")
	require.Contains(t, text, "ledger-away", "what is not known is said")
	require.Contains(t, text, "start it")
	_, text = b.get("/deals")
	require.Contains(t, text, "peer-silent")
	r, _ := b.get("/deals/nothing")
	require.Equal(t, http.StatusNotFound, r.StatusCode)
	r, _ = b.get("/static/app.css")
	require.Equal(t, http.StatusOK, r.StatusCode)
}

// TestListsAsData (O-46): each list is given as JSON and as CSV, in which a text of a peer is no formula.
func TestListsAsData(t *testing.T) {
	b, _, _ := open(t, nil)
	b.signIn()
	for _, path := range []string{"/deals", "/pieces", "/money", "/peers"} {
		r, text := b.get(path + "?format=json")
		require.Equal(t, "application/json", r.Header.Get("Content-Type"))
		require.True(t, json.Valid([]byte(text)), path)
		_, text = b.get(path + "?format=csv")
		rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		require.NoError(t, err)
		require.Greater(t, len(rows), 1, path)
		require.NotContains(t, text, ",=cmd()")
	}
	_, text := b.get("/deals?role=client&format=csv")
	require.Contains(t, text, "c3,client")
	require.NotContains(t, text, "provider")
}

// TestForms (O-45): a form without the text of its session, or of another site, changes nothing; with it the node is asked once.
func TestForms(t *testing.T) {
	b, n, _ := open(t, nil)
	b.signIn()
	r, _ := b.post("/settings/ask", url.Values{"price": {"9"}})
	require.Equal(t, http.StatusForbidden, r.StatusCode)
	form := b.form()
	req, err := http.NewRequest(http.MethodPost, b.site+"/settings/ask", strings.NewReader(url.Values{"price": {"9"}, "form": {form}}.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://elsewhere.example")
	r, _ = b.send(req)
	require.Equal(t, http.StatusForbidden, r.StatusCode)
	require.Empty(t, n.noted())

	for _, c := range []struct {
		path   string
		values url.Values
		call   string
	}{
		{"/settings/ask", url.Values{"price": {"9"}}, "ask 9"},
		{"/settings/ask", url.Values{"price": {"1073741824 attoFIL/GiB"}}, "ask 1"},
		{"/deals/o9/resume", url.Values{"budget": {"2000"}}, "resume o9 2000"},
		{"/deals/o9/cancel", nil, "cancel o9"},
		{"/deals/p12D3KooWPeer%2F17/cancel", nil, "cancel p12D3KooWPeer/17"},
		{"/money/f2channel/redeem", nil, "redeem f2channel"},
		{"/money/f2channel/settle", nil, "settle f2channel"},
		{"/money/f2channel/collect", nil, "collect f2channel"},
		{"/peers/12D3KooWPeer/forgive", nil, "forgive 12D3KooWPeer"},
		{"/settings/reload", nil, "reload"},
	} {
		before := len(n.noted())
		if c.values == nil {
			c.values = url.Values{}
		}
		c.values.Set("form", form)
		r, text := b.post(c.path, c.values)
		require.Equal(t, http.StatusOK, r.StatusCode, c.path)
		require.Equal(t, append(n.noted()[:before:before], c.call), n.noted())
		require.Contains(t, text, `class="notice"`, c.path)
	}
	before := len(n.noted())
	_, text := b.post("/deals/c3/cancel", url.Values{"form": {form}})
	require.Contains(t, text, "cannot be")
	_, text = b.post("/settings/ask", url.Values{"form": {form}, "price": {"much"}})
	require.Contains(t, text, "The ask is as it was")
	require.Len(t, n.noted(), before)
}

// TestReaderChangesNothing (O-44): what a token does not permit is neither drawn nor taken, and a session ends with its token.
func TestReaderChangesNothing(t *testing.T) {
	b, n, _ := open(t, nil)
	r, _ := b.post("/sign-in", url.Values{"token": {"reader"}})
	require.Equal(t, "/", r.URL.Path)
	for _, path := range pages {
		_, text := b.get(path)
		require.Equal(t, 1, strings.Count(text, `method="post"`), "%s: signing out only", path)
	}
	form := url.Values{"form": {b.form()}, "price": {"9"}}
	for _, path := range []string{"/deals/o9/cancel", "/money/f2channel/redeem", "/money/f2channel/settle", "/money/f2channel/collect", "/settings/ask", "/settings/reload", "/peers/x/forgive"} {
		r, _ := b.post(path, form)
		require.Equal(t, http.StatusForbidden, r.StatusCode, path)
	}
	require.Empty(t, n.noted())
	n.mu.Lock()
	n.revoked = true
	n.mu.Unlock()
	r, _ = b.get("/deals")
	require.Equal(t, "/sign-in", r.URL.Path)
}

// TestCodeIsGoodOnce (O-44): a code signs in once, within a minute, and a session ends after twelve hours or by signing out.
func TestCodeIsGoodOnce(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	b, _, d := open(t, func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	code := d.Code(everything())
	_, text := b.get("/sign-in?code=" + code)
	require.Contains(t, text, code)
	r, _ := b.get("/")
	require.Equal(t, "/sign-in", r.URL.Path, "looking at it does not spend it")
	r, _ = b.post("/sign-in", url.Values{"code": {code}})
	require.Equal(t, "/", r.URL.Path)
	cookies := b.Jar.Cookies(r.URL)
	require.Len(t, cookies, 1)
	other, err := cookiejar.New(nil)
	require.NoError(t, err)
	again := &browser{t, http.Client{Jar: other}, b.site}
	r, _ = again.post("/sign-in", url.Values{"code": {code}})
	require.Equal(t, http.StatusUnauthorized, r.StatusCode)
	late := d.Code(everything())
	pass(time.Minute)
	r, _ = again.post("/sign-in", url.Values{"code": {late}})
	require.Equal(t, http.StatusUnauthorized, r.StatusCode)
	pass(12 * time.Hour)
	r, _ = b.get("/")
	require.Equal(t, "/sign-in", r.URL.Path)
	b.signIn()
	form := b.form()
	r, _ = b.post("/sign-out", url.Values{"form": {form}})
	require.Equal(t, "/sign-in", r.URL.Path)
	r, _ = b.get("/deals")
	require.Equal(t, "/sign-in", r.URL.Path)
}

// TestLiveSendsWhatChanged (O-48): the parts of the first page come once, and again only when they differ.
func TestLiveSendsWhatChanged(t *testing.T) {
	b, _, _ := open(t, nil)
	b.signIn()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.site+"/live", nil)
	require.NoError(t, err)
	r, err := b.Do(req)
	require.NoError(t, err)
	defer r.Body.Close()
	require.Equal(t, "text/event-stream", r.Header.Get("Content-Type"))
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 1<<20)
	var parts []string
	for len(parts) < 5 && lines.Scan() {
		if lines.Text() == "event: part" && lines.Scan() {
			parts = append(parts, strings.TrimPrefix(lines.Text(), "data: "))
		}
	}
	require.Equal(t, []string{"strip", "needs", "tiles", "moving", "ended"}, parts)
}
