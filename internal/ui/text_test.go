package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// hostile are names that act on a terminal, break a table, or look like something else.
var hostile = []string{"\x1b[31mred\x1b[0m", "\x1b]0;title\a", "a\nb", "a\r", "a\tb", "a\x00b", "\u009b31m", "a\u202etxt.exe", "a\u2066b", "\u200f", "zero\u200bwidth", "a\u2028b",
	"\xff\xfe", "cut\xe2\x82", "\u0301a", `"quoted"`, " a", "a ", "\x7f", "\ufeff", "\U000e0001"}

// safe reports whether a terminal shows a text as characters and does nothing else with it.
func safe(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0
}

// TestText: what is plain stays as it is, what is not is quoted and can be read back.
func TestText(t *testing.T) {
	for _, s := range []string{"", "a.txt", "docs/ä é 文書 😀.txt", `it's "here"`, "שלום", "/ip4/127.0.0.1/tcp/1"} {
		require.Equal(t, s, Text(s))
		require.Equal(t, s, Line(s))
	}
	for _, s := range hostile {
		got := Text(s)
		require.True(t, safe(got), "%q", got)
		back, err := strconv.Unquote(got)
		require.NoError(t, err)
		require.Equal(t, s, back)
		require.True(t, safe(Line(s)), "%q", Line(s))
	}
	long := Text(strings.Repeat("文", 1<<20))
	require.Less(t, len(long), longestText+10)
	require.True(t, safe(long))
}

// TestLine: two errors are one line, and none can look like a second.
func TestLine(t *testing.T) {
	require.Equal(t, `no \x1b[31m here; and cartage: all is well`, Line("no \x1b[31m here\nand cartage: all is well\n"))
}

// named is a value with a name that is hostile.
type named struct{}

func (named) String() string { return "\a" }

// TestPrintf: arguments are data whatever they are, the format is ours.
func TestPrintf(t *testing.T) {
	var b bytes.Buffer
	Printf(&b, "%s and %v, %d, %v, %v\n", "a\nb", errors.New("c\x1bd\ne"), 5, Quoted("x\ny"), named{})
	require.Equal(t, `"a\nb" and c\x1bd; e, 5, "x\ny", "\a"`+"\n", b.String())
}

// TestTableNeverBreaks: a row is a line, and the columns begin where they begin, whatever is in the cells.
func TestTableNeverBreaks(t *testing.T) {
	var list [][]string
	for _, s := range append(hostile, "文書", "plain", "", strings.Repeat("long", 1000), strings.Repeat("文", 1000)) {
		list = append(list, []string{"cid", s, "END"})
	}
	var b bytes.Buffer
	require.NoError(t, Table{Header: []string{"CID", "NAME", "SIZE"}, Rows: list}.Write(&b))
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	require.Len(t, lines, len(list)+1)
	for _, l := range lines[1:] {
		require.True(t, safe(l), "%q", l)
		name, ok := strings.CutSuffix(l, "END")
		require.True(t, ok)
		require.Equal(t, len("cid")+gap+widest+gap, cells(name))
	}
	require.Contains(t, b.String(), "\ncid  -  ")

	b.Reset()
	require.NoError(t, Table{Rows: [][]string{{"a", "1"}, {"long", ""}, {"b"}}, Colour: func(i int, c string) string {
		return map[string]string{"1": "32"}[c]
	}}.Write(&b))
	require.Equal(t, "a     \x1b[32m1\x1b[0m\nlong  \nb\n", b.String())
}

// cells is how many cells of a terminal a text takes, counted here by hand: the wide ones are of one script in these tests.
func cells(s string) (n int) {
	for _, r := range s {
		switch {
		case r >= '\u4e00' && r <= '\u9fff':
			n += 2
		case r != '\u0301':
			n++
		}
	}
	return n
}

// TestJSON: a line of JSON reads back the same, and has nothing for a terminal to act on.
func TestJSON(t *testing.T) {
	for _, s := range append(hostile, "<&>", "文書", "a\U0001f600b") {
		var b bytes.Buffer
		require.NoError(t, JSON(&b, map[string]string{s: s}))
		require.True(t, safe(strings.TrimSuffix(b.String(), "\n")), "%q", b.String())
		var back map[string]string
		require.NoError(t, json.Unmarshal(b.Bytes(), &back))
		want := strings.ToValidUTF8(s, "\ufffd")
		if s == "\xff\xfe" || s == "cut\xe2\x82" {
			continue // each wrong byte is replaced, as everywhere in JSON
		}
		require.Equal(t, map[string]string{want: want}, back)
	}
}

// TestParagraph: sentences of others stay in their column, and what a terminal would act on is an escape.
func TestParagraph(t *testing.T) {
	var b strings.Builder
	Paragraph(&b, "! disk  ", 24, "nearly full: it \x1b[2J has 3 GiB", "add one")
	require.Equal(t, "! disk  nearly full: it\n        \\x1b[2J has 3\n        GiB\n        add one\n", b.String())
}
