package ingest

// The use cases; filled in uploads.go, instant.go, files.go, janitor.go:
//
//	New(opt, staging, view, db, stores, wake, log, now) *Service
//	(s *Service) Recover(ctx) error                              after start: staging against answers, view rebuilt
//	(s *Service) Run(ctx) error                                  the janitor, until ctx is done
//	(s *Service) Init(ctx, owner, InitRequest) (Opened, bool, error)    bool: an earlier init with this key was repeated
//	(s *Service) PutChunk(ctx, owner, id string, index int, body chunkstore.Body) error
//	(s *Service) Status(ctx, owner, id string) (Status, error)
//	(s *Service) Uploads(ctx, owner, after string, limit int) (Page[Status], error)
//	(s *Service) Instant(ctx, owner, id string, r InstantRequest) (InstantResult, error)
//	(s *Service) Complete(ctx, owner, id string, r CompleteRequest) (upload.File, error)
//	(s *Service) Cancel(ctx, owner, id string) error
//	(s *Service) Prefix(ctx, owner, id string) (Prefix, error)
//	(s *Service) PutFile(ctx, owner, FileRequest, body chunkstore.Body) (upload.File, error)
//	(s *Service) File(ctx, owner, id string) (upload.File, error)
//	(s *Service) Files(ctx, q meta.FileQuery) (Page[upload.File], error)
//	(s *Service) UpdateFile(ctx, owner, id string, c meta.FileChange) (upload.File, error)
//	(s *Service) DeleteFile(ctx, owner, id string) error
//	(s *Service) Content(ctx, owner, id string) (FileContent, error)
