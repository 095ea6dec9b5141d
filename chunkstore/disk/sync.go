package disk

import (
	"errors"
	"sync"

	"gantry/upload"
)

// groupSync lets callers that come while a sync goes on share the next one.
type groupSync struct {
	running sync.Mutex // held over a sync

	mu   sync.Mutex
	next *syncBatch // collects callers until its sync begins
}

type syncBatch struct {
	done chan struct{}
	err  error
}

// do returns after a call of sync that began after do did, with its error.
func (g *groupSync) do(sync func() error) error {
	g.mu.Lock()
	if b := g.next; b != nil {
		g.mu.Unlock()
		<-b.done
		return b.err
	}
	b := &syncBatch{done: make(chan struct{})}
	g.next = b
	g.mu.Unlock()

	g.running.Lock()
	defer g.running.Unlock()
	g.mu.Lock()
	g.next = nil
	g.mu.Unlock()
	b.err = sync()
	close(b.done)
	return b.err
}

// appendRecords writes to the journal. journalMu is held. After a failure none of the records is
// there, or nothing is written any more until a restart, which trusts nothing.
func (s *Staging) appendRecords(u *session, h *handle, records ...record) error {
	if err := s.writable("", u.spec.ID); err != nil {
		return err
	}
	var room [2 * recordSize]byte
	b := room[:0]
	for i := range records {
		records[i].generation = s.generation
		b = records[i].appendTo(b, u.spec.ID, u.records+int64(i))
	}
	off := u.records * recordSize
	if _, err := h.journal.WriteAt(b, off); err != nil {
		if isFull(err) {
			// A record that stayed, for a chunk that is not acknowledged, would lie as soon as that chunk
			// is sent again with other bytes.
			truncateErr := h.journal.Truncate(off)
			if truncateErr == nil {
				return upload.Wrap(upload.NoRoom, "", u.spec.ID, err)
			}
			err = errors.Join(err, truncateErr)
		}
		s.breakDown("A journal cannot be written. Look after the staging disk, then restart the server.")
		return upload.Wrap(diskKind(err), "", u.spec.ID, err)
	}
	u.records += int64(len(records))
	u.mu.Lock()
	u.settled = false
	u.mu.Unlock()
	return nil
}

// syncJournal makes all records so far durable.
func (s *Staging) syncJournal(u *session, h *handle) error {
	err := u.journalSync.do(h.journal.Sync)
	if err != nil {
		s.breakDown("A journal cannot be synced. Look after the staging disk, then restart the server.")
	}
	return upload.Wrap(diskKind(err), "", u.spec.ID, err)
}

// syncData makes all bytes written before the call durable. If that fails, none of those written
// since the last success is on the disk for all we know, and no later sync would tell: their chunks
// are dropped and have to be sent again.
func (s *Staging) syncData(u *session, h *handle) error {
	return u.dataSync.do(func() error {
		u.mu.Lock()
		covered := u.unsynced.Clone()
		u.mu.Unlock()
		err := h.data.Sync()
		if err == nil {
			s.degraded.Store(nil)
			u.mu.Lock()
			for index := range covered.Last() + 1 {
				if covered.Has(index) {
					u.unsynced.Remove(index)
				}
			}
			u.mu.Unlock()
			return nil
		}
		reason := "The staging disk failed to write data. Chunks are still taken, and those lost are asked for again."
		s.degraded.Store(&reason)
		s.distrust()
		u.mu.Lock()
		u.failedSyncs++
		lost := indexes(&u.unsynced)
		u.mu.Unlock()
		return &upload.Error{
			Kind: upload.Unavailable, ID: u.spec.ID, Err: errors.Join(err, s.drop(u, h, lost)),
			Detail: "The server's disk failed to write the data. Ask which chunks are missing, and send them again.",
		}
	})
}

// syncListed makes the directory entries of data and journal durable, once.
func (s *Staging) syncListed(u *session) error {
	u.mu.Lock()
	listed := u.listed
	u.mu.Unlock()
	if listed {
		return nil
	}
	if err := s.syncEntries(); err != nil {
		return upload.Wrap(diskKind(err), "", u.spec.ID, err)
	}
	u.mu.Lock()
	u.listed = true
	u.mu.Unlock()
	return nil
}

// drop makes chunks void, and a sealed upload open again. The journal comes first: a chunk that is
// void in memory only could be sent with other bytes, and then be taken for the old one after a
// restart.
func (s *Staging) drop(u *session, h *handle, lost []int) error {
	if len(lost) == 0 {
		return nil
	}
	u.journalMu.Lock()
	defer u.journalMu.Unlock()
	now := s.opt.Now()
	records := make([]record, 0, len(lost)+1)
	for _, index := range lost {
		records = append(records, record{kind: recordDrop, index: index, time: now})
	}
	records = append(records, record{kind: recordUnsealed, time: now})
	err := s.appendRecords(u, h, records...)

	u.mu.Lock()
	defer u.mu.Unlock()
	layout := u.layout()
	for _, index := range lost {
		if !u.received.Remove(index) {
			continue
		}
		u.unsynced.Remove(index)
		length := layout.Length(index)
		u.bytes -= length
		if u.spec.Size >= 0 && !u.released {
			u.promised += length
			s.space.reserve(length)
		}
		if layout.Offset(index) < u.prefix.n {
			u.prefix = prefix{}
		}
	}
	u.sealed, u.hinted = nil, false
	return err
}

// indexes lists a set.
func indexes(set *upload.ChunkSet) []int {
	list := make([]int, 0, set.Len())
	for index := range set.Last() + 1 {
		if set.Has(index) {
			list = append(list, index)
		}
	}
	return list
}
