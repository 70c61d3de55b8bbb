// Run with: node --test

import assert from "node:assert/strict";
import test from "node:test";

import handler from "./handler.js";
import { run } from "./shardmill.js";

test("a view is counted and the page is kept", () => {
  const outcome = run(handler, [["ann", '{"page": "/"}'], ["ann", '{"page": "/cart"}']]);
  assert.equal(outcome.status, 0);
  assert.equal(outcome.counters.views, 2);
  assert.equal(Buffer.from(outcome.state["ann/last_page"]).toString(), "/cart");
});

test("a record that is no click fails alone", () => {
  const outcome = run(handler, [["ann", '{"page": "/"}'], ["bob", "hello"]]);
  assert.deepEqual(outcome.failed, [1]);
  assert.match(outcome.text, /^SyntaxError\n/);
});
