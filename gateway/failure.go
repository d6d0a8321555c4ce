package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"unicode/utf8"
)

// Code is the machine-readable name of a failure: member "error" of the JSON body.
type Code string

// The codes. Those of payments are in package x402.
const (
	BadCID           Code = "bad_cid"
	BadPath          Code = "bad_path"
	BadParameter     Code = "bad_parameter"
	FormatMissing    Code = "format_missing"
	PathWithRaw      Code = "path_with_raw"
	TooDeep          Code = "too_deep"
	TooWide          Code = "too_wide"
	WindowRequired   Code = "window_required"
	NotFound         Code = "not_found"
	PathNotFound     Code = "path_not_found"
	BlockMissing     Code = "block_missing"
	MethodNotAllowed Code = "method_not_allowed"
	NotAcceptable    Code = "not_acceptable"
	NotCached        Code = "not_cached"
	BadRange         Code = "range"
	Denied           Code = "denied"
	TooManyRequests  Code = "too_many_requests"
	Busy             Code = "busy"
	Starting         Code = "starting"
	NotImplemented   Code = "not_implemented"
	Internal         Code = "internal"
)

// failure is an answer that is none: status, code, a sentence and what to do. It is an error inside of the package.
type failure struct {
	status     int
	code       Code
	message    string
	hint       string
	extra      map[string]any // further members of the body
	retryAfter int            // seconds; of 429 and 503 always above 0
}

// Error implements error.
func (f *failure) Error() string { return f.message }

func fail(status int, code Code, format string, args ...any) *failure {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func (f *failure) withHint(format string, args ...any) *failure {
	f.hint = fmt.Sprintf(format, args...)
	return f
}

func (f *failure) with(name string, value any) *failure {
	if f.extra == nil {
		f.extra = map[string]any{}
	}
	f.extra[name] = value
	return f
}

func (f *failure) after(seconds int) *failure {
	f.retryAfter = seconds
	return f
}

// maxQuoted bounds what is quoted of a request.
const maxQuoted = 100

// quoted is a value of a request as it stands in a message.
func quoted(s string) string {
	cut := s
	if len(s) > maxQuoted {
		cut = s[:maxQuoted]
		for len(cut) > 0 && !utf8.ValidString(cut[max(0, len(cut)-utf8.UTFMax):]) && len(cut) > maxQuoted-utf8.UTFMax {
			cut = cut[:len(cut)-1]
		}
		cut += "..."
	}
	return strconv.Quote(cut)
}

// failed is the failure that an error stands for; what nobody named is internal, and its words stay here.
func failed(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return fail(http.StatusInternalServerError, Internal, "the gateway failed").withHint("Tell the operator the id of this request.")
}

// write answers with the failure.
func (f *failure) write(w http.ResponseWriter, r *http.Request, id string) {
	h := w.Header()
	for _, name := range []string{"Etag", "Content-Disposition", "Accept-Ranges", "Content-Length", "Content-Location", "Cartage-Truncated", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if f.status == http.StatusNotFound {
		h.Set("Cache-Control", "public, max-age=60")
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	body := map[string]any{"error": f.code, "message": f.message}
	if f.hint != "" {
		body["hint"] = f.hint
	}
	if f.status == http.StatusInternalServerError {
		body["request"] = id
	}
	for k, v := range f.extra {
		body[k] = v
	}
	data, err := json.Marshal(body)
	if err != nil { // a value of extra that has no JSON
		data = []byte(`{"error":"internal"}`)
	}
	data = append(data, '\n')
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(data)
	}
}

// deniedFailure is the answer to what must not be served.
func deniedFailure(v Verdict) *failure {
	status := http.StatusGone
	if v.Legal {
		status = http.StatusUnavailableForLegalReasons
	}
	return fail(status, Denied, "this is not served").with("list", v.List).with("line", v.Line)
}
