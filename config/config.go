// Package config is the server's one typed configuration: defaults < file < environment < flags.
// Only cmd imports it; every other package has Options of its own.
package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// EnvPrefix begins every environment variable: the setting "token_file" is GANTRY_TOKEN_FILE.
const EnvPrefix = "GANTRY_"

// Config is all settings of `gantry serve` and `gantry transfer`. A field's `koanf` tag is its name in the file, upper case
// with EnvPrefix in the environment, and with dashes as a flag; `help` says what it does.
type Config struct {
	Listen             string        `koanf:"listen" help:"address of the API and the page; anything but loopback needs a token file"`
	Management         string        `koanf:"management" help:"address of /healthz, /readyz, /metrics, pprof and the transfers commands; keep it private"`
	Probes             string        `koanf:"probes" help:"address of /healthz, /readyz and /metrics alone, which other machines may reach; empty: none"`
	Data               string        `koanf:"data" help:"directory for uploads, files and the database; made if absent"`
	Database           Secret        `koanf:"database" help:"mysql://USER:PASSWORD@HOST/NAME or postgres://… for several nodes; empty: SQLite in the data directory"`
	Replicas           Secret        `koanf:"database_replicas" help:"URLs of read replicas of the database, separated by commas; listings come from them"`
	Store              string        `koanf:"store" help:"where files go: local, or the name of a store in the configuration file"`
	DirectUpload       bool          `koanf:"direct_upload" help:"let clients send large files to the store by themselves; they must be able to reach it, and pages need CORS rules in its bucket"`
	StoreDir           string        `koanf:"store_dir" help:"directory of the local store; nodes of a cluster need one on a file system that all of them have; empty: in the data directory"`
	ClusterAddress     string        `koanf:"cluster_address" help:"where other nodes reach this one, as http://10.0.0.5:8080; makes it a node of a cluster; none: it is alone"`
	ClusterSecretFile  string        `koanf:"cluster_secret_file" help:"file with the secret by which the nodes of a cluster know each other"`
	TokenFile          string        `koanf:"token_file" help:"file with the bearer token that every request must carry"`
	AllowedOrigins     string        `koanf:"allowed_origins" help:"other sites whose pages may use the API, as https://example.com, separated by commas; without a token they may do all that the server's own page may"`
	MaxSize            Bytes         `koanf:"max_size" help:"the largest file taken"`
	MaxOpen            int           `koanf:"max_open_uploads" help:"how many uploads may be open at once"`
	Durability         string        `koanf:"durability" help:"complete: a finished file survives a power cut; chunk: every acknowledged chunk does"`
	MinFree            Bytes         `koanf:"min_free" help:"no new uploads when less than this is free on the disk"`
	UploadTTL          time.Duration `koanf:"upload_ttl" help:"an upload expires this long after its last chunk"`
	DeleteGrace        time.Duration `koanf:"delete_grace" help:"how long content that no file refers to is kept"`
	StagingGrace       time.Duration `koanf:"staging_grace" help:"how long the staging copy is kept after the store's was verified"`
	ScrubRate          Bytes         `koanf:"scrub_rate" help:"bytes per second at which what is in the stores is read again and compared, for ever; 0: it is not. Clouds charge for reading"`
	DedupScope         string        `koanf:"dedup_scope" help:"how far instant upload looks: user, global, or server (never instant)"`
	Workers            int           `koanf:"transfer_workers" help:"transfers at a time; 0: two per processor"`
	TransferRate       Bytes         `koanf:"transfer_rate" help:"the most that is sent to all stores per second by one process; 0: no limit"`
	Lease              time.Duration `koanf:"transfer_lease" help:"a transfer of which nothing is heard for so long is announced again and given to another worker"`
	Redis              Addresses     `koanf:"redis" help:"Redis that nodes share, as redis://:password@host:6379; several URLs: a Cluster; redis+sentinel://host:26379/master; none: one node alone"`
	Queue              URL           `koanf:"queue" help:"RabbitMQ broker, as amqp://user:password@host:5672/vhost; none: the queue is in the process"`
	TransferProcess    bool          `koanf:"transfer_process" help:"leave transfers to gantry transfer, a process of its own on the same data; needs a queue"`
	TransferManagement string        `koanf:"transfer_management" help:"management address of gantry transfer; keep it private"`
	TransferProbes     string        `koanf:"transfer_probes" help:"the same as probes, of gantry transfer"`
	MinRate            Bytes         `koanf:"min_rate" help:"bytes per second that a request's body must keep up"`
	Drain              time.Duration `koanf:"drain" help:"how long requests may take to finish after SIGTERM"`
	LogLevel           string        `koanf:"log_level" help:"debug, info, warn or error"`
	LogFormat          string        `koanf:"log_format" help:"text or json"`

	Stores map[string]Store `koanf:"-"` // by name; in the file alone
	Rules  []Rule           `koanf:"-"` // in the file alone
}

