package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// partSize and partsAtATime are what every contestant that can be told is told.
const (
	partSize     = 16 << 20
	partsAtATime = 4
)

// s3Place is a bucket on an S3 server.
type s3Place struct{ host, key, secret, bucket string }

func newS3Place(ctx context.Context, address string) (*s3Place, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	secret, _ := u.User.Password()
	p := &s3Place{u.Host, u.User.Username(), secret, "bench-" + strings.ToLower(rand.Text()[:10])}
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	return p, client.MakeBucket(ctx, p.bucket, minio.MakeBucketOptions{})
}

func (p *s3Place) client() (*minio.Client, error) {
	return minio.New(p.host, &minio.Options{Creds: credentials.NewStaticV4(p.key, p.secret, ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath})
}

// empty deletes what is in the bucket.
func (p *s3Place) empty(ctx context.Context) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	for o := range client.ListObjectsIter(ctx, p.bucket, minio.ListObjectsOptions{Recursive: true}) {
		err = errors.Join(err, o.Err, client.RemoveObject(ctx, p.bucket, o.Key, minio.RemoveObjectOptions{}))
	}
	return err
}

// contestant brings one file into a store.
type contestant struct {
	name string
	put  func(ctx context.Context, file string) (sample, error)
}

// stores compares transfers to stores with what others bring a file there with.
func (b *bench) stores(ctx context.Context) error {
	file := filepath.Join(b.dir, "file")
	if err := writeFile(file, b.size); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "| store | with | MB/s | ÷ the best other | verified there | CPU s/GB | peak MB | of it for this |\n|---|---|--:|--:|---|--:|--:|--:|\n")
	for _, target := range []struct {
		name, variable string
		contestants    func(ctx context.Context, address string) ([]contestant, func(context.Context) error, error)
	}{
		{"Ceph RGW", "GANTRY_TEST_CEPH", b.onS3},
		{"S3 with checksums", "GANTRY_TEST_S3", b.onS3},
		{"RADOS", "GANTRY_TEST_RADOS", b.onRADOS},
	} {
		address := os.Getenv(target.variable)
		if address == "" || !b.wants(target.name) {
			continue
		}
		all, clean, err := target.contestants(ctx, address)
		if err != nil {
			return err
		}
		samples := map[string][]sample{}
		for round := range b.rounds {
			for i := range all {
				c := all[(i+round)%len(all)]
				s, err := c.put(ctx, file)
				if err = errors.Join(err, clean(ctx)); err != nil {
					return fmt.Errorf("%s with %s: %w", target.name, c.name, err)
				}
				samples[c.name] = append(samples[c.name], s)
			}
		}
		best := 0.0
		for _, c := range all[1:] {
			best = max(best, median(samples[c.name], sample.rate))
		}
		for i, c := range all {
			s, ratio, verified := samples[c.name], "–", "no"
			if i == 0 {
				ratio, verified = fmt.Sprintf("%.2f", median(s, sample.rate)/best), "yes"
			}
			fmt.Fprintf(b.out, "| %s | %s | %.0f | %s | %s | %.2f | %.0f | %.0f |\n", target.name, c.name, median(s, sample.rate), ratio, verified,
				median(s, sample.cpuPerGB), median(s, sample.peakMB), median(s, sample.addedMB))
		}
	}
	fmt.Fprintf(b.out, "\nMedians of %d rounds in turn, one file of %d bytes at a time. Gantry: from the answer to complete until the file is verified in the store, the Merkle root"+
		" of its bytes included; CPU and memory are those of the process that sends.\n", b.rounds, b.size)
	return nil
}

func writeFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for written := int64(0); written < size && err == nil; written += int64(len(buffer)) {
		_, err = f.Write(buffer[:min(int64(len(buffer)), size-written)])
	}
	return errors.Join(err, f.Close())
}

