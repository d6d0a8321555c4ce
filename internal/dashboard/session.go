package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"time"
)

// CodeLife is how long a code is good for.
const CodeLife = time.Minute

const (
	sessionLife = 12 * time.Hour
	maxSessions = 64 // the oldest goes when one more signs in
	cookieName  = "cartage"
)

// session is somebody who has signed in.
type session struct {
	until time.Time
	form  string // what a form of this session carries
	guest *Guest

	mu     sync.Mutex
	notice string // shown once
}

// owns reports whether a text is the one that forms of this session carry.
func (s *session) owns(text string) bool {
	return subtle.ConstantTimeCompare([]byte(s.form), []byte(text)) == 1
}

func (s *session) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notice = text
}

func (s *session) takeNotice() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.notice
	s.notice = ""
	return text
}

// sessions are those who have signed in, by the hash of what their cookie holds, and the codes that were given out.
type sessions struct {
	now func() time.Time

	mu    sync.Mutex
	open  map[[32]byte]*session
	codes map[[32]byte]code
}

// code signs a guest in once, until a time.
type code struct {
	until time.Time
	guest *Guest
}

// secretText is so many random bytes as text.
func secretText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it does not fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// begin opens a session and returns what its cookie holds.
func (s *sessions) begin(g *Guest) string {
	secret := secretText(32)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[[32]byte]*session{}
	}
	var oldest [32]byte
	for key, o := range s.open {
		if !o.until.After(s.now()) {
			delete(s.open, key)
		} else if known := s.open[oldest]; known == nil || o.until.Before(known.until) {
			oldest = key
		}
	}
	if len(s.open) >= maxSessions {
		delete(s.open, oldest)
	}
	s.open[sha256.Sum256([]byte(secret))] = &session{until: s.now().Add(sessionLife), form: secretText(16), guest: g}
	return secret
}

// find is the session of a request, or nil.
func (s *sessions) find(r *http.Request) *session {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.open[sha256.Sum256([]byte(c.Value))]
	if found == nil || !found.until.After(s.now()) {
		return nil
	}
	return found
}

func (s *sessions) end(r *http.Request) {
	if c, err := r.Cookie(cookieName); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, sha256.Sum256([]byte(c.Value)))
	}
}

// Code is a code that signs a guest in once, within CodeLife: /sign-in?code=CODE shows the button.
func (d *Dashboard) Code(g *Guest) string { return d.sessions.newCode(g) }

func (s *sessions) newCode(g *Guest) string {
	text := secretText(16)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.codes == nil {
		s.codes = map[[32]byte]code{}
	}
	for key, c := range s.codes {
		if !c.until.After(s.now()) {
			delete(s.codes, key)
		}
	}
	s.codes[sha256.Sum256([]byte(text))] = code{s.now().Add(CodeLife), g}
	return text
}

// spend ends a code; it returns its guest, or nil if it was not good.
func (s *sessions) spend(text string) *Guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sha256.Sum256([]byte(text))
	c, ok := s.codes[key]
	delete(s.codes, key)
	if !ok || !c.until.After(s.now()) {
		return nil
	}
	return c.guest
}

// signInPage is the only page for those who have not signed in.
type signInPage struct {
	frame
	Code string
}

func (d *Dashboard) showSignIn(w http.ResponseWriter, r *http.Request) {
	d.render(w, "signin", signInPage{frame{Title: "Sign in"}, r.URL.Query().Get("code")})
}

func (d *Dashboard) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	guest := d.sessions.spend(r.PostFormValue("code"))
	if token := strings.TrimSpace(r.PostFormValue("token")); guest == nil && token != "" {
		guest, _ = d.cfg.SignIn(r.Context(), token) // why not is the same for everybody
	}
	if guest == nil {
		d.renderAs(w, http.StatusUnauthorized, "signin",
			signInPage{frame{Title: "Sign in", Fault: "That is no token of this node, or the code was used or is too old: cartage dashboard gives another."}, ""})
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: d.sessions.begin(guest), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil, MaxAge: int(sessionLife.Seconds())})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (d *Dashboard) signOut(w http.ResponseWriter, r *http.Request, _ *session) error {
	d.sessions.end(r)
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1})
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
	return nil
}
