package cos

import (
	"context"
	"errors"
	"net/http"
	"strings"

	sdk "github.com/tencentyun/cos-go-sdk-v5"

	"gantry/upload"
)

// meaning is what an error code of COS means to us, and to the user.
type meaning struct {
	kind   upload.Kind
	detail string
}

var (
	noKey     = meaning{upload.NotFound, "There is no such object."}
	noBucket  = meaning{upload.Invalid, "There is no such bucket. Make it, or correct the store's settings: its name ends with the APPID."}
	denied    = meaning{upload.Invalid, "The credentials may not do that. See docs/stores/cos.md for the permissions that they need."}
	wrongKey  = meaning{upload.Invalid, "The store does not accept the SecretId, the SecretKey or the token. Correct the store's settings."}
	elsewhere = meaning{upload.Invalid, "The bucket is in another region, or not to be had at this endpoint. Correct the store's settings."}
	noObject  = meaning{upload.Invalid, "The store does not take such an object, or such parts."}
	archived  = meaning{upload.Invalid, "The object is in an archive. Restore it, and take away the rule that moved it."}
	noSetting = meaning{upload.NotFound, "The bucket has no such setting."}
	clock     = meaning{upload.Unavailable, "The clocks of this node and the store differ. Set them by NTP."}
	busy      = meaning{upload.TooMany, "The store is asked too much. It will be tried again."}
)

// meanings of error codes: https://www.tencentcloud.com/document/product/436/7730 (Error Codes). What is not here may work later.
var meanings = map[string]meaning{
	"NoSuchKey": noKey, "NoSuchBucket": noBucket, "InvalidBucketName": noBucket,
	"NoSuchUpload": {upload.NotFound, "There is no such multipart upload (any more)."},
	"AccessDenied": denied, "AccountProblem": denied, "MethodNotAllowed": denied,
	"InvalidAccessKeyId": wrongKey, "SignatureDoesNotMatch": wrongKey, "ExpiredToken": wrongKey, "InvalidToken": wrongKey,
	"PermanentRedirect": elsewhere, "TemporaryRedirect": elsewhere, "BucketAccelerateNotEnabled": elsewhere, "ActionAccelerateNotSupported": elsewhere,
	"EntityTooLarge": noObject, "EntityTooSmall": noObject, "InvalidPartOrder": noObject, "KeyTooLong": noObject, "InvalidURI": noObject,
	"InvalidObjectState": archived, "NoSuchLifecycleConfiguration": noSetting, "NoSuchCORSConfiguration": noSetting,
	"BadDigest":    {upload.DigestMismatch, "Bytes were damaged on their way to the store."},
	"InvalidRange": {upload.BadRange, "The object has not so many bytes."},
	// Parts that Complete names are not there, or are others. The next Put will find out which.
	"InvalidPart":          {upload.Conflict, "The multipart upload has other parts than were sent."},
	"RequestTimeTooSkewed": clock, "SlowDown": busy, "RequestLimitExceeded": busy,
}

func classify(op, key string, err error) error {
	if all, ok := errors.AsType[*sdk.RetryError](err); ok { // which does not unwrap
		err = errors.Join(all.Errs...)
	}
	switch {
	case err == nil:
		return nil
	case upload.KindOf(err) != upload.Internal:
		return upload.Wrap(upload.Unavailable, op, key, err)
	case errors.Is(err, context.Canceled):
		return upload.Wrap(upload.Canceled, op, key, err)
	}
	var m meaning
	if answer, ok := errors.AsType[*sdk.ErrorResponse](err); ok {
		m = meaningOf(answer)
	}
	if m.detail == "" {
		return upload.Wrap(upload.Unavailable, op, key, err)
	}
	return &upload.Error{Op: op, Kind: m.kind, ID: key, Detail: m.detail, Err: err}
}

func meaningOf(answer *sdk.ErrorResponse) meaning {
	switch status := answer.Response.StatusCode; {
	case answer.Code == "AccessDenied" && strings.Contains(answer.Message, "expired"): // the request's signature
		return clock
	case meanings[answer.Code].detail != "":
		return meanings[answer.Code]
	case status < http.StatusBadRequest: // redirections are not followed
		return elsewhere
	case status == http.StatusNotFound: // an answer to HEAD has no code
		return noKey
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return denied
	}
	return meaning{}
}
