//go:build !linux

package store_test

import (
	"context"
	"errors"
)

func fillUntilRefused(context.Context, string) error { return errors.ErrUnsupported }
