package graphsync

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	"github.com/ipld/go-ipld-prime/traversal/selector"

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

// dedupKey gives a request of a channel that is not its first a key of its own, with the store under that name if there is one. led tells that the
// answers of the other side lead through what is in the store.
func (t *Transport) dedupKey(chid datatransfer.ChannelID, led bool) (key string, again bool) {
	t.mu.Lock()
	c, s := t.channels[chid], t.stores[chid]
	if c == nil || c.asked < 2 && !led {
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
	lsys := s.lsys
	if led {
		lsys = ledByAnswers(lsys)
	}
	if t.gs.RegisterPersistenceOption(key, lsys) == nil {
		_ = t.gs.UnregisterPersistenceOption(old)
	}
	return key, true
}

// ledByAnswers makes a store of a request miss its first block once. Graphsync walks through what is in the store before it asks, and then compares
// the answers with what it noted of each path; blocks below a node that is read as a file or folder all have the path of that node, and only the
// last one is noted. A request that asks at its first block is led by the answers all the way, and reads what is not sent from the store.
func ledByAnswers(ls ipld.LinkSystem) ipld.LinkSystem {
	var asked atomic.Bool
	read := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc linking.LinkContext, l ipld.Link) (io.Reader, error) {
		if asked.CompareAndSwap(false, true) {
			return nil, errAskFirst
		}
		return read(lc, l)
	}
	return ls
}

var errAskFirst = errors.New("the other side is asked first")

// reifies tells whether a selector reads nodes as something else, such as a file.
func reifies(sel ipld.Node) bool {
	if sel == nil {
		return false
	}
	switch sel.Kind() {
	case datamodel.Kind_Map:
		for it := sel.MapIterator(); !it.Done(); {
			k, v, err := it.Next()
			if err != nil {
				return false
			}
			if name, _ := k.AsString(); name == selector.SelectorKey_ExploreInterpretAs || reifies(v) {
				return true
			}
		}
	case datamodel.Kind_List:
		for it := sel.ListIterator(); !it.Done(); {
			if _, v, err := it.Next(); err != nil || reifies(v) {
				return err == nil
			}
		}
	}
	return false
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
