package graphsync

import (
	"fmt"

	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/datatransfer"
)

// store is the link system of a channel, under the name that graphsync knows it by. A sender leaves out blocks that it has
// already sent to a peer for a running request with the same key, and the key is the name of the store: each further request
// of a channel has a name of its own, because a sender that has not finished with the one before counts blocks as sent that
// were lost or came too late.
type store struct {
	lsys  ipld.LinkSystem
	name  string
	guard *pathGuard
}

// UseStore makes the requests of a channel read and write through lsys. Called again it keeps the first store while
// a request runs and replaces it otherwise.
func (t *Transport) UseStore(chid datatransfer.ChannelID, lsys ipld.LinkSystem) error {
	t.mu.Lock()
	old := t.stores[chid]
	c := t.channels[chid]
	if old != nil && c != nil && c.live {
		t.mu.Unlock()
		return nil
	}
	guard := &pathGuard{}
	s := &store{guard.watch(lsys), "data-transfer-" + chid.String(), guard}
	t.stores[chid] = s
	t.mu.Unlock()
	if old != nil {
		_ = t.gs.UnregisterPersistenceOption(old.name)
	}
	return t.gs.RegisterPersistenceOption(s.name, s.lsys)
}

// dedupKey gives a request of a channel that is not its first a key of its own, with the store under that name if there is one.
func (t *Transport) dedupKey(chid datatransfer.ChannelID) (key string, again bool) {
	t.mu.Lock()
	c, s := t.channels[chid], t.stores[chid]
	if c == nil || c.asked < 2 {
		t.mu.Unlock()
		return "", false
	}
	key = fmt.Sprintf("data-transfer-%s/%d", chid, c.asked)
	if s == nil {
		t.mu.Unlock()
		return key, true
	}
	old := s.name
	t.stores[chid] = &store{s.lsys, key, s.guard}
	t.mu.Unlock()
	if t.gs.RegisterPersistenceOption(key, s.lsys) == nil {
		_ = t.gs.UnregisterPersistenceOption(old)
	}
	return key, true
}

// StoreOf implements port.ChannelStores.
func (t *Transport) StoreOf(chid datatransfer.ChannelID) (ipld.LinkSystem, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stores[chid]
	if s == nil {
		return ipld.LinkSystem{}, false
	}
	return s.lsys, true
}

func (t *Transport) storeOf(chid datatransfer.ChannelID) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stores[chid]
	if s == nil {
		return "", false
	}
	return s.name, true
}
