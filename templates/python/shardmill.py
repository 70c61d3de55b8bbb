"""Write Shardmill handlers in Python.

A batch is one buffer, and a record is a view of it: nothing is copied or decoded before it is
asked for. What crosses the boundary is described in Shardmill's docs/abi.md.

    def on_click(record, ctx):
        page = record.json()["page"]
        ctx.counter_add("views", 1)
        ctx.state_set("last_page", page.encode())

    WitWorld = shardmill.handler(record=on_click)

`handler(record=f)`: f(record, ctx) for each record; an exception fails that record, and those
before it are done. `handler(batch=f)`: f(batch, ctx); it may return the indices of the records
that failed. `handler(event=f)`: f(event, context) with AWS Lambda's event, as Lambda calls it.

`run` calls a handler without a host, for tests.
"""

import json
import struct
import traceback
import sys
from collections import defaultdict
from collections.abc import Sequence

try:
    from wit_world.imports import host as _host
    from componentize_py_types import Err as _Refused
except ImportError:  # in tests, on the author's machine
    _host = None

    class _Refused(Exception):
        pass


_HEADER = struct.Struct("<4sHHIIIIIIQQQII")
_ENTRY = struct.Struct("<IIII24sQIIII")
_OK, _PARTIAL, _ERROR, _JSON = range(4)
_STRINGS = ("stream", "shard", "request_id", "function", "version", "tenant", "window_state")


class Record:
    """One record of a batch."""

    __slots__ = ("_buffer", "_entry", "index")

    def __init__(self, buffer, at, index):
        self._buffer = buffer
        self._entry = _ENTRY.unpack_from(buffer, at)
        self.index = index

    @property
    def partition_key(self):
        at, length = self._entry[0:2]
        return str(self._buffer[at : at + length], "utf-8")

    @property
    def data(self):
        """The record's data, as a view of the batch; bytes(record.data) copies it."""
        at, length = self._entry[2:4]
        return self._buffer[at : at + length]

    def json(self):
        """The record's data, read as JSON."""
        return json.loads(bytes(self.data))

    @property
    def sequence_number(self):
        """As AWS writes it: a decimal number."""
        return str(int.from_bytes(self._entry[4], "little"))

    @property
    def sub_sequence(self):
        """Place in the aggregate that the record came in."""
        return self._entry[7]

    @property
    def arrival(self):
        """Approximate arrival, milliseconds since the Unix epoch."""
        return self._entry[5]

    @property
    def explicit_hash_key(self):
        at = self._entry[8]
        return int.from_bytes(self._buffer[at : at + 16], "little") if at else None


class Batch(Sequence):
    """The records of an invocation, and what is known about it."""

    def __init__(self, buffer):
        self._buffer = memoryview(buffer)
        header = _HEADER.unpack_from(self._buffer)
        magic, version, self.kind, _, self._count, self._index, blob, blob_len, at = header[:9]
        if magic != b"SMB1" or version != 1:
            raise ValueError(f"a batch of version {version} with the mark {magic!r}: rebuild the handler")
        self.window = header[9:11]
        self.deadline, self.attempt, self.flags = header[11:14]
        self._blob = (blob, blob + blob_len)
        for name in _STRINGS:
            (length,) = struct.unpack_from("<I", self._buffer, at)
            setattr(self, name, str(self._buffer[at + 4 : at + 4 + length], "utf-8"))
            at += 4 + length

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError(f"record {index} of a batch of {self._count}")
        return Record(self._buffer, self._index + 64 * index, index)

    def event(self):
        """AWS Lambda's event, of a handler in event mode."""
        return json.loads(bytes(self._buffer[slice(*self._blob)]))


class Context:
    """What a handler may do through the host, and what it may know of the invocation.

    Keyed state belongs to the partition key of the current record. Everything done here is
    committed together with the progress of the batch; a failed attempt leaves nothing.
    """

    def __init__(self, batch, host):
        self.batch = batch
        self._host = host

    def state_get(self, name):
        """The value's bytes, or None."""
        return _called(self._host.state_get, name)

    def state_set(self, name, value):
        _called(self._host.state_set, name, bytes(value))

    def state_delete(self, name):
        _called(self._host.state_delete, name)

    def counter_add(self, name, amount=1):
        _called(self._host.counter_add, name, amount)

    def emit(self, stream, key, data):
        _called(self._host.emit, stream, key, bytes(data))

    def progress(self, index):
        """In batch mode: says which record is being handled."""
        _called(self._host.progress, index)

    def log(self, text, level="info"):
        levels = ("error", "warn", "info", "debug", "trace")
        level = levels.index(level)
        self._host.log(_host.Level(level) if self._host is _host else level, str(text))


