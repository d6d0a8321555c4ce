package datatransfer

import (
	"io"
	"strings"
	"time"

	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/wire"
)

// Bounds of the log of a channel.
const (
	maxStages  = 64
	maxLogs    = 256
	maxLogText = 1024
)

// ChannelStages is the log of a channel, grouped by status.
type ChannelStages struct {
	Stages []*ChannelStage
}

// ChannelStage is what happened in one status. Times are UTC.
type ChannelStage struct {
	Name        string
	Description string
	CreatedTime cbg.CborTime
	UpdatedTime cbg.CborTime
	Logs        []*Log
}

// Log is one line.
type Log struct {
	Log         string
	UpdatedTime cbg.CborTime
}

// AddLog notes that something happened in a stage; the oldest lines give way when there are too many.
func (cs *ChannelStages) AddLog(stage, msg string) {
	if cs == nil {
		return
	}
	now := cbg.CborTime(time.Now().UTC())
	st := cs.GetStage(stage)
	if st == nil {
		st = &ChannelStage{CreatedTime: now}
		cs.Stages = append(cs.Stages, st)
		if len(cs.Stages) > maxStages {
			cs.Stages = cs.Stages[1:]
		}
	}
	st.Name, st.UpdatedTime = stage, now
	if len(msg) > maxLogText {
		msg = strings.ToValidUTF8(msg[:maxLogText], "")
	}
	if msg == "" || len(st.Logs) > 0 && st.Logs[len(st.Logs)-1].Log == msg {
		return
	}
	st.Logs = append(st.Logs, &Log{msg, now})
	if len(st.Logs) > maxLogs {
		st.Logs = st.Logs[1:]
	}
}

// GetStage returns the stage by name, or nil.
func (cs *ChannelStages) GetStage(stage string) *ChannelStage {
	if cs == nil {
		return nil
	}
	for _, s := range cs.Stages {
		if s.Name == stage {
			return s
		}
	}
	return nil
}

func pointer[T any, P interface {
	*T
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
}](v **T) wire.Field {
	return wire.Nullable("", v, func(t *T) wire.Field { return wire.Object("", P(t)) })
}

func (cs *ChannelStages) fields() []wire.Field {
	return []wire.Field{wire.List("Stages", &cs.Stages, pointer[ChannelStage])}
}

func (s *ChannelStage) fields() []wire.Field {
	return []wire.Field{
		wire.Text("Name", &s.Name), wire.Text("Description", &s.Description),
		wire.Object("CreatedTime", &s.CreatedTime), wire.Object("UpdatedTime", &s.UpdatedTime),
		wire.List("Logs", &s.Logs, pointer[Log]),
	}
}

func (l *Log) fields() []wire.Field {
	return []wire.Field{wire.Text("Log", &l.Log), wire.Object("UpdatedTime", &l.UpdatedTime)}
}

// MarshalCBOR writes the tuple; nil is null.
func (cs *ChannelStages) MarshalCBOR(w io.Writer) error {
	if cs == nil {
		_, err := w.Write(cbg.CborNull)
		return err
	}
	return wire.WriteTuple(w, cs.fields())
}

// UnmarshalCBOR reads the tuple.
func (cs *ChannelStages) UnmarshalCBOR(r io.Reader) error {
	return wire.ReadTuple(r, "ChannelStages", cs.fields())
}

// MarshalCBOR writes the tuple; nil is null.
func (s *ChannelStage) MarshalCBOR(w io.Writer) error {
	if s == nil {
		_, err := w.Write(cbg.CborNull)
		return err
	}
	return wire.WriteTuple(w, s.fields())
}

// UnmarshalCBOR reads the tuple.
func (s *ChannelStage) UnmarshalCBOR(r io.Reader) error {
	return wire.ReadTuple(r, "ChannelStage", s.fields())
}

// MarshalCBOR writes the tuple; nil is null.
func (l *Log) MarshalCBOR(w io.Writer) error {
	if l == nil {
		_, err := w.Write(cbg.CborNull)
		return err
	}
	return wire.WriteTuple(w, l.fields())
}

// UnmarshalCBOR reads the tuple.
func (l *Log) UnmarshalCBOR(r io.Reader) error { return wire.ReadTuple(r, "Log", l.fields()) }
