package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/reason"
)

func (c *cli) gatewayCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "gateway", Short: "Gateways over HTTP"})
	cmd.AddCommand(&cobra.Command{Use: "check URL [CID]", Short: "Look at a gateway as its clients see it; nothing is paid", Args: c.args(cobra.RangeArgs(1, 2)),
		Long: "Check asks a gateway what its clients ask it, and says for each answer whether it is right and what helps if not. With the CID\nof something that it serves the answers with content are looked at too.",
		RunE: func(cmd *cobra.Command, args []string) error { return c.checkGateway(cmd.Context(), args) }})
	cmd.AddCommand(&cobra.Command{Use: "earnings", Short: "What was earned over HTTP for tokens: by day and by channel", Args: c.args(cobra.NoArgs), RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error { return showEVMEarnings(ctx, c, n) })},
		&cobra.Command{Use: "redeem [CHANNEL...]", Short: "Claim what was earned for tokens, and have it paid out; of all channels if none is named",
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
				if err := n.EVMRedeem(ctx, args); err != nil {
					return err
				}
				return showEVMEarnings(ctx, c, n)
			})})
	return cmd
}

// checkRow is one thing that was looked at.
type checkRow struct {
	What string `json:"check"`
	OK   bool   `json:"ok"`
	Seen string `json:"seen"`
	Fix  string `json:"fix,omitempty"`
}

// checker looks at a gateway.
type checker struct {
	base string
	http *http.Client
	root cid.Cid
	rows []checkRow
	size int64 // of the CAR of root
	paid bool
}

// absentCID is one that nobody serves.
const absentCID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"

func (c *cli) checkGateway(ctx context.Context, args []string) error {
	u, err := url.Parse(args[0])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return api.Errorf(api.CodeUsage, "It looks like https://gw.example.org.", "%q is not the URL of a gateway", args[0])
	}
	k := &checker{base: strings.TrimSuffix(args[0], "/"), http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}}}
	defer k.http.CloseIdleConnections()
	if len(args) == 2 {
		if k.root, err = cid.Decode(args[1]); err != nil {
			return api.Errorf(api.CodeUsage, "It looks like bafy...", "%q is not a CID", args[1])
		}
	}
	k.run(ctx)
	bad := 0
	for _, r := range k.rows {
		if !r.OK {
			bad++
		}
	}
	err = table(c, k.rows, []string{"CHECK", "", "SEEN", "WHAT TO DO"}, func(r checkRow) []string {
		if r.OK {
			return []string{r.What, "ok", r.Seen, ""}
		}
		return []string{r.What, "BAD", r.Seen, r.Fix}
	}, "nothing was looked at")
	if err == nil && bad > 0 {
		err = reason.PartlyFailed.Errorf("%d of %d checks failed", bad, len(k.rows))
	}
	return err
}

// run looks at one thing after the other, and ends when nobody answers.
func (k *checker) run(ctx context.Context) {
	if !k.reachable(ctx) {
		return
	}
	k.preflight(ctx)
	k.absent(ctx)
	if !k.root.Defined() {
		return
	}
	k.head(ctx)
	k.raw(ctx)
	k.ranges(ctx)
	if k.paid {
		k.challenge(ctx)
	}
}

func (k *checker) add(what string, ok bool, seen, fix string) {
	k.rows = append(k.rows, checkRow{what, ok, seen, fix})
}

// gatewayAnswer is an answer without its body.
type gatewayAnswer struct {
	StatusCode, ProtoMajor int
	Status, Proto          string
	Header                 http.Header
	ContentLength          int64
	TLS                    *tls.ConnectionState
}

// ask sends a request and reads at most 5 MiB of the answer.
func (k *checker) ask(ctx context.Context, method, path string, headers ...string) (*gatewayAnswer, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, k.base+path, nil)
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := k.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 5<<20))
	return &gatewayAnswer{resp.StatusCode, resp.ProtoMajor, resp.Status, resp.Proto, resp.Header, resp.ContentLength, resp.TLS}, body, err
}

// reachable looks at the connection.
func (k *checker) reachable(ctx context.Context) bool {
	resp, _, err := k.ask(ctx, http.MethodGet, "/readyz")
	if err != nil {
		fix := "Is the daemon running with --gateway, is the name in DNS, and is the port open?"
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			fix = "Name the host with --gateway-host for a certificate by ACME, or give one with --gateway-tls."
		}
		k.add("connection", false, err.Error(), fix)
		return false
	}
	k.add("connection", resp.StatusCode == 200, resp.Proto+", /readyz says "+resp.Status, "See the log of the daemon.")
	if resp.TLS != nil {
		left := time.Until(resp.TLS.PeerCertificates[0].NotAfter)
		k.add("certificate", left > 7*24*time.Hour, fmt.Sprintf("for %d days", int(left.Hours()/24)), "Renew it.")
		k.add("HTTP/2", resp.ProtoMajor == 2, resp.Proto, "A proxy in front of it has to speak HTTP/2: some clients want it.")
	}
	return true
}

