package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func load(t *testing.T, environ []string, args ...string) (Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags, environ)
}

func TestDefaultsHold(t *testing.T) {
	c, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("got %+v, want %+v", c, Default())
	}
}

func TestPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gantry.yaml")
	text := "max_size: 10GiB\nmin_free: 2097152\nupload_ttl: 24h\nlog_level: warn\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, []string{"GANTRY_CONFIG=" + path, "GANTRY_UPLOAD_TTL=48h", "GANTRY_LOG_LEVEL=error", "GANTRY_SERVER=http://x"}, "--log-level", "debug")
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxSize != 10<<30 || c.MinFree != 2<<20 {
		t.Errorf("file over defaults: max_size %d, min_free %d", c.MaxSize, c.MinFree)
	}
	if c.UploadTTL != 48*time.Hour {
		t.Errorf("environment over file: upload_ttl %v", c.UploadTTL)
	}
	if c.LogLevel != "debug" {
		t.Errorf("flag over environment: log_level %s", c.LogLevel)
	}
}

func TestEverythingWrongIsSaidAtOnce(t *testing.T) {
	_, err := load(t, nil, "--listen=0.0.0.0:80", "--management=:9", "--durability=maybe", "--upload-ttl=-1s")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"token-file", "management", "durability", "upload_ttl"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("does not mention %s: %v", want, err)
		}
	}
}

// A person who left something out is told that, and not what would follow from it.
func TestWrongValuesAreSaidPlainly(t *testing.T) {
	for _, test := range []struct{ flag, want string }{
		{"--listen=8080", `listen: "8080" is not an address like 127.0.0.1:8080`},
		{"--max-size=lots", `'max_size' "lots" is not a size like 64MiB`},
	} {
		if _, err := load(t, nil, test.flag); err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", test.flag, err, test.want)
		}
	}
}

func TestUnknownSettingInFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gantry.yaml")
	if err := os.WriteFile(path, []byte("lisen: 127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, nil, "--config", path); err == nil || !strings.Contains(err.Error(), "lisen") {
		t.Errorf("got %v", err)
	}
}

func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	c := Config{TokenFile: path}
	if _, err := c.Token(); err == nil {
		t.Error("a missing file was accepted")
	}
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Token(); err == nil {
		t.Error("a short token was accepted")
	}
	if err := os.WriteFile(path, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := c.Token()
	if err != nil || string(token) != "0123456789abcdef" {
		t.Fatalf("got %q, %v", string(token), err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("token", "token", token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("token", "token", token)
	fmt.Fprintf(&log, "%v %s %q %x %+v", token, token, token, token, struct{ T Secret }{token})
	if strings.Contains(log.String(), "0123") || strings.Contains(log.String(), "3031") {
		t.Errorf("the token was printed: %s", log.String())
	}
}

// The queue's address has a password in it, which must not be seen in logs, messages or dumps.
func TestQueue(t *testing.T) {
	const address = "amqp://user:s3cr3t-word@broker.example:5672/vhost"
	c, err := load(t, []string{"GANTRY_QUEUE=" + address}, "--transfer-process")
	if err != nil || string(c.Queue) != address || !c.TransferProcess {
		t.Fatalf("got %q, %v, %v", string(c.Queue), c.TransferProcess, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("queue", "queue", c.Queue)
	slog.New(slog.NewTextHandler(&log, nil)).Info("queue", "queue", c.Queue)
	fmt.Fprintf(&log, "%v %s %q %x %+v %v", c.Queue, c.Queue, c.Queue, c.Queue, c, &c)
	if text := log.String(); strings.Contains(text, "s3cr3t") || strings.Contains(text, "733363") || !strings.Contains(text, "broker.example") {
		t.Errorf("printed: %s", text)
	}
	for _, wrong := range []string{"http://h", "amqp://", "broker:5672", "amqp://user:s3cr3t-word@ho st/", "amqp://user:s3cr3t%zz@host"} {
		_, err := load(t, nil, "--queue", wrong)
		if err == nil || !strings.Contains(err.Error(), "queue: ") || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	if _, err := load(t, nil, "--transfer-process"); err == nil || !strings.Contains(err.Error(), "queue") {
		t.Errorf("a transfer process without a queue: %v", err)
	}
}

func TestDatabase(t *testing.T) {
	const secret = "hunter2"
	c, err := load(t, []string{"GANTRY_DATABASE=mysql://u:" + secret + "@h/db", "GANTRY_DATABASE_REPLICAS=mysql://a/db,mysql://b/db"})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.ReplicaURLs(); len(got) != 2 || got[1] != "mysql://b/db" {
		t.Errorf("replicas: %q", got)
	}
	if text := fmt.Sprintf("%v %+v %#v", c, &c, c.Database); strings.Contains(text, secret) {
		t.Errorf("the password was printed: %s", text)
	}
	for _, arg := range []string{"--database=" + secret, "--database=mysql:" + secret, "--database=redis://u:" + secret + "@h", "--database=mysql://u:" + secret + "/%zz@h/db", "--database-replicas=mysql://u:" + secret + "@h/db"} {
		_, err := load(t, nil, arg)
		if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "database") {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "localhost:0": true, "[::1]:80": true, "127.8.9.1:1": true,
		"0.0.0.0:1": false, ":8080": false, "[::]:1": false, "192.168.1.1:1": false, "example.org:1": false, "x": false,
	} {
		if Loopback(address) != want {
			t.Errorf("Loopback(%q) = %v", address, !want)
		}
	}
}

// A node of a cluster has all that the nodes share, or is told what it lacks.
func TestClusterNeedsWhatNodesShare(t *testing.T) {
	whole := map[string]string{
		"cluster-address": "http://10.0.0.5:8080", "cluster-secret-file": "secret", "store-dir": "/mnt/store",
		"database": "mysql://gantry:pass@db/gantry", "redis": "redis://redis:6379",
	}
	flags := func(without, instead string) (args []string) {
		for name, value := range whole {
			if name != without {
				args = append(args, "--"+name+"="+value)
			}
		}
		if instead != "" {
			args = append(args, "--"+without+"="+instead)
		}
		return args
	}
	if c, err := load(t, nil, flags("", "")...); err != nil || c.ClusterAddress != "http://10.0.0.5:8080" {
		t.Fatalf("a whole one: %v", err)
	}
	for _, name := range []string{"database", "redis", "store-dir", "cluster-secret-file"} {
		key := strings.ReplaceAll(name, "-", "_")
		if _, err := load(t, nil, flags(name, "")...); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := load(t, nil, flags("cluster-address", "")...); err == nil || !strings.Contains(err.Error(), "there is no cluster") {
		t.Errorf("a secret without a cluster: %v", err)
	}
	for _, address := range []string{"10.0.0.5:8080", "ftp://x", "http://", "http://x/path", "http://user:pass@x", "http://x?y=z"} {
		if _, err := load(t, nil, flags("cluster-address", address)...); err == nil || !strings.Contains(err.Error(), "cluster_address") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