class LambdaContext:
    """AWS Lambda's context object, as far as there is something to say."""

    def __init__(self, batch):
        self.aws_request_id = batch.request_id
        self.function_name = batch.function
        self.function_version = batch.version
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:{batch.tenant}:function:{batch.function}"
        self.memory_limit_in_mb = "128"
        self.log_group_name = f"/aws/lambda/{batch.function}"
        self.log_stream_name = batch.request_id
        self._deadline = batch.deadline

    def get_remaining_time_in_millis(self):
        import time

        return max(0, self._deadline - int(time.time() * 1000))


class Refused(Exception):
    """The host refused a call: there is no current record, or a name or value is out of bounds."""


def _called(call, *arguments):
    try:
        return call(*arguments)
    except _Refused as refused:
        raise Refused(getattr(refused, "value", refused)) from None


def handler(record=None, batch=None, event=None, uses_state=True):
    """Makes the class that componentize-py looks for, `WitWorld`."""
    modes = [(1, record), (2, batch), (4, event)]
    chosen = [(bit, function) for bit, function in modes if function is not None]
    if len(chosen) != 1:
        raise TypeError("handler() takes exactly one of record=, batch= and event=")
    bit, function = chosen[0]

    class WitWorld:
        def abi(self):
            return bit | (8 if uses_state and bit != 4 else 0)

        def handle(self, buffer):
            return _handle(bit, function, Batch(buffer), _host)

    return WitWorld


def _handle(mode, function, batch, host):
    context = Context(batch, host)
    current = None
    try:
        if mode == 1:
            for current in range(len(batch)):
                host.progress(current)
                function(batch[current], context)
            return _answer(_OK)
        if mode == 2:
            failed = list(function(batch, context) or ())
            return _answer(_PARTIAL if failed else _OK, failed)
        response = function(batch.event(), LambdaContext(batch))
        return _answer(_JSON, (), json.dumps(response))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        failed = () if current is None else (current,)
        return _answer(_ERROR, failed, f"{type(error).__name__}\n{error}")


def _answer(status, failed=(), text=""):
    text = text.encode()
    head = struct.pack("<4sHHI", b"SMA1", 1, status, len(failed))
    return head + struct.pack(f"<{len(failed)}I", *failed) + struct.pack("<I", len(text)) + text


class Outcome:
    """What came of `run`: its answer, and what the handler did through the host."""

    def __init__(self):
        self.status = None
        self.failed = []
        self.text = ""
        self.counters = defaultdict(int)
        self.state = {}
        self.emitted = []
        self.log = []


class _TestHost:
    def __init__(self, keys, outcome):
        self._keys, self._outcome, self._current = keys, outcome, None

    def _key(self):
        if self._current is None:
            raise _Refused("no-record")
        return self._keys[self._current]

    def progress(self, index):
        self._current = index

    def state_get(self, name):
        return self._outcome.state.get((self._key(), name))

    def state_set(self, name, value):
        self._outcome.state[self._key(), name] = value

    def state_delete(self, name):
        self._outcome.state.pop((self._key(), name), None)

    def counter_add(self, name, amount):
        self._outcome.counters[name] += amount

    def emit(self, stream, key, data):
        self._outcome.emitted.append((stream, key, data))

    def log(self, level, text):
        self._outcome.log.append(text)


def run(world, records=(), event=None):
    """Runs a handler on (partition key, data) pairs, or on an event, without a host."""
    outcome = Outcome()
    world = world()
    mode = world.abi() & 7
    records = [(key, data if isinstance(data, bytes) else data.encode()) for key, data in records]
    buffer = _batch(records) if mode != 4 else _batch((), json.dumps(event).encode())
    global _host
    before, _host = _host, _TestHost([key for key, _ in records], outcome)
    try:
        answer = world.handle(buffer)
    finally:
        _host = before
    _, _, outcome.status, count = struct.unpack_from("<4sHHI", answer)
    outcome.failed = list(struct.unpack_from(f"<{count}I", answer, 12))
    outcome.text = answer[16 + 4 * count :].decode()
    return outcome


def _batch(records, event=None):
    strings = b"".join(struct.pack("<I", 0) for _ in _STRINGS)
    index_at = (64 + len(strings) + 7) // 8 * 8
    at = index_at + 64 * len(records) if event is None else 64 + len(strings)
    blob = b"" if event is None else event
    index = b""
    for number, (key, data) in enumerate(records):
        key = key.encode()
        start = at + len(blob)
        blob += key + data
        sequence = (number + 1).to_bytes(24, "little")
        index += _ENTRY.pack(start, len(key), start + len(key), len(data), sequence, 0, 0, 0, 0, 0)
    kind = 1 if event is None else 2
    count = len(records) if event is None else len(json.loads(event).get("Records", ()))
    head = _HEADER.pack(
        b"SMB1", 1, kind, at + len(blob), count, index_at if kind == 1 else 0, at, len(blob), 64, 0, 0, 0, 1, 0
    )
    return (head + strings).ljust(at - len(index), b"\0") + index + blob
