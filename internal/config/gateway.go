package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Gateway says how pieces are served over HTTP. It has no defaults that matter while Listen is empty.
type Gateway struct {
	Listen         []string `toml:"listen" comment:"addresses such as \":443\", \"127.0.0.1:8080\" or \"unix:///path\"; empty: no gateway"`
	TLS            string   `toml:"tls" comment:"\"acme\", \"CERT.pem,KEY.pem\" or \"off\"; empty: acme if hosts are named, else off"`
	Hosts          []string `toml:"hosts" comment:"names of this gateway, for which certificates are asked"`
	Challenge      string   `toml:"http" comment:"where a CA may look over HTTP, for example \":80\"; empty: it asks over TLS"`
	Directory      string   `toml:"acme_directory" comment:"URL of the directory of the CA; empty: Let's Encrypt"`
	BehindProxy    bool     `toml:"behind_proxy" comment:"a proxy before it does TLS: plain HTTP is served on any address"`
	TrustedProxies []string `toml:"trusted_proxies" comment:"addresses or networks of proxies whose X-Forwarded-For is believed"`
	PublicURL      string   `toml:"public_url" comment:"how clients reach it, for example https://gw.example.org; empty: as they say"`
	Window         string   `toml:"window" comment:"bytes that are advised for one payment, for example \"4MiB\""`
	MaxWindow      string   `toml:"max_window" comment:"bytes that one payment may buy"`
	Free           []string `toml:"free" comment:"root or piece CIDs that cost nothing over HTTP, whatever the ask says"`
	AccessLog      string   `toml:"access_log" comment:"file for a JSON line a request; \"-\" is stderr, empty: none"`
}

// defaultGateway is the gateway of a new home: none.
func defaultGateway() Gateway {
	return Gateway{Window: "4MiB", MaxWindow: "8MiB"}
}

// Windows are the sizes of windows in bytes.
func (g Gateway) Windows() (window, largest uint64, err error) {
	if window, err = parseBytes("gateway.window", g.Window, defaultGateway().Window); err != nil {
		return 0, 0, err
	}
	if largest, err = parseBytes("gateway.max_window", g.MaxWindow, defaultGateway().MaxWindow); err != nil {
		return 0, 0, err
	}
	if window > largest {
		return 0, 0, reason.ConfigValue.Errorf("gateway.window is %s, which is above gateway.max_window, %s", g.Window, g.MaxWindow)
	}
	return window, largest, nil
}

// maxWindow bounds what one payment may buy: it is what a buyer may lose to a cheat, and what it takes of memory.
const maxWindow = 64 << 20

func parseBytes(key, text, def string) (uint64, error) {
	if text == "" {
		text = def
	}
	digits, shift := text, 0
	for suffix, s := range map[string]int{"KiB": 10, "MiB": 20} {
		if head, ok := strings.CutSuffix(text, suffix); ok {
			digits, shift = strings.TrimSpace(head), s
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n == 0 || n<<shift > maxWindow {
		return 0, reason.ConfigValue.Errorf("%s is %q: it is a number of bytes such as 4MiB, at most 64MiB", key, text)
	}
	return n << shift, nil
}

// FreeCIDs are the CIDs that cost nothing.
func (g Gateway) FreeCIDs() ([]cid.Cid, error) {
	var out []cid.Cid
	for _, s := range g.Free {
		c, err := cid.Decode(s)
		if err != nil {
			return nil, reason.ConfigValue.Errorf("gateway.free has %q, which is no CID", s)
		}
		out = append(out, c)
	}
	return out, nil
}

// Public is the URL of the gateway; nil if none is given.
func (g Gateway) Public() (*url.URL, error) {
	if g.PublicURL == "" {
		return nil, nil
	}
	u, err := url.Parse(g.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, reason.ConfigValue.Wrap(fmt.Errorf("gateway.public_url is %q, which is no URL such as https://gw.example.org", g.PublicURL))
	}
	return u, nil
}

// Encryption is how TLS is done.
func (g Gateway) Encryption() string {
	switch {
	case g.TLS != "":
		return g.TLS
	case len(g.Hosts) > 0 && !g.BehindProxy:
		return "acme"
	}
	return "off"
}
