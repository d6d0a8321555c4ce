// Package dashboard is what an operator sees of a node in a browser: pages made by the server, which work without scripts, under a policy that
// lets nothing in from elsewhere.
//
// The pages show what the API answers and call it for what they change; they hold no state of a node. Who wants to see them signs in with a token
// of the API, or with a code for one use that `cartage dashboard` asks the node for. A session lasts twelve hours and is kept in memory only.
//
// Source: operations specification, section 11 (O-44 to O-48).
package dashboard

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"github.com/cartage-dev/cartage/api"
)

//go:embed pages static
var files embed.FS

// Config is what a dashboard needs.
type Config struct {
	API *api.Node
	// SignIn is who a token of the API lets in; an error lets nobody in.
	SignIn func(ctx context.Context, token string) (*Guest, error)
	// Now is the clock; nil is the host's.
	Now func() time.Time
}

// Guest is somebody who may see the pages, and what else. What a guest may not do is not drawn and not taken.
type Guest struct {
	Pay, Provide, Admin bool
	// Enter is the context in which the node is asked for something. It fails when the token of the guest holds no longer.
	Enter func(ctx context.Context) (context.Context, error)
}

// Dashboard serves the pages. It is safe for concurrent use.
type Dashboard struct {
	cfg      Config
	sessions sessions
	pages    map[string]*template.Template
	mux      *http.ServeMux

	mu     sync.Mutex
	status *api.Status // as of at
	at     time.Time
}

// New makes a dashboard.
func New(cfg Config) (*Dashboard, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	d := &Dashboard{cfg: cfg, pages: map[string]*template.Template{}, mux: http.NewServeMux()}
	d.sessions.now = cfg.Now
	names, err := fs.Glob(files, "pages/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name == "pages/frame.html" {
			continue
		}
		t, err := template.New("frame.html").Funcs(d.functions()).ParseFS(files, "pages/frame.html", name)
		if err != nil {
			return nil, err
		}
		d.pages[name] = t
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, err
	}
	d.mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	d.mux.HandleFunc("GET /sign-in", d.showSignIn)
	d.mux.HandleFunc("POST /sign-in", d.signIn)
	d.mux.HandleFunc("POST /sign-out", d.member(d.signOut))
	d.mux.HandleFunc("GET /{$}", d.member(d.overview))
	d.mux.HandleFunc("GET /live", d.member(d.live))
	d.mux.HandleFunc("GET /deals", d.member(d.deals))
	d.mux.HandleFunc("GET /deals/{id}", d.member(d.deal))
	d.mux.HandleFunc("POST /deals/{id}/{action}", d.permitted(mayPay, d.changeDeal))
	d.mux.HandleFunc("GET /pieces", d.member(d.pieces))
	d.mux.HandleFunc("GET /money", d.member(d.money))
	d.mux.HandleFunc("GET /money/{channel}", d.member(d.channel))
	d.mux.HandleFunc("POST /money/{channel}/redeem", d.permitted(mayProvide, d.redeem))
	d.mux.HandleFunc("POST /money/{channel}/settle", d.permitted(mayAdmin, d.settle))
	d.mux.HandleFunc("POST /money/{channel}/collect", d.permitted(mayAdmin, d.collect))
	d.mux.HandleFunc("GET /peers", d.member(d.peers))
	d.mux.HandleFunc("POST /peers/{peer}/forgive", d.permitted(mayProvide, d.forgive))
	d.mux.HandleFunc("GET /settings", d.member(d.settings))
	d.mux.HandleFunc("POST /settings/ask", d.permitted(mayProvide, d.setAsk))
	d.mux.HandleFunc("POST /settings/reload", d.permitted(mayAdmin, d.reload))
	d.mux.HandleFunc("GET /search", d.member(d.search))
	return d, nil
}

// policy lets a page use its own files and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	http.NewCrossOriginProtection().Handler(d.mux).ServeHTTP(w, r)
}

// statusAge is how old a status may be that a page shows: a page does not wait for a rate to be measured.
const statusAge = 2 * time.Second

// current is how the node stands: the last answer if it is young. An older one is shown while the next is asked for.
func (d *Dashboard) current(ctx context.Context) (*api.Status, error) {
	d.mu.Lock()
	s, age := d.status, d.cfg.Now().Sub(d.at)
	if s != nil && age >= statusAge {
		d.at = d.cfg.Now() // one asks, others are shown what is here
	}
	d.mu.Unlock()
	if s != nil && age < statusAge {
		return s, nil
	}
	fresh, err := d.cfg.API.Status(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status, d.at = fresh, d.cfg.Now()
	return fresh, nil
}

// frame is what every page has.
type frame struct {
	Title  string
	Page   string // the link that is the present one
	Form   string // the text that a form of this session carries
	Status *api.Status
	Notice string // what an action did
	Fault  string
	Live   bool // parts of it change by themselves
	Query  string
	Guest  *Guest
}

// What a page asks of a guest.
func mayPay(g *Guest) bool     { return g.Pay }
func mayProvide(g *Guest) bool { return g.Provide }
func mayAdmin(g *Guest) bool   { return g.Admin }

// handler answers a request of somebody who has signed in. What it returns is said instead of a page.
type handler func(w http.ResponseWriter, r *http.Request, s *session) error

// errNotPermitted is what a guest is told whose token is for less.
var errNotPermitted = errors.New("your token does not permit this")

// permitted lets those through who may do it.
func (d *Dashboard) permitted(may func(*Guest) bool, next handler) http.HandlerFunc {
	return d.member(func(w http.ResponseWriter, r *http.Request, s *session) error {
		if !may(s.guest) {
			return errNotPermitted
		}
		return next(w, r, s)
	})
}

// member lets signed in people through. A form carries the text of their session besides the cookie.
func (d *Dashboard) member(next handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := d.sessions.find(r)
		if s == nil {
			if r.Method == http.MethodGet && r.URL.Path != "/live" {
				http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
				return
			}
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if err := r.ParseForm(); err != nil || !s.owns(r.PostForm.Get("form")) {
				http.Error(w, "this form is not of your session: load the page again", http.StatusForbidden)
				return
			}
		}
		ctx, err := s.guest.Enter(r.Context())
		if err != nil { // the token was revoked, or is too old
			d.sessions.end(r)
			http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
			return
		}
		if err := next(w, r.WithContext(ctx), s); err != nil {
			fail(w, err)
		}
	}
}

// maxForm bounds what a form may carry.
const maxForm = 16 << 10

// frameOf is the frame of a page for somebody.
func (d *Dashboard) frameOf(r *http.Request, s *session, page, title string) (frame, error) {
	status, err := d.current(r.Context())
	return frame{Title: title, Page: page, Form: s.form, Status: status, Notice: s.takeNotice(), Guest: s.guest}, err
}

// render writes a page.
func (d *Dashboard) render(w http.ResponseWriter, name string, data any) {
	d.renderAs(w, http.StatusOK, name, data)
}

func (d *Dashboard) renderAs(w http.ResponseWriter, code int, name string, data any) {
	var b bytes.Buffer
	if err := d.pages["pages/"+name+".html"].ExecuteTemplate(&b, "frame.html", data); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

// fail says what went wrong. Its reader has signed in.
func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, errNotPermitted):
		code = http.StatusForbidden
	case api.CodeOf(err) == api.CodeNotFound:
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}
