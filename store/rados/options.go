package rados

import "time"

// Options are the settings of a Store. What is zero gets its default.
type Options struct {
	Conf      string // path of the cluster's ceph.conf; /etc/ceph/ceph.conf
	User      string // without "client."; admin
	Keyring   string // path of the user's keyring; where ceph.conf says
	Pool      string // it must be there; needed
	Namespace string // heads are in NAMESPACE.heads, data in NAMESPACE.data; gantry

	ObjectSize int64         // of data objects, from 4 to 64 MiB; 8 MiB
	Parallel   int           // data objects sent at a time, for all Puts together; 4
	Timeout    time.Duration // after which Ceph is taken to be away; 30 s
}
