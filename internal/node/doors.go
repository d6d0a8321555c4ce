package node

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/filecoin-project/go-jsonrpc"
	"golang.org/x/time/rate"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/node/tokens"
	"github.com/cartage-dev/cartage/internal/reason"
)

// doors lets callers with a token in: to the methods that it permits, and with paths only where others than an admin may read and write.
type doors struct {
	admin   string
	tokens  *tokens.Store
	limits  *limits.Registry
	refused *rate.Limiter
	paths   []string
}

func newDoors(n *Node, admin string) *doors {
	each := n.limits.Value(limits.RefusedTokens)
	return &doors{admin: admin, tokens: n.tokens, limits: n.limits, paths: n.parts.Config.API.Paths,
		refused: rate.NewLimiter(rate.Limit(float64(each)/60), int(each))}
}

// enter is who the bearer of a token is. Those who guess are answered so many times a minute.
func (d *doors) enter(ctx context.Context, bearer string) (context.Context, error) {
	if subtle.ConstantTimeCompare([]byte(bearer), []byte(d.admin)) == 1 {
		return tokens.With(ctx, tokens.Caller{Perm: tokens.Admin}), nil
	}
	t, err := d.tokens.Check(bearer, time.Now())
	switch {
	case err == nil:
		return tokens.With(ctx, tokens.Caller{ID: t.ID, Perm: t.Perm}), nil
	case !d.refused.Allow():
		return ctx, d.limits.Hit(limits.RefusedTokens)
	case bearer == "":
		return ctx, reason.TokenMissing
	}
	return ctx, err
}

// still checks a caller again at each call: a connection may be older than the end of its token.
func (d *doors) still(c tokens.Caller) error {
	if c.ID == "" {
		return nil
	}
	t, ok := d.tokens.Get(c.ID)
	if !ok {
		return tokens.ErrUnknown
	}
	return t.Valid(time.Now())
}

// refuse answers one who may not come in.
func refuse(w http.ResponseWriter, err error) {
	e := api.ErrorOf(err)
	status := http.StatusUnauthorized
	if e.FailureReason() == reason.NodeLimit {
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "60")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": nil, "error": map[string]any{"code": api.ErrorCode, "message": e.Message, "meta": e}})
}

// method is a method of the API behind its door.
type method struct {
	doors *doors
	name  string
	perm  tokens.Perm
	path  string // what of the first argument is a path
	call  reflect.Value
}

// methods are those of the API, by their names in a namespace.
func (d *doors) methods(a *api.Node) map[string]method {
	out := map[string]method{}
	v := reflect.ValueOf(a).Elem()
	for _, f := range reflect.VisibleFields(v.Type()) {
		perm, _ := tokens.ParsePerm(f.Tag.Get("perm")) // none permits nothing: a test walks them
		if perm == 0 {
			perm = tokens.Admin
		}
		out[f.Name] = method{d, f.Name, perm, f.Tag.Get("path"), v.FieldByIndex(f.Index)}
	}
	return out
}

// Call answers a call. Its error is an api.Error: with the reason that was set where the fault was seen, and its hint.
func (m method) Call(ctx context.Context, params jsonrpc.RawParams) (any, error) {
	out, err := m.answer(ctx, params)
	if err != nil {
		return nil, api.ErrorOf(coded(err))
	}
	return out, nil
}

func (m method) answer(ctx context.Context, params jsonrpc.RawParams) (any, error) {
	c, _ := tokens.CallerOf(ctx)
	if err := m.doors.still(c); err != nil {
		return nil, err
	}
	if err := tokens.Require(ctx, api.Namespace+"."+m.name, m.perm); err != nil {
		return nil, err
	}
	args, err := m.arguments(ctx, params)
	if err != nil {
		return nil, err
	}
	if !c.Perm.Covers(tokens.Admin) {
		if err := m.checkPath(args); err != nil {
			return nil, err
		}
	}
	results := m.call.Call(args)
	last := results[len(results)-1]
	if err, failed := last.Interface().(error); failed && err != nil {
		return nil, err
	}
	if len(results) == 1 {
		return nil, nil
	}
	return results[0].Interface(), nil
}

