package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/v2"
)

// LocalStore is the name of the store that needs no entry: the directory store_dir.
const LocalStore = "local"

// The types of stores.
const (
	TypeLocal  = "local"
	TypeS3     = "s3"
	TypeOSS    = "oss"
	TypeCOS    = "cos"
	TypeRADOS  = "rados"
	TypeMirror = "mirror"
)

// Store is one entry of `stores` in the configuration file. A field's `yaml` tag is its name there, `types` says
// of which types it is a setting (with ! of which it is a needed one), and `help` what it does.
type Store struct {
	Type          string   `yaml:"type" types:"local! s3! oss! cos! rados! mirror!" help:"local, s3, oss, cos, rados (in a binary built with Ceph) or mirror"`
	Dir           string   `yaml:"dir" types:"local!" help:"the directory; all nodes must have it under this name"`
	Endpoint      string   `yaml:"endpoint" types:"s3! oss! cos" help:"URL of the service, as https://s3.example.com"`
	Public        string   `yaml:"public_endpoint" types:"s3 oss cos" help:"the same as clients reach it, for the URLs that they get; endpoint"`
	Bucket        string   `yaml:"bucket" types:"s3! oss! cos!" help:"the bucket; it has to be there"`
	Region        string   `yaml:"region" types:"s3 oss cos" help:"the bucket's region"`
	Prefix        string   `yaml:"prefix" types:"s3 oss cos" help:"what the names of objects begin with; a slash at its end makes it a folder"`
	AccessKey     string   `yaml:"access_key" types:"s3! oss! cos!" help:"the access key's id"`
	SecretKeyFile string   `yaml:"secret_key_file" types:"s3! oss! cos!" help:"file with the secret key"`
	PathStyle     bool     `yaml:"path_style" types:"s3 oss" help:"the bucket's name in the path, not in the host's name: for most servers of one's own"`
	Signature     string   `yaml:"signature" types:"oss" help:"version of the signature, v4 or v1"`
	PartSize      Bytes    `yaml:"part_size" types:"s3 oss cos" help:"of what is sent at a time; 16 MiB"`
	Parts         int      `yaml:"parts" types:"s3 oss cos rados" help:"how many parts are under way at a time, for all transfers together; each needs its size in memory; 4"`
	Conf          string   `yaml:"conf" types:"rados!" help:"path of ceph.conf"`
	User          string   `yaml:"user" types:"rados" help:"Ceph user, without \"client.\"; admin"`
	Keyring       string   `yaml:"keyring" types:"rados" help:"path of the user's keyring; what ceph.conf says"`
	Pool          string   `yaml:"pool" types:"rados!" help:"the pool; it has to be there"`
	Namespace     string   `yaml:"namespace" types:"rados" help:"RADOS namespace in the pool; gantry"`
	ObjectSize    Bytes    `yaml:"object_size" types:"rados" help:"of the RADOS objects that a file is spread over; 8 MiB"`
	Of            []string `yaml:"of" types:"mirror!" help:"the stores that each get a copy; nothing else may use them"`
	Rate          Bytes    `yaml:"rate" types:"local s3 oss cos rados" help:"the most that is sent there per second by one process; no limit"`
	Fallback      string   `yaml:"fallback" types:"local s3 oss cos rados mirror" help:"the store that takes what should go here while this one does not answer"`
	Redirect      string   `yaml:"redirect" types:"s3 oss cos" help:"on: downloads are redirected to a URL of the store, signed for a while; off: they are streamed by the node"`
	CDN           string   `yaml:"cdn" types:"s3 oss cos" help:"URL of a CDN in front of the bucket, by which signed URLs begin; it must pass on path and query, and ask under the host that was signed"`
}

// Rule says where files go that are not to go to the default store. The first one that fits counts; what is not
// given fits all.
type Rule struct {
	Store       string   `yaml:"store" help:"where they go"`
	MinSize     Bytes    `yaml:"min_size" help:"files of at least this size"`
	MaxSize     Bytes    `yaml:"max_size" help:"files of at most this size"`
	ContentType []string `yaml:"content_type" help:"files of one of these types; video/* is all of a kind"`
	Owner       []string `yaml:"owner" help:"files of one of these owners"`
}

