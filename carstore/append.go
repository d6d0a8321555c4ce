package carstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

const (
	// large is the size from which a block is written from where it is, and not copied behind its head.
	large = 32 << 10
	// gatherMost bounds what is gathered.
	gatherMost = 256 << 10
)

// Put appends a block whose hash was checked by the caller; a block that is there already is left out.
func (s *Store) Put(c cid.Cid, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.appendSection(c, data); err != nil {
		return err
	}
	return s.writeGathered()
}

// gatherBlock is Put of a block that may be written later, by flush.
func (s *Store) gatherBlock(c cid.Cid, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.appendSection(c, data); err != nil || len(s.buf) < gatherMost {
		return err
	}
	return s.writeGathered()
}

func (s *Store) flushGathered() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeGathered()
}

// appendSection takes a block, a large one to the file and a small one to what is gathered; mu is held.
func (s *Store) appendSection(c cid.Cid, data []byte) error {
	if c.Prefix().MhType == mh.IDENTITY {
		return nil
	}
	if len(data) > MaxBlock {
		return TooLarge(c, uint64(len(data)))
	}
	k := hashString(c)
	if s.index[k] != 0 {
		return nil
	}
	if s.final {
		return errors.New("CAR file is finalized")
	}
	if len(s.holes) > 0 {
		if done, err := s.fillHole(c, data); done || err != nil {
			return err
		}
	}
	if len(data) >= large {
		if err := s.writeGathered(); err != nil {
			return err
		}
	}
	before := len(s.buf)
	s.buf = append(binary.AppendUvarint(s.buf, uint64(c.ByteLen()+len(data))), c.KeyString()...)
	head := int64(len(s.buf) - before)
	if len(data) < large {
		s.buf = append(s.buf, data...)
	} else if err := s.writeLarge(c, data); err != nil {
		return err
	}
	s.addLocation(k, location{c, s.end - dataOffset, s.end + head, len(data)})
	s.end += head + int64(len(data))
	s.unsynced += head + int64(len(data))
	return nil
}

// writeLarge writes the head of a section, which is all that is gathered, and its block.
func (s *Store) writeLarge(c cid.Cid, data []byte) error {
	_, err := s.f.WriteAt(s.buf, s.end)
	if err == nil {
		_, err = s.f.WriteAt(data, s.end+int64(len(s.buf)))
	}
	s.buf = s.buf[:0]
	if err != nil {
		return fmt.Errorf("write block %s: %w", c, err)
	}
	return nil
}

// writeGathered writes what was gathered, and syncs from time to time; mu is held.
func (s *Store) writeGathered() error {
	if n := len(s.buf); n > 0 {
		if _, err := s.f.WriteAt(s.buf, s.end-int64(n)); err != nil {
			return fmt.Errorf("write blocks: %w", err)
		}
		s.buf = s.buf[:0]
	}
	if s.unsynced < syncEvery {
		return nil
	}
	s.unsynced = 0
	return s.f.Sync()
}
