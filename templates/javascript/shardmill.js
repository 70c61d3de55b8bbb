// Write Shardmill handlers in JavaScript.
//
// A batch is one buffer, and a record is a view of it: nothing is copied or decoded before it is
// asked for. What crosses the boundary is described in Shardmill's docs/abi.md.
//
//     export default handler({ record: onClick });
//
// `record: f` calls f(record, ctx) for each record; an exception fails that record, and those
// before it are done. `batch: f` calls f(batch, ctx), which may return the indices of the records
// that failed. `event: f` calls f(event, context) with AWS Lambda's event, as Lambda does; it may
// be async if it awaits nothing but promises of its own.
//
// `run` calls a handler without a host, for tests.

const OK = 0, PARTIAL = 1, ERROR = 2, JSON_TEXT = 3;
const MODES = { record: 1, batch: 2, event: 4 };
const STRINGS = ["stream", "shard", "requestId", "function", "version", "tenant", "windowState"];

const text = new TextDecoder("utf-8");
const bytes = new TextEncoder();

/** One record of a batch. */
export class Record {
  #view;
  #at;

  constructor(view, at, index) {
    this.#view = view;
    this.#at = at;
    this.index = index;
  }

  #slice(field) {
    const at = this.#view.getUint32(this.#at + field, true);
    const length = this.#view.getUint32(this.#at + field + 4, true);
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, length);
  }

  get partitionKey() {
    return text.decode(this.#slice(0));
  }

  /** The record's data, as a view of the batch. */
  get data() {
    return this.#slice(8);
  }

  text() {
    return text.decode(this.data);
  }

  json() {
    return JSON.parse(this.text());
  }

  /** As AWS writes it: a decimal number. */
  get sequenceNumber() {
    const part = (n) => this.#view.getBigUint64(this.#at + 16 + 8 * n, true);
    return ((part(2) << 128n) | (part(1) << 64n) | part(0)).toString();
  }

  /** Approximate arrival, milliseconds since the Unix epoch. */
  get arrival() {
    return Number(this.#view.getBigUint64(this.#at + 40, true));
  }

  /** Place in the aggregate that the record came in. */
  get subSequence() {
    return this.#view.getUint32(this.#at + 52, true);
  }
}

/** The records of an invocation, and what is known about it. */
export class Batch {
  #view;
  #index;
  #blob;

  constructor(buffer) {
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    if (view.getUint32(0, true) !== 0x31424d53 || view.getUint16(4, true) !== 1) {
      throw new Error("a batch of another version: rebuild the handler");
    }
    this.#view = view;
    this.length = view.getUint32(12, true);
    this.#index = view.getUint32(16, true);
    this.#blob = [view.getUint32(20, true), view.getUint32(24, true)];
    this.deadline = Number(view.getBigUint64(48, true));
    this.attempt = view.getUint32(56, true);
    let at = view.getUint32(28, true);
    for (const name of STRINGS) {
      const length = view.getUint32(at, true);
      this[name] = text.decode(buffer.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
  }

  record(index) {
    if (!(index >= 0 && index < this.length)) {
      throw new RangeError(`record ${index} of a batch of ${this.length}`);
    }
    return new Record(this.#view, this.#index + 64 * index, index);
  }

  *[Symbol.iterator]() {
    for (let index = 0; index < this.length; index++) yield this.record(index);
  }

  /** AWS Lambda's event, of a handler in event mode. */
  event() {
    const [at, length] = this.#blob;
    return JSON.parse(text.decode(new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, length)));
  }
}

/**
 * What a handler may do through the host. Keyed state belongs to the partition key of the current
 * record. Everything done here is committed together with the progress of the batch; a failed
 * attempt leaves nothing.
 */
export class Context {
  #host;

  constructor(batch, host) {
    this.batch = batch;
    this.#host = host;
  }

  /** The value's bytes, or undefined. */
  stateGet(name) {
    return this.#host.stateGet(name) ?? undefined;
  }

  stateText(name) {
    const value = this.stateGet(name);
    return value === undefined ? undefined : text.decode(value);
  }

  stateSet(name, value) {
    this.#host.stateSet(name, typeof value === "string" ? bytes.encode(value) : value);
  }

  stateDelete(name) {
    this.#host.stateDelete(name);
  }

  counterAdd(name, amount = 1) {
    this.#host.counterAdd(name, BigInt(amount));
  }

  emit(stream, key, data) {
    this.#host.emit(stream, key, typeof data === "string" ? bytes.encode(data) : data);
  }

  /** In batch mode: says which record is being handled. */
  progress(index) {
    this.#host.progress(index);
  }

  /** Level: error, warn, info, debug or trace. */
  log(line, level = "info") {
    this.#host.log(level, String(line));
  }
}

/** Makes what main.js exports. */
export function handler(functions) {
  const chosen = Object.keys(MODES).filter((mode) => functions[mode] !== undefined);
  if (chosen.length !== 1) {
    throw new TypeError("handler() takes exactly one of record, batch and event");
  }
  const [mode] = chosen;
  return {
    abi: () => MODES[mode] | (mode === "event" ? 0 : 8),
    handle: (buffer, host) => handle(mode, functions[mode], new Batch(buffer), host),
  };
}

function handle(mode, f, batch, host) {
  const context = new Context(batch, host);
  let current;
  try {
    if (mode === "record") {
      for (current = 0; current < batch.length; current++) {
        host.progress(current);
        f(batch.record(current), context);
      }
      return answer(OK);
    }
    if (mode === "batch") {
      const failed = f(batch, context) ?? [];
      return answer(failed.length > 0 ? PARTIAL : OK, failed);
    }
    return answer(JSON_TEXT, [], JSON.stringify(f(batch.event(), lambda(batch)) ?? null));
  } catch (error) {
    console.error(error?.stack ?? String(error));
    const failed = current === undefined ? [] : [current];
    return answer(ERROR, failed, `${error?.name ?? "Error"}\n${error?.message ?? error}`);
  }
}

function lambda(batch) {
  return {
    awsRequestId: batch.requestId,
    functionName: batch.function,
    functionVersion: batch.version,
    getRemainingTimeInMillis: () => Math.max(0, batch.deadline - Date.now()),
  };
}

function answer(status, failed = [], line = "") {
  const encoded = bytes.encode(line);
  const out = new Uint8Array(16 + 4 * failed.length + encoded.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, 0x31414d53, true);
  view.setUint16(4, 1, true);
  view.setUint16(6, status, true);
  view.setUint32(8, failed.length, true);
  failed.forEach((index, n) => view.setUint32(12 + 4 * n, index, true));
  view.setUint32(12 + 4 * failed.length, encoded.length, true);
  out.set(encoded, 16 + 4 * failed.length);
  return out;
}

/** Runs a handler on [partition key, data] pairs, or on `{ event }`, without a host. */
export function run(handler, input) {
  const outcome = { counters: {}, state: {}, emitted: [], log: [] };
  const records = Array.isArray(input) ? input : [];
  let key;
  const current = () => {
    if (key === undefined) throw new Error("no-record");
    return key;
  };
  const host = {
    progress: (index) => (key = records[index][0]),
    stateGet: (name) => outcome.state[`${current()}/${name}`],
    stateSet: (name, value) => (outcome.state[`${current()}/${name}`] = value),
    stateDelete: (name) => delete outcome.state[`${current()}/${name}`],
    counterAdd: (name, n) => (outcome.counters[name] = (outcome.counters[name] ?? 0) + Number(n)),
    emit: (stream, to, data) => outcome.emitted.push([stream, to, data]),
    log: (level, line) => outcome.log.push(line),
  };
  const event = Array.isArray(input) ? undefined : bytes.encode(JSON.stringify(input.event));
  const out = handler.handle(encode(records, event), host);
  const view = new DataView(out.buffer);
  outcome.status = view.getUint16(6, true);
  const count = view.getUint32(8, true);
  outcome.failed = Array.from({ length: count }, (_, n) => view.getUint32(12 + 4 * n, true));
  outcome.text = text.decode(out.subarray(16 + 4 * count));
  return outcome;
}

function encode(records, event) {
  const encoded = records.map(([key, data]) => [
    bytes.encode(key),
    typeof data === "string" ? bytes.encode(data) : data,
  ]);
  const indexAt = 64 + 32;
  const blobAt = event ? 64 + 28 : indexAt + 64 * records.length;
  const blobLength = event?.length ?? encoded.reduce((sum, [k, d]) => sum + k.length + d.length, 0);
  const out = new Uint8Array(blobAt + blobLength);
  const view = new DataView(out.buffer);
  const put = (at, value) => view.setUint32(at, value, true);
  put(0, 0x31424d53);
  view.setUint16(4, 1, true);
  view.setUint16(6, event ? 2 : 1, true);
  put(8, out.length);
  put(12, records.length);
  put(16, event ? 0 : indexAt);
  put(20, blobAt);
  put(24, blobLength);
  put(28, 64);
  put(56, 1);
  let at = blobAt;
  if (event) out.set(event, at);
  encoded.forEach(([key, data], n) => {
    const entry = indexAt + 64 * n;
    [at, key.length, at + key.length, data.length].forEach((value, i) => put(entry + 4 * i, value));
    put(entry + 16, n + 1);
    out.set(key, at);
    out.set(data, at + key.length);
    at += key.length + data.length;
  });
  return out;
}
