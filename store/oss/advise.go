package oss

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"gantry/store"
)

var _ store.Advisor = (*Store)(nil)

// Advise looks at the endpoints, at the bucket's lifecycle rules, its versioning, who may read it, its class of storage,
// and whether browsers may send parts to it.
func (s *Store) Advise(ctx context.Context) ([]store.Advice, error) {
	if err := s.Check(ctx); err != nil {
		return nil, err
	}
	all := s.adviseEndpoints()
	for _, look := range []struct {
		setting string
		action  string // that the access key needs
		advise  func(ctx context.Context) ([]store.Advice, error)
	}{
		{"lifecycle rules", "oss:GetBucketLifecycle", s.adviseLifecycle},
		{"versioning, access and class", "oss:GetBucketInfo", s.adviseInfo},
		{"CORS rules", "oss:GetBucketCors", s.adviseCORS},
	} {
		advice, err := look.advise(ctx)
		if code(err) == "AccessDenied" {
			advice, err = []store.Advice{{
				Setting: look.setting, Problem: "They cannot be looked at: the access key may not.",
				Mend: "Look yourself, as docs/stores/oss.md says, or allow the access key " + look.action + ".",
			}}, nil
		}
		if err != nil {
			return nil, classify("oss.Advise", "", err)
		}
		all = append(all, advice...)
	}
	return all, nil
}

const internal = "-internal" + aliyun // in the name of an endpoint that is reached from inside Aliyun only

func (s *Store) adviseEndpoints() []store.Advice {
	endpoint, public := store.Advice{Setting: "endpoint"}, store.Advice{Setting: "public endpoint"}
	if u, err := url.Parse(s.opt.Endpoint); err == nil && u.Scheme == "http" && !strings.HasSuffix(u.Hostname(), internal) && net.ParseIP(u.Hostname()) == nil {
		endpoint.Problem = "It is not https, so that files cross the network for everybody to read."
		endpoint.Mend = "Use https."
	}
	if u, err := url.Parse(s.opt.Public); err == nil && strings.HasSuffix(u.Hostname(), internal) {
		public.Problem = "Presigned URLs name the internal endpoint, which clients outside Aliyun cannot reach."
		public.Mend = "If you use presigned downloads or direct upload, set the public endpoint, or a domain that is bound to the bucket."
	}
	return []store.Advice{endpoint, public}
}

// code is OSS's word for an error; "" if it has none.
func code(err error) string {
	answer, _ := errors.AsType[sdk.ServiceError](err)
	return answer.Code
}

// setting reads one of the bucket's settings. The SDK's own functions know no context.
func (s *Store) setting(ctx context.Context, name string, document any) error {
	return s.read(ctx, "", map[string]any{name: nil}, document)
}

// adviseLifecycle: what Clean aborts by itself a rule aborts also when there is no Gantry any more.
func (s *Store) adviseLifecycle(ctx context.Context) ([]store.Advice, error) {
	const days = int(abandoned / (24 * time.Hour))
	var config sdk.GetBucketLifecycleResult
	if err := s.setting(ctx, "lifecycle", &config); err != nil && code(err) != "NoSuchLifecycle" {
		return nil, err
	}
	abort := store.Advice{
		Setting: "lifecycle rules: abandoned multipart uploads", Problem: "No rule aborts them, and their parts cost money for ever.",
		Mend: fmt.Sprintf("Add a rule that deletes parts after %d days.", days),
	}
	var all []store.Advice
	for _, rule := range config.Rules {
		covers := strings.HasPrefix(s.opt.Prefix, rule.Prefix)
		if rule.Status != "Enabled" || !covers && !strings.HasPrefix(rule.Prefix, s.opt.Prefix) {
			continue
		}
		if a := rule.AbortMultipartUpload; a != nil && a.Days > 0 && a.Days < days {
			abort.Problem = fmt.Sprintf("Rule %q deletes parts after %d days, also those that Gantry would have gone on with.", rule.ID, a.Days)
			abort.Mend = fmt.Sprintf("Let it wait for %d days.", days)
		} else if a != nil && a.Days >= days && covers && !strings.HasPrefix(abort.Problem, "Rule") {
			abort.Problem, abort.Mend = "", ""
		}
		if e := rule.Expiration; e != nil && (e.Days > 0 || e.Date != "" || e.CreatedBeforeDate != "") {
			all = append(all, store.Advice{
				Setting: "lifecycle rules: objects", Problem: fmt.Sprintf("Rule %q deletes objects by itself, which loses files.", rule.ID),
				Mend: "Take it away, or limit it to a prefix that is not Gantry's.",
			})
		}
		if slices.ContainsFunc(rule.Transitions, func(t sdk.LifecycleTransition) bool { return archive(t.StorageClass) }) {
			all = append(all, store.Advice{
				Setting: "lifecycle rules: objects", Problem: fmt.Sprintf("Rule %q moves objects into an archive, from which they cannot be read.", rule.ID),
				Mend: "Take it away, or let it move them to Infrequent Access only.",
			})
		}
	}
	return append(all, abort), nil
}

// archive reports whether objects of a class have to be restored before they can be read.
func archive(class sdk.StorageClassType) bool { return strings.HasSuffix(string(class), "Archive") }

func (s *Store) adviseInfo(ctx context.Context) ([]store.Advice, error) {
	var info sdk.GetBucketInfoResult
	if err := s.setting(ctx, "bucketInfo", &info); err != nil {
		return nil, err
	}
	versioning, access, class := store.Advice{Setting: "versioning"}, store.Advice{Setting: "access"}, store.Advice{Setting: "class of storage"}
	if info.BucketInfo.Versioning == "Enabled" {
		versioning.Problem = "It is on, so that what Gantry deletes or writes again stays, and costs money."
		versioning.Mend = "Suspend it, or add a lifecycle rule that deletes previous versions."
	}
	if acl := info.BucketInfo.ACL; strings.HasPrefix(acl, "public") {
		access.Problem = fmt.Sprintf("The bucket is %s: everybody reads all files, also without Gantry.", acl)
		access.Mend = "Make the bucket private. Presigned URLs do not need more."
	}
	if archive(sdk.StorageClassType(info.BucketInfo.StorageClass)) {
		class.Problem = fmt.Sprintf("The bucket is %s: what is written cannot be read before it is restored.", info.BucketInfo.StorageClass)
		class.Mend = "Use a bucket of class Standard or IA."
	}
	return []store.Advice{versioning, access, class}, nil
}

// adviseCORS: a browser sends a part only if it is allowed to, and reads the ETag only if it is shown.
func (s *Store) adviseCORS(ctx context.Context) ([]store.Advice, error) {
	var config sdk.GetBucketCORSResult
	if err := s.setting(ctx, "cors", &config); err != nil && code(err) != "NoSuchCORSConfiguration" {
		return nil, err
	}
	advice := store.Advice{Setting: "CORS rules: direct upload"}
	if !slices.ContainsFunc(config.CORSRules, takesParts) {
		advice.Problem = "No rule lets a browser send parts by itself and see their ETag."
		advice.Mend = "If you use direct upload, add a rule for the page's origin with method PUT, all headers allowed and ETag exposed."
	}
	return []store.Advice{advice}, nil
}

func takesParts(rule sdk.CORSRule) bool {
	return slices.Contains(rule.AllowedMethod, http.MethodPut) && slices.Contains(rule.AllowedHeader, "*") &&
		slices.ContainsFunc(rule.ExposeHeader, func(name string) bool { return strings.EqualFold(name, "ETag") })
}
