// Package interop runs this module's data transfer against go-data-transfer v2 in one process, over real TCP: both
// directions, both roles. It is a Go module of its own, so that nothing of the foreign implementation reaches the product.
package interop
