package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/reason"
)

// InitOptions are the choices of a new home.
type InitOptions struct {
	LedgerURL       string
	LedgerTokenFile string
	LedgerCertFile  string
	ChainView       string // file with what storage deals have to know of a chain
	Miner           string // this provider's address on that chain
	Passphrase      string // for the wallet; empty: its keys are not encrypted
}

// Init makes a home: configuration, libp2p key, wallet key and token. Files are 0600, folders 0700. A home that exists is
// left as it is, except for what is given.
func Init(h config.Home, o InitOptions) (config.Config, error) {
	fsys := blob.OS{}
	if err := fsys.MkdirAll(h.Dir, 0o700); err != nil {
		return config.Config{}, err
	}
	c, err := configure(h, o)
	if err != nil {
		return c, err
	}
	if err := makeKey(fsys, h.Path("libp2p.key")); err != nil {
		return c, err
	}
	if err := MakeToken(fsys, h.Path("token")); err != nil {
		return c, err
	}
	w, err := OpenWallet(h, o.Passphrase)
	if err != nil {
		return c, err
	}
	if len(w.List()) > 0 {
		return c, nil
	}
	a, err := w.New()
	if err != nil {
		return c, err
	}
	return c, w.SetDefault(a)
}

// configure writes the configuration of a new home, or changes in that of an old one what is given.
func configure(h config.Home, o InitOptions) (config.Config, error) {
	c, err := h.Load()
	fresh := errors.Is(err, config.ErrNoHome)
	if fresh {
		err = closeEmpty(h.Dir)
		c = config.Default()
	}
	if err == nil && fresh {
		err = freshNetwork(&c)
	}
	if err != nil {
		return c, err
	}
	given := map[string]string{"ledger.url": o.LedgerURL, "storage.miner": o.Miner}
	for key, file := range map[string]string{"ledger.token_file": o.LedgerTokenFile, "ledger.cert_file": o.LedgerCertFile, "storage.chain_view": o.ChainView} {
		if file == "" {
			continue
		}
		if given[key], err = filepath.Abs(file); err != nil {
			return c, err
		}
	}
	for key, value := range given {
		if value == "" {
			delete(given, key)
		} else if err := c.Set(key, value); err != nil {
			return c, err
		}
	}
	if fresh {
		return c, h.Save(c)
	}
	return c, h.Edit(given)
}

// closeEmpty keeps others out of a folder in which nothing is yet.
func closeEmpty(dir string) error {
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// freshNetwork picks a free TCP port and writes it into the configuration, so that addresses stay the same.
func freshNetwork(c *config.Config) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	c.Network.Listen = []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)}
	return nil
}

func makeKey(fsys blob.FS, name string) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	data, err := crypto.MarshalPrivateKey(k)
	if err != nil {
		return err
	}
	return blob.WriteFile(fsys, name, data, 0o600)
}

// MakeToken writes a random bearer token unless there is one.
func MakeToken(fsys blob.FS, name string) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	return blob.WriteFile(fsys, name, []byte(hex.EncodeToString(b)+"\n"), 0o600)
}

// ReadToken reads a bearer token.
func ReadToken(name string) (string, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("token file %s does not exist", name)
	}
	if err == nil {
		err = config.CheckNotWritable(name)
	}
	return strings.TrimSpace(string(data)), err
}

func readKey(name string) (crypto.PrivKey, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	k, err := crypto.UnmarshalPrivateKey(data)
	if err == nil {
		err = checkKey(k)
	}
	if err != nil {
		return nil, reason.StoreFailed.Errorf("the key of this node, %s, is damaged: %w", name, err).WithHint("Put its backup back: a new key is a new peer id, which nobody knows.")
	}
	return k, nil
}

// checkKey signs something: a key is stored with its public half, and one wrong bit in either makes another peer of this node.
func checkKey(k crypto.PrivKey) error {
	probe := []byte("cartage key check")
	sig, err := k.Sign(probe)
	if err != nil {
		return err
	}
	ok, err := k.GetPublic().Verify(probe, sig)
	if err == nil && !ok {
		err = errors.New("its two halves do not belong together")
	}
	return err
}
