//go:build !race

package main

import "time"

const stopBound = 5 * time.Second
