package ledger

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"time"

	"github.com/cartage-dev/cartage/blob"
)

// Certificate returns the certificate of a home for serving a ledger to other machines, which is made the first time, and its file:
// clients pin it. The names in it do not count.
func Certificate(fsys blob.FS, home string) (cert tls.Certificate, file string, err error) {
	file, key := filepath.Join(home, "tls.crt"), filepath.Join(home, "tls.key")
	cert, err = tls.LoadX509KeyPair(file, key)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return cert, file, err
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, file, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return cert, file, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "cartage ledger"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, k.Public(), k)
	if err != nil {
		return cert, file, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return cert, file, err
	}
	err = errors.Join(
		blob.WriteFile(fsys, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
		blob.WriteFile(fsys, file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	if err != nil {
		return cert, file, err
	}
	cert, err = tls.LoadX509KeyPair(file, key)
	return cert, file, err
}
