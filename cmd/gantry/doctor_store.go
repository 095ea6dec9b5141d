package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"strings"
	"time"

	"gantry/config"
	"gantry/meta/sqldb"
	"gantry/store"
	"gantry/upload"
)

// examination is one run of doctor --store.
type examination struct {
	ctx    context.Context //nolint:containedctx // of the command
	st     store.Store
	report func(examined)
	failed bool
}

// examined is one thing that was looked at.
type examined struct {
	What    string `json:"what"`              // a few words
	Result  string `json:"result"`            // ok, advice or failed
	Problem string `json:"problem,omitempty"` // a sentence
	Mend    string `json:"mend,omitempty"`    // a sentence
}

// examineStore checks that one store of the configuration does what a server needs of it. The server may run.
func examineStore(ctx context.Context, app *app, c *config.Config, name string, adopt, asJSON bool) (err error) {
	db, err := openDatabase(ctx, c, newLogger(c, io.Discard))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	st, closeStores, err := storeNamed(ctx, c, name, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStores()) }()
	if adopt {
		for _, owned := range ownedOf(st) {
			if err := owned.Adopt(ctx); err != nil {
				return err
			}
		}
	}
	e := &examination{ctx: ctx, report: func(x examined) {
		if asJSON {
			_ = json.NewEncoder(app.stdout).Encode(x)
			return
		}
		fmt.Fprintf(app.stdout, "%-7s %s\n", x.Result, x.What)
		for _, text := range []string{x.Problem, x.Mend} {
			if text != "" {
				fmt.Fprintf(app.stdout, "        %s\n", text)
			}
		}
	}}
	copies := []store.Store{st}
	if mirror, ok := store.As[*store.Mirror](st); ok {
		copies = mirror.Copies()
	}
	for i, copied := range copies {
		if len(copies) > 1 && !asJSON {
			fmt.Fprintf(app.stdout, "# %s\n", c.Stores[name].Of[i])
		}
		e.st = copied
		e.run()
	}
	if e.failed {
		return reported{exitSome} // the findings are printed already
	}
	return nil
}

func storeNamed(ctx context.Context, c *config.Config, name string, db *sqldb.DB) (store.Store, func() error, error) {
	node, err := nodeID(c.Data)
	if err != nil {
		return nil, nil, err
	}
	all, err := openStores(ctx, c, node, node, db)
	if err != nil {
		return nil, nil, err
	}
	st, ok := all.all[name]
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("%s is one of a mirror's stores, or not used: name the mirror", name), all.close())
	}
	return st, all.close, nil
}

// check reports how one thing went.
func (e *examination) check(what string, err error) bool {
	if err == nil {
		e.report(examined{What: what, Result: "ok"})
		return true
	}
	e.failed = true
	x := examined{What: what, Result: "failed", Problem: err.Error()}
	if detail, ok := errors.AsType[*upload.Error](err); ok && detail.Detail != "" {
		x.Problem = detail.Detail
	}
	e.report(x)
	return false
}

// probeKey is a key like those of blobs. If the object stays there it is garbage, and is found as such.
func probeKey() string {
	return upload.ObjectKeyFor(&upload.Blob{ID: "probe" + strings.ToLower(rand.Text())})
}

// probeSize is large enough for a range in its middle.
const probeSize = 100_000

func (e *examination) run() {
	if checker, ok := store.As[store.Checker](e.st); ok && !e.check("it is there, and the credentials are right", checker.Check(e.ctx)) {
		return
	}
	for _, owned := range ownedOf(e.st) {
		if !e.check("it belongs to this server", owned.Claim(e.ctx)) {
			return
		}
	}
	e.object()
	e.multipart()
	e.check("list objects", func() error {
		for _, err := range e.st.List(e.ctx) {
			return err
		}
		return nil
	}())
	e.advice()
}

// object puts, proves, reads and deletes one.
func (e *examination) object() {
	key, data := probeKey(), make([]byte, probeSize)
	_, _ = rand.Read(data)
	d := store.NewDigester(true)
	_, _ = d.Write(data)
	if !e.check("put an object", e.st.Put(e.ctx, key, bytes.NewReader(data), store.PutOptions{})) {
		return
	}
	e.check("verify it", e.st.Verify(e.ctx, key, d.Sum()))
	e.check("read a range of it", func() error {
		r, err := e.st.Open(e.ctx, key, 10, 1000)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err == nil && !bytes.Equal(got, data[10:1010]) {
			err = errors.New("other bytes came back than were sent")
		}
		return err
	}())
	if signer, ok := store.As[store.Presigner](e.st); ok {
		e.check("download it by a signed URL, as clients do", e.download(signer, key, data))
	}
	e.check("delete it", e.st.Delete(e.ctx, key))
}

func (e *examination) download(signer store.Presigner, key string, data []byte) error {
	u, err := signer.Presign(e.ctx, key, store.PresignOptions{
		Expires: time.Minute, ContentType: "text/x-probe", Disposition: `attachment; filename="probe"`,
	})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(e.ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return fmt.Errorf("%w; if clients cannot reach the store either, set redirect: off for it", err)
	}
	got, err := io.ReadAll(io.LimitReader(resp.Body, 2*probeSize))
	switch err = errors.Join(err, resp.Body.Close()); {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %.300s", resp.Status, got)
	case crc64.Checksum(got, crc64.MakeTable(crc64.ECMA)) != crc64.Checksum(data, crc64.MakeTable(crc64.ECMA)):
		return errors.New("other bytes came back than were sent")
	case resp.Header.Get("Content-Type") != "text/x-probe" || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment"):
		return fmt.Errorf("the store does not serve it under the name and type that were signed (%s, %q); set redirect: off for it",
			resp.Header.Get("Content-Type"), resp.Header.Get("Content-Disposition"))
	}
	return nil
}

// multipart begins and aborts an upload in parts, which large files need.
func (e *examination) multipart() {
	director, ok := store.As[store.Director](e.st)
	if !ok {
		return
	}
	direct, key := director.Direct(), probeKey()
	id, err := direct.Create(e.ctx, key)
	if err == nil {
		for _, listed := range direct.Parts(e.ctx, key, id) {
			err = listed
		}
		err = errors.Join(err, direct.Abort(e.ctx, key, id))
	}
	e.check("begin, list and abort an upload in parts", err)
}

// advice is what the store says of its settings.
func (e *examination) advice() {
	advisor, ok := store.As[store.Advisor](e.st)
	if !ok {
		return
	}
	all, err := advisor.Advise(e.ctx)
	if err != nil {
		e.check("look at its settings", err)
	}
	for _, a := range all {
		result := "ok"
		if a.Problem != "" {
			result = "advice"
		}
		e.report(examined{What: a.Setting, Result: result, Problem: a.Problem, Mend: a.Mend})
	}
}
