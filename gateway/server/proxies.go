package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ParseProxies reads addresses and networks of proxies.
func ParseProxies(list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); err != nil && aerr == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network", s)
		}
		out = append(out, p)
	}
	return out, nil
}

// ClientAddr is who sends a request: the other end of the connection, or, if that is a trusted proxy, the last address in X-Forwarded-For that is
// none. A connection without an address, over a Unix socket, is one of a proxy if any are trusted.
func ClientAddr(trusted []netip.Prefix) func(*http.Request) netip.Addr {
	isProxy := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
	}
	return func(r *http.Request) netip.Addr {
		var at netip.Addr
		if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			at = ap.Addr().Unmap()
		}
		if len(trusted) == 0 || at.IsValid() && !isProxy(at) {
			return at
		}
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			a, err := netip.ParseAddr(strings.TrimSpace(hop))
			if err != nil {
				return at // what is before it was said by nobody who is trusted
			}
			if at = a.Unmap(); !isProxy(at) {
				return at
			}
		}
		return at
	}
}
