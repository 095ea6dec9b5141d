package ingest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"

	"gantry/meta"
	"gantry/upload"
)

// maxFailures is how many wrong proofs an owner may give within chunkstore.FailureWindow before
// getting decoys only.
const maxFailures = 5

// Instant turns an open upload into a file of content that the server has already, if the client
// proves that it has that content too: first a challenge, then, with a proof, the file. A result
// with neither means: go on uploading. It is the same for content that is unknown, that is another
// owner's outside the scope, and for a wrong proof.
func (s *Service) Instant(ctx context.Context, owner, id string, r InstantRequest) (InstantResult, error) {
	const op = "ingest.Instant"
	u, answer, err := s.lookUp(ctx, owner, id)
	if err != nil {
		return InstantResult{}, upload.Wrap(upload.Internal, op, id, err)
	}
	switch {
	case answer != nil && answer.State == upload.Complete:
		return InstantResult{Answer: answer}, nil // repeated
	case answer != nil:
		return InstantResult{}, notOpen(op, answer)
	case u.Size < upload.MinInstantSize:
		return InstantResult{}, nil // also while the size is unknown
	case r.Proof == nil:
		c, err := s.challenge(ctx, owner, &u.Upload, r.SHA1)
		if err != nil {
			return InstantResult{}, err
		}
		return InstantResult{Challenge: &c}, nil
	}
	result, err := s.prove(ctx, owner, &u, r)
	return result, upload.Wrap(upload.Internal, op, id, err)
}

// drawPeriod is for how long the same owner is asked for the same leaves of the same content, seconds.
const drawPeriod = 24 * 60 * 60

// draw decides something at random, and always the same for the same parts.
func (s *Service) draw(parts ...any) (drawn [32]byte) {
	mac := hmac.New(sha256.New, s.secret[:])
	text, _ := json.Marshal(parts) // strings, numbers and digests: never fails
	mac.Write(text)
	mac.Sum(drawn[:0])
	return drawn
}

// challenge asks for leaves of the content with this SHA-1, or of nothing: whoever fails too often,
// and whoever asks for content that cannot be given, gets a decoy.
func (s *Service) challenge(ctx context.Context, owner string, u *upload.Upload, sha1 upload.SHA1) (upload.Challenge, error) {
	const op = "ingest.Instant"
	now := s.Now()
	c := upload.NewChallenge(u.Size, s.draw("challenge", owner, sha1, u.Size, now.Unix()/drawPeriod), now)
	c.Owner, c.UploadID, c.SHA1 = owner, u.ID, sha1
	blob, err := s.DB.FindContent(ctx, s.opt.Scope, owner, sha1, u.Size)
	if err != nil && !errors.Is(err, upload.NotFound) {
		return upload.Challenge{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
	}
	s.Metrics.check("challenge", err == nil)
	failures, failErr := s.View.Failures(ctx, owner, now)
	if failErr != nil {
		return upload.Challenge{}, upload.Wrap(upload.Unavailable, op, u.ID, failErr)
	}
	if err == nil && failures < maxFailures {
		c.BlobID, c.Root = blob.ID, blob.Root
	}
	if err := s.View.PutChallenge(ctx, c); err != nil {
		return upload.Challenge{}, upload.Wrap(upload.Unavailable, op, u.ID, err)
	}
	return c, nil
}

// prove checks a proof. A failure is counted for leaves that are not of one content, to a decoy as to
// a challenge: an honest client's always are, also where its content is new and it answers decoys all
// the time. If only answers to real challenges counted, whoever then gets decoys for content of his
// own would know that the content he guessed at is here.
func (s *Service) prove(ctx context.Context, owner string, u *openUpload, r InstantRequest) (InstantResult, error) {
	now := s.Now()
	c, err := s.View.TakeChallenge(ctx, r.Proof.Challenge, now)
	if errors.Is(err, upload.NotFound) {
		return InstantResult{}, nil // used, expired, or never given
	}
	if err != nil {
		return InstantResult{}, err
	}
	bound := c.Owner == owner && c.UploadID == u.ID && c.SHA1 == r.SHA1 && c.Size == u.Size
	switch {
	case bound && r.Proof.Satisfies(&c):
	case bound && r.Proof.Coherent(&c):
		s.Metrics.check("proof", false)
		return InstantResult{}, nil
	default:
		s.Metrics.checks.WithLabelValues("proof", "fail").Inc()
		_, err := s.View.CountFailure(ctx, owner, now)
		return InstantResult{}, err
	}
	s.Metrics.check("proof", true)
	ctx, cancel := finishing(ctx)
	defer cancel()
	commit := s.commitOf(&u.Upload)
	commit.Direct = u.direct != nil
	answer, err := s.DB.CommitInstant(ctx, commit, c.BlobID)
	if errors.Is(err, upload.NotFound) {
		return InstantResult{}, nil // deleted meanwhile
	}
	if err != nil {
		return InstantResult{}, err
	}
	if answer.State != upload.Complete {
		return InstantResult{}, notOpen("ingest.Instant", &answer)
	}
	if answer.Instant {
		s.tookInstant(ctx, u, &answer)
	}
	return InstantResult{Answer: &answer}, nil
}

// tookInstant frees what an upload had received before it turned out not to be needed.
func (s *Service) tookInstant(ctx context.Context, u *openUpload, answer *meta.Answer) {
	s.Metrics.finished.WithLabelValues("instant").Inc()
	s.Metrics.saved.Add(float64(answer.File.Size - u.ReceivedBytes))
	if u.direct != nil {
		s.dropDirect(ctx, u.direct)
		return
	}
	if err := s.drop(ctx, &u.Spec); err != nil {
		s.Log.Warn("cannot drop the bytes of an instant upload; the next start will", "upload_id", u.ID, "error", err)
	}
}
