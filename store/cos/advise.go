package cos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	sdk "github.com/tencentyun/cos-go-sdk-v5"

	"gantry/store"
	"gantry/upload"
)

var _ store.Advisor = (*Store)(nil)

// Advise looks at the bucket's settings that matter here.
func (s *Store) Advise(ctx context.Context) ([]store.Advice, error) {
	const op = "cos.Advise"
	lifecycle, _, err := s.client.Bucket.GetLifecycle(ctx)
	lifecycleErr := classify(op, "", err)
	cors, _, err := s.client.Bucket.GetCORS(ctx)
	corsErr := classify(op, "", err)
	versioning, _, err := s.client.Bucket.GetVersioning(ctx)
	versioningErr := classify(op, "", err)

	var all []store.Advice
	for _, look := range []struct {
		err    error
		action string // that COS calls the permission to look
		advice func() []store.Advice
	}{
		{lifecycleErr, "GetBucketLifecycle", func() []store.Advice { return s.adviseLifecycle(lifecycle.Rules) }},
		{corsErr, "GetBucketCORS", func() []store.Advice { return adviseCORS(cors.Rules) }},
		{versioningErr, "GetBucketVersioning", func() []store.Advice { return adviseVersioning(versioning.Status) }},
	} {
		switch {
		case look.err == nil, errors.Is(look.err, upload.NotFound): // there is no such setting
			all = append(all, look.advice()...)
		case refused(look.err):
			all = append(all, store.Advice{
				Setting: look.action, Problem: "The credentials may not look at this setting.",
				Mend: fmt.Sprintf("Allow name/cos:%s, or look at it in the console.", look.action),
			})
		default:
			return nil, look.err
		}
	}
	return all, nil
}

// refused tells a permission that is missing from credentials that are wrong.
func refused(err error) bool {
	answer, ok := errors.AsType[*sdk.ErrorResponse](err)
	return ok && answer.Code == "AccessDenied"
}

// prefix is of the keys that a rule is for.
func prefix(rule sdk.BucketLifecycleRule) string {
	switch f := rule.Filter; {
	case f == nil:
		return ""
	case f.And != nil:
		return f.And.Prefix
	default:
		return f.Prefix
	}
}

// partly reports whether a rule is for some of the keys under its prefix only.
func partly(rule sdk.BucketLifecycleRule) bool {
	f := rule.Filter
	return f != nil && (f.Tag != nil || f.And != nil && (len(f.And.Tag) > 0 || f.And.PrefixNotEquals != "" || f.And.ObjectSizeGreaterThan > 0 || f.And.ObjectSizeLessThan > 0))
}

// adviseLifecycle wants abandoned parts to go, and objects to stay where they can be read.
func (s *Store) adviseLifecycle(rules []sdk.BucketLifecycleRule) []store.Advice {
	parts := store.Advice{
		Setting: "lifecycle: abandoned multipart uploads",
		Problem: "Parts of uploads that nobody completes stay, and are paid for.",
		Mend:    fmt.Sprintf("Add a lifecycle rule for the prefix %q that deletes incomplete multipart uploads 7 days after they began.", s.opt.Prefix),
	}
	objects := store.Advice{Setting: "lifecycle: objects"}
	for _, rule := range rules {
		if rule.Status != "Enabled" {
			continue
		}
		if abort := rule.AbortIncompleteMultipartUpload; abort != nil && abort.DaysAfterInitiation > 0 && strings.HasPrefix(s.opt.Prefix, prefix(rule)) && !partly(rule) {
			parts.Problem, parts.Mend = "", ""
		}
		if !strings.HasPrefix(s.opt.Prefix, prefix(rule)) && !strings.HasPrefix(prefix(rule), s.opt.Prefix) {
			continue
		}
		if e := rule.Expiration; e != nil && (e.Days > 0 || e.Date != "") {
			objects.Problem = fmt.Sprintf("The lifecycle rule %q deletes objects. Files will be lost.", rule.ID)
			objects.Mend = "Take its expiration of current versions away."
		}
		archives := func(t sdk.BucketLifecycleTransition) bool { return strings.Contains(t.StorageClass, "ARCHIVE") }
		if objects.Problem == "" && slices.ContainsFunc(rule.Transition, archives) {
			objects.Problem = fmt.Sprintf("The lifecycle rule %q moves objects to an archive, from which they cannot be read.", rule.ID)
			objects.Mend = "Let it move them to STANDARD_IA at most."
		}
	}
	return []store.Advice{parts, objects}
}

// adviseCORS wants a browser to be able to send parts, and to read their ETags.
func adviseCORS(rules []sdk.BucketCORSRule) []store.Advice {
	has := func(list []string, value string) bool {
		return slices.ContainsFunc(list, func(v string) bool { return v == "*" || strings.EqualFold(v, value) })
	}
	fits := func(rule sdk.BucketCORSRule) bool {
		return len(rule.AllowedOrigins) > 0 && has(rule.AllowedMethods, "PUT") && has(rule.AllowedHeaders, "Content-Type") && has(rule.ExposeHeaders, "ETag")
	}
	a := store.Advice{Setting: "CORS: direct upload from browsers"}
	if !slices.ContainsFunc(rules, fits) {
		a.Problem = "Browsers cannot send parts to the bucket by themselves."
		a.Mend = "For direct upload add a CORS rule: your page's origin, the methods PUT and GET, the headers *, and ETag exposed."
	}
	return []store.Advice{a}
}

// adviseVersioning wants what is deleted to go.
func adviseVersioning(status string) []store.Advice {
	a := store.Advice{Setting: "versioning"}
	if status == "Enabled" {
		a.Problem = "Versioning is on: objects that are deleted or replaced stay, and are paid for."
		a.Mend = "Suspend it, or add a lifecycle rule that expires noncurrent versions."
	}
	return []store.Advice{a}
}
