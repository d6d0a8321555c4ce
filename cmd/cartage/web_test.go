package main

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// web STATUS METHOD FILE URL [NAME:VALUE...]: what curl does. FILE gets the body, FILE.headers the headers.
func web(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 4 {
		ts.Fatalf("usage: web STATUS METHOD FILE URL [NAME:VALUE...]")
	}
	r, err := http.NewRequest(args[1], args[3], nil)
	ts.Check(err)
	for _, h := range args[4:] {
		name, value, _ := strings.Cut(h, ":")
		r.Header.Set(name, value)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s %s: status %s, want %s\n%.500s", args[1], args[3], got, args[0], body)
	}
	var headers strings.Builder
	ts.Check(resp.Header.Write(&headers))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), body, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]+".headers"), []byte(headers.String()), 0o600))
}

// awaitStatus STATUS URL: asks until the answer has the status, for 30 seconds.
func awaitStatus(ts *testscript.TestScript, _ bool, args []string) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	last := ""
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := c.Get(args[1])
		if err != nil {
			last = err.Error()
			continue
		}
		_ = resp.Body.Close()
		if last = strconv.Itoa(resp.StatusCode); last == args[0] {
			return
		}
	}
	ts.Fatalf("%s: %s, want %s", args[1], last, args[0])
}
