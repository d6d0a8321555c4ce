package paych

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/crypto"

	"github.com/cartage-dev/cartage/internal/blob"
)

// Wallet keeps keys as files of mode 0600 in a folder, one for each address.
type Wallet struct {
	fs  blob.FS
	dir string

	mu   sync.Mutex
	keys map[address.Address]*Key
}

// OpenWallet reads the keys of a folder, which is made if it does not exist.
func OpenWallet(fsys blob.FS, dir string) (*Wallet, error) {
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w := &Wallet{fs: fsys, dir: dir, keys: map[address.Address]*Key{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".key") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		k, err := ImportKey([]byte(strings.TrimSpace(string(data))))
		if err != nil {
			return nil, fmt.Errorf("wallet key %s: %w", e.Name(), err)
		}
		w.keys[k.Address] = k
	}
	return w, nil
}

// New makes a secp256k1 key.
func (w *Wallet) New() (address.Address, error) {
	k, err := NewKey()
	if err != nil {
		return address.Undef, err
	}
	return k.Address, w.Add(k)
}

// Add stores a key.
func (w *Wallet) Add(k *Key) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := filepath.Join(w.dir, k.Address.String()+".key")
	if err := blob.WriteFile(w.fs, name, []byte(k.Export()+"\n"), 0o600); err != nil {
		return err
	}
	w.keys[k.Address] = k
	return nil
}

// Has implements Signer.
func (w *Wallet) Has(a address.Address) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[a] != nil
}

// Key implements Signer.
func (w *Wallet) Key(a address.Address) (*Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.keys[a]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoKey, a)
}

// Sign signs a message with the key of an address.
func (w *Wallet) Sign(a address.Address, msg []byte) (*crypto.Signature, error) {
	k, err := w.Key(a)
	if err != nil {
		return nil, err
	}
	return k.Sign(msg)
}

// List returns the addresses in order.
func (w *Wallet) List() []address.Address {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]address.Address, 0, len(w.keys))
	for a := range w.keys {
		out = append(out, a)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].String() < out[j].String() })
	return out
}

const defaultFile = "default"

// Default is the address that pays and is paid when none is named.
func (w *Wallet) Default() (address.Address, error) {
	data, err := os.ReadFile(filepath.Join(w.dir, defaultFile))
	if errors.Is(err, fs.ErrNotExist) {
		if l := w.List(); len(l) > 0 {
			return l[0], nil
		}
		return address.Undef, fmt.Errorf("%w: the wallet is empty, run: cartage wallet new", ErrNoKey)
	}
	if err != nil {
		return address.Undef, err
	}
	return address.NewFromString(strings.TrimSpace(string(data)))
}

// SetDefault chooses the default address.
func (w *Wallet) SetDefault(a address.Address) error {
	if !w.Has(a) {
		return fmt.Errorf("%w: %s", ErrNoKey, a)
	}
	return blob.WriteFile(w.fs, filepath.Join(w.dir, defaultFile), []byte(a.String()+"\n"), 0o600)
}
