package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"gantry/meta"
	"gantry/upload"
)

// What happens to an owner's files and uploads is found by looking at what all nodes share, the database and the view, while
// somebody follows: so it does not matter which node or process did it, and where nobody follows nothing is spent. All who
// follow one owner share the looks. See docs/decisions/0018-changes-are-looked-for.md.
const (
	// lookBack is how far a look goes back behind the one before it. A change is stamped before it is committed, by the clock
	// of its node: one that shows later than this, or that a clock so far behind has stamped, is not told.
	lookBack = 2 * finishTimeout
	// baseline is how old a change has to be when the following begins, so that it is not told: what is newer may be missing
	// in listings, which replicas of the database answer.
	baseline = 5 * time.Second

	lookShare  = 10   // looking takes at most one part in so many of the time
	maxRows    = 2000 // of the database in a look, of each kind
	maxChanged = 200  // files that one look tells of; of more the listing tells better
	maxEvents  = 500  // that wait for those who follow; who is behind more of them has missed some
	maxUploads = 1000 // open uploads that are followed: those with the first ids
)

// Event is something that happened to an owner's files and uploads. One of its fields is set.
type Event struct {
	File    *upload.File // as it is now: made, renamed, replaced, its content or its transfer is not what it was
	Deleted string       // the id of a file
	Upload  *Status      // an open upload as it is now: begun, or more of it has come
	Ended   *Status      // an upload that is not open any more
}

// feed is what happens to one owner's things. Its turn is held by who looks, for all.
type feed struct {
	owner     string
	followers int // guarded by feeds.mu

	turn    chan struct{}
	begun   bool
	next    time.Time // of the next look
	since   time.Time // of the last one
	changes map[meta.Change]struct{}
	uploads map[string]mark
	events  []Event // the newest
	end     int     // how many there have been
	missed  int     // who has not had the events up to this one has missed some
}

// mark is how far an upload was when it was looked at.
type mark struct {
	updated        time.Time
	received, hash int64
}

// feeds are the feeds that somebody follows, by owner. The zero value is ready.
type feeds struct {
	mu    sync.Mutex
	feeds map[string]*feed
}

func (fs *feeds) join(owner string, most int) (*feed, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.feeds[owner]
	if f != nil && f.followers >= most {
		return nil, false
	}
	if f == nil {
		if fs.feeds == nil {
			fs.feeds = map[string]*feed{}
		}
		f = &feed{owner: owner, turn: make(chan struct{}, 1)}
		fs.feeds[owner] = f
	}
	f.followers++
	return f, true
}

func (fs *feeds) leave(f *feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.followers--; f.followers == 0 {
		delete(fs.feeds, f.owner)
	}
}

// Follower follows what happens to one owner's files and uploads. It is used by one goroutine.
type Follower struct {
	service *Service
	feed    *feed
	at      int
	begun   bool
}

// Follow begins to follow an owner's things; see Follower.Next. upload.TooMany if too many do already. The caller closes.
func (s *Service) Follow(owner string) (*Follower, error) {
	f, ok := s.feeds.join(owner, s.opt.MaxFollowers)
	if !ok {
		return nil, upload.Errorf(upload.TooMany, "ingest.Follow", "", "Too many follow what happens here. Try again later, or close other pages of this server.")
	}
	return &Follower{service: s, feed: f}, nil
}

// Close ends the following.
func (f *Follower) Close() { f.service.feeds.leave(f.feed) }

// Next returns what has happened since the call before, oldest first. missed: there may have been more before it, so that the
// listings are to be read again; the first call always says so. It does not wait for things to happen: it is to be called
// every Options.FollowPause. Failures are the database's and the view's; the call may be repeated, and misses nothing.
func (f *Follower) Next(ctx context.Context) (events []Event, missed bool, err error) {
	const op = "ingest.Follow"
	select {
	case f.feed.turn <- struct{}{}:
		defer func() { <-f.feed.turn }()
	case <-ctx.Done():
		return nil, false, upload.Wrap(upload.Canceled, op, "", ctx.Err())
	}
	if begin := time.Now(); !begin.Before(f.feed.next) {
		if err := f.service.refresh(ctx, f.feed); err != nil {
			return nil, false, upload.Wrap(upload.Unavailable, op, "", err)
		}
		f.feed.next = begin.Add(max(f.service.opt.FollowPause, lookShare*time.Since(begin)))
	}
	feed := f.feed
	missed = !f.begun || f.at < feed.missed
	if !missed {
		events = append(events, feed.events[len(feed.events)-(feed.end-f.at):]...) // a copy: what is in the feed moves
	}
	f.begun, f.at = true, feed.end
	return events, missed, nil
}

