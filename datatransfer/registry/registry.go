// Package registry keeps who handles which type of voucher or result.
package registry

import (
	"fmt"
	"sync"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/encoding"
)

// Processor is what is registered for a type: a validator, revalidator or configurer.
type Processor any

// Registry maps type identifiers to decoders and processors. It is safe for concurrent use.
type Registry struct {
	mu      sync.RWMutex
	entries map[datatransfer.TypeIdentifier]entry
	order   []datatransfer.TypeIdentifier
}

type entry struct {
	decoder   encoding.Decoder
	processor Processor
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{entries: map[datatransfer.TypeIdentifier]entry{}}
}

// Register adds a type; the same identifier may be added once.
func (r *Registry) Register(example datatransfer.Registerable, processor Processor) error {
	id := example.Type()
	d, err := encoding.NewDecoder(example)
	if err != nil {
		return fmt.Errorf("registering entry type %s: %w", id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, dup := r.entries[id]; dup {
		return fmt.Errorf("identifier already registered: %s", id)
	}
	r.entries[id] = entry{d, processor}
	r.order = append(r.order, id)
	return nil
}

// Decoder returns the decoder of a type.
func (r *Registry) Decoder(id datatransfer.TypeIdentifier) (encoding.Decoder, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.entries[id]
	return e.decoder, ok
}

// Processor returns the processor of a type.
func (r *Registry) Processor(id datatransfer.TypeIdentifier) (Processor, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.entries[id]
	return e.processor, ok
}

// Each calls f in order of registration until it fails, with no lock held.
func (r *Registry) Each(f func(datatransfer.TypeIdentifier, encoding.Decoder, Processor) error) error {
	r.mu.RLock()
	ids := append([]datatransfer.TypeIdentifier(nil), r.order...)
	r.mu.RUnlock()
	for _, id := range ids {
		r.mu.RLock()
		e := r.entries[id]
		r.mu.RUnlock()
		if err := f(id, e.decoder, e.processor); err != nil {
			return err
		}
	}
	return nil
}
