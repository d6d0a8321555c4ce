// Package tokens keeps the tokens of a home: who may call its API, for what, and until when. A secret is shown once and stored as its hash.
package tokens

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-datastore"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Perm is what a caller may do.
type Perm uint64

// The permissions; their numbers are stored. Pay and Provide include Read, Admin includes all.
const (
	Read Perm = 1 << iota
	Pay
	Provide
	Admin
)

var perms = []struct {
	name string
	perm Perm
}{{"read", Read}, {"pay", Pay}, {"provide", Provide}, {"admin", Admin}}

// ParsePerm reads the name of a permission.
func ParsePerm(name string) (Perm, bool) {
	for _, p := range perms {
		if p.name == name {
			return p.perm, true
		}
	}
	return 0, false
}

// String names the permissions, with a comma between them.
func (p Perm) String() string {
	var names []string
	for _, q := range perms {
		if p&q.perm != 0 {
			names = append(names, q.name)
		}
	}
	return strings.Join(names, ",")
}

// Covers reports whether p includes need.
func (p Perm) Covers(need Perm) bool {
	if p&(Pay|Provide) != 0 {
		p |= Read
	}
	return p&Admin != 0 || p&need == need
}

// Period is the time that a budget is for.
type Period uint64

// The periods; their numbers are stored. Days and months are those of UTC.
const (
	Always Period = iota
	Day
	Month
)

var periods = map[Period]string{Always: "", Day: "day", Month: "month"}

// String is the name of the period, empty for Always.
func (p Period) String() string { return periods[p] }

// Since is when the period began that a time is in.
func (p Period) Since(now time.Time) time.Time {
	y, m, d := now.UTC().Date()
	switch p {
	case Day:
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	case Month:
		return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
	}
	return time.Time{}
}

// Token is the record of a token. What it spent is not in it: its orders say that.
type Token struct {
	ID      string
	Name    string
	Hash    []byte // SHA-256 of the secret
	Perm    Perm
	Created time.Time
	Expires time.Time        // zero: never
	Budget  *abi.TokenAmount // of its orders together in a period, attoFIL; nil: it pays nothing
	Period  Period
	Revoked bool
}

const (
	recordVersion = 1
	prefix        = "ctg_"
	most          = 1000
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// nameForm is what names look like: they are printed in tables and logs.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (t *Token) fields(version, created, expires *uint64) []wire.Field {
	return []wire.Field{
		wire.Uint("version", version), wire.Text("name", &t.Name), wire.Bytes("hash", &t.Hash, sha256.Size), wire.Uint("perm", &t.Perm),
		wire.Uint("created", created), wire.Uint("expires", expires),
		wire.Nullable("budget", &t.Budget, func(a *abi.TokenAmount) wire.Field { return wire.Amount("budget", a) }),
		wire.Uint("period", &t.Period), wire.Bool("revoked", &t.Revoked),
	}
}

func (t *Token) encode() ([]byte, error) {
	version, created, expires := uint64(recordVersion), uint64(t.Created.Unix()), uint64(0)
	if !t.Expires.IsZero() {
		expires = uint64(t.Expires.Unix())
	}
	return wire.EncodeTuple(t.fields(&version, &created, &expires))
}

func decode(id string, data []byte) (Token, error) {
	t := Token{ID: id}
	var version, created, expires uint64
	if err := wire.DecodeTuple(data, "token", t.fields(&version, &created, &expires)); err != nil {
		return t, reason.StoreFailed.Errorf("the record of token %s: %w", id, err)
	}
	if version != recordVersion {
		return t, reason.HomeNewer.Errorf("the record of token %s has version %d", id, version)
	}
	t.Created = time.Unix(int64(created), 0).UTC()
	if expires > 0 {
		t.Expires = time.Unix(int64(expires), 0).UTC()
	}
	return t, nil
}

// Store has the tokens of a home. It is safe for concurrent use.
type Store struct {
	ds   datastore.Batching
	mu   sync.RWMutex
	byID map[string]Token
}

// Open reads the tokens.
func Open(ctx context.Context, ds datastore.Batching) (*Store, error) {
	s := &Store{ds: ds, byID: map[string]Token{}}
	return s, store.Each(ctx, ds, "", func(key string, value []byte) error {
		t, err := decode(strings.TrimPrefix(key, "/"), value)
		s.byID[t.ID] = t
		return err
	})
}