// preflight looks at what browsers are allowed.
func (k *checker) preflight(ctx context.Context) {
	resp, _, err := k.ask(ctx, http.MethodOptions, "/ipfs/"+absentCID, "Origin", "https://example.org", "Access-Control-Request-Method", "GET")
	if err != nil {
		k.add("browsers", false, err.Error(), "")
		return
	}
	allow := strings.ToLower(resp.Header.Get("Access-Control-Allow-Headers"))
	ok := resp.Header.Get("Access-Control-Allow-Origin") == "*" && strings.Contains(allow, "payment-signature") && strings.Contains(allow, "access-control-expose-headers") && strings.Contains(allow, "range")
	k.add("browsers", ok, resp.Status+", any origin may ask and pay", "A proxy in front of it answers OPTIONS itself, or takes headers away: let it pass them.")
}

func (k *checker) absent(ctx context.Context) {
	resp, body, err := k.ask(ctx, http.MethodGet, "/ipfs/"+absentCID+"?format=raw")
	if err != nil {
		k.add("absent content", false, err.Error(), "")
		return
	}
	k.add("absent content", resp.StatusCode == 404 && bytes.Contains(body, []byte("not_found")), resp.Status, "A proxy in front of it answers for /ipfs: let it pass.")
}

func (k *checker) car() string { return "/ipfs/" + k.root.String() + "?format=car" }

// head looks at length and price.
func (k *checker) head(ctx context.Context) {
	resp, _, err := k.ask(ctx, http.MethodHead, k.car())
	if err != nil {
		k.add("length and price", false, err.Error(), "")
		return
	}
	k.size = resp.ContentLength
	price := resp.Header.Values("Cartage-Price")
	k.paid = len(price) > 0
	seen := fmt.Sprintf("%s, %d bytes, free", resp.Status, k.size)
	if k.paid {
		seen = fmt.Sprintf("%s, %d bytes, %s", resp.Status, k.size, strings.Join(price, " or "))
	}
	k.add("length and price", resp.StatusCode == 200 && k.size > 0, seen, "cartage pieces lists what is served; a DAG of more than 65536 blocks has no length.")
}

// raw looks at the root block, if it is free.
func (k *checker) raw(ctx context.Context) {
	resp, body, err := k.ask(ctx, http.MethodGet, "/ipfs/"+k.root.String()+"?format=raw")
	switch {
	case err != nil:
		k.add("raw block", false, err.Error(), "")
	case k.paid:
		k.add("raw block", resp.StatusCode == http.StatusPaymentRequired || resp.StatusCode == http.StatusBadRequest, resp.Status+", it has to be bought", "")
	default:
		k.add("raw block", resp.StatusCode == 200 && carstore.Verify(k.root, body) == nil, fmt.Sprintf("%s, %d bytes, compared with the CID", resp.Status, len(body)), "cartage dagstore doctor looks at the pieces.")
	}
}

// ranges looks at a range of the CAR.
func (k *checker) ranges(ctx context.Context) {
	resp, body, err := k.ask(ctx, http.MethodGet, k.car(), "Range", "bytes=0-9")
	switch {
	case err != nil:
		k.add("ranges", false, err.Error(), "")
	case k.paid:
		k.add("ranges", resp.StatusCode == http.StatusPaymentRequired, resp.Status, "A proxy in front of it takes the Range header away, or caches: let it pass.")
	default:
		want := fmt.Sprintf("bytes 0-9/%d", k.size)
		k.add("ranges", resp.StatusCode == 206 && len(body) == 10 && resp.Header.Get("Content-Range") == want, resp.Status+", "+resp.Header.Get("Content-Range"), "A proxy in front of it takes the Range header away: let it pass.")
	}
}

// challenge looks at what a payment is asked for.
func (k *checker) challenge(ctx context.Context) {
	resp, _, err := k.ask(ctx, http.MethodGet, k.car(), "Range", "bytes=0-9")
	if err != nil {
		k.add("challenge", false, err.Error(), "")
		return
	}
	c, err := x402.DecodeChallenge(resp.Header.Get(x402.HeaderRequired))
	if err != nil || len(c.Accepts) == 0 {
		k.add("challenge", false, "it cannot be read", "A proxy in front of it takes PAYMENT-REQUIRED away: let it pass.")
		return
	}
	for _, o := range c.Accepts {
		k.add("challenge", o.Network != "" && o.PayTo != "", fmt.Sprintf("%s %s on %s for 10 bytes, to %s", o.Amount, o.Asset, o.Network, o.PayTo), "The gateway does not reach its ledger: see its log.")
	}
}
