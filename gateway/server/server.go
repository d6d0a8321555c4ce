// Package server puts an HTTP handler that strangers reach behind listeners: TCP or Unix sockets, TLS from files or by ACME, HTTP/1.1 and 2,
// bounds of connections, and an end that lets running answers finish.
//
// Without TLS it serves loopback addresses and Unix sockets only, unless it is told that a proxy in front of it does the encryption; then it
// speaks HTTP/2 without TLS as well, and believes what the proxy says of who asks.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// The ways to do TLS; any other value is two files, CERT.pem,KEY.pem.
const (
	TLSOff  = "off"
	TLSACME = "acme"
)

// Config is what a server is made of.
type Config struct {
	// Listen are addresses as host:port, or unix:///path.
	Listen []string
	TLS    string
	// BehindProxy says that a proxy does the encryption.
	BehindProxy bool
	// Hosts are the names that certificates are asked for; the first is in the URLs that are shown.
	Hosts []string
	// Challenge is where a CA may look over HTTP, usually :80; empty: it asks over TLS.
	Challenge string
	// Directory is the directory of the CA; empty: Let's Encrypt. Account and certificates are kept in Cache.
	Directory string
	Cache     autocert.Cache
	Conns     int // at once; 4,096
	PerHost   int // from one address; 64
	// Refused is told of each connection beyond them, ofHost of those beyond PerHost; nil: nobody is.
	Refused func(ofHost bool)
	Handler http.Handler
	Log     *slog.Logger
}

// Bounds of time and size of what strangers send.
const (
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	maxHeader   = 32 << 10
	maxStreams  = 100
	drainTime   = 2 * time.Second
	defaultAll  = 4096
	defaultHost = 64
)

// Server has its listeners open. It serves once.
type Server struct {
	cfg       Config
	listeners []net.Listener
	challenge net.Listener // of HTTP-01; nil: there is none
	bound     *bound
	manager   *autocert.Manager
	secure    bool
}

// Listen opens the listeners of a configuration. The caller serves, or closes.
func Listen(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Conns <= 0 {
		cfg.Conns = defaultAll
	}
	if cfg.PerHost <= 0 {
		cfg.PerHost = defaultHost
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	config, err := s.tls()
	if err != nil {
		return nil, err
	}
	bound := newBound(cfg.Conns, cfg.PerHost, cfg.Refused)
	s.bound = bound
	for _, address := range cfg.Listen {
		ln, err := listen(ctx, address)
		if err != nil {
			return nil, err
		}
		s.listeners = append(s.listeners, ln)
		if config == nil && !cfg.BehindProxy && !private(ln.Addr()) {
			return nil, fmt.Errorf("refusing to serve on %s: without TLS only loopback addresses and Unix sockets are served", address)
		}
		ln = &boundListener{Listener: ln, bound: bound}
		if config != nil {
			ln = tls.NewListener(ln, config)
		}
		s.listeners[len(s.listeners)-1] = ln
	}
	if s.manager != nil && cfg.Challenge != "" {
		if s.challenge, err = listen(ctx, cfg.Challenge); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// listen opens an address; the file of a Unix socket that a killed process left is removed.
func listen(ctx context.Context, address string) (net.Listener, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
		if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, path); err == nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: somebody serves it", path), c.Close())
		}
		if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return ln, nil
}

// private reports whether only this machine reaches an address.
func private(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return !ok || t.IP.IsLoopback()
}

// tls is how connections are encrypted; nil: not at all.
func (s *Server) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	switch cert, key, files := strings.Cut(s.cfg.TLS, ","); {
	case s.cfg.TLS == TLSOff:
		return nil, nil
	case s.cfg.TLS == TLSACME:
		if len(s.cfg.Hosts) == 0 || s.cfg.Cache == nil {
			return nil, errors.New("certificates by ACME need the name of a host")
		}
		s.manager = &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: s.cfg.Cache, HostPolicy: autocert.HostWhitelist(s.cfg.Hosts...)}
		if s.cfg.Directory != "" {
			s.manager.Client = &acme.Client{DirectoryURL: s.cfg.Directory}
		}
		config.GetCertificate = s.manager.GetCertificate
		config.NextProtos = append(config.NextProtos, acme.ALPNProto)
	case files:
		p := &pair{cert: strings.TrimSpace(cert), key: strings.TrimSpace(key), log: s.cfg.Log}
		if _, err := p.get(nil); err != nil {
			return nil, err
		}
		config.GetCertificate = p.get
	default:
		return nil, fmt.Errorf("%q is no way to do TLS: say acme, off, or CERT.pem,KEY.pem", s.cfg.TLS)
	}
	s.secure = true
	return config, nil
}

// Connections is how many there are.
func (s *Server) Connections() int64 { return s.bound.count() }

// URLs are where clients reach the server.
func (s *Server) URLs() (out []string) {
	scheme := "http"
	if s.secure {
		scheme = "https"
	}
	for _, ln := range s.listeners {
		switch a := ln.Addr().(type) {
		case *net.UnixAddr:
			out = append(out, "unix://"+a.Name)
		case *net.TCPAddr:
			host := a.String()
			if len(s.cfg.Hosts) > 0 {
				host = s.cfg.Hosts[0]
				if a.Port != 443 {
					host = net.JoinHostPort(host, fmt.Sprint(a.Port))
				}
			}
			out = append(out, scheme+"://"+host)
		}
	}
	return out
}

// Serve answers until ctx ends, then lets running answers finish for a moment. It returns the first error of a listener.
func (s *Server) Serve(ctx context.Context) error {
	srv := s.http(s.cfg.Handler)
	servers := []*http.Server{srv}
	errs := make(chan error, len(s.listeners)+1)
	var running sync.WaitGroup
	serve := func(srv *http.Server, ln net.Listener) {
		running.Go(func() {
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				errs <- err
			}
		})
	}
	for _, ln := range s.listeners {
		serve(srv, ln)
	}
	if s.challenge != nil {
		answers := s.http(s.manager.HTTPHandler(nil))
		servers = append(servers, answers)
		serve(answers, s.challenge)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	for _, srv := range servers {
		if srv.Shutdown(dctx) != nil {
			_ = srv.Close()
		}
	}
	running.Wait()
	return err
}

func (s *Server) http(h http.Handler) *http.Server {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams}, Protocols: new(http.Protocols),
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(!s.secure)
	return srv
}

// Close closes the listeners of a server that does not serve.
func (s *Server) Close() error {
	var errs []error
	for _, ln := range s.listeners {
		errs = append(errs, ln.Close())
	}
	if s.challenge != nil {
		errs = append(errs, s.challenge.Close())
	}
	return errors.Join(errs...)
}
