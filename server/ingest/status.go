package ingest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"gantry/upload"
)

// Status tells where an upload stands. Of an upload of another node it is what the view knows for sure;
// upload.NotFound if that is nothing.
func (s *Service) Status(ctx context.Context, owner, id string) (Status, error) {
	const op = "ingest.Status"
	if _, ok := s.elsewhere(id); ok {
		u, err := s.View.Get(ctx, id) // first, so that it costs one round trip
		switch {
		case err == nil && u.Owner == owner:
			return openStatus(&openUpload{Upload: u}, s.opt.UploadTTL), nil
		case err != nil && !errors.Is(err, upload.NotFound):
			return Status{}, upload.Wrap(upload.Unavailable, op, id, err)
		}
	}
	u, answer, err := s.lookUp(ctx, owner, id)
	if err != nil {
		return Status{}, upload.Wrap(upload.Internal, op, id, err)
	}
	if answer != nil {
		return Status{ID: id, State: answer.State, Answer: *answer}, nil
	}
	if u.direct != nil {
		status, err := s.statusOfDirect(ctx, &u)
		return status, upload.Wrap(upload.Unavailable, op, id, err)
	}
	return openStatus(&u, s.opt.UploadTTL), nil
}

func openStatus(u *openUpload, ttl time.Duration) Status {
	return Status{ID: u.ID, State: upload.Open, Upload: u.Upload, Direct: u.direct != nil, ExpiresAt: u.UpdatedAt.Add(ttl)}
}

// Uploads lists an owner's open uploads in the order of ids, those after the id given. What has come of a direct one
// only its Status tells: the store is not asked for a whole page.
func (s *Service) Uploads(ctx context.Context, owner, after string, limit int) (Page[Status], error) {
	const op = "ingest.Uploads"
	listed, err := s.View.List(ctx, owner, after, limit+1)
	if err != nil {
		return Page[Status]{}, upload.Wrap(upload.Unavailable, op, "", err)
	}
	direct, err := s.DB.DirectOf(ctx, owner, after, limit+1)
	if err != nil {
		return Page[Status]{}, upload.Wrap(upload.Unavailable, op, "", err)
	}
	all := make([]openUpload, 0, len(listed)+len(direct))
	for i := range listed {
		all = append(all, openUpload{Upload: listed[i]})
	}
	for i := range direct {
		all = append(all, openDirect(&direct[i]))
	}
	slices.SortFunc(all, func(a, b openUpload) int { return cmp.Compare(a.ID, b.ID) })
	page := Page[Status]{More: len(all) > limit}
	for i := range all[:min(limit, len(all))] {
		u, err := s.stillOpen(ctx, &all[i])
		if errors.Is(err, upload.NotFound) {
			continue // ended since the view was read
		}
		if err != nil {
			return Page[Status]{}, err
		}
		page.Items = append(page.Items, openStatus(&u, s.opt.UploadTTL))
	}
	return page, nil
}

// stillOpen is an upload of a listing as it stands; upload.NotFound if it has ended. Of another node's it is
// what the view has, which may be behind.
func (s *Service) stillOpen(ctx context.Context, listed *openUpload) (openUpload, error) {
	if listed.direct != nil {
		return *listed, nil
	}
	if _, ok := s.elsewhere(listed.ID); !ok {
		u, err := s.Staging.Get(listed.ID)
		return openUpload{Upload: u}, err
	}
	_, err := s.DB.Answer(ctx, listed.ID)
	if errors.Is(err, upload.NotFound) {
		return *listed, nil
	}
	if err == nil {
		err = notFound(listed.ID)
	}
	return openUpload{}, err
}

// Prefix opens the part of an open upload that is contiguous and hashed. The caller closes.
func (s *Service) Prefix(ctx context.Context, owner, id string) (Prefix, error) {
	const op = "ingest.Prefix"
	u, answer, err := s.lookUp(ctx, owner, id)
	if err != nil {
		return Prefix{}, upload.Wrap(upload.Internal, op, id, err)
	}
	if answer != nil {
		return Prefix{}, upload.Errorf(upload.Gone, op, id, "The upload is %s. Look at its state for the file, or begin a new one.", answer.State)
	}
	if u.direct != nil { // this node has none of its bytes
		return Prefix{Upload: u.Upload, Content: nothing{}}, nil
	}
	content, err := s.Staging.Open(ctx, id)
	if err != nil {
		return Prefix{}, upload.Wrap(upload.Internal, op, id, err)
	}
	return Prefix{Upload: u.Upload, Content: content}, nil
}
