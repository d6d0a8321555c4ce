package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// recheck is how often the files of a certificate are looked at.
const recheck = time.Second

// pair is a certificate with its key in files. It is read again when the files change; while they cannot be read the last one serves.
type pair struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	loaded  *tls.Certificate
	written [2]time.Time // of the files that were read last, also those that were no good
	looked  time.Time
}

// get implements tls.Config.GetCertificate.
func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded != nil && time.Since(p.looked) < recheck {
		return p.loaded, nil
	}
	p.looked = time.Now()
	written, err := modified(p.cert, p.key)
	if err == nil && p.loaded != nil && written == p.written {
		return p.loaded, nil
	}
	var c tls.Certificate
	if err == nil {
		p.written = written
		c, err = tls.LoadX509KeyPair(p.cert, p.key)
	}
	switch {
	case err == nil:
		p.loaded = &c
	case p.loaded == nil:
		return nil, fmt.Errorf("read the certificate: %w", err)
	default:
		p.log.Warn("the new certificate cannot be used; the old one serves", "error", err)
	}
	return p.loaded, nil
}

// modified is when two files were written.
func modified(a, b string) (out [2]time.Time, err error) {
	for i, name := range []string{a, b} {
		st, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = st.ModTime()
	}
	return out, nil
}
