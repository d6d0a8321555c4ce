//go:build race

package main

import "time"

const stopBound = time.Minute
