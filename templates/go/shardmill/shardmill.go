// Package shardmill writes Shardmill handlers in Go: package main calls [Handle] in an init
// function and leaves main empty. What crosses the boundary is described in Shardmill's
// docs/abi.md.
package shardmill

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
)

// Record is one record of a batch: a view of the batch's buffer.
type Record struct {
	batch []byte
	entry []byte
	Index uint32
}

func (r Record) field(at int) []byte {
	start := binary.LittleEndian.Uint32(r.entry[at:])
	return r.batch[start : start+binary.LittleEndian.Uint32(r.entry[at+4:])]
}

// PartitionKey is the record's partition key.
func (r Record) PartitionKey() string { return string(r.field(0)) }

// Data is the record's data, as a view of the batch.
func (r Record) Data() []byte { return r.field(8) }

// JSON reads the record's data.
func (r Record) JSON(into any) error { return json.Unmarshal(r.Data(), into) }

// SequenceNumber is a decimal number, as AWS writes it.
func (r Record) SequenceNumber() string {
	var reversed [24]byte
	for i, b := range r.entry[16:40] {
		reversed[23-i] = b
	}
	return new(big.Int).SetBytes(reversed[:]).String()
}

// Arrival is approximate, in milliseconds since the Unix epoch.
func (r Record) Arrival() uint64 { return binary.LittleEndian.Uint64(r.entry[40:]) }

// Host is what a handler may do. Keyed state belongs to the partition key of the current record.
// Everything done here is committed together with the progress of the batch; a failed attempt
// leaves nothing.
type Host interface {
	Progress(index uint32) error
	// StateGet returns nil where there is no value.
	StateGet(name string) ([]byte, error)
	StateSet(name string, value []byte) error
	StateDelete(name string) error
	CounterAdd(name string, n int64) error
	Emit(stream, key string, data []byte) error
	// Log takes a level from 1 (error) to 5 (trace).
	Log(level int, text string)
}

var handler func(Record, Host) error

// Handle makes f the handler, in record mode: it is called for each record, and an error fails
// that record; those before it are done.
func Handle(f func(Record, Host) error) { handler = f }

// NewRecord makes a record for tests.
func NewRecord(key string, data []byte) Record {
	batch := append([]byte(key), data...)
	entry := make([]byte, 64)
	binary.LittleEndian.PutUint32(entry[4:], uint32(len(key)))
	binary.LittleEndian.PutUint32(entry[8:], uint32(len(key)))
	binary.LittleEndian.PutUint32(entry[12:], uint32(len(data)))
	return Record{batch: batch, entry: entry}
}

// run handles a batch buffer and returns an answer buffer.
func run(batch []byte, host Host) []byte {
	count := binary.LittleEndian.Uint32(batch[12:])
	index := binary.LittleEndian.Uint32(batch[16:])
	for i := range count {
		if err := host.Progress(i); err != nil {
			return failed(i, err)
		}
		entry := batch[index+64*i : index+64*i+64]
		if err := handler(Record{batch: batch, entry: entry, Index: i}, host); err != nil {
			return failed(i, err)
		}
	}
	return answer(0, nil, "")
}

func failed(index uint32, err error) []byte {
	return answer(2, []uint32{index}, fmt.Sprintf("%T\n%v", err, err))
}

func answer(status uint16, records []uint32, text string) []byte {
	out := append([]byte("SMA1"), 1, 0)
	out = binary.LittleEndian.AppendUint16(out, status)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(records)))
	for _, index := range records {
		out = binary.LittleEndian.AppendUint32(out, index)
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(len(text)))
	return append(out, text...)
}