// Fits reports whether a file goes by this rule.
func (r *Rule) Fits(size int64, contentType, owner string) bool {
	if size < int64(r.MinSize) || r.MaxSize > 0 && size > int64(r.MaxSize) {
		return false
	}
	if len(r.Owner) > 0 && !slices.Contains(r.Owner, owner) {
		return false
	}
	media, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	return len(r.ContentType) == 0 || slices.ContainsFunc(r.ContentType, func(pattern string) bool {
		ok, _ := path.Match(strings.ToLower(pattern), strings.TrimSpace(media))
		return ok
	})
}

// StoreFor is the name of the store where a file is to go.
func (c *Config) StoreFor(size int64, contentType, owner string) string {
	for i := range c.Rules {
		if c.Rules[i].Fits(size, contentType, owner) {
			return c.Rules[i].Store
		}
	}
	return c.Store
}

// UsesLocal reports whether the node has the store that needs no entry. A node of a cluster has it only if it is
// told to: its directory must then be the same for all.
func (c *Config) UsesLocal() bool {
	return c.ClusterAddress == "" || c.StoreDir != "" || slices.Contains(c.targets(), LocalStore)
}

// targets are the names of stores that anything may be sent to.
func (c *Config) targets() []string {
	names := []string{c.Store}
	for i := range c.Rules {
		names = append(names, c.Rules[i].Store)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Stores)) {
		s := c.Stores[name]
		names = append(names, s.Of...)
		if s.Fallback != "" {
			names = append(names, s.Fallback)
		}
	}
	return names
}

// SecretKey reads a store's secret key.
func (s *Store) SecretKey() (Secret, error) {
	if s.SecretKeyFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(s.SecretKeyFile)
	if err != nil {
		return "", fmt.Errorf("secret_key_file: %w", err)
	}
	return Secret(strings.TrimSpace(string(text))), nil
}

// The settings that are not one value each, and are in the file alone.
const (
	storesKey = "stores"
	rulesKey  = "rules"
)

// loadStores takes stores and rules out of what the file says.
func (c *Config) loadStores(k *koanf.Koanf) error {
	for key, into := range map[string]any{storesKey: &c.Stores, rulesKey: &c.Rules} {
		decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
			Result: into, TagName: "yaml", WeaklyTypedInput: true, ErrorUnused: true,
			DecodeHook: mapstructure.ComposeDecodeHookFunc(onOff, numberToText, mapstructure.TextUnmarshallerHookFunc()),
		})
		if err != nil {
			return err
		}
		if err := decoder.Decode(k.Get(key)); err != nil {
			if _, list, ok := strings.Cut(err.Error(), "\n\n"); ok {
				err = errors.New(list)
			}
			return fmt.Errorf("%s: %w", key, err)
		}
		for _, found := range k.Keys() {
			if found == key || strings.HasPrefix(found, key+".") {
				k.Delete(found)
			}
		}
		k.Delete(key)
	}
	return nil
}

// onOff undoes what YAML makes of on and off.
func onOff(_, to reflect.Type, value any) (any, error) {
	if on, ok := value.(bool); ok && to.Kind() == reflect.String {
		return map[bool]string{true: "on", false: "off"}[on], nil
	}
	return value, nil
}