// Default is what holds where nothing else is said.
func Default() Config {
	return Config{
		Listen:             "127.0.0.1:8080",
		Management:         "127.0.0.1:8081",
		Data:               "data",
		Store:              LocalStore,
		MaxSize:            1 << 40,
		MaxOpen:            100_000,
		Durability:         "complete",
		MinFree:            1 << 30,
		UploadTTL:          7 * 24 * time.Hour,
		DeleteGrace:        time.Hour,
		StagingGrace:       10 * time.Minute,
		DedupScope:         "user",
		Lease:              time.Minute,
		TransferManagement: "127.0.0.1:8082",
		MinRate:            1 << 10,
		Drain:              30 * time.Second,
		LogLevel:           "info",
		LogFormat:          "text",
	}
}

// Bytes is a number of bytes that people may write as "10GiB".
type Bytes int64

// UnmarshalText reads "1048576", "1MiB" or "1 MB".
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size like 64MiB", text)
	}
	*b = Bytes(n)
	return nil
}

func (b Bytes) String() string { return humanize.IBytes(uint64(b)) }

// Setting is one field of Config, as flags, environment and docs name it.
type Setting struct {
	Key, Env, Flag, Default, Help string
}

// Settings lists all settings that have one value, in the order of Config's fields.
func Settings() []Setting {
	defaults := reflect.ValueOf(Default())
	var settings []Setting
	for i := range defaults.NumField() {
		field := defaults.Type().Field(i)
		key := field.Tag.Get("koanf")
		if key == "-" {
			continue
		}
		settings = append(settings, Setting{
			Key:     key,
			Env:     EnvPrefix + strings.ToUpper(key),
			Flag:    strings.ReplaceAll(key, "_", "-"),
			Default: fmt.Sprint(defaults.Field(i).Interface()),
			Help:    field.Tag.Get("help"),
		})
	}
	return settings
}

// AddFlags defines a flag for every setting, and --config for the file.
func AddFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "YAML file with settings (GANTRY_CONFIG)")
	for _, s := range Settings() {
		flags.String(s.Flag, s.Default, s.Help+" ("+s.Env+")")
		if s.Default == "false" { // a switch: without a value it is on
			flags.Lookup(s.Flag).NoOptDefVal = "true"
		}
	}
}

// AddDataFlags defines those flags that say where data is, for commands that do not serve.
func AddDataFlags(flags *pflag.FlagSet) {
	var all pflag.FlagSet
	AddFlags(&all)
	for _, name := range []string{"config", "data", "database", "store", "store-dir"} {
		flags.AddFlag(all.Lookup(name))
	}
}

// Load reads file, environment and flags over the defaults, and validates. It reports everything that
// is wrong at once. Settings that have no flag in flags stay at their defaults.
func Load(flags *pflag.FlagSet, environ []string) (Config, error) {
	k := koanf.New(".")
	known := func(key string) bool {
		return slices.ContainsFunc(Settings(), func(s Setting) bool { return s.Key == key })
	}
	wanted := func(key string) bool { return known(key) && flags.Lookup(strings.ReplaceAll(key, "_", "-")) != nil }
	if err := k.Load(confmap.Provider(defaultMap(), "."), nil); err != nil {
		return Config{}, err
	}
	var c Config
	if path := configPath(flags, environ); path != "" {
		fromFile := koanf.New(".")
		if err := fromFile.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("cannot read the configuration file %s: %w", path, err)
		}
		if err := c.loadStores(fromFile); err != nil {
			return Config{}, fmt.Errorf("%s: %w", path, err)
		}
		for _, key := range fromFile.Keys() {
			if !known(key) {
				return Config{}, fmt.Errorf("%s: there is no setting %q; \"gantry serve --help\" lists them", path, key)
			}
			if !wanted(key) {
				fromFile.Delete(key)
			}
		}
		if err := k.Merge(fromFile); err != nil {
			return Config{}, err
		}
	}
	fromEnv := env.Provider(".", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key := strings.ToLower(strings.TrimPrefix(name, EnvPrefix))
			if !wanted(key) { // GANTRY_SERVER and the like belong to the client commands
				return "", nil
			}
			return key, value
		},
	})
	if err := k.Load(fromEnv, nil); err != nil {
		return Config{}, err
	}
	fromFlags := posflag.ProviderWithFlag(flags, ".", k, func(f *pflag.Flag) (string, any) {
		key := strings.ReplaceAll(f.Name, "-", "_")
		if !known(key) || !f.Changed {
			return "", nil
		}
		return key, f.Value.String()
	})
	if err := k.Load(fromFlags, nil); err != nil {
		return Config{}, err
	}
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result:           &c,
		TagName:          "koanf",
		WeaklyTypedInput: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			numberToText, mapstructure.TextUnmarshallerHookFunc(), mapstructure.StringToTimeDurationHookFunc()),
	}})
	if err != nil {
		if _, list, ok := strings.Cut(err.Error(), "\n\n"); ok { // what is before it says that something is wrong
			err = errors.New(list)
		}
		return Config{}, err
	}
	return c, c.Validate()
}

