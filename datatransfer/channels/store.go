package channels

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	cbg "github.com/whyrusleeping/cbor-gen"

	dt "github.com/cartage-dev/cartage/datatransfer"
	records "github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/internal/wire"
)

// Version is the layout that this package writes.
const Version = "4"

var versionKey = datastore.NewKey("/versions/current")

// maxLogKeys bounds the stored log of a channel; older lines are overwritten.
const maxLogKeys = 1024

type store struct {
	ds                datastore.Batching
	vouchers, results DecoderByType
	ctx               context.Context

	nameMu sync.Mutex
	names  map[dt.ChannelID]string
}

func (s *store) key(part string, chid dt.ChannelID) datastore.Key {
	return datastore.RawKey("/" + Version + "/" + part + "/" + s.name(chid))
}

// name is the text of a channel's id, which is dear to make.
func (s *store) name(chid dt.ChannelID) string {
	s.nameMu.Lock()
	defer s.nameMu.Unlock()
	name, ok := s.names[chid]
	if !ok {
		if s.names == nil || len(s.names) >= maxNames {
			s.names = map[dt.ChannelID]string{}
		}
		name = chid.String()
		s.names[chid] = name
	}
	return name
}

// maxNames bounds the names that are remembered.
const maxNames = 4096

func (s *store) itemKey(part string, chid dt.ChannelID, i uint64) datastore.Key {
	return s.key(part, chid).ChildString(fmt.Sprintf("%012d", i))
}

// checkVersion makes an empty store ours, takes over those of go-data-transfer, and refuses what it does not know.
func (s *store) checkVersion(ctx context.Context) error {
	v, err := s.ds.Get(ctx, versionKey)
	if err == nil {
		switch {
		case string(v) == Version:
			return s.dropLegacy(ctx)
		case legacyVersions[string(v)]:
			return s.migrate(ctx, string(v))
		}
		return fmt.Errorf("channel store has version %q, this program reads version %s", v, Version)
	}
	if !errors.Is(err, datastore.ErrNotFound) {
		return err
	}
	res, err := s.ds.Query(ctx, query.Query{KeysOnly: true, Limit: 1})
	if err != nil {
		return err
	}
	rest, err := res.Rest()
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("channel store holds %s but no version: it is not a channel store", rest[0].Key)
	}
	return s.ds.Put(ctx, versionKey, []byte(Version))
}

func (s *store) putStatic(b datastore.Write, st *Static) error {
	data, err := wire.EncodeTuple(st.fields())
	if err != nil {
		return err
	}
	return b.Put(s.ctx, s.key("s", st.ChannelID), data)
}

func (s *store) putHot(b datastore.Write, r *Record) error {
	data, err := encodeHot(r)
	if err != nil {
		return err
	}
	return b.Put(s.ctx, s.key("h", r.Static.ChannelID), data)
}

func encodeHot(r *Record) ([]byte, error) { return wire.EncodeTuple(r.Hot.fields()) }

func (e *Encoded) fields() []wire.Field {
	return []wire.Field{wire.Text("Type", &e.Type), wire.Bytes("Data", &e.Data, 1<<20)}
}

func (s *store) putItem(b datastore.Write, part string, chid dt.ChannelID, i uint64, e Encoded) error {
	data, err := wire.EncodeTuple(e.fields())
	if err != nil {
		return err
	}
	return b.Put(s.ctx, s.itemKey(part, chid, i), data)
}

func (s *store) readItem(part string, chid dt.ChannelID, i uint64) (Encoded, error) {
	var e Encoded
	data, err := s.ds.Get(s.ctx, s.itemKey(part, chid, i))
	if err != nil {
		return e, err
	}
	return e, wire.DecodeTuple(data, "voucher", e.fields())
}

func (s *store) readList(chid dt.ChannelID, part string, n uint64, newest pending) []Encoded {
	out := make([]Encoded, 0, min(n, 1024))
	for i := range n {
		if e, ok := newest.get(i); ok {
			out = append(out, e)
		} else if e, err := s.readItem(part, chid, i); err == nil {
			out = append(out, e)
		}
	}
	return out
}