// Names of stores are in the database, in metrics and in messages.
var storeName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// validateStores refuses stores and rules that cannot work.
func (c *Config) validateStores(refuse func(format string, args ...any)) {
	there := func(where, name string) {
		if _, ok := c.Stores[name]; !ok && name != LocalStore {
			refuse("%s: there is no store %q. Describe it under stores in the configuration file", where, name)
		}
	}
	there("store", c.Store)
	for i := range c.Rules {
		r := &c.Rules[i]
		where := fmt.Sprintf("rules[%d]", i)
		there(where, r.Store)
		for _, pattern := range r.ContentType {
			if _, err := path.Match(pattern, ""); err != nil {
				refuse("%s: %q is not a pattern like video/*", where, pattern)
			}
		}
		if r.MaxSize > 0 && r.MinSize > r.MaxSize {
			refuse("%s: no file is at least %s and at most %s large", where, r.MinSize, r.MaxSize)
		}
	}
	mirrored := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Stores)) {
		s, where := c.Stores[name], "stores."+name
		if !storeName.MatchString(name) || name == LocalStore {
			refuse("%s: a store's name is made of a-z, 0-9, - and _, and %q is the one in store_dir", where, LocalStore)
		}
		s.validate(where, refuse)
		if s.Fallback != "" {
			there(where+".fallback", s.Fallback)
			if s.Fallback == name {
				refuse("%s: a store cannot be its own fallback", where)
			}
		}
		for _, copied := range s.Of {
			there(where+".of", copied)
			if other, taken := mirrored[copied]; taken || copied == name || c.Stores[copied].Type == TypeMirror {
				refuse("%s: %q cannot be one of its copies%s", where, copied, map[bool]string{true: ", it is one of " + other + "'s"}[taken])
			}
			mirrored[copied] = name
		}
		if s.Type == TypeMirror && len(s.Of) < 2 {
			refuse("%s: a mirror is of two stores at least", where)
		}
	}
	for _, name := range append(slices.Collect(maps.Keys(mirrored)), LocalStore) {
		of, copied := mirrored[name]
		if copied && slices.Contains(c.used(), name) {
			refuse("stores.%s: %q takes copies, so nothing else may be sent there", of, name)
		}
	}
}

// used are the names of stores that are used for themselves.
func (c *Config) used() []string {
	names := []string{c.Store}
	for i := range c.Rules {
		names = append(names, c.Rules[i].Store)
	}
	for _, s := range c.Stores {
		names = append(names, s.Fallback)
	}
	return names
}

// validate refuses what a store of its type has no use for, and the lack of what it needs.
func (s *Store) validate(where string, refuse func(format string, args ...any)) {
	value := reflect.ValueOf(s).Elem()
	if !slices.Contains([]string{TypeLocal, TypeS3, TypeOSS, TypeCOS, TypeRADOS, TypeMirror}, s.Type) {
		refuse("%s.type: %q is not one of local, s3, oss, cos, rados, mirror", where, s.Type)
		return
	}
	for i := range value.NumField() {
		field := value.Type().Field(i)
		name, types := field.Tag.Get("yaml"), strings.Fields(field.Tag.Get("types"))
		switch given := !value.Field(i).IsZero(); {
		case given && !slices.Contains(types, s.Type) && !slices.Contains(types, s.Type+"!"):
			refuse("%s.%s: a store of type %s has no such setting", where, name, s.Type)
		case !given && slices.Contains(types, s.Type+"!"):
			refuse("%s.%s: a store of type %s needs it: %s", where, name, s.Type, field.Tag.Get("help"))
		}
	}
	for _, u := range []struct{ name, value string }{{"endpoint", s.Endpoint}, {"public_endpoint", s.Public}, {"cdn", s.CDN}} {
		if u.value == "" {
			continue
		}
		if parsed, err := url.Parse(u.value); err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" || parsed.User != nil {
			refuse("%s.%s: %q is not a URL like https://s3.example.com", where, u.name, u.value)
		}
	}
	if s.Redirect != "" && s.Redirect != "on" && s.Redirect != "off" {
		refuse("%s.redirect: %q is neither on nor off", where, s.Redirect)
	}
	if s.Rate < 0 || s.PartSize < 0 || s.Parts < 0 || s.ObjectSize < 0 {
		refuse("%s: sizes and numbers must not be negative", where)
	}
}

// StoreSettings lists the settings of a store, and RuleSettings those of a rule, in the order of the fields; Flag and
// Env are empty, and Default has the types of store.
func StoreSettings() []Setting { return structured(reflect.TypeFor[Store]()) }

// RuleSettings lists the settings of a rule.
func RuleSettings() []Setting { return structured(reflect.TypeFor[Rule]()) }

func structured(t reflect.Type) []Setting {
	settings := make([]Setting, t.NumField())
	for i := range settings {
		field := t.Field(i)
		settings[i] = Setting{Key: field.Tag.Get("yaml"), Default: field.Tag.Get("types"), Help: field.Tag.Get("help")}
	}
	return settings
}
