package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/node/tokens"
	"github.com/cartage-dev/cartage/internal/reason"
)

// counting is an API of which every method counts its calls and fails with an error that has a hint.
func counting(calls *int) *api.Node {
	a := &api.Node{}
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		v.Field(i).Set(reflect.MakeFunc(v.Field(i).Type(), func([]reflect.Value) []reflect.Value {
			*calls++
			out := make([]reflect.Value, v.Field(i).Type().NumOut())
			for j := range out {
				out[j] = reflect.Zero(v.Field(i).Type().Out(j))
			}
			var err error = reason.WalletShort.Errorf("short").WithHint("the hint")
			out[len(out)-1] = reflect.ValueOf(&err).Elem()
			return out
		}))
	}
	return withCodes(a)
}

// emptyParams are parameters of a method as JSON.
func emptyParams(t *testing.T, m method) []byte {
	var params []json.RawMessage
	for i := 1; i < m.call.Type().NumIn(); i++ {
		data, err := json.Marshal(reflect.Zero(m.call.Type().In(i)).Interface())
		require.NoError(t, err)
		if json.Unmarshal(data, reflect.New(m.call.Type().In(i)).Interface()) != nil { // an amount that is not there is not read back
			data = []byte("{}")
		}
		params = append(params, data)
	}
	data, err := json.Marshal(params)
	require.NoError(t, err)
	return data
}

func testDoors(t *testing.T) *doors {
	s, err := tokens.Open(t.Context(), dssync.MutexWrap(datastore.NewMapDatastore()))
	require.NoError(t, err)
	return &doors{admin: "master", tokens: s, limits: limits.Default(), refused: rate.NewLimiter(1, 2)}
}

// TestEveryDoor: every method says what it needs; each token opens what it covers and nothing else, and an error keeps reason and hint.
func TestEveryDoor(t *testing.T) {
	ctx := t.Context()
	d := testDoors(t)
	calls := 0
	secrets := map[tokens.Perm]string{}
	for _, p := range []tokens.Perm{tokens.Read, tokens.Pay, tokens.Provide, tokens.Admin} {
		_, secret, err := d.tokens.Create(ctx, tokens.Token{Name: p.String(), Perm: p}, time.Now())
		require.NoError(t, err)
		secrets[p] = secret
	}
	for name, m := range d.methods(counting(&calls)) {
		f, _ := reflect.TypeFor[api.Node]().FieldByName(name)
		need, known := tokens.ParsePerm(f.Tag.Get("perm"))
		require.True(t, known, "%s says no permission", name)
		require.Equal(t, need, m.perm)
		if m.path != "" && m.path != "0" {
			_, there := m.call.Type().In(1).FieldByName(m.path)
			require.True(t, there, "%s has no %s", name, m.path)
		}
		for p, secret := range secrets {
			opens := p == tokens.Admin || p == need || need == tokens.Read
			in, err := d.enter(ctx, secret)
			require.NoError(t, err)
			before := calls
			_, err = m.Call(in, emptyParams(t, m))
			var e *api.Error
			require.ErrorAs(t, err, &e, name)
			if opens {
				require.Equal(t, before+1, calls, "%s with %s: %v", name, p, err)
				require.Equal(t, "the hint", e.Hint)
			} else {
				require.ErrorIs(t, err, reason.TokenPermission, "%s with %s", name, p)
				require.Equal(t, before, calls)
			}
		}
		before := calls
		_, err := m.Call(ctx, emptyParams(t, m))
		require.ErrorIs(t, err, reason.TokenMissing, "%s without a caller", name)
		require.Equal(t, before, calls)
	}
	for i := range reflect.TypeFor[api.Streams]().NumField() {
		_, known := tokens.ParsePerm(reflect.TypeFor[api.Streams]().Field(i).Tag.Get("perm"))
		require.True(t, known)
	}
}

// TestEnter: who bears nothing, something unknown, a revoked or an expired token does not come in; the first are told why, then they have to wait,
// while those who may come in do.
func TestEnter(t *testing.T) {
	ctx := t.Context()
	d := testDoors(t)
	now := time.Now()
	_, old, err := d.tokens.Create(ctx, tokens.Token{Name: "old", Perm: tokens.Read, Expires: now.Add(time.Hour)}, now)
	require.NoError(t, err)
	_, err = d.tokens.Check(old, now.Add(time.Hour-time.Second))
	require.NoError(t, err)
	_, err = d.tokens.Check(old, now.Add(time.Hour))
	require.ErrorIs(t, err, reason.TokenExpired)
	_, gone, err := d.tokens.Create(ctx, tokens.Token{Name: "gone", Perm: tokens.Read}, now)
	require.NoError(t, err)
	in, err := d.enter(ctx, gone)
	require.NoError(t, err)
	_, err = d.tokens.Revoke(ctx, "gone")
	require.NoError(t, err)
	c, _ := tokens.CallerOf(in)
	require.ErrorIs(t, d.still(c), reason.TokenUnknown, "a connection that was open before")
	_, err = d.enter(ctx, gone)
	require.ErrorIs(t, err, reason.TokenUnknown)
	_, err = d.enter(ctx, "")
	require.ErrorIs(t, err, reason.TokenMissing)
	_, err = d.enter(ctx, "ctg_aaaa_bbbb")
	require.ErrorIs(t, err, reason.NodeLimit, "the third within a minute")
	for _, bearer := range []string{"master", old} {
		_, err = d.enter(ctx, bearer)
		require.NoError(t, err)
	}
	for _, bad := range []tokens.Token{{Name: "a b", Perm: tokens.Read}, {Name: "x"}, {Name: "old", Perm: tokens.Read}, {Name: "y", Perm: tokens.Read, Expires: now}} {
		_, _, err := d.tokens.Create(ctx, bad, now)
		require.ErrorIs(t, err, reason.Usage)
	}
}

// TestTokenPaths: a path of a caller who is no admin lies below api.paths, links resolved.
func TestTokenPaths(t *testing.T) {
	d := testDoors(t)
	dir, other := t.TempDir(), t.TempDir()
	d.paths = []string{dir}
	require.NoError(t, os.WriteFile(filepath.Join(other, "key"), nil, 0o600))
	require.NoError(t, os.Symlink(other, filepath.Join(dir, "out")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in"), nil, 0o600))
	m := method{doors: d, path: "0"}
	try := func(name string) error {
		return m.checkPath([]reflect.Value{reflect.ValueOf(context.Background()), reflect.ValueOf(name)})
	}
	for _, good := range []string{"", filepath.Join(dir, "in"), filepath.Join(dir, "new"), dir} {
		require.NoError(t, try(good), good)
	}
	for _, bad := range []string{"in", filepath.Join(dir, "out", "key"), filepath.Join(dir, "out", "new"), dir + "x", filepath.Join(dir, "..", filepath.Base(other), "key"), "/etc/passwd", filepath.Join(dir, "no", "no")} {
		require.True(t, errors.Is(try(bad), reason.TokenPermission), bad)
	}
}
