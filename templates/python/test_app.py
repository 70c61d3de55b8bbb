"""Run with: python3 -m unittest"""

import unittest

import app
import shardmill


class OnClick(unittest.TestCase):
    def test_a_view_is_counted_and_the_page_is_kept(self):
        outcome = shardmill.run(app.WitWorld, [("ann", '{"page": "/"}'), ("ann", '{"page": "/cart"}')])
        self.assertEqual(outcome.status, 0)
        self.assertEqual(outcome.counters["views"], 2)
        self.assertEqual(outcome.state["ann", "last_page"], b"/cart")

    def test_a_record_that_is_no_click_fails_alone(self):
        outcome = shardmill.run(app.WitWorld, [("ann", '{"page": "/"}'), ("bob", "hello")])
        self.assertEqual(outcome.failed, [1])
        self.assertTrue(outcome.text.startswith("JSONDecodeError\n"), outcome.text)


if __name__ == "__main__":
    unittest.main()
