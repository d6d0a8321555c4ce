package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/reason"
)

// wrong is a value that a key does not take.
func (k Key) wrong(v any, text string) error {
	if s, ok := v.(string); ok {
		v = fmt.Sprintf("%q", s)
	}
	return reason.ConfigValue.Errorf("%s is %v, it must be %s", k.Name, v, text)
}

// assign sets the key to a value as a reader of TOML gives it.
func (k Key) assign(c *Config, v any) error {
	if k.index == nil {
		n, err := k.bounded(v)
		if err != nil {
			return err
		}
		next := make(map[string]any, len(c.Limits)+1) // a copy of the configuration shares the old one
		for name, old := range c.Limits {
			next[name] = old
		}
		next[k.Short()] = n
		if k.Kind == Time {
			next[k.Short()] = time.Duration(n).String()
		}
		c.Limits = next
		return nil
	}
	field := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	switch k.Kind {
	case Text:
		s, ok := v.(string)
		if !ok {
			return k.wrong(v, k.Kind.String())
		}
		if len(k.Choices) > 0 && !slices.Contains(k.Choices, s) {
			return k.wrong(v, strings.Join(k.Choices, " or "))
		}
		field.SetString(s)
	case Switch:
		b, ok := v.(bool)
		if !ok {
			return k.wrong(v, k.Kind.String())
		}
		field.SetBool(b)
	case Texts:
		return k.assignTexts(field, v)
	default:
		n, err := k.bounded(v)
		if err != nil {
			return err
		}
		if field.CanUint() {
			field.SetUint(uint64(n))
		} else {
			field.SetInt(n)
		}
	}
	return nil
}

func (k Key) assignTexts(field reflect.Value, v any) error {
	list, ok := v.([]any)
	if !ok {
		return k.wrong(v, k.Kind.String())
	}
	out := []string{}
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return k.wrong(v, k.Kind.String())
		}
		out = append(out, s)
	}
	field.Set(reflect.ValueOf(out))
	return nil
}

// bounded is a value as a number between the bounds of the key.
func (k Key) bounded(v any) (int64, error) {
	n, err := k.whole(v)
	if err != nil {
		return 0, k.wrong(v, k.Kind.String())
	}
	if n < k.Min || n > k.Max {
		return 0, reason.ConfigValue.Errorf("%s is %s, it must be between %s and %s", k.Name, k.shown(n), k.shown(k.Min), k.shown(k.Max))
	}
	return n, nil
}

func (k Key) whole(v any) (int64, error) {
	if k.Kind == AutoTime && v == "auto" {
		return 0, nil
	}
	return k.unit().Parse(v)
}

func (k Key) unit() limits.Unit {
	switch k.Kind {
	case Size:
		return limits.Bytes
	case Time, AutoTime:
		return limits.Duration
	}
	return limits.Count
}

func (k Key) shown(n int64) string { return k.unit().Format(n) }

// parse reads the value of a key as people give it, in the environment or behind a verb: as it stands in the file, or without the quotes.
func (k Key) parse(text string) any {
	var doc map[string]any
	if err := toml.Unmarshal([]byte("v = "+text), &doc); err == nil && len(doc) == 1 {
		if _, isText := doc["v"].(string); isText || k.Kind != Text {
			return doc["v"]
		}
	}
	if k.Kind != Texts {
		return text
	}
	list := []any{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// Set changes one key, named as in the file: retrieval.max_exposure. The text is a value as it stands in the file, or a text without its quotes.
// The error has the reason config-unknown-key or config-value.
func (c *Config) Set(name, text string) error {
	k, err := Lookup(name)
	if err != nil {
		return err
	}
	return k.assign(c, k.parse(text))
}

// Copy sets the key in a configuration to what another has.
func (k Key) Copy(to, from *Config) {
	if k.index != nil {
		reflect.ValueOf(to).Elem().FieldByIndex(k.index).Set(reflect.ValueOf(from).Elem().FieldByIndex(k.index))
	}
}

// Lookup is the key of a name, in any case.
func Lookup(name string) (Key, error) {
	for _, k := range Keys() {
		if strings.EqualFold(k.Name, name) {
			return k, nil
		}
	}
	return Key{}, unknown(name)
}

// unknown says which key was perhaps meant: the one of the same table, without its table, or any.
func unknown(name string) error {
	head, short, _ := strings.Cut(name, ".")
	best, least, text := "", len(name), ""
	for _, k := range Keys() {
		d := distance(strings.ToLower(name), strings.ToLower(k.Name))
		if d < least {
			best, least = k.Name, d
			if text = best; strings.EqualFold(k.Table(), head) {
				text = k.Short()
			}
		}
	}
	if best == "" || least > max(2, len(short)/2) {
		return reason.ConfigUnknownKey.Errorf("%s is not a key: cartage config show lists them", name)
	}
	return reason.ConfigUnknownKey.Errorf("%s is not a key: %s?", name, text)
}

// distance is that of Levenshtein.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
