package shared

import "context"

// Lifetime is the root of what a constructor starts whose published signature has no context. It is the only such root
// of the product: everything else descends from the context of a command or of the embedder.
func Lifetime() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}