func (m method) arguments(ctx context.Context, params jsonrpc.RawParams) ([]reflect.Value, error) {
	t := m.call.Type()
	var raw []json.RawMessage
	if len(params) > 0 {
		if err := json.Unmarshal(params, &raw); err != nil {
			return nil, reason.Usage.Errorf("the parameters of %s are no list: %w", m.name, err)
		}
	}
	if len(raw) != t.NumIn()-1 {
		return nil, reason.Usage.Errorf("%s takes %d parameters, there are %d", m.name, t.NumIn()-1, len(raw))
	}
	args := []reflect.Value{reflect.ValueOf(ctx)}
	for i, r := range raw {
		v := reflect.New(t.In(i + 1))
		if err := json.Unmarshal(r, v.Interface()); err != nil {
			return nil, reason.Usage.Errorf("parameter %d of %s: %w", i+1, m.name, err)
		}
		args = append(args, v.Elem())
	}
	return args, nil
}

// checkPath refuses a path outside of the folders that are open to others than an admin, with symbolic links resolved: a token could read or write
// any file of the machine otherwise.
func (m method) checkPath(args []reflect.Value) error {
	if m.path == "" {
		return nil
	}
	v := args[1]
	if m.path != "0" {
		v = v.FieldByName(m.path)
	}
	name := v.String()
	if name == "" {
		return nil
	}
	real, err := resolved(name)
	for _, dir := range m.doors.paths {
		if base, berr := filepath.EvalSymlinks(dir); err == nil && berr == nil && within(base, real) {
			return nil
		}
	}
	return reason.TokenPermission.Errorf("this token may not use paths outside of api.paths").WithHint("Add the folder to api.paths of the configuration, or use the token of an admin.")
}

// resolved is a path without symbolic links; what is not there yet is named in the folder that is.
func resolved(name string) (string, error) {
	if !filepath.IsAbs(name) {
		return "", os.ErrInvalid
	}
	name = filepath.Clean(name)
	if _, err := os.Lstat(name); os.IsNotExist(err) {
		dir, err := filepath.EvalSymlinks(filepath.Dir(name))
		return filepath.Join(dir, filepath.Base(name)), err
	}
	return filepath.EvalSymlinks(name)
}

func within(base, name string) bool {
	rel, err := filepath.Rel(base, name)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// streams are the methods that answer more than once, behind the same door.
type streams struct {
	doors *doors
	in    Service
}

// DagstoreInitializeAll is that of api.Streams.
func (s streams) DagstoreInitializeAll(ctx context.Context, p api.DagstoreInitializeAllParams) (<-chan api.DagstoreInitializeAllEvent, error) {
	if err := s.check(ctx, "DagstoreInitializeAll"); err != nil {
		return nil, err
	}
	out, err := s.in.DagstoreInitializeAll(ctx, p)
	return out, coded(err)
}

// ClientGetRetrievalUpdates is that of api.Streams.
func (s streams) ClientGetRetrievalUpdates(ctx context.Context) (<-chan api.RetrievalInfo, error) {
	if err := s.check(ctx, "ClientGetRetrievalUpdates"); err != nil {
		return nil, err
	}
	out, err := s.in.ClientGetRetrievalUpdates(ctx)
	return out, coded(err)
}

func (s streams) check(ctx context.Context, name string) error {
	f, _ := reflect.TypeFor[api.Streams]().FieldByName(name)
	perm, _ := tokens.ParsePerm(f.Tag.Get("perm"))
	c, _ := tokens.CallerOf(ctx)
	if err := s.doors.still(c); err != nil {
		return api.ErrorOf(err)
	}
	if err := tokens.Require(ctx, api.Namespace+"."+name, perm); err != nil {
		return api.ErrorOf(err)
	}
	return nil
}

// methodName is a name over RPC: a method is registered under its whole name.
func methodName(space, name string) string {
	if name == "Call" {
		return space
	}
	return space + "." + name
}

// register puts the API behind the doors.
func (d *doors) register(srv *jsonrpc.RPCServer, n *Node) {
	methods := d.methods(n.API())
	for _, space := range []string{api.Namespace, api.FilecoinNamespace} {
		for name, m := range methods {
			srv.Register(space+"."+name, m)
		}
		srv.Register(space, streams{d, Service{n}})
	}
}
