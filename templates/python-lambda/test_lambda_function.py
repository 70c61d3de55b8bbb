"""Run with: python3 -m unittest"""

import base64
import json
import unittest

import app
import shardmill


def record(number, text):
    data = base64.b64encode(text.encode()).decode()
    return {"kinesis": {"sequenceNumber": str(number), "data": data}}


class LambdaHandler(unittest.TestCase):
    def test_what_is_no_click_is_named(self):
        event = {"Records": [record(1, '{"page": "/"}'), record(2, "hello")]}
        outcome = shardmill.run(app.WitWorld, event=event)
        self.assertEqual(json.loads(outcome.text), {"batchItemFailures": [{"itemIdentifier": "2"}]})


if __name__ == "__main__":
    unittest.main()
