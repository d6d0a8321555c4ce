package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/reason"
)

// fileName is the configuration in a home.
const fileName = "config.toml"

// entry is a key of a file: its value, the line, and where the value stands.
type entry struct {
	name     string
	value    any
	line     int
	from, to int
}

// document is a configuration as it is written.
type document struct {
	text    []byte
	entries []entry
	tables  map[string]int // where what follows a header begins
}

// parseDocument reads the keys of a file with their places.
func parseDocument(path string, text []byte) (*document, error) {
	var whole map[string]any
	if err := toml.Unmarshal(text, &whole); err != nil { // also what a parser of expressions does not see, such as a key that is there twice
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, _ := at.Position()
			return nil, reason.ConfigValue.Errorf("%s:%d: %w", path, row, err)
		}
		return nil, reason.ConfigValue.Errorf("%s: %w", path, err)
	}
	d := &document{text: text, tables: map[string]int{}}
	var p unstable.Parser
	p.Reset(text)
	table := ""
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			name, end := keyOf(e)
			table = name + "."
			d.tables[strings.ToLower(name)] = end + 1 + strings.IndexByte(string(text[end:])+"\n", '\n')
		case unstable.KeyValue:
			name, end := keyOf(e)
			from := end + strings.IndexByte(string(text[end:]), '=') + 1
			from += len(text[from:]) - len(strings.TrimLeft(string(text[from:]), " \t"))
			d.add(table+name, entry{line: p.Shape(e.Raw).Start.Line, from: from, to: int(e.Raw.Offset + e.Raw.Length)})
		}
	}
	return d, p.Error()
}

// keyOf is the dotted key of an expression, and where it ends.
func keyOf(e *unstable.Node) (name string, end int) {
	var parts []string
	for it := e.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
		end = int(it.Node().Raw.Offset + it.Node().Raw.Length)
	}
	return strings.Join(parts, "."), end
}

// add notes a key; one whose value is a table in a line is several.
func (d *document) add(name string, e entry) {
	var doc map[string]any
	if err := toml.Unmarshal([]byte("v = "+string(d.text[e.from:e.to])), &doc); err != nil {
		return // the whole was read before
	}
	d.flatten(name, doc["v"], e)
}

func (d *document) flatten(name string, v any, e entry) {
	inner, isTable := v.(map[string]any)
	if !isTable {
		e.name, e.value = name, v
		d.entries = append(d.entries, e)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(inner)) {
		d.flatten(name+"."+key, inner[key], e)
	}
}

// Loaded is the configuration of a home with where each value is from.
type Loaded struct {
	Config
	Warnings []string
	origins  map[string]string
	fixed    map[string]bool // set otherwise than by the file and the environment
}

func newLoaded() *Loaded {
	return &Loaded{Config: Default(), origins: map[string]string{}, fixed: map[string]bool{}}
}

// Origin says where the value of a key is from: default, a line of the file, a variable of the environment, or what Note said.
func (l *Loaded) Origin(key string) string {
	if o := l.origins[key]; o != "" {
		return o
	}
	return "default"
}

// Fixed reports whether a key was set by Override.
func (l *Loaded) Fixed(key string) bool { return l.fixed[key] }

// Override sets a key after the file, with where the value is from: a flag, say.
func (l *Loaded) Override(key, text, origin string) error {
	k, err := Lookup(key)
	if err == nil {
		err = k.assign(&l.Config, k.parse(text))
	}
	if err == nil {
		l.origins[k.Name], l.fixed[k.Name] = origin, true
	}
	return err
}

// Load reads the configuration.
func (h Home) Load() (Config, error) {
	l, err := h.Read(os.Environ())
	return l.Config, err
}

// Read reads the configuration of a home, and what the environment sets instead: CARTAGE_TABLE_KEY. All faults are told at once, with their
// lines; the reason is config-value, or config-unknown-key if there is nothing else.
func (h Home) Read(env []string) (*Loaded, error) {
	l := newLoaded()
	path := h.Path(fileName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, fmt.Errorf("%s: %w: run cartage init", h.Dir, ErrNoHome)
	}
	if err != nil {
		return l, err
	}
	return l, l.read(path, text, env)
}

// Check reads a text as the configuration at path.
func Check(path string, text []byte) error {
	return newLoaded().read(path, text, nil)
}

