package oss

import (
	"context"
	"errors"
	"net/http"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"gantry/upload"
)

// meaning is what an error code of OSS means to us, and to the user.
type meaning struct {
	kind   upload.Kind
	detail string
}

var (
	noKey    = meaning{upload.NotFound, "There is no such object."}
	noBucket = meaning{upload.Invalid, "There is no such bucket. Make it, or correct the store's settings."}
	denied   = meaning{upload.Invalid, "The access key may not do that, or not by this endpoint. See docs/stores/oss.md for the permissions that it needs."}
	wrongKey = meaning{upload.Invalid, "The store does not accept the access key, its secret or its token. Correct the store's settings."}
	noObject = meaning{upload.Invalid, "The store does not take such an object."}
	unsuited = meaning{upload.Invalid, "The store does not take such a request. Correct its region and endpoint."}
	locked   = meaning{upload.Invalid, "The bucket's retention policy does not allow that. Use a bucket without one."}
	archived = meaning{upload.Invalid, "The object is in an archive. Restore it, and take away the rule that moved it."}
	damaged  = meaning{upload.DigestMismatch, "Bytes were damaged on their way to the store."}
)

// meanings of error codes: https://www.alibabacloud.com/help/en/oss/developer-reference/error-responses
// What is not here may work later.
var meanings = map[string]meaning{
	"NoSuchKey": noKey, "NoSuchBucket": noBucket, "InvalidBucketName": noBucket,
	"NoSuchUpload": {upload.NotFound, "There is no such multipart upload (any more)."},
	"AccessDenied": denied, "UserDisable": denied, "MethodNotAllowed": denied, "InvalidTargetType": denied,
	"InvalidAccessKeyId": wrongKey, "SignatureDoesNotMatch": wrongKey, "InvalidSecurityToken": wrongKey, "SecurityTokenExpired": wrongKey,
	"InvalidObjectName": noObject, "EntityTooLarge": noObject, "EntityTooSmall": noObject,
	"InvalidArgument": unsuited, "SecondLevelDomainForbidden": unsuited, "NotImplemented": unsuited,
	"FileImmutable": locked, "FileAlreadyExists": locked, "InvalidObjectState": archived,
	"InvalidDigest": damaged,
	"InvalidRange":  {upload.BadRange, "The object has not so many bytes."},
	// Parts that Complete names are not there, or are others. The next Put will find out which.
	"InvalidPart":          {upload.Conflict, "The multipart upload has other parts than were sent."},
	"RequestTimeTooSkewed": {upload.Unavailable, "The clocks of this node and the store differ. Set them by NTP."},
}

func classify(op, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case upload.KindOf(err) != upload.Internal:
		return upload.Wrap(upload.Unavailable, op, key, err)
	case errors.Is(err, context.Canceled):
		return upload.Wrap(upload.Canceled, op, key, err)
	}
	var m meaning
	answer, answered := errors.AsType[sdk.ServiceError](err)
	_, wrongSum := errors.AsType[sdk.CRCCheckError](err)
	switch {
	case wrongSum: // OSS has stored something else than was sent
		m = damaged
	case answered && answer.Code != "":
		m = meanings[answer.Code]
	case answered && answer.StatusCode == http.StatusNotFound: // an answer to HEAD
		m = noKey
	case answered && answer.StatusCode == http.StatusForbidden:
		m = denied
	}
	if m.detail == "" {
		return upload.Wrap(upload.Unavailable, op, key, err)
	}
	return &upload.Error{Op: op, Kind: m.kind, ID: key, Detail: m.detail, Err: err}
}
