package s3

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/cors"
	"github.com/minio/minio-go/v7/pkg/lifecycle"

	"gantry/store"
	"gantry/upload"
)

var (
	_ store.Checker = (*Store)(nil)
	_ store.Advisor = (*Store)(nil)
)

// Advise looks at the bucket's lifecycle rules, its versioning, and whether browsers may send parts to it.
func (s *Store) Advise(ctx context.Context) ([]store.Advice, error) {
	if err := s.Check(ctx); err != nil {
		return nil, err
	}
	var all []store.Advice
	for _, look := range []struct {
		setting string
		advise  func(ctx context.Context, setting string) ([]store.Advice, error)
	}{
		{"lifecycle rules", s.adviseLifecycle},
		{"versioning", s.adviseVersioning},
		{"CORS rules", s.adviseCORS},
	} {
		advice, err := look.advise(ctx, look.setting)
		if reason := untold(err); reason != "" {
			advice = []store.Advice{{
				Setting: look.setting, Problem: "This cannot be looked at: " + reason + ".",
				Mend: "Look yourself, as docs/stores/s3.md says, or let the access key read the bucket's settings.",
			}}
		} else if err != nil {
			return nil, classify("s3.Advise", "", err)
		}
		all = append(all, advice...)
	}
	return all, nil
}

// untold is why a server does not tell a setting; "" if it failed otherwise, or did not fail.
func untold(err error) string {
	switch answer := minio.ToErrorResponse(err); {
	case answer.Code == "AccessDenied" || answer.StatusCode == http.StatusForbidden:
		return "the access key may not"
	case answer.Code == "NotImplemented", answer.Code == "MethodNotAllowed", answer.StatusCode == http.StatusNotImplemented, answer.StatusCode == http.StatusMethodNotAllowed:
		return "the server does not have such a setting"
	}
	return ""
}

// adviseLifecycle: what Clean aborts by itself a rule aborts also when there is no Gantry any more.
func (s *Store) adviseLifecycle(ctx context.Context, setting string) ([]store.Advice, error) {
	const days = int(abandoned / (24 * time.Hour))
	config, err := s.client.GetBucketLifecycle(ctx, s.opt.Bucket)
	if minio.ToErrorResponse(err).Code == "NoSuchLifecycleConfiguration" {
		config, err = lifecycle.NewConfiguration(), nil
	}
	if err != nil {
		return nil, err
	}
	abort := store.Advice{
		Setting: setting + ": abandoned multipart uploads", Problem: "No rule aborts them, and their parts cost room for ever.",
		Mend: fmt.Sprintf("Add a rule with AbortIncompleteMultipartUpload after %d days.", days),
	}
	all := []store.Advice{}
	for _, rule := range config.Rules {
		prefix := rule.Prefix + rule.RuleFilter.Prefix + rule.RuleFilter.And.Prefix
		covers := strings.HasPrefix(s.opt.Prefix, prefix)
		if rule.Status != minio.Enabled || !covers && !strings.HasPrefix(prefix, s.opt.Prefix) {
			continue
		}
		switch after := int(rule.AbortIncompleteMultipartUpload.DaysAfterInitiation); {
		case after > 0 && after < days:
			abort.Problem = fmt.Sprintf("Rule %q aborts them after %d days, also those that Gantry would have gone on with.", rule.ID, after)
		case after > 0 && covers:
			abort.Problem, abort.Mend = "", ""
		}
		if !rule.Expiration.IsNull() || !rule.Transition.IsNull() {
			all = append(all, store.Advice{
				Setting: setting + ": objects", Problem: fmt.Sprintf("Rule %q deletes or moves objects by itself, which loses files.", rule.ID),
				Mend: "Take it away, or limit it to a prefix that is not Gantry's.",
			})
		}
	}
	return append(all, abort), nil
}

func (s *Store) adviseVersioning(ctx context.Context, setting string) ([]store.Advice, error) {
	config, err := s.client.GetBucketVersioning(ctx, s.opt.Bucket)
	advice := store.Advice{Setting: setting}
	if config.Enabled() {
		advice.Problem = "It is on, so that what Gantry deletes or writes again still costs room."
		advice.Mend = "Switch it off, or add a lifecycle rule with NoncurrentVersionExpiration."
	}
	return []store.Advice{advice}, err
}

// adviseCORS: a browser sends a part only if it is allowed to, and reads the ETag only if it is shown.
func (s *Store) adviseCORS(ctx context.Context, setting string) ([]store.Advice, error) {
	config, err := s.client.GetBucketCors(ctx, s.opt.Bucket)
	if err != nil {
		return nil, err
	}
	advice := store.Advice{Setting: setting + ": direct upload"}
	if config == nil || !slices.ContainsFunc(config.CORSRules, takesParts) {
		advice.Problem = "No rule lets a browser send parts by itself and see their ETag."
		advice.Mend = "If you use direct upload, add a rule for the page's origin with method PUT, all headers allowed and ETag exposed."
	}
	return []store.Advice{advice}, nil
}

func takesParts(rule cors.Rule) bool {
	return slices.Contains(rule.AllowedMethod, http.MethodPut) && slices.Contains(rule.AllowedHeader, "*") &&
		slices.ContainsFunc(rule.ExposeHeader, func(name string) bool { return name == "*" || strings.EqualFold(name, "ETag") })
}

// Check reports whether the bucket is there and may be used.
func (s *Store) Check(ctx context.Context) error {
	const op = "s3.Check"
	there, err := s.client.BucketExists(ctx, s.opt.Bucket)
	if err != nil {
		return classify(op, "", err)
	}
	if !there {
		return upload.Errorf(upload.Invalid, op, "", "There is no bucket %q. Make it, or correct the store's settings.", s.opt.Bucket)
	}
	return nil
}
