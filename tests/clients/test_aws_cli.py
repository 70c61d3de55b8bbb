"""The aws CLI from create to delete, as the README shows it."""

import base64
import json
import unittest

from host import ACCOUNT, HostTest, delete_stream, unique

SHARD = "shardId-000000000000"


class AwsCli(HostTest):
    def aws(self, *arguments):
        """The answer of a call that must succeed."""
        code, answer, error = self.host.aws(*arguments)
        self.assertEqual(code, 0, error)
        return answer

    def test_a_stream_lives_from_create_to_delete(self):
        name = unique("cli")
        self.addCleanup(delete_stream, self.kinesis, name)
        named = ["--stream-name", name]
        self.assertIsNone(self.aws("create-stream", *named, "--shard-count", "1"))
        self.aws("wait", "stream-exists", *named)
        summary = self.aws("describe-stream-summary", *named)["StreamDescriptionSummary"]
        self.assertEqual(summary["OpenShardCount"], 1)
        described = self.aws("describe-stream", *named)["StreamDescription"]
        self.assertEqual(described["StreamStatus"], "ACTIVE")
        self.assertIn(name, self.aws("list-streams")["StreamNames"])
        shards = self.aws("list-shards", *named)["Shards"]
        self.assertEqual([one["ShardId"] for one in shards], [SHARD])

        # Version 1 of the CLI takes data as it is; version 2 would want it in base64.
        first = self.aws("put-record", *named, "--partition-key", "k", "--data", "first")
        self.assertEqual(first["ShardId"], SHARD)
        records = [{"Data": text, "PartitionKey": "k"} for text in ["second", "third"]]
        many = self.aws("put-records", *named, "--records", json.dumps(records))
        self.assertEqual(many["FailedRecordCount"], 0)

        for kind, more, want in [
            ("TRIM_HORIZON", [], [b"first", b"second", b"third"]),
            ("LATEST", [], []),
            (
                "AFTER_SEQUENCE_NUMBER",
                ["--starting-sequence-number", first["SequenceNumber"]],
                [b"second", b"third"],
            ),
            (
                "AT_SEQUENCE_NUMBER",
                ["--starting-sequence-number", many["Records"][1]["SequenceNumber"]],
                [b"third"],
            ),
            ("AT_TIMESTAMP", ["--timestamp", "1700000000"], [b"first", b"second", b"third"]),
        ]:
            place = ["--shard-id", SHARD, "--shard-iterator-type", kind, *more]
            iterator = self.aws("get-shard-iterator", *named, *place)["ShardIterator"]
            answer = self.aws("get-records", "--shard-iterator", iterator)
            got = [base64.b64decode(one["Data"]) for one in answer["Records"]]
            self.assertEqual(got, want, kind)

        self.assertIsNone(self.aws("delete-stream", *named))
        self.aws("wait", "stream-not-exists", *named)

    def test_an_error_reads_as_awss(self):
        name = unique("nowhere")
        code, _, error = self.host.aws("describe-stream", "--stream-name", name)
        self.assertNotEqual(code, 0)
        self.assertIn("ResourceNotFoundException", error)
        self.assertIn(f"Stream {name} under account {ACCOUNT} not found.", error)


if __name__ == "__main__":
    unittest.main()