func defaultMap() map[string]any {
	m := make(map[string]any)
	for _, s := range Settings() {
		m[s.Key] = s.Default
	}
	return m
}

// numberToText lets a size in YAML be a plain number.
func numberToText(from, to reflect.Type, value any) (any, error) {
	if to == reflect.TypeFor[Bytes]() && from.Kind() != reflect.String {
		return fmt.Sprint(value), nil
	}
	return value, nil
}

func configPath(flags *pflag.FlagSet, environ []string) string {
	if path, err := flags.GetString("config"); err == nil && path != "" {
		return path
	}
	for _, entry := range environ {
		if path, ok := strings.CutPrefix(entry, EnvPrefix+"CONFIG="); ok {
			return path
		}
	}
	return ""
}

// Validate reports all that is wrong with the settings.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	isAddress := func(name, value string) bool {
		_, _, err := net.SplitHostPort(value)
		if err != nil {
			refuse("%s: %q is not an address like 127.0.0.1:8080", name, value)
		}
		return err == nil
	}
	if isAddress("listen", c.Listen) && c.TokenFile == "" && !Loopback(c.Listen) {
		refuse("listen: %s can be reached from other machines, and anybody there could read and write files. "+
			"Make a token (for example: openssl rand -hex 32 > token; chmod 600 token) and name it with --token-file, or listen on 127.0.0.1", c.Listen)
	}
	for _, private := range []struct{ name, address string }{{"management", c.Management}, {"transfer_management", c.TransferManagement}} {
		if isAddress(private.name, private.address) && !Loopback(private.address) {
			refuse("%s: %s can be reached from other machines, and it has no login. Listen on 127.0.0.1", private.name, private.address)
		}
	}
	for _, open := range []struct{ name, address string }{{"probes", c.Probes}, {"transfer_probes", c.TransferProbes}} {
		if open.address != "" {
			isAddress(open.name, open.address)
		}
	}
	for _, origin := range c.Origins() {
		if !isOrigin(origin) {
			refuse("allowed_origins: %q is not what browsers call the site of a page. Write it like https://example.com or http://localhost:5173, "+
				"in lower case, without a path, and without the port if that is the usual one", origin)
		}
	}
	c.validateStores(refuse)
	c.validateCluster(refuse)
	if c.Queue != "" && !c.Queue.isBroker() {
		refuse("queue: this is not an address like amqp://user:password@host:5672/vhost")
	}
	if c.TransferProcess && c.Queue == "" {
		refuse("transfer_process: another process can only be told of transfers by a queue. Set queue to the address of a RabbitMQ broker")
	}
	oneOf := func(name, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			refuse("%s: %q is not one of %s", name, value, strings.Join(allowed, ", "))
		}
	}
	oneOf("durability", c.Durability, "complete", "chunk")
	oneOf("dedup_scope", c.DedupScope, "user", "global", "server")
	oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("log_format", c.LogFormat, "text", "json")
	for _, period := range []struct {
		name  string
		value time.Duration
	}{{"upload_ttl", c.UploadTTL}, {"delete_grace", c.DeleteGrace}, {"staging_grace", c.StagingGrace}, {"transfer_lease", c.Lease}, {"drain", c.Drain}} {
		if period.value <= 0 {
			refuse("%s: %s is not a positive time", period.name, period.value)
		}
	}
	if c.MaxSize <= 0 {
		refuse("max_size: must be positive")
	}
	if c.MaxOpen <= 0 {
		refuse("max_open_uploads: must be positive")
	}
	if c.TransferRate < 0 || c.ScrubRate < 0 {
		refuse("transfer_rate, scrub_rate: must not be negative")
	}
	if c.Workers < 0 {
		refuse("transfer_workers: must not be negative")
	}
	if c.Data == "" {
		refuse("data: a directory is needed")
	}
	for name, urls := range map[string][]string{"database": listOf(c.Database), "database_replicas": c.ReplicaURLs()} {
		for _, text := range urls {
			// No part of it may be printed.
			if u, err := url.Parse(text); err != nil || u.Host == "" && u.RawQuery == "" || !slices.Contains([]string{"mysql", "mariadb", "postgres", "postgresql"}, u.Scheme) {
				refuse("%s: not a URL like mysql://user:password@host:3306/name or postgres://user:password@host:5432/name; "+
					"write what is special in user and password as %%XX", name)
			}
		}
	}
	if c.Replicas != "" && c.Database == "" {
		refuse("database_replicas: SQLite has no replicas; set database")
	}
	return errors.Join(errs...)
}

