//go:build ceph

package rados

/*
#cgo LDFLAGS: -lrados
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <rados/librados.h>

// glibc gives each thread a heap, and what is free in one another cannot use: a Put would take twice the memory that it
// should. One heap is enough for librados, which alone uses them here. It has to be said before the first thread is there.
#ifdef M_ARENA_MAX
__attribute__((constructor)) static void gantry_one_heap(void) { mallopt(M_ARENA_MAX, 1); }
#endif

// gantry_sum asks for the length and the checksum of a whole object, at one moment. The checksum comes as two
// little-endian numbers: how many there are, 1, and the CRC-32C.
static int gantry_sum(rados_ioctx_t io, const char *name, uint64_t *size, unsigned char sum[8]) {
	static const char begin[4] = {-1, -1, -1, -1};
	int stat = 0, checksum = 0, ret;
	rados_read_op_t op = rados_create_read_op();
	if (op == NULL)
		return -ENOMEM;
	rados_read_op_stat(op, size, NULL, &stat);
	rados_read_op_checksum(op, LIBRADOS_CHECKSUM_TYPE_CRC32C, begin, sizeof begin, 0, 0, 0, (char *)sum, 8, &checksum);
	ret = rados_read_op_operate(op, io, name, LIBRADOS_OPERATION_NOFLAG);
	rados_release_read_op(op);
	return ret < 0 ? ret : stat < 0 ? stat : checksum;
}
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	ceph "github.com/ceph/go-ceph/rados"
)

// sum is a data object as its OSD has it.
type sum struct {
	size   int64
	crc32c uint32
}

// sumOf has the OSD read a data object from its disk and compute its checksum. go-ceph does not know that operation.
func sumOf(io *ceph.IOContext, name string) (sum, error) {
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	var size C.uint64_t
	var out [8]byte
	ret := C.gantry_sum(C.rados_ioctx_t(io.Pointer()), cName, &size, (*C.uchar)(&out[0]))
	if ret < 0 {
		return sum{}, code(ret)
	}
	if size == 0 {
		return sum{}, nil // there is no checksum of nothing
	}
	if n := binary.LittleEndian.Uint32(out[:]); n != 1 {
		return sum{}, fmt.Errorf("the OSD returned %d checksums", n)
	}
	return sum{int64(size), ^binary.LittleEndian.Uint32(out[4:])}, nil // Ceph leaves the last step of a CRC to the caller
}

// code is an error of librados, as go-ceph's are.
type code int

func (c code) Error() string  { return fmt.Sprintf("rados: ret=%d, %v", int(c), syscall.Errno(-c)) }
func (c code) ErrorCode() int { return int(c) }

// lost reports whether an error says that a data object's bytes cannot be had: it is not there, or its disk
// returns others than were written. Another try will not mend that.
func lost(err error) bool {
	e := errno(err)
	return e == syscall.ENOENT || e == syscall.EIO || errors.Is(err, errShort)
}
