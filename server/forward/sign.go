package forward

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gantry/upload"
)

// What nodes say to each other stands in these headers. The first node has found out who the client
// is, and the second believes it because of the signature: an HMAC with the cluster's secret over all of
// them, the method and the address. It is good for one receiver and a short time. Bodies are not
// signed: a network between nodes where others can change bytes needs TLS.
//
// The answer is signed too, so that the first node knows who acknowledged a chunk.
const (
	headerFrom      = "Gantry-From"
	headerTo        = "Gantry-To"
	headerOwner     = "Gantry-Owner"
	headerClient    = "Gantry-Client" // the client's address
	headerTime      = "Gantry-Time"   // Unix seconds
	headerSignature = "Gantry-Signature"
	headerAnswer    = "Gantry-Answer"
)

func isOurs(header string) bool { return strings.HasPrefix(header, "Gantry-") }

// sign sets the headers of a request that is passed on and returns its signature.
func (f *Forwarder) sign(h http.Header, r *http.Request, to *Request) string {
	h.Set(headerFrom, f.opt.Node)
	h.Set(headerTo, to.Node)
	h.Set(headerOwner, to.Owner)
	h.Set(headerClient, r.RemoteAddr)
	h.Set(headerTime, strconv.FormatInt(f.opt.Now().Unix(), 10))
	signature := f.mac("request", requestParts(r, h)...)
	h.Set(headerSignature, signature)
	return signature
}

func requestParts(r *http.Request, h http.Header) []string {
	return []string{
		r.Method, r.URL.RequestURI(), h.Get(headerFrom), h.Get(headerTo), h.Get(headerOwner), h.Get(headerClient), h.Get(headerTime),
	}
}

// mac is an HMAC over parts, none of which can be taken for a part of another.
func (f *Forwarder) mac(what string, parts ...string) string {
	mac := hmac.New(sha256.New, f.opt.Secret)
	for _, part := range append([]string{what}, parts...) {
		mac.Write(strconv.AppendQuote(nil, part))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// Origin is where a request that another node has passed on comes from.
type Origin struct {
	Node   string // which passed it on
	Owner  string // on whose behalf
	Client string // the client's address
	answer string // what the answer is signed with
}

// Admit looks whether another node has passed r on. nil without an error: it comes from a client.
// upload.Unauthenticated if it says that it comes from a node, and does not; upload.Unavailable if it
// is for another node than this one.
func (f *Forwarder) Admit(r *http.Request) (*Origin, error) {
	const op = "forward.Admit"
	signature := r.Header.Get(headerSignature)
	if signature == "" {
		return nil, nil
	}
	if !hmac.Equal([]byte(signature), []byte(f.mac("request", requestParts(r, r.Header)...))) {
		return nil, upload.Errorf(upload.Unauthenticated, op, "", "The request is not signed with this cluster's secret. Ask the operator, who has to give all nodes the same one.")
	}
	sent, err := strconv.ParseInt(r.Header.Get(headerTime), 10, 64)
	if age := f.opt.Now().Sub(time.Unix(sent, 0)); err != nil || age > f.opt.Skew || age < -f.opt.Skew {
		return nil, upload.Errorf(upload.Unauthenticated, op, "", "The request was signed at another time. Try again; if that does not help, the clocks of the nodes differ.")
	}
	if to := r.Header.Get(headerTo); to != f.opt.Node {
		return nil, upload.Errorf(upload.Unavailable, op, to, "The request was meant for another node. Try again.")
	}
	return &Origin{
		Node: r.Header.Get(headerFrom), Owner: r.Header.Get(headerOwner), Client: r.Header.Get(headerClient), answer: signature,
	}, nil
}

// Answer returns the header that the answer to a request that was passed on needs, just before its
// status is written.
func (f *Forwarder) Answer(o *Origin, status int) (name, value string) {
	return headerAnswer, f.mac("answer", o.answer, strconv.Itoa(status))
}

func (f *Forwarder) answeredBy(got, signature string, status int) bool {
	return hmac.Equal([]byte(got), []byte(f.mac("answer", signature, strconv.Itoa(status))))
}
