package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// longestText is how much of one string is shown: a name of a peer may have a megabyte.
const longestText = 4096

// Text is a string for a terminal. Names and messages come from peers and files: what has control characters, a line break, bytes that are no
// UTF-8, characters that turn the direction of writing or take no room, or what could be taken for something else, is shown quoted, with
// escapes. Everything else stays as it is.
func Text(s string) string {
	if len(s) > longestText {
		cut := longestText
		for cut > longestText-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	if plain(s) {
		return s
	}
	return strconv.Quote(s)
}

// plain reports whether a string can be shown as it is.
func plain(s string) bool {
	if s == "" {
		return true
	}
	if first, _ := utf8.DecodeRuneInString(s); first == '"' || first == ' ' || unicode.Is(unicode.M, first) || strings.HasSuffix(s, " ") {
		return false
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			return false
		}
		i += n
	}
	return true
}

// Line is a sentence, such as an error, for one line of a terminal: what is no character to be shown is an escape where it stands, and a line
// break, which two errors together have between them, a semicolon.
func Line(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n' && i+n == len(s):
		case r == '\n':
			b.WriteString("; ")
		case r == utf8.RuneError && n == 1 || !strconv.IsPrint(r):
			quoted := strconv.Quote(s[i : i+n])
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Quoted is a string that Printf shows quoted always: the words of another side, for example.
type Quoted string

// Printf is fmt.Fprintf for a terminal: each string among the arguments goes through Text, each error through Line. Only the format may have line
// breaks.
func Printf(w io.Writer, format string, args ...any) {
	for i, a := range args {
		switch v := a.(type) {
		case string:
			args[i] = Text(v)
		case Quoted:
			args[i] = strconv.Quote(string(v[:min(len(v), longestText)]))
		case error:
			args[i] = Line(v.Error())
		case fmt.Stringer:
			args[i] = Text(v.String())
		}
	}
	fmt.Fprintf(w, format, args...)
}

// Paragraph writes sentences below each other, each broken between words so that no line has more cells: head before the first line, as much room before
// the others. What the sentences say is data: it goes through Line.
func Paragraph(w io.Writer, head string, cells int, sentences ...string) {
	for _, s := range sentences {
		for _, line := range Wrap(Line(s), cells-len(head)) {
			fmt.Fprintln(w, head+line)
			head = strings.Repeat(" ", len(head))
		}
	}
}

// Clear empties a terminal for a list that is drawn anew.
func Clear(w io.Writer) { fmt.Fprint(w, "\x1b[H\x1b[2J") }

// JSON writes a value as one line of JSON in which every character that a terminal could act on is an escape.
func JSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeJSON(b.Bytes()))
	return err
}

// escapeJSON escapes what encoding/json leaves: it is inside of strings only, and valid UTF-8.
func escapeJSON(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		switch {
		case r == '\n', strconv.IsPrint(r):
			out = append(out, line[:n]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		line = line[n:]
	}
	return out
}

// Wrap breaks a text between words into lines of so many cells at most; a longer word has a line of its own.
func Wrap(s string, cells int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(s) {
		switch {
		case line == "":
			line = word
		case uniseg.StringWidth(line)+1+uniseg.StringWidth(word) <= cells:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
