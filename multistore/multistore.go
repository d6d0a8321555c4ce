// Package multistore names the per-deal stores of the published signatures.
package multistore

// StoreID identifies one isolated store of blocks.
type StoreID uint64