// validateCluster refuses a node of a cluster that lacks what the nodes share. (The process that does only the
// transfers never speaks to other nodes.)
func (c *Config) validateCluster(refuse func(format string, args ...any)) {
	if c.ClusterAddress == "" {
		if c.ClusterSecretFile != "" {
			refuse("cluster_secret_file: without cluster_address there is no cluster. Set that too, to where other nodes reach this one")
		}
		return
	}
	u, err := url.Parse(c.ClusterAddress)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		refuse("cluster_address: %q is not where other nodes can reach this one. Write a URL like http://10.0.0.5:8080", c.ClusterAddress)
	}
	for _, needed := range []struct{ name, value, why string }{
		{"database", string(c.Database), "the URL of the database that all nodes have"},
		{"redis", string(c.Redis), "the address of the Redis that all nodes have"},
		{"cluster_secret_file", c.ClusterSecretFile, "a file with the same secret for all nodes, made with: openssl rand -hex 32"},
	} {
		if needed.value == "" {
			refuse("%s: a node of a cluster needs it (cluster_address is set). Name %s", needed.name, needed.why)
		}
	}
	if c.StoreDir == "" && slices.Contains(c.targets(), LocalStore) {
		refuse("store_dir: a node of a cluster needs it (cluster_address is set), unless files go to another store. Name a directory on a file system that all nodes have")
	}
}

// ReplicaURLs is Replicas one by one.
func (c *Config) ReplicaURLs() []string { return listOf(c.Replicas) }

// Origins is AllowedOrigins one by one.
func (c *Config) Origins() []string { return listOf(c.AllowedOrigins) }

func listOf[T ~string](s T) []string {
	if s == "" {
		return nil
	}
	return strings.Split(string(s), ",")
}

// isOrigin reports whether s is an origin as browsers write it (RFC 6454, section 6.2): one that is not would never match.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || s != u.Scheme+"://"+u.Host || s != strings.ToLower(s) || strings.Contains(s, "*") {
		return false
	}
	usual, known := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return known && u.Port() != usual && !strings.HasSuffix(u.Host, ":")
}

// Loopback reports whether an address can only be reached from this machine.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// minSecret is the least length of a secret that is not worth guessing.
const minSecret = 16

// Token reads the bearer token, "" if no file is set.
func (c *Config) Token() (Secret, error) { return secretIn("token_file", c.TokenFile) }

// ClusterSecret reads the secret that the nodes of a cluster share, "" if no file is set.
func (c *Config) ClusterSecret() (Secret, error) {
	return secretIn("cluster_secret_file", c.ClusterSecretFile)
}

func secretIn(setting, path string) (Secret, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	secret := strings.TrimSpace(string(text))
	if len(secret) < minSecret {
		return "", fmt.Errorf("%s: the secret in %s is shorter than %d characters; make one with: openssl rand -hex 32", setting, path, minSecret)
	}
	return Secret(secret), nil
}

// URL is the address of a service. A password in it is never printed or logged; string(u) has it.
type URL string

func (u URL) String() string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return "[redacted]"
	}
	return parsed.Redacted()
}

// Format prints it without the password whatever the verb.
func (u URL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalText keeps the password out of JSON and logs.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

func (u URL) isBroker() bool {
	parsed, err := url.Parse(string(u))
	return err == nil && (parsed.Scheme == "amqp" || parsed.Scheme == "amqps") && parsed.Hostname() != ""
}

// Secret is text that is never printed or logged.
type Secret string

// Format prints a placeholder whatever the verb; nothing is no secret.
func (s Secret) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = io.WriteString(f, "[redacted]")
	}
}

// MarshalText keeps the secret out of JSON and logs.
func (s Secret) MarshalText() ([]byte, error) { return fmt.Append(nil, s), nil }