func (l *Loaded) read(path string, text []byte, env []string) error {
	d, err := parseDocument(path, text)
	if err != nil {
		return err
	}
	var f faults
	for _, e := range d.entries {
		k, err := Lookup(e.name)
		if err == nil {
			err = k.assign(&l.Config, e.value)
		}
		if err == nil {
			l.origins[k.Name] = fmt.Sprintf("%s:%d", fileName, e.line)
		}
		f.add(fmt.Sprintf("%s:%d", path, e.line), err)
	}
	for name := range d.tables {
		if !isTable(name) {
			f.add(path, reason.ConfigUnknownKey.Errorf("[%s] is not a table of the configuration", name))
		}
	}
	l.environment(env, &f)
	return f.err()
}

func isTable(name string) bool {
	return slices.ContainsFunc(tables(), func(t table) bool { return strings.EqualFold(t.name, name) })
}

// otherVariables are those of the environment that set no key.
var otherVariables = [...]string{"CARTAGE_HOME", "CARTAGE_WALLET_PASSPHRASE_FILE", "CARTAGE_API"}

// environment takes over the variables of the environment; an empty one is as none. One that sets no key is a warning: it may be meant for another program.
func (l *Loaded) environment(env []string, f *faults) {
	byVariable := map[string]Key{}
	for _, k := range Keys() {
		byVariable[k.Variable()] = k
	}
	for _, v := range env {
		name, text, _ := strings.Cut(v, "=")
		if text == "" || !strings.HasPrefix(name, "CARTAGE_") || slices.Contains(otherVariables[:], name) {
			continue
		}
		k, known := byVariable[name]
		if !known {
			l.Warnings = append(l.Warnings, name+" sets no key of the configuration")
			continue
		}
		err := k.assign(&l.Config, k.parse(text))
		if err == nil {
			l.origins[k.Name] = name
		}
		f.add(name, err)
	}
}

// faults are what is wrong with a configuration.
type faults struct {
	list  []string
	value bool // one is of a value
}

func (f *faults) add(where string, err error) {
	if err != nil {
		f.list, f.value = append(f.list, where+": "+err.Error()), f.value || !errors.Is(err, reason.ConfigUnknownKey)
	}
}

func (f *faults) err() error {
	switch text := strings.Join(f.list, "\n"); {
	case len(f.list) == 0:
		return nil
	case f.value:
		return reason.ConfigValue.Errorf("%s", text)
	default:
		return reason.ConfigUnknownKey.Errorf("%s", text)
	}
}

// Save writes a configuration with all keys and their comments. What was there is replaced: Edit keeps it.
func (h Home) Save(c Config) error {
	return blob.WriteFile(blob.OS{}, h.Path(fileName), []byte(render(&c)), 0o600)
}

// Edit changes keys of the file, by their names and as texts, and leaves everything else, comments too, as it is. What does not hold is refused,
// and nothing is written then.
func (h Home) Edit(values map[string]string) error {
	path := h.Path(fileName)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		k, err := Lookup(name)
		if err != nil {
			return err
		}
		var probe Config
		if err := k.assign(&probe, k.parse(values[name])); err != nil {
			return err
		}
		d, err := parseDocument(path, text)
		if err != nil {
			return err
		}
		text = d.with(k, k.Text(&probe))
	}
	return h.Replace(text)
}

// Replace takes a text for the whole file, if it holds. The old one is there until the new one is on the disk.
func (h Home) Replace(text []byte) error {
	if err := Check(h.Path(fileName), text); err != nil {
		return err
	}
	return blob.WriteFile(blob.OS{}, h.Path(fileName), text, 0o600)
}

// with is the document with a key set: in its place, else at the head of its table, else in a new table at the end.
func (d *document) with(k Key, value string) []byte {
	text := string(d.text)
	for _, e := range d.entries {
		if strings.EqualFold(e.name, k.Name) {
			return []byte(text[:e.from] + value + text[e.to:])
		}
	}
	line := k.Short() + " = " + value + "\n"
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if at, ok := d.tables[strings.ToLower(k.Table())]; ok {
		at = min(at, len(text))
		return []byte(text[:at] + line + text[at:])
	}
	return []byte(text + "\n[" + k.Table() + "]\n" + line)
}

// render is a configuration as a file with comments. Limits stand there when they were set.
func render(c *Config) string {
	var b strings.Builder
	keys := Keys()
	for i, t := range tables() {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "# %s\n[%s]\n", t.doc, t.name)
		for _, k := range keys {
			if k.Table() != t.name {
				continue
			}
			if k.index == nil {
				if _, set := c.Limits[k.Short()]; !set {
					continue
				}
			}
			fmt.Fprintf(&b, "# %s\n%s = %s\n", k.Doc, k.Short(), k.Text(c))
		}
	}
	return b.String()
}
