package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/acme/autocert"

	"github.com/cartage-dev/cartage/gateway/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// certificate writes a self-signed certificate for a host.
func certificate(t *testing.T, dir, host string) (files string, roots *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	cert, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	roots = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots.AddCert(parsed)
	return cert + "," + keyFile, roots
}

// run serves until the test ends.
func run(t *testing.T, cfg server.Config) *server.Server {
	s, err := server.Listen(t.Context(), cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return s
}

func hello() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
}

func ask(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	defer c.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := c.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// TestTLSFiles: HTTP/2 and 1.1 over TLS, and a certificate that is replaced is used without a start.
func TestTLSFiles(t *testing.T) {
	dir := t.TempDir()
	files, roots := certificate(t, dir, "gw.example.org")
	s := run(t, server.Config{Listen: []string{"127.0.0.1:0"}, TLS: files, Hosts: []string{"gw.example.org"}, Handler: hello()})
	require.Len(t, s.URLs(), 1)
	port := s.URLs()[0][strings.LastIndex(s.URLs()[0], ":"):]
	require.Equal(t, "https://gw.example.org"+port, s.URLs()[0])
	client := func(roots *x509.CertPool, http2 bool) *http.Client {
		return &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "gw.example.org"}}}
	}
	url := "https://127.0.0.1" + port
	require.Equal(t, "HTTP/2.0", ask(t, client(roots, true), url))
	require.Equal(t, "HTTP/1.1", ask(t, client(roots, false), url))
	_, renewed := certificate(t, dir, "gw.example.org")
	require.Eventually(t, func() bool {
		c, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{RootCAs: renewed, ServerName: "gw.example.org"})
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	// One that cannot be read leaves the old one in place.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("no certificate"), 0o600))
	require.Equal(t, "HTTP/2.0", ask(t, client(renewed, true), url))
}

// TestPlain: without TLS only this machine is served, unless a proxy stands before it; then HTTP/2 works without TLS.
func TestPlain(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0"} {
		_, err := server.Listen(t.Context(), server.Config{Listen: []string{address}, TLS: server.TLSOff})
		require.ErrorContains(t, err, "without TLS only loopback")
	}
	socket := filepath.Join(t.TempDir(), "gw.sock")
	s := run(t, server.Config{Listen: []string{"127.0.0.1:0", "unix://" + socket}, TLS: server.TLSOff, Handler: hello()})
	require.Equal(t, "HTTP/1.1", ask(t, &http.Client{Transport: &http.Transport{}}, s.URLs()[0]))
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	require.Equal(t, "HTTP/2.0", ask(t, &http.Client{Transport: h2c}, s.URLs()[0]))
	overSocket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	require.Equal(t, "HTTP/1.1", ask(t, overSocket, "http://gateway"))
	_, err := server.Listen(t.Context(), server.Config{Listen: []string{"unix://" + socket}, TLS: server.TLSOff})
	require.ErrorContains(t, err, "somebody serves it")
	run(t, server.Config{Listen: []string{"0.0.0.0:0"}, TLS: server.TLSOff, BehindProxy: true, Handler: hello()})
}

// TestRefusedTLS: what is no way to do TLS is named.
func TestRefusedTLS(t *testing.T) {
	for way, want := range map[string]string{"sometimes": `"sometimes" is no way`, "acme": "name of a host", "/none.pem,/none.key": "read the certificate", "": "no way"} {
		_, err := server.Listen(t.Context(), server.Config{Listen: []string{"127.0.0.1:0"}, TLS: way, Cache: autocert.DirCache(t.TempDir())})
		require.ErrorContains(t, err, want)
	}
}

// TestConnections: beyond the bound a connection is closed, and its place is free again when another one ends.
func TestConnections(t *testing.T) {
	s := run(t, server.Config{Listen: []string{"127.0.0.1:0"}, TLS: server.TLSOff, Conns: 1, Handler: hello()})
	address := strings.TrimPrefix(s.URLs()[0], "http://")
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		return c
	}
	answered := func(c net.Conn) bool {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		n, _ := c.Read(make([]byte, 9))
		return n > 0
	}
	first := dial()
	require.True(t, answered(first))
	second := dial()
	require.False(t, answered(second))
	require.NoError(t, second.Close())
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool {
		c := dial()
		defer c.Close()
		return answered(c)
	}, 30*time.Second, 10*time.Millisecond)
}

// TestClientAddr: only trusted proxies are believed.
func TestClientAddr(t *testing.T) {
	trusted, err := server.ParseProxies([]string{"10.0.0.0/8", "192.0.2.9"})
	require.NoError(t, err)
	_, err = server.ParseProxies([]string{"proxy"})
	require.ErrorContains(t, err, `"proxy"`)
	for _, tc := range []struct{ remote, forwarded, want string }{
		{"198.51.100.1:5", "203.0.113.7", "198.51.100.1"},
		{"10.1.2.3:5", "203.0.113.7", "203.0.113.7"},
		{"10.1.2.3:5", "6.6.6.6, 203.0.113.7, 192.0.2.9", "203.0.113.7"},
		{"10.1.2.3:5", "nonsense", "10.1.2.3"},
		{"10.1.2.3:5", "", "10.1.2.3"},
		{"@", "203.0.113.7", "203.0.113.7"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tc.remote
		if tc.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tc.forwarded)
		}
		require.Equal(t, tc.want, server.ClientAddr(trusted)(r).String(), "%v", tc)
	}
}
