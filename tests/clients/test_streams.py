"""Streams as boto3 sees them: create, describe, list, delete."""

import datetime
import unittest

from host import ACCOUNT, REGION, HostTest, unique, wait

LAST_HASH_KEY = 2**128 - 1


class Streams(HostTest):
    def test_the_host_is_healthy(self):
        if self.host.external:
            self.skipTest("another server")
        self.assertEqual(self.host.health(), 200)

    def test_a_new_stream_is_described_as_aws_does(self):
        before = datetime.datetime.now(datetime.timezone.utc)
        name = self.stream(shards=4)
        stream = self.kinesis.describe_stream(StreamName=name)["StreamDescription"]
        self.assertEqual(stream["StreamName"], name)
        self.assertEqual(stream["StreamStatus"], "ACTIVE")
        self.assertEqual(stream["RetentionPeriodHours"], 24)
        self.assertEqual(stream["EnhancedMonitoring"], [{"ShardLevelMetrics": []}])
        self.assertEqual(stream["EncryptionType"], "NONE")
        self.assertNotIn("KeyId", stream)
        self.assertFalse(stream["HasMoreShards"])
        age = abs((stream["StreamCreationTimestamp"] - before).total_seconds())
        self.assertLess(age, 60)
        self.assertEqual(
            [shard["ShardId"] for shard in stream["Shards"]],
            [f"shardId-{index:012}" for index in range(4)],
        )

    def test_the_arn_names_region_account_and_stream(self):
        name = self.stream()
        stream = self.kinesis.describe_stream(StreamName=name)["StreamDescription"]
        self.assertRegex(stream["StreamARN"], rf"^arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}$")

    def test_shards_tile_the_hash_space_with_the_remainder_in_the_last(self):
        name = self.stream(shards=3)
        shards = self.kinesis.list_shards(StreamName=name)["Shards"]
        width = 2**128 // 3
        ranges = [
            (int(one["HashKeyRange"]["StartingHashKey"]), int(one["HashKeyRange"]["EndingHashKey"]))
            for one in shards
        ]
        self.assertEqual(
            ranges, [(0, width - 1), (width, 2 * width - 1), (2 * width, LAST_HASH_KEY)]
        )
        starts = [int(one["SequenceNumberRange"]["StartingSequenceNumber"]) for one in shards]
        for start in starts:
            self.assertEqual(len(str(start)), 56)
        # Neighbours are one index nibble and one index apart.
        self.assertEqual(starts[1] - starts[0], 2**144 + 16)
        for shard in shards:
            self.assertNotIn("EndingSequenceNumber", shard["SequenceNumberRange"])
            self.assertNotIn("ParentShardId", shard)

    def test_the_summary_counts_open_shards(self):
        name = self.stream(shards=2)
        summary = self.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        self.assertEqual(summary["StreamName"], name)
        self.assertEqual(summary["StreamStatus"], "ACTIVE")
        self.assertEqual(summary["OpenShardCount"], 2)
        self.assertEqual(summary["ConsumerCount"], 0)
        self.assertEqual(summary["RetentionPeriodHours"], 24)

    def test_a_stream_can_be_named_by_its_arn(self):
        if self.host.external:
            self.skipTest("another server")
        name = self.stream()
        arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"
        summary = self.kinesis.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]
        self.assertEqual(summary["StreamARN"], arn)

    def test_describe_pages_through_shards(self):
        name = self.stream(shards=5)
        pages = self.kinesis.get_paginator("describe_stream").paginate(
            StreamName=name, PaginationConfig={"PageSize": 2}
        )
        shards = [[one["ShardId"] for one in page["StreamDescription"]["Shards"]] for page in pages]
        self.assertEqual([len(page) for page in shards], [2, 2, 1])
        self.assertEqual(sum(shards, []), [f"shardId-{index:012}" for index in range(5)])

    def test_list_shards_pages_by_token_alone(self):
        name = self.stream(shards=5)
        pages, more = [], {"StreamName": name}
        while more:
            page = self.kinesis.list_shards(MaxResults=2, **more)
            pages.append([one["ShardId"] for one in page["Shards"]])
            more = {"NextToken": page["NextToken"]} if "NextToken" in page else {}
        self.assertEqual([len(page) for page in pages], [2, 2, 1])
        self.assertEqual(sum(pages, []), [f"shardId-{index:012}" for index in range(5)])

    def test_the_list_shards_paginator_behaves_as_against_aws(self):
        name = self.stream(shards=5)
        paginator = self.kinesis.get_paginator("list_shards")
        shards = [one for page in paginator.paginate(StreamName=name) for one in page["Shards"]]
        self.assertEqual(len(shards), 5)
        # Beyond one page boto3 repeats the stream's name beside the token, which AWS refuses.
        pages = paginator.paginate(StreamName=name, PaginationConfig={"PageSize": 2})
        self.refused(
            "InvalidArgumentException",
            "NextToken and StreamName cannot be provided together.",
            lambda: list(pages),
        )

    def test_list_shards_starts_after_a_shard(self):
        name = self.stream(shards=3)
        shards = self.kinesis.list_shards(
            StreamName=name, ExclusiveStartShardId="shardId-000000000001"
        )["Shards"]
        self.assertEqual([one["ShardId"] for one in shards], ["shardId-000000000002"])

    def test_list_streams_pages_in_order(self):
        prefix = unique("listed")
        names = [f"{prefix}-{letter}" for letter in "cab"]
        for name in names:
            self.kinesis.create_stream(StreamName=name, ShardCount=1)
            self.addCleanup(self.kinesis.delete_stream, StreamName=name)
        for name in names:
            wait(self.kinesis, "stream_exists", name)
        pages = self.kinesis.get_paginator("list_streams").paginate(
            PaginationConfig={"PageSize": 1}
        )
        listed = [name for page in pages for name in page["StreamNames"]]
        self.assertEqual([name for name in listed if name.startswith(prefix)], sorted(names))
        self.assertEqual(listed, sorted(listed))

    def test_list_streams_tells_each_streams_state(self):
        if self.host.external:
            self.skipTest("another server")
        name = self.stream()
        summaries = self.kinesis.list_streams()["StreamSummaries"]
        one = next(one for one in summaries if one["StreamName"] == name)
        self.assertEqual(one["StreamStatus"], "ACTIVE")
        self.assertTrue(one["StreamARN"].endswith(f":stream/{name}"))

    def test_a_name_is_taken_once(self):
        name = self.stream()
        self.refused(
            "ResourceInUseException",
            f"Stream {name} under account {ACCOUNT} already exists.",
            self.kinesis.create_stream,
            StreamName=name,
            ShardCount=1,
        )

    def test_a_deleted_stream_is_gone(self):
        name = self.stream()
        self.kinesis.delete_stream(StreamName=name)
        wait(self.kinesis, "stream_not_exists", name)
        self.assertNotIn(name, self.kinesis.list_streams(Limit=10_000)["StreamNames"])
        # And the name is free again.
        self.kinesis.create_stream(StreamName=name, ShardCount=1)
        wait(self.kinesis, "stream_exists", name)

    def test_a_missing_stream_is_not_found_by_any_operation(self):
        name = unique("nowhere")
        message = f"Stream {name} under account {ACCOUNT} not found."
        record = {"Data": b"x", "PartitionKey": "k"}
        for call, arguments in [
            (self.kinesis.describe_stream, {}),
            (self.kinesis.describe_stream_summary, {}),
            (self.kinesis.delete_stream, {}),
            (self.kinesis.list_shards, {}),
            (self.kinesis.put_record, record),
            (self.kinesis.put_records, {"Records": [record]}),
        ]:
            with self.subTest(call.__name__):
                self.refused(
                    "ResourceNotFoundException", message, call, StreamName=name, **arguments
                )

    def test_bad_values_get_awss_validation_error(self):
        kinesis = self.host.kinesis(parameter_validation=False)
        self.addCleanup(kinesis.close)
        self.refused(
            "ValidationException",
            "1 validation error detected: Value '0' at 'shardCount' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1",
            kinesis.create_stream,
            StreamName="valid",
            ShardCount=0,
        )
        self.refused(
            "ValidationException",
            "1 validation error detected: Value 'a b' at 'streamName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
            kinesis.describe_stream_summary,
            StreamName="a b",
        )

    def test_an_operation_of_later_work_is_refused_by_name(self):
        if self.host.external:
            self.skipTest("another server")
        name = self.stream()
        summary = self.kinesis.describe_stream_summary(StreamName=name)
        arn = summary["StreamDescriptionSummary"]["StreamARN"]
        with self.assertRaises(self.kinesis.exceptions.ClientError) as caught:
            self.kinesis.get_resource_policy(ResourceARN=arn)
        self.assertIn("GetResourcePolicy", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
