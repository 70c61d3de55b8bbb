//go:build wasip1

package shardmill

import (
	"fmt"
	"unsafe"
)

//go:wasmimport shardmill progress
func progress(index uint32) int32

//go:wasmimport shardmill state_get
func stateGet(name unsafe.Pointer, length uint32, out unsafe.Pointer, capacity uint32) int64

//go:wasmimport shardmill state_set
func stateSet(name unsafe.Pointer, length uint32, value unsafe.Pointer, valueLength uint32) int32

//go:wasmimport shardmill state_delete
func stateDelete(name unsafe.Pointer, length uint32) int32

//go:wasmimport shardmill counter_add
func counterAdd(name unsafe.Pointer, length uint32, n int64) int32

//go:wasmimport shardmill emit
func emit(stream unsafe.Pointer, streamLength uint32, key unsafe.Pointer, keyLength uint32, data unsafe.Pointer, dataLength uint32) int32

//go:wasmimport shardmill log
func hostLog(level int32, text unsafe.Pointer, length uint32) int32

// The buffers of this invocation: the garbage collector sees them here.
var batch, answered []byte

//go:wasmexport shardmill_abi_v1
func abi() int32 { return 1 | 8 }

//go:wasmexport shardmill_prepare
func prepare(length uint32) unsafe.Pointer {
	words := make([]uint64, (length+7)/8+1)
	batch = unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), length)
	return unsafe.Pointer(&words[0])
}

//go:wasmexport shardmill_handle
func handle(_ unsafe.Pointer, _ uint32) int64 {
	answered = run(batch, realHost{})
	return int64(uintptr(unsafe.Pointer(&answered[0])))<<32 | int64(len(answered))
}

type realHost struct{}

func text(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

func bytes(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

func check(call string, code int32) error {
	if code < 0 {
		return fmt.Errorf("%s was refused with code %d", call, code)
	}
	return nil
}

func (realHost) Progress(index uint32) error { return check("progress", progress(index)) }

func (realHost) StateGet(name string) ([]byte, error) {
	at, length := text(name)
	value := make([]byte, 256)
	for {
		out, capacity := bytes(value)
		n := stateGet(at, length, out, capacity)
		switch {
		case n == -1:
			return nil, nil
		case n < 0:
			return nil, check("state_get", int32(n))
		case n <= int64(len(value)):
			return value[:n], nil
		}
		value = make([]byte, n)
	}
}

func (realHost) StateSet(name string, value []byte) error {
	at, length := text(name)
	from, valueLength := bytes(value)
	return check("state_set", stateSet(at, length, from, valueLength))
}

func (realHost) StateDelete(name string) error {
	at, length := text(name)
	return check("state_delete", stateDelete(at, length))
}

func (realHost) CounterAdd(name string, n int64) error {
	at, length := text(name)
	return check("counter_add", counterAdd(at, length, n))
}

func (realHost) Emit(stream, key string, data []byte) error {
	streamAt, streamLength := text(stream)
	keyAt, keyLength := text(key)
	from, length := bytes(data)
	return check("emit", emit(streamAt, streamLength, keyAt, keyLength, from, length))
}

func (realHost) Log(level int, line string) {
	at, length := text(line)
	hostLog(int32(level), at, length)
}
