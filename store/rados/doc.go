// Package rados keeps objects in a pool of a Ceph cluster, without a gateway between. It needs librados, and so
// cgo: it is built with the tag ceph, and is empty without.
//
// An object is a head and data objects, each in a namespace of its own. The head, named by the key, has no bytes
// and one attribute, which tells size, checksum and generation; the data objects, of one size but for the last, are
// named by key, generation and number. The head is written last, in one operation: that is when the object is there.
// What is put again, with other bytes, gets a new generation, so no reader sees two of them mixed.
package rados
