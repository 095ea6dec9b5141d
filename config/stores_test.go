package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func loadFile(t *testing.T, text string, args ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gantry.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return load(t, []string{"GANTRY_CONFIG=" + path}, args...)
}

const someStores = `
store: main
max_size: 10GiB
stores:
  main: {type: s3, endpoint: "http://10.0.0.1:9000", bucket: b, access_key: a, secret_key_file: f, path_style: true, part_size: 8MiB, rate: 1000000, fallback: disk}
  disk: {type: local, dir: /mnt/disk}
  both: {type: mirror, of: [ceph, oss]}
  ceph: {type: rados, conf: /etc/ceph/ceph.conf, pool: p, object_size: 8388608}
  oss: {type: oss, endpoint: https://oss.example, bucket: b, access_key: a, secret_key_file: f, redirect: off}
rules:
  - {store: both, min_size: 1GiB}
  - {store: disk, content_type: [video/*, text/plain], max_size: 1MiB}
  - {store: local, owner: [ann, bob]}
`

func TestStores(t *testing.T) {
	c, err := loadFile(t, someStores)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Store{
		Type: "s3", Endpoint: "http://10.0.0.1:9000", Bucket: "b", AccessKey: "a", SecretKeyFile: "f", PathStyle: true,
		PartSize: 8 << 20, Rate: 1_000_000, Fallback: "disk",
	}); !reflect.DeepEqual(c.Stores["main"], want) {
		t.Errorf("main is %+v, want %+v", c.Stores["main"], want)
	}
	if c.MaxSize != 10<<30 || c.Stores["oss"].Redirect != "off" || c.Stores["ceph"].ObjectSize != 8<<20 {
		t.Errorf("%+v", c)
	}
	for _, file := range []struct {
		size        int64
		media, user string
		want        string
	}{
		{1 << 30, "video/mp4", "ann", "both"},
		{1<<30 - 1, "video/mp4", "eve", "main"},
		{1 << 20, "video/mp4", "ann", "disk"},
		{1<<20 + 1, "video/mp4", "ann", "local"},
		{1, "Text/Plain; charset=utf-8", "eve", "disk"},
		{1, "text/html", "eve", "main"},
		{1, "", "bob", "local"},
	} {
		if got := c.StoreFor(file.size, file.media, file.user); got != file.want {
			t.Errorf("%+v goes to %s", file, got)
		}
	}
	if _, err := loadFile(t, someStores, "--store", "disk"); err != nil {
		t.Errorf("another store by a flag: %v", err)
	}
}

func TestWrongStores(t *testing.T) {
	const s3 = "type: s3, endpoint: http://h, bucket: b, access_key: a, secret_key_file: f"
	for text, want := range map[string]string{
		"store: other":                                                          `there is no store "other"`,
		"stores: {a: {type: ftp}}":                                              `stores.a.type: "ftp" is not one of`,
		"stores: {a: {}}":                                                       `stores.a.type: "" is not one of`,
		"stores: {a: {type: s3, bucket: b}}":                                    "stores.a.endpoint: a store of type s3 needs it",
		"stores: {a: {type: local, dir: d, bucket: b}}":                         "stores.a.bucket: a store of type local has no such setting",
		"stores: {a: {" + s3 + ", buckt: b}}":                                   "buckt",
		"stores: {a: {" + s3 + ", part_size: many}}":                            "is not a size",
		"stores: {a: {" + s3 + ", redirect: maybe}}":                            "neither on nor off",
		"stores: {a: {" + s3 + ", fallback: a}}":                                "cannot be its own fallback",
		"stores: {a: {" + s3 + ", fallback: b}}":                                `there is no store "b"`,
		"stores: {a: {" + s3 + `, cdn: "cdn.example"}}`:                         `is not a URL`,
		"stores: {local: {type: local, dir: d}}":                                "a store's name",
		"stores: {Main: {type: local, dir: d}}":                                 "a store's name",
		"stores: {a: {type: mirror, of: [local]}}":                              "of two stores at least",
		"stores: {a: {type: mirror, of: [local, b]}}":                           `there is no store "b"`,
		"stores: {a: {type: mirror, of: [a, local]}}":                           "cannot be one of its copies",
		"stores: {a: {type: mirror, of: [local, b]}, b: {type: local, dir: d}}": `"local" takes copies`,
		"store: b\nstores: {a: {type: mirror, of: [c, b]}, b: {type: local, dir: d}, c: {type: local, dir: e}}":                                    `"b" takes copies`,
		"store: a\nstores: {a: {type: mirror, of: [c, b]}, b: {type: local, dir: d}, c: {type: local, dir: e}, x: {type: mirror, of: [b, local]}}": "it is one of a's",
		"rules: [{store: nope}]":                              `rules[0]: there is no store "nope"`,
		"rules: [{store: local, min_size: 2, max_size: 1}]":   "no file is at least",
		"rules: [{store: local, content_type: '[', size: 1}]": "size",
		"rules: [{store: local, content_type: '['}]":          "not a pattern",
		"stores: 7":         "stores",
		"transfer_rate: -1": "transfer_rate",
	} {
		if _, err := loadFile(t, text+"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n    %v, want %q", text, err, want)
		}
	}
}

// A node of a cluster that stores nothing on disk needs no directory that others have.
func TestClusterWithoutLocalStore(t *testing.T) {
	text := "cluster_address: http://h:1\ncluster_secret_file: f\ndatabase: mysql://u:p@h/d\nredis: redis://h\n"
	if _, err := loadFile(t, text); err == nil || !strings.Contains(err.Error(), "store_dir") {
		t.Errorf("a local store of its own: %v", err)
	}
	c, err := loadFile(t, text+"store: a\nstores: {a: {type: rados, conf: f, pool: p}}\n")
	if err != nil || c.UsesLocal() {
		t.Errorf("another store: %v, local: %v", err, c.UsesLocal())
	}
	if c, err = loadFile(t, text+"store_dir: /mnt/all\nstore: a\nstores: {a: {type: rados, conf: f, pool: p}}\n"); err != nil || !c.UsesLocal() {
		t.Errorf("another store and a directory: %v, local: %v", err, c.UsesLocal())
	}
}

func TestSecretKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (&Store{SecretKeyFile: path}).SecretKey(); err != nil || string(got) != "s3cret" {
		t.Errorf("got %q, %v", string(got), err)
	}
	if _, err := (&Store{SecretKeyFile: path + "x"}).SecretKey(); err == nil || !strings.Contains(err.Error(), "secret_key_file") {
		t.Errorf("a file that is not there: %v", err)
	}
}
