package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-datastore"
)

// RecordVersion is the version of the stores of records whose keys begin with it: the one that the reference writes as well.
const RecordVersion = "1"

// MigrateUnversioned brings the records below a prefix, "" or "/name", that were written before records had a version to RecordVersion, all or none:
// convert makes the record of today of one, or nil for a key that is none of them. What carries the version already is left alone, and one of
// another version is refused.
func MigrateUnversioned(ctx context.Context, ds datastore.Batching, prefix string, convert func(key string, value []byte) ([]byte, error)) error {
	versionKey := datastore.NewKey(prefix + "/versions/current")
	v, err := ds.Get(ctx, versionKey)
	if err == nil && string(v) != RecordVersion {
		return fmt.Errorf("store %q has version %q, this program reads %s: run the program that wrote it", prefix, v, RecordVersion)
	}
	if err == nil || !errors.Is(err, datastore.ErrNotFound) {
		return err
	}
	b, err := ds.Batch(ctx)
	if err != nil {
		return err
	}
	err = Each(ctx, ds, prefix, func(key string, value []byte) error {
		name := strings.TrimPrefix(key, prefix)
		if strings.HasPrefix(name, "/"+RecordVersion+"/") {
			return nil
		}
		data, err := convert(strings.TrimPrefix(name, "/"), value)
		if err != nil {
			return fmt.Errorf("record %s of store version 0: %w", key, err)
		}
		if data == nil {
			return nil
		}
		return errors.Join(b.Put(ctx, datastore.NewKey(prefix+"/"+RecordVersion+name), data), b.Delete(ctx, datastore.NewKey(key)))
	})
	if err != nil {
		return err
	}
	if err := b.Put(ctx, versionKey, []byte(RecordVersion)); err != nil {
		return err
	}
	return Commit(ctx, ds, b)
}
