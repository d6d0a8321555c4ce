package config

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/cartage-dev/cartage/internal/limits"
)

// Kind is what the value of a key is.
type Kind uint8

// The kinds.
const (
	Text Kind = iota
	Switch
	Number
	Size     // bytes, as a number or with a unit: 16MiB
	Time     // with a unit: 30s
	AutoTime // Time, or auto
	Texts
)

// about says for people what a value looks like.
var about = [...]string{
	Text: "a text in quotes", Switch: "true or false", Number: "a number", Size: "a number of bytes such as 1048576, 64KiB or 2GiB",
	Time: `a time with its unit such as "30s" or "1h30m"`, AutoTime: `a time with its unit such as "30s", or "auto"`, Texts: `a list of texts such as ["a", "b"]`,
}

// String is a description for people.
func (k Kind) String() string { return about[k] }

// Key is one key of the configuration: file, manual, verbs, environment and flags have it from here.
type Key struct {
	Name     string // table.key
	Kind     Kind
	Default  string // as it stands in the file
	Min, Max int64  // of a number, a size or a time in nanoseconds
	Hot      bool   // a running daemon takes a change over
	Doc      string
	Choices  []string // of a text that is one of a few
	index    []int    // of the field; nil: a limit
}

// Table and Short are the two halves of the name.
func (k Key) Table() string { return k.Name[:strings.IndexByte(k.Name, '.')] }

// Short is the name without its table.
func (k Key) Short() string { return k.Name[strings.IndexByte(k.Name, '.')+1:] }

// Variable is the name of the environment variable that sets it.
func (k Key) Variable() string {
	return "CARTAGE_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(k.Name))
}

// table is a part of the configuration.
type table struct{ name, doc string }

// Keys are all keys in the order in which they are written.
func Keys() []Key {
	var out []Key
	def := Default()
	for _, t := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if t.Type.Kind() == reflect.Map {
			out = append(out, limitKeys(t.Tag.Get("toml"))...)
			continue
		}
		for _, f := range reflect.VisibleFields(t.Type) {
			k := Key{Name: tableName(t) + "." + tableName(f), Kind: kindOf(f), Doc: f.Tag.Get("comment"), Hot: f.Tag.Get("hot") == "yes", Choices: strings.Fields(f.Tag.Get("choices")), index: []int{t.Index[0], f.Index[0]}}
			k.Min, k.Max = bounds(f)
			k.Default = k.Text(&def)
			out = append(out, k)
		}
	}
	return out
}

// tables are the parts in their order.
func tables() (out []table) {
	for _, t := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		out = append(out, table{tableName(t), t.Tag.Get("comment")})
	}
	return out
}

func tableName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	if name == "" {
		return f.Name
	}
	return name
}

func limitKeys(tag string) (out []Key) {
	name, _, _ := strings.Cut(tag, ",")
	kinds := map[limits.Unit]Kind{limits.Count: Number, limits.Bytes: Size, limits.Duration: Time}
	for _, r := range limits.Default().Rows() {
		if r.Fixed() {
			continue
		}
		k := Key{Name: name + "." + string(r.Name), Kind: kinds[r.Unit], Min: r.Min, Max: r.Max, Doc: r.Doc}
		k.Default = k.literal(r.Value)
		out = append(out, k)
	}
	return out
}

func kindOf(f reflect.StructField) Kind {
	switch f.Type {
	case reflect.TypeFor[Duration]():
		return Time
	case reflect.TypeFor[Auto]():
		return AutoTime
	}
	switch {
	case f.Tag.Get("unit") == "bytes":
		return Size
	case f.Type.Kind() == reflect.Bool:
		return Switch
	case f.Type.Kind() == reflect.String:
		return Text
	case f.Type.Kind() == reflect.Slice:
		return Texts
	}
	return Number
}

// bounds are those of the tags min and max; without them 0, and what the field can hold.
func bounds(f reflect.StructField) (low, high int64) {
	high = math.MaxInt64
	if f.Type.Kind() == reflect.Uint32 {
		high = math.MaxUint32
	}
	if v, err := strconv.ParseInt(f.Tag.Get("min"), 10, 64); err == nil {
		low = v
	}
	if v, err := strconv.ParseInt(f.Tag.Get("max"), 10, 64); err == nil {
		high = v
	}
	return low, high
}

// Value is what a configuration has for a key, as JSON shows it.
func (k Key) Value(c *Config) any {
	if k.index == nil {
		if v, ok := c.Limits[k.Short()]; ok {
			return v
		}
		return k.Default
	}
	return reflect.ValueOf(c).Elem().FieldByIndex(k.index).Interface()
}

// Text is what a configuration has for a key, as the file has it.
func (k Key) Text(c *Config) string {
	switch v := k.Value(c).(type) {
	case int64:
		return k.literal(v)
	case int:
		return k.literal(int64(v))
	case uint32:
		return k.literal(int64(v))
	case string:
		if k.index == nil {
			if n, err := k.whole(v); err == nil {
				return k.literal(n)
			}
		}
		return literal(v)
	case []string:
		if v == nil {
			return "[]"
		}
		return literal(v)
	default:
		return literal(v)
	}
}

// literal is a number in the notation of the file.
func (k Key) literal(n int64) string {
	switch k.Kind {
	case Size:
		if text := limits.Bytes.Format(n); text != strconv.FormatInt(n, 10) {
			return strconv.Quote(text)
		}
	case Time:
		return strconv.Quote(limits.Duration.Format(n))
	}
	return strconv.FormatInt(n, 10)
}

// literal is a value in the notation of TOML, which for texts, lists of them and switches is that of JSON.
func literal(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.ReplaceAll(strings.TrimSpace(b.String()), `","`, `", "`)
}

// Plain is a value of Text without the quotes of one text: as people say it.
func Plain(text string) string {
	var s string
	if json.Unmarshal([]byte(text), &s) == nil {
		return s
	}
	return text
}