type logLine struct {
	stage, text string
	at          cbg.CborTime
}

func (l *logLine) fields() []wire.Field {
	return []wire.Field{wire.Text("Stage", &l.stage), wire.Text("Text", &l.text), wire.Object("At", &l.at)}
}

func (s *store) putLog(b datastore.Write, chid dt.ChannelID, i uint64, l logLine) error {
	data, err := wire.EncodeTuple(l.fields())
	if err != nil {
		return err
	}
	return b.Put(s.ctx, s.itemKey("l", chid, i%maxLogKeys), data)
}

func (s *store) readStages(chid dt.ChannelID, n uint64) *dt.ChannelStages {
	out := &dt.ChannelStages{}
	from := uint64(0)
	if n > maxLogKeys {
		from = n - maxLogKeys
	}
	for i := from; i < n; i++ {
		data, err := s.ds.Get(s.ctx, s.itemKey("l", chid, i%maxLogKeys))
		if err != nil {
			continue
		}
		var l logLine
		if wire.DecodeTuple(data, "log", l.fields()) == nil {
			addLine(out, l)
		}
	}
	return out
}

// Bounds of the log that a snapshot shows.
const (
	maxStages     = 64
	maxStageLines = 256
	maxLogText    = 1024
)

func addLine(out *dt.ChannelStages, l logLine) {
	st := out.GetStage(l.stage)
	if st == nil {
		if len(out.Stages) == maxStages {
			out.Stages = out.Stages[1:]
		}
		st = &dt.ChannelStage{Name: l.stage, CreatedTime: l.at}
		out.Stages = append(out.Stages, st)
	}
	st.UpdatedTime = l.at
	if l.text != "" {
		if len(st.Logs) == maxStageLines {
			st.Logs = st.Logs[1:]
		}
		st.Logs = append(st.Logs, &dt.Log{Log: l.text, UpdatedTime: l.at})
	}
}

func (s *store) load(ctx context.Context, chid dt.ChannelID) (Record, error) {
	r := Record{Static: &Static{}}
	data, err := s.ds.Get(ctx, s.key("s", chid))
	if errors.Is(err, datastore.ErrNotFound) {
		return r, NewErrNotFound(chid)
	}
	if err != nil {
		return r, err
	}
	if err := wire.DecodeTuple(data, "channel", r.Static.fields()); err != nil {
		return r, err
	}
	data, err = s.ds.Get(ctx, s.key("h", chid))
	if err != nil {
		return r, fmt.Errorf("state of channel %s: %w", chid, err)
	}
	hot := r.Hot
	if err := wire.DecodeTuple(data, "channel state", r.Hot.fields()); err != nil {
		r.Hot = hot
		if wire.DecodeTuple(data, "channel state", r.Hot.fieldsBefore()) != nil {
			return r, err
		}
	}
	return r, nil
}

func (s *store) ids(ctx context.Context) ([]dt.ChannelID, error) {
	var out []dt.ChannelID
	err := records.Each(ctx, s.ds, "/"+Version+"/s", func(key string, value []byte) error {
		var st Static
		if err := wire.DecodeTuple(value, "channel", st.fields()); err != nil {
			return fmt.Errorf("channel %s: %w", key, err)
		}
		out = append(out, st.ChannelID)
		return nil
	})
	return out, err
}

// ErrNotFound says which channel does not exist.
type ErrNotFound struct{ ChannelID dt.ChannelID }

// NewErrNotFound returns an ErrNotFound.
func NewErrNotFound(chid dt.ChannelID) error { return &ErrNotFound{chid} }

func (e *ErrNotFound) Error() string { return "No channel for channel ID " + e.ChannelID.String() }

// Is makes errors.Is(err, datatransfer.ErrChannelNotFound) work.
func (e *ErrNotFound) Is(target error) bool { return target == dt.ErrChannelNotFound }
