package paych

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/crypto"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Errors of wallets.
var (
	// ErrSealed means that a key is encrypted and no pass phrase was given.
	ErrSealed = errors.New("wallet key is encrypted")
	// ErrPassphrase means that the pass phrase is another one.
	ErrPassphrase = errors.New("the pass phrase of the wallet is wrong")
)

// workFactor is the cost of trying a pass phrase: 2^16 rounds of scrypt, 64 MiB and some tenths of a second.
const (
	workFactor    = 16
	maxWorkFactor = 18 // what the tools of age use
)

// Wallet keeps keys as files of mode 0600 in a folder, one for each address: in the export form of Lotus, or encrypted with a pass
// phrase (age, so that the tools of that name open them too). It is safe for concurrent use.
type Wallet struct {
	fs  blob.FS
	dir string

	mu         sync.Mutex
	keys       map[address.Address]*Key
	passphrase string
}

// WalletOption changes how a wallet is opened.
type WalletOption func(*Wallet)

// WithPassphrase opens encrypted keys, and encrypts those that are added. Keys that are not encrypted are read as they are, and stay so
// until Seal.
func WithPassphrase(p string) WalletOption { return func(w *Wallet) { w.passphrase = p } }

// OpenWallet reads the keys of a folder, which is made if it does not exist.
func OpenWallet(fsys blob.FS, dir string, options ...WalletOption) (*Wallet, error) {
	fsys = blob.Or(fsys)
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w := &Wallet{fs: fsys, dir: dir, keys: map[address.Address]*Key{}}
	for _, o := range options {
		o(w)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), keySuffix) {
			continue
		}
		k, err := w.read(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("wallet key %s: %w", e.Name(), err)
		}
		// One wrong bit makes another key, which has no money.
		if named, err := address.NewFromString(strings.TrimSuffix(e.Name(), keySuffix)); err == nil && named != k.Address {
			return nil, reason.StoreFailed.Errorf("wallet key %s is damaged: it holds the key of %s", filepath.Join(dir, e.Name()), k.Address).WithHint("Put its backup back.")
		}
		w.keys[k.Address] = k
	}
	return w, nil
}

const keySuffix = ".key"

func (w *Wallet) file(a address.Address) string { return filepath.Join(w.dir, a.String()+keySuffix) }

func (w *Wallet) read(name string) (*Key, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	if bytes.HasPrefix(data, []byte(armor.Header)) {
		if data, err = w.unseal(data); err != nil {
			return nil, err
		}
		defer clear(data)
	}
	return ImportKey(bytes.TrimSpace(data))
}

func (w *Wallet) unseal(data []byte) ([]byte, error) {
	if w.passphrase == "" {
		return nil, ErrSealed
	}
	id, err := age.NewScryptIdentity(w.passphrase)
	if err != nil {
		return nil, err
	}
	id.SetMaxWorkFactor(maxWorkFactor) // a file may not ask for any amount of work
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(data)), id)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, ErrPassphrase
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 1<<16))
}

// seal encrypts with the pass phrase, if there is one.
func (w *Wallet) seal(data []byte) ([]byte, error) {
	if w.passphrase == "" {
		return data, nil
	}
	to, err := age.NewScryptRecipient(w.passphrase)
	if err != nil {
		return nil, err
	}
	to.SetWorkFactor(workFactor)
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	e, err := age.Encrypt(a, to)
	if err == nil {
		_, err = e.Write(data)
	}
	if err == nil {
		err = errors.Join(e.Close(), a.Close())
	}
	return out.Bytes(), err
}

// Seal stores all keys anew, encrypted with a pass phrase, or in the clear if it is empty. When it fails some keys may have the new one:
// it can be repeated, and is done when it succeeds.
func (w *Wallet) Seal(passphrase string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.passphrase
	w.passphrase = passphrase
	for _, k := range w.keys {
		if err := w.store(k); err != nil {
			w.passphrase = before
			return err
		}
	}
	return nil
}

// New makes a secp256k1 key.
func (w *Wallet) New() (address.Address, error) { return w.NewOf(KeySecp256k1) }

// NewOf makes a key of a kind.
func (w *Wallet) NewOf(kind string) (address.Address, error) {
	k, err := NewKeyOf(kind)
	if err != nil {
		return address.Undef, err
	}
	return k.Address, w.Add(k)
}

// Add stores a key. One that is there stays as it is.
func (w *Wallet) Add(k *Key) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[k.Address] != nil {
		return nil
	}
	if err := w.store(k); err != nil {
		return err
	}
	w.keys[k.Address] = k
	return nil
}

func (w *Wallet) store(k *Key) error {
	data, err := w.seal([]byte(k.Export() + "\n"))
	if err != nil {
		return err
	}
	return blob.WriteFile(w.fs, w.file(k.Address), data, 0o600)
}

// Remove forgets a key: its file is renamed to end in .removed, and nothing but its owner deletes it.
func (w *Wallet) Remove(a address.Address) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[a] == nil {
		return fmt.Errorf("%w: %s", ErrNoKey, a)
	}
	if err := w.fs.Rename(w.file(a), w.file(a)+".removed"); err != nil {
		return err
	}
	delete(w.keys, a)
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
	a := address.Undef
	if err == nil {
		a, err = address.NewFromString(strings.TrimSpace(string(data)))
	}
	if err == nil && w.Has(a) {
		return a, nil
	}
	l := w.List()
	if err != nil && !errors.Is(err, fs.ErrNotExist) && len(l) > 1 { // of one key there is no doubt
		return address.Undef, reason.StoreFailed.Errorf("%s is damaged: it names no address: %w", filepath.Join(w.dir, defaultFile), err).
			WithHint("Choose the default anew: cartage wallet default ADDRESS.")
	}
	if len(l) > 0 {
		return l[0], nil
	}
	return address.Undef, fmt.Errorf("%w: the wallet is empty, run: cartage wallet new", ErrNoKey)
}

// SetDefault chooses the default address.
func (w *Wallet) SetDefault(a address.Address) error {
	if !w.Has(a) {
		return fmt.Errorf("%w: %s", ErrNoKey, a)
	}
	return blob.WriteFile(w.fs, filepath.Join(w.dir, defaultFile), []byte(a.String()+"\n"), 0o600)
}
