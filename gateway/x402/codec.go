package x402

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of what comes from others.
const (
	MaxPayment = 16 << 10 // bytes of the header
	maxObject  = 64 << 10 // bytes of other headers
	maxDepth   = 16
	maxMembers = 256
)

// encode is an object as a header has it.
func encode(v any) (string, error) {
	data, err := json.Marshal(v)
	return base64.StdEncoding.EncodeToString(data), err
}

// decode reads a header strictly.
func decode(text string, max int, v any) error {
	if len(text) > max {
		return fmt.Errorf("%d bytes are above the limit of %d", len(text), max)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return errors.New("it is no standard base64")
	}
	if err := checkShape(data); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("it is not of the expected form: %w", err)
	}
	return nil
}

// checkShape looks whether bytes are one JSON object in UTF-8, without a key twice in one object, and within the bounds of depth and members.
// Keys that differ in their case alone are the same to a decoder.
func checkShape(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("it is no UTF-8")
	}
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return errors.New("it is no JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	s := shape{}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) && len(s.open) == 0 && s.members > 0 {
			return nil
		}
		if err != nil {
			return errors.New("it is no JSON")
		}
		if s.ended {
			return errors.New("something follows the JSON object")
		}
		if err := s.token(t); err != nil {
			return err
		}
	}
}

// level is an object, with its keys, or a list, without, that a scan is in.
type level struct {
	keys    map[string]bool // nil for a list
	wantKey bool
}

// shape is what a scan has seen.
type shape struct {
	open    []level
	members int
	ended   bool
}

func (s *shape) token(t json.Token) error {
	if delim, ok := t.(json.Delim); ok && (delim == '}' || delim == ']') {
		s.open = s.open[:len(s.open)-1]
		s.ended = len(s.open) == 0
		s.valueDone()
		return nil
	}
	if s.members++; s.members > maxMembers {
		return fmt.Errorf("it has more than %d members", maxMembers)
	}
	if n := len(s.open); n > 0 && s.open[n-1].wantKey {
		key, _ := t.(string)
		folded := strings.ToLower(key)
		if s.open[n-1].keys[folded] {
			return fmt.Errorf("the key %.60q is there twice", key)
		}
		s.open[n-1].keys[folded], s.open[n-1].wantKey = true, false
		return nil
	}
	delim, ok := t.(json.Delim)
	if !ok {
		s.valueDone()
		return nil
	}
	if len(s.open) == maxDepth {
		return fmt.Errorf("it is deeper than %d", maxDepth)
	}
	if delim == '{' {
		s.open = append(s.open, level{map[string]bool{}, true})
	} else {
		s.open = append(s.open, level{})
	}
	return nil
}

// valueDone makes the next token of an object a key.
func (s *shape) valueDone() {
	if n := len(s.open); n > 0 && s.open[n-1].keys != nil {
		s.open[n-1].wantKey = true
	}
}

// Encode is the challenge as PAYMENT-REQUIRED has it.
func (c Challenge) Encode() (string, error) { return encode(c) }

// DecodeChallenge reads PAYMENT-REQUIRED. One of another version is refused.
func DecodeChallenge(text string) (Challenge, error) {
	var c Challenge
	if err := decode(text, maxObject, &c); err != nil {
		return c, fmt.Errorf("%s: %w", HeaderRequired, err)
	}
	if c.X402Version != Version {
		return c, fmt.Errorf("%s is of version %d, not %d", HeaderRequired, c.X402Version, Version)
	}
	return c, nil
}

// Encode is the payment as PAYMENT-SIGNATURE has it.
func (p Payment) Encode() (string, error) { return encode(p) }

// DecodePayment reads PAYMENT-SIGNATURE.
func DecodePayment(text string) (Payment, error) {
	var p Payment
	if err := decode(text, MaxPayment, &p); err != nil {
		return p, fmt.Errorf("%s: %w", HeaderPayment, err)
	}
	if p.X402Version != Version {
		return p, fmt.Errorf("%s is of version %d, not %d", HeaderPayment, p.X402Version, Version)
	}
	if len(p.Payload) == 0 || p.Payload[0] != '{' {
		return p, fmt.Errorf("%s has no payload", HeaderPayment)
	}
	return p, nil
}

// Encode is the receipt as PAYMENT-RESPONSE has it.
func (r Receipt) Encode() (string, error) { return encode(r) }

// DecodeReceipt reads PAYMENT-RESPONSE.
func DecodeReceipt(text string) (Receipt, error) {
	var r Receipt
	if err := decode(text, maxObject, &r); err != nil {
		return r, fmt.Errorf("%s: %w", HeaderReceipt, err)
	}
	return r, nil
}
