package client

import (
	"context"
	"time"

	"gantry/upload"
)

// load finds the state of an earlier attempt, or makes a new one. It reports whether there was one.
func (s *session) load() (resumed bool) {
	s.state = State{
		Server: s.c.base.String(), File: s.src.path, Size: s.src.size, ModTime: s.src.modTime,
		Name: s.opt.Name, Path: s.opt.Path, Replace: s.opt.Replaces, Key: newKey(), ChangeTime: s.src.ctime,
	}
	if s.c.opt.States == nil || !s.src.Resumable() {
		return false
	}
	s.stateID = s.state.ID()
	known, err := s.c.opt.States.Load(s.stateID)
	if err != nil {
		s.c.log.Warn("what is known of an earlier attempt cannot be read, beginning anew", "error", err)
	}
	if known == nil {
		return false
	}
	s.state = *known
	if s.src.ctime == 0 || s.state.ChangeTime != s.src.ctime {
		s.state.ChangeTime = s.src.ctime
		s.state.Hashed, s.state.SHA1Hash, s.state.SHA1 = 0, nil, upload.SHA1{}
	}
	return true
}

// save changes the state and keeps it. A state that cannot be kept costs a resumption, not an upload.
func (s *session) save(change func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	if s.stateID == "" {
		return
	}
	if err := s.c.opt.States.Save(s.stateID, &s.state); err != nil {
		s.c.log.Warn("the upload cannot be remembered: it could not be resumed", "error", err)
	}
}

// forget deletes the state of an upload that is over.
func (s *session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stateID == "" {
		return
	}
	if err := s.c.opt.States.Delete(s.stateID); err != nil {
		s.c.log.Warn("the state of a finished upload cannot be deleted", "error", err)
	}
}

// reset drops an upload that cannot be completed, here and on the server, and prepares for a new one.
func (s *session) reset(ctx context.Context) {
	s.cancel(ctx)
	s.forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Key, s.state.UploadID, s.state.Known, s.state.Asked = newKey(), "", "", false
	s.state.Hashed, s.state.SHA1Hash, s.state.SHA1 = 0, nil, upload.SHA1{}
	s.emit(Event{Kind: Resumed, Bytes: -s.already})
	s.emit(Event{Kind: Acknowledged, Bytes: -s.acked.Load()})
	s.emit(Event{Kind: Moved, Bytes: -s.acked.Load()})
	s.already = 0
	s.acked.Store(0)
}

// cancel frees what an upload has on the server, as far as that can be done: it expires anyway.
func (s *session) cancel(ctx context.Context) {
	if s.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.c.Cancel(ctx, s.id); err != nil && !IsNotFound(err) && !IsGone(err) {
		s.c.log.DebugContext(ctx, "cancel failed", "upload", s.id, "error", err)
	}
}