// refresh finds out what has happened since the last look. After a failure the feed is as it was before.
func (s *Service) refresh(ctx context.Context, f *feed) error {
	now := s.Now()
	since := f.since
	if !f.begun {
		since = now
	}
	changes, err := s.DB.Changes(ctx, f.owner, since.Add(-lookBack), maxRows)
	if err != nil {
		return err
	}
	seen := make(map[meta.Change]struct{}, len(changes))
	files, order := map[string]bool{}, []string{} // true: deleted
	for _, c := range changes {
		if !f.begun && c.At.After(now.Add(-baseline)) {
			continue // the next look tells of it
		}
		seen[c] = struct{}{}
		if _, known := f.changes[c]; known || !f.begun {
			continue
		}
		if _, again := files[c.FileID]; !again {
			order = append(order, c.FileID)
		}
		files[c.FileID] = files[c.FileID] || c.Deleted
	}
	var events []Event
	missed := len(order) > maxChanged
	if !missed {
		for _, id := range order {
			e, err := s.fileEvent(ctx, f.owner, id, files[id])
			if err != nil {
				return err
			}
			if e != nil {
				events = append(events, *e)
			}
		}
	}
	uploads, more, err := s.lookAtUploads(ctx, f)
	if err != nil {
		return err
	}
	f.begun, f.since, f.changes, f.uploads = true, now, seen, uploads
	f.add(append(more, events...), missed)
	return nil
}

// fileEvent is what to tell of a file to which something has happened.
func (s *Service) fileEvent(ctx context.Context, owner, id string, deleted bool) (*Event, error) {
	if deleted {
		return &Event{Deleted: id}, nil
	}
	file, err := s.DB.File(ctx, owner, id)
	if errors.Is(err, upload.NotFound) {
		return nil, nil //nolint:nilnil // deleted meanwhile, which the next look sees
	}
	return &Event{File: &file}, err
}

// lookAtUploads compares the open uploads with those of the last look.
func (s *Service) lookAtUploads(ctx context.Context, f *feed) (map[string]mark, []Event, error) {
	page, err := s.Uploads(ctx, f.owner, "", maxUploads)
	if err != nil {
		return nil, nil, err
	}
	var events []Event
	marks := make(map[string]mark, len(page.Items))
	for i := range page.Items {
		status := &page.Items[i]
		u := &status.Upload
		marks[u.ID] = mark{u.UpdatedAt, u.ReceivedBytes, u.HashedBytes}
		if before, known := f.uploads[u.ID]; f.begun && (!known || before != marks[u.ID]) {
			status := *status // alone, so that it does not keep the page in memory
			events = append(events, Event{Upload: &status})
		}
	}
	for id, before := range f.uploads {
		if _, open := marks[id]; open {
			continue
		}
		status, err := s.Status(ctx, f.owner, id)
		switch {
		case errors.Is(err, upload.NotFound): // it ended so long ago that nobody knows how
			status = Status{ID: id, State: upload.Expired}
		case err != nil:
			return nil, nil, err
		case status.State == upload.Open: // not among the first any more, or the listing was behind
			marks[id] = before
			continue
		}
		events = append(events, Event{Ended: &status})
	}
	return marks, events, nil
}

// add appends events for those who follow, and forgets the oldest of too many.
func (f *feed) add(events []Event, missed bool) {
	f.events = append(f.events, events...)
	f.end += len(events)
	if missed {
		f.end++ // for the events that are not there, so that all are behind
		f.missed, f.events = f.end, nil
		return
	}
	if drop := len(f.events) - maxEvents; drop > 0 {
		f.events = append([]Event(nil), f.events[drop:]...)
		f.missed = f.end - len(f.events)
	}
}
