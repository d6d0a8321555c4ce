package impl

import "github.com/libp2p/go-libp2p/core/peer"

// Admit takes a place for a channel of a peer, as a new channel does.
func (m *Manager) Admit(p peer.ID) (done func(), err error) { return m.admit(p) }