func (b *bench) onS3(ctx context.Context, address string) ([]contestant, func(context.Context) error, error) {
	p, err := newS3Place(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	secret := filepath.Join(b.dir, "secret")
	if err := os.WriteFile(secret, []byte(p.secret), 0o600); err != nil {
		return nil, nil, err
	}
	settings := map[string]any{
		"type": "s3", "endpoint": "http://" + p.host, "bucket": p.bucket, "access_key": p.key, "secret_key_file": secret,
		"path_style": true, "part_size": partSize, "parts": partsAtATime,
	}
	part, parts := fmt.Sprintf("%dM", partSize>>20), fmt.Sprint(partsAtATime)
	all := []contestant{
		{"gantry", func(ctx context.Context, _ string) (sample, error) { return b.transferred(ctx, settings) }},
		{"minio-go", func(ctx context.Context, file string) (sample, error) { return b.minio(ctx, p, file) }},
		{"rclone copyto", b.command([]string{
			"AWS_CA_BUNDLE=", "RCLONE_CONFIG_S_TYPE=s3", "RCLONE_CONFIG_S_PROVIDER=Other", "RCLONE_CONFIG_S_ENDPOINT=http://" + p.host, "RCLONE_CONFIG_S_REGION=us-east-1",
			"RCLONE_CONFIG_S_ACCESS_KEY_ID=" + p.key, "RCLONE_CONFIG_S_SECRET_ACCESS_KEY=" + p.secret, "RCLONE_CONFIG_S_FORCE_PATH_STYLE=true",
		}, "rclone", "--config", "/dev/null", "--s3-no-check-bucket", "--s3-chunk-size", part, "--s3-upload-concurrency", parts, "copyto", fileHere, "s:"+p.bucket+"/file")},
		{"s3cmd put", b.command(nil, "s3cmd", "--config=/dev/null", "--access_key="+p.key, "--secret_key="+p.secret, "--host="+p.host, "--host-bucket="+p.host,
			"--no-ssl", "--quiet", "--multipart-chunk-size-mb="+fmt.Sprint(partSize>>20), "put", fileHere, "s3://"+p.bucket+"/file")},
	}
	return all, p.empty, nil
}

func (b *bench) onRADOS(_ context.Context, conf string) ([]contestant, func(context.Context) error, error) {
	settings := map[string]any{"type": "rados", "conf": conf, "pool": "gantry", "namespace": "bench", "object_size": 8 << 20, "parts": partsAtATime}
	all := []contestant{
		{"gantry", func(ctx context.Context, _ string) (sample, error) { return b.transferred(ctx, settings) }},
		{"rados --striper put", b.command(nil, "rados", "-c", conf, "-p", "gantry", "-N", "bench", "--striper", "put", "file", fileHere)},
	}
	clean := func(ctx context.Context) error {
		for _, namespace := range []string{"bench", "bench.heads", "bench.data"} {
			script := `rados -c "$1" -p gantry -N "$2" ls | xargs -r -n 100 rados -c "$1" -p gantry -N "$2" rm`
			if out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", conf, namespace).CombinedOutput(); err != nil { //nolint:gosec // its own arguments
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		return nil
	}
	return all, clean, nil
}

// fileHere stands for the file in the arguments of a command.
const fileHere = "\x00file"

// command is another program that brings the file there. One that is not here is an error: the comparison would be
// with less than it says.
func (b *bench) command(env []string, name string, args ...string) func(ctx context.Context, file string) (sample, error) {
	return func(ctx context.Context, file string) (sample, error) {
		own := make([]string, len(args))
		for i, arg := range args {
			own[i] = strings.ReplaceAll(arg, fileHere, file)
		}
		cmd := exec.CommandContext(ctx, name, own...)
		cmd.Env = append(os.Environ(), env...)
		begun := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return sample{}, fmt.Errorf("%s: %w: %s", name, err, out)
		}
		s := sample{wall: time.Since(begun), bytes: b.size, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			s.peak = usage.Maxrss << 10
		}
		return s, nil
	}
}

// minio brings the file there with minio-go's uploader, in a process of its own, so that it can be measured.
func (b *bench) minio(ctx context.Context, p *s3Place, file string) (sample, error) {
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	text, err := json.Marshal([]string{p.host, p.key, p.secret, p.bucket})
	if err != nil {
		return sample{}, err
	}
	return b.command([]string{minioVariable + "=" + string(text)}, self, fileHere)(ctx, file)
}

// minioVariable makes this program put one file, its argument, with minio-go, and nothing else.
const minioVariable = "GANTRY_BENCH_MINIO"

func putWithMinio(ctx context.Context, place, file string) error {
	var fields [4]string
	if err := json.Unmarshal([]byte(place), &fields); err != nil {
		return err
	}
	p := &s3Place{fields[0], fields[1], fields[2], fields[3]}
	client, err := p.client()
	if err == nil {
		_, err = client.FPutObject(ctx, p.bucket, "file", file, minio.PutObjectOptions{PartSize: partSize, NumThreads: partsAtATime})
	}
	return err
}

// transferred uploads a file to Gantry and measures how it gets to the store.
func (b *bench) transferred(ctx context.Context, settings map[string]any) (s sample, err error) {
	var config bytes.Buffer
	if err := json.NewEncoder(&config).Encode(map[string]any{"store": "main", "stores": map[string]any{"main": settings}}); err != nil {
		return s, err
	}
	path := filepath.Join(b.dir, "gantry.yaml")
	if err := os.WriteFile(path, config.Bytes(), 0o600); err != nil {
		return s, err
	}
	srv, err := b.start(ctx, "gantry", "--config", path)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, srv.stop()) }()
	u, err := srv.open(ctx, b.size, 0)
	if err == nil {
		err = u.send(ctx, 4)
	}
	if err != nil {
		return s, err
	}
	c, err := dial(ctx, srv.addr)
	if err != nil {
		return s, err
	}
	defer c.close()
	for hashed := int64(0); hashed < b.size; { // so that complete has nothing to do
		if hashed, err = u.hashed(c); err != nil {
			return s, err
		}
	}
	// Peaks of memory are forgotten (proc(5), clear_refs).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", srv.cmd.Process.Pid), []byte("5"), 0); err != nil {
		return s, err
	}
	before, idle, begun := srv.cpu(), srv.memory("VmRSS"), time.Now()
	if err := u.complete(ctx); err != nil {
		return s, err
	}
	if err := srv.drained(ctx); err != nil {
		return s, err
	}
	return sample{wall: time.Since(begun), bytes: b.size, cpu: srv.cpu() - before, peak: srv.peak(), idle: idle}, nil
}