// Create makes a token and returns its secret, which is not stored. Name, Perm, Expires, Budget and Period count.
func (s *Store) Create(ctx context.Context, t Token, now time.Time) (Token, string, error) {
	switch {
	case !nameForm.MatchString(t.Name):
		return t, "", reason.Usage.Errorf("%q is no name for a token: letters, digits, dot, dash and underscore, at most 64", t.Name)
	case t.Perm == 0:
		return t, "", reason.Usage.Errorf("the token may do nothing").WithHint("Say --perm read, pay, provide or admin.")
	case t.Budget != nil && t.Perm&Pay == 0:
		return t, "", reason.Usage.Errorf("a budget is for a token that may pay").WithHint("Say --perm pay.")
	case !t.Expires.IsZero() && !t.Expires.After(now):
		return t, "", reason.Usage.Errorf("the token would have expired at %s", t.Expires.Format(time.RFC3339))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byID) >= most {
		return t, "", reason.NodeLimit.Errorf("there are %d tokens", most)
	}
	for _, have := range s.byID {
		if have.Name == t.Name && !have.Revoked {
			return t, "", reason.Usage.Errorf("a token %q is there already", t.Name).WithHint("Revoke it, or choose another name.")
		}
	}
	random := make([]byte, 8+32)
	if _, err := rand.Read(random); err != nil {
		return t, "", err
	}
	t.ID, t.Created, t.Revoked = encoding.EncodeToString(random[:8]), now.UTC().Truncate(time.Second), false
	secret := encoding.EncodeToString(random[8:])
	hash := sha256.Sum256([]byte(secret))
	t.Hash = hash[:]
	return t, prefix + t.ID + "_" + secret, s.put(ctx, t)
}

// put stores a token before it counts. The lock is held.
func (s *Store) put(ctx context.Context, t Token) error {
	data, err := t.encode()
	if err == nil {
		err = s.ds.Put(ctx, datastore.NewKey(t.ID), data)
	}
	if err == nil {
		err = s.ds.Sync(ctx, datastore.NewKey(t.ID))
	}
	if err == nil {
		s.byID[t.ID] = t
	}
	return err
}

// Revoke ends a token, by its id or its name: it opens nothing any more. Again it changes nothing.
func (s *Store) Revoke(ctx context.Context, name string) (Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found Token
	for _, t := range s.byID {
		if t.ID == name || t.Name == name && (found.ID == "" || found.Revoked) {
			found = t
		}
	}
	switch {
	case found.ID == "":
		return found, reason.TokenUnknown.Errorf("there is no token %q", name).WithHint("cartage token list names them.")
	case found.Revoked:
		return found, nil
	}
	found.Revoked = true
	return found, s.put(ctx, found)
}

// List are all tokens, the oldest first.
func (s *Store) List() []Token {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]Token, 0, len(s.byID))
	for _, t := range s.byID {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Token) int { return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID)) })
	return out
}

// Get is a token by its id.
func (s *Store) Get(id string) (Token, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.byID[id]
	return t, ok
}

// ErrUnknown is what an unknown and a revoked token meet alike.
var ErrUnknown error = reason.TokenUnknown.Errorf("the token is not known")

// Check is the token of a bearer. Unknown and revoked ones are not told apart.
func (s *Store) Check(bearer string, now time.Time) (Token, error) {
	rest, ok := strings.CutPrefix(bearer, prefix)
	id, secret, both := strings.Cut(rest, "_")
	t, known := s.Get(id)
	want := t.Hash
	if !known {
		want = make([]byte, sha256.Size)
	}
	hash := sha256.Sum256([]byte(secret))
	same := subtle.ConstantTimeCompare(hash[:], want) == 1
	switch {
	case !ok, !both, !known, !same:
		return Token{}, ErrUnknown
	}
	return t, t.Valid(now)
}

// Valid refuses a token that was revoked, or that has expired.
func (t *Token) Valid(now time.Time) error {
	switch {
	case t.Revoked:
		return ErrUnknown
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return reason.TokenExpired.Errorf("the token has expired at %s", t.Expires.Format(time.RFC3339))
	}
	return nil
}

// Caller is who calls: a token, or the admin of this machine, whose ID is empty.
type Caller struct {
	ID   string
	Perm Perm
}

type callerKey struct{}

// With notes who calls.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf is who calls; false inside of this process, where there is no door.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

var errNoCaller = errors.New("a call through a door without a caller")

// Require is the check of a door: the caller may do what need says.
func Require(ctx context.Context, method string, need Perm) error {
	c, ok := CallerOf(ctx)
	if !ok {
		return reason.TokenMissing.Wrap(errNoCaller)
	}
	if !c.Perm.Covers(need) {
		return reason.TokenPermission.Errorf("this token may %s; %s needs %s", c.Perm, method, need).WithHint("cartage token create NAME --perm " + need.String() + ".")
	}
	return nil
}
