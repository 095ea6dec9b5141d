package redis

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// parse splits an address into URLs:
//
//	redis://[user][:password]@host:port[/database]      one server; rediss:// with TLS
//	redis://host:port,redis://host:port                 several nodes of a Cluster, which name the others
//	redis+sentinel://[:password]@host:port,host:port/name[/database]   the master that Sentinel calls so;
//	                                                    rediss+sentinel:// with TLS
//
// ?sentinel_password= is for Sentinels that have one. A comma is also between the hosts of one URL.
func parse(address string) ([]*url.URL, error) {
	var urls []*url.URL
	for part := range strings.SplitSeq(address, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") && len(urls) > 0 {
			last := urls[len(urls)-1]
			host, path, _ := strings.Cut(part, "/")
			last.Host += "," + host
			if path != "" {
				path, query, _ := strings.Cut(path, "?")
				last.Path, last.RawQuery = "/"+path, query
			}
			continue
		}
		u, err := url.Parse(part)
		if err != nil { // it would show the password
			return nil, errors.New("not a URL like redis://host:6379")
		}
		urls = append(urls, u)
	}
	for _, u := range urls {
		scheme, sentinel := strings.CutSuffix(u.Scheme, "+sentinel")
		switch {
		case scheme != "redis" && scheme != "rediss":
			return nil, fmt.Errorf("%q is none of redis, rediss, redis+sentinel, rediss+sentinel", u.Scheme)
		case u.Host == "":
			return nil, errors.New("a host is missing, as in redis://host:6379")
		case sentinel && len(urls) > 1:
			return nil, errors.New("of redis+sentinel:// there is one URL, with all Sentinels in it")
		case sentinel && strings.Trim(u.Path, "/") == "":
			return nil, errors.New("redis+sentinel:// needs the master's name, as in redis+sentinel://host:26379/name")
		case !sentinel && strings.Contains(u.Host, ","):
			return nil, errors.New("several hosts without a URL of their own")
		}
	}
	return urls, nil
}

// open makes what an address names. Nothing is connected yet.
func open(address string, opt *Options) (servers, error) {
	urls, err := parse(address)
	if err != nil {
		return nil, err
	}
	u := urls[0]
	switch {
	case len(urls) > 1:
		return newCluster(urls, opt), nil
	case strings.HasSuffix(u.Scheme, "+sentinel"):
		return single{newPool(u.Host, opt, func(ctx context.Context) (*conn, error) { return dialSentinel(ctx, u, opt) })}, nil
	}
	return single{newPool(u.Host, opt, func(ctx context.Context) (*conn, error) { return dialMaster(ctx, u, opt) })}, nil
}

// dial connects and asks the server who it is.
func dial(ctx context.Context, u *url.URL, opt *Options) (*conn, error) {
	raw, err := redis.DialURLContext(ctx, u.String(), redis.DialConnectTimeout(opt.Timeout),
		redis.DialReadTimeout(opt.Timeout), redis.DialWriteTimeout(opt.Timeout))
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, made: time.Now()}
	if err := c.greet(); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// dialMaster connects to the one server there is. A replica would refuse writes, or worse, have been
// promoted by nobody.
func dialMaster(ctx context.Context, u *url.URL, opt *Options) (*conn, error) {
	c, err := dial(ctx, u, opt)
	if err != nil {
		return nil, err
	}
	switch {
	case c.mode == "cluster":
		err = errors.New("the server belongs to a Cluster: name several of its nodes")
	case c.role != "master":
		err = fmt.Errorf("the server is a %s, not a master", c.role)
	default:
		return c, nil
	}
	_ = c.Close()
	return nil, err
}

// dialSentinel asks the Sentinels, one after the other, for the master. What they say may be behind: the
// master says itself whether it is one.
func dialSentinel(ctx context.Context, u *url.URL, opt *Options) (*conn, error) {
	name, database, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	scheme := strings.TrimSuffix(u.Scheme, "+sentinel")
	var errs []error
	for host := range strings.SplitSeq(u.Host, ",") {
		address, err := askSentinel(ctx, scheme, host, name, u.Query().Get("sentinel_password"), opt)
		if err == nil {
			var c *conn
			if c, err = dialMaster(ctx, &url.URL{Scheme: scheme, User: u.User, Host: address, Path: "/" + database}, opt); err == nil {
				return c, nil
			}
		}
		errs = append(errs, fmt.Errorf("sentinel %s: %w", host, err))
	}
	return nil, errors.Join(errs...)
}

func askSentinel(ctx context.Context, scheme, host, name, password string, opt *Options) (string, error) {
	c, err := redis.DialURLContext(ctx, (&url.URL{Scheme: scheme, Host: host}).String(), redis.DialConnectTimeout(opt.Timeout),
		redis.DialReadTimeout(opt.Timeout), redis.DialWriteTimeout(opt.Timeout), redis.DialPassword(password))
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	address, err := redis.Strings(c.Do("SENTINEL", "get-master-addr-by-name", name))
	if err != nil {
		return "", err
	}
	if len(address) != 2 {
		return "", errReply
	}
	return strings.Join(address, ":"), nil
}
