package main

import (
	"testing"

	"{{name}}/shardmill"
)

// A host that remembers; calls that are not expected end the test.
type host struct {
	shardmill.Host
	counters map[string]int64
	state    map[string]string
}

func (h host) CounterAdd(name string, n int64) error { h.counters[name] += n; return nil }

func (h host) StateSet(name string, value []byte) error { h.state[name] = string(value); return nil }

func TestAViewIsCountedAndThePageIsKept(t *testing.T) {
	h := host{counters: map[string]int64{}, state: map[string]string{}}
	for _, data := range []string{`{"page": "/"}`, `{"page": "/cart"}`} {
		if err := onClick(shardmill.NewRecord("ann", []byte(data)), h); err != nil {
			t.Fatal(err)
		}
	}
	if h.counters["views"] != 2 || h.state["last_page"] != "/cart" {
		t.Fatalf("%v %v", h.counters, h.state)
	}
	if onClick(shardmill.NewRecord("bob", []byte("hello")), h) == nil {
		t.Fatal("what is no click was taken")
	}
}
