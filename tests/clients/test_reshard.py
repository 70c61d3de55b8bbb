"""Shards as boto3 and the aws CLI split, merge and count them, with producers at work."""

import json
import threading
import unittest

from host import Host, HostTest, create_stream, delete_stream, read_tree, unique, wait

LAST_HASH_KEY = 2**128 - 1
PRODUCER_COUNT = 3
KEYS_PER_PRODUCER = 8


def open_shards(kinesis, stream):
    """The open shards by hash key: id, first and last hash key."""
    shards = []
    for page in kinesis.get_paginator("list_shards").paginate(
        StreamName=stream, ShardFilter={"Type": "AT_LATEST"}
    ):
        shards += page["Shards"]
    shards = [
        (
            int(one["HashKeyRange"]["StartingHashKey"]),
            int(one["HashKeyRange"]["EndingHashKey"]),
            one["ShardId"],
        )
        for one in shards
    ]
    return sorted(shards)


def split(kinesis, stream, number):
    """Splits the open shard with this number, by hash key, in the middle."""
    start, end, shard = open_shards(kinesis, stream)[number]
    kinesis.split_shard(
        StreamName=stream, ShardToSplit=shard, NewStartingHashKey=str((start + end + 1) // 2)
    )
    wait(kinesis, "stream_exists", stream)


def merge(kinesis, stream, number):
    """Merges the open shard with this number, by hash key, with the next one."""
    shards = open_shards(kinesis, stream)
    kinesis.merge_shards(
        StreamName=stream,
        ShardToMerge=shards[number][2],
        AdjacentShardToMerge=shards[number + 1][2],
    )
    wait(kinesis, "stream_exists", stream)


def scale(kinesis, stream, count):
    """Gives the stream this many shards."""
    answer = kinesis.update_shard_count(
        StreamName=stream, TargetShardCount=count, ScalingType="UNIFORM_SCALING"
    )
    wait(kinesis, "stream_exists", stream)
    return answer


class Producers:
    """Threads that put rounds of records, one per key, until they are stopped."""

    def __init__(self, host, stream):
        self.stopping = threading.Event()
        self.rounds = [0] * PRODUCER_COUNT
        self.failures = []
        self.threads = [
            threading.Thread(target=self.run, args=(host.kinesis(), stream, number))
            for number in range(PRODUCER_COUNT)
        ]
        for thread in self.threads:
            thread.start()

    def run(self, kinesis, stream, number):
        try:
            while not self.stopping.is_set():
                data = str(self.rounds[number]).encode()
                records = [
                    {"Data": data, "PartitionKey": f"{number}/{key}"}
                    for key in range(KEYS_PER_PRODUCER)
                ]
                answer = kinesis.put_records(StreamName=stream, Records=records)
                assert answer["FailedRecordCount"] == 0, answer
                self.rounds[number] += 1
        except Exception as failure:
            self.failures.append(failure)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class Reshard(HostTest):
    def check_tiles(self, stream):
        shards = open_shards(self.kinesis, stream)
        self.assertEqual(shards[0][0], 0)
        self.assertEqual(shards[-1][1], LAST_HASH_KEY)
        for (_, end, _), (start, _, _) in zip(shards, shards[1:]):
            self.assertEqual(end + 1, start)
        return len(shards)

    def test_producers_lose_nothing_while_shards_are_split_merged_and_counted(self):
        name = self.stream(shards=2)
        producers = Producers(self.host, name)
        try:
            split(self.kinesis, name, 0)
            self.assertEqual(self.check_tiles(name), 3)
            merge(self.kinesis, name, 1)
            self.assertEqual(self.check_tiles(name), 2)
            for count in [4, 3, 5, 3, 2, 1, 2]:
                before = self.check_tiles(name)
                answer = scale(self.kinesis, name, count)
                self.assertEqual(answer["StreamName"], name)
                self.assertEqual(answer["CurrentShardCount"], before)
                self.assertEqual(answer["TargetShardCount"], count)
                self.assertEqual(self.check_tiles(name), count)
        finally:
            producers.stop()
        self.assertEqual(producers.failures, [])
        records = read_tree(self, self.kinesis, name)
        self.assertEqual(len(records), PRODUCER_COUNT * KEYS_PER_PRODUCER)
        for key, found in records.items():
            rounds = producers.rounds[int(key.split("/")[0])]
            self.assertGreater(rounds, 0)
            self.assertEqual(found, [str(n).encode() for n in range(rounds)], key)

    def test_lineage_and_numbers_are_awss(self):
        name = self.stream(shards=2)
        split(self.kinesis, name, 1)
        merge(self.kinesis, name, 0)
        shards = self.kinesis.list_shards(StreamName=name)["Shards"]
        parents = [(one.get("ParentShardId"), one.get("AdjacentParentShardId")) for one in shards]
        first, second, lower = (f"shardId-{index:012}" for index in range(3))
        self.assertEqual(
            parents, [(None, None)] * 2 + [(second, None)] * 2 + [(first, lower)]
        )
        numbers = {
            one["ShardId"]: {name: int(n) for name, n in one["SequenceNumberRange"].items()}
            for one in shards
        }
        for one in shards:
            for parent in ("ParentShardId", "AdjacentParentShardId"):
                if parent in one:
                    self.assertGreater(
                        numbers[one["ShardId"]]["StartingSequenceNumber"],
                        numbers[one[parent]]["EndingSequenceNumber"],
                    )
        summary = self.kinesis.describe_stream_summary(StreamName=name)
        self.assertEqual(summary["StreamDescriptionSummary"]["OpenShardCount"], 2)

    def test_refusals_are_awss(self):
        name = self.stream(shards=2)
        account = "under account 000000000000"
        self.refused(
            "InvalidArgumentException",
            f"Shards shardId-000000000001 and shardId-000000000000 in stream {name} {account} "
            "are not an adjacent pair of shards eligible for merging",
            self.kinesis.merge_shards,
            StreamName=name,
            ShardToMerge="shardId-000000000001",
            AdjacentShardToMerge="shardId-000000000000",
        )
        self.refused(
            "ResourceNotFoundException",
            f"Could not find shard shardId-000000000007 in stream {name} {account}.",
            self.kinesis.split_shard,
            StreamName=name,
            ShardToSplit="shardId-000000000007",
            NewStartingHashKey="7",
        )
        self.refused(
            "LimitExceededException",
            "UpdateShardCount cannot scale up over double your current open shard count. "
            "Current open shard count: 2 Target shard count: 5",
            self.kinesis.update_shard_count,
            StreamName=name,
            TargetShardCount=5,
            ScalingType="UNIFORM_SCALING",
        )

    def test_the_aws_cli_changes_and_reads_shards(self):
        name = unique("cli-reshard")
        self.addCleanup(delete_stream, self.kinesis, name)
        named = ["--stream-name", name]

        def aws(*arguments):
            code, answer, error = self.host.aws(*arguments)
            self.assertEqual(code, 0, error)
            return answer

        def put(texts):
            records = [{"Data": text, "PartitionKey": "k"} for text in texts]
            answer = aws("put-records", *named, "--records", json.dumps(records))
            self.assertEqual(answer["FailedRecordCount"], 0)

        aws("create-stream", *named, "--shard-count", "1")
        aws("wait", "stream-exists", *named)
        put(["a", "b"])
        at = ["--new-starting-hash-key", str(2**127)]
        self.assertIsNone(aws("split-shard", *named, "--shard-to-split", "shardId-0", *at))
        wait(self.kinesis, "stream_exists", name)
        put(["c"])
        pair = ["--shard-to-merge", "shardId-1", "--adjacent-shard-to-merge", "shardId-2"]
        self.assertIsNone(aws("merge-shards", *named, *pair))
        wait(self.kinesis, "stream_exists", name)
        put(["d"])
        target = ["--target-shard-count", "2", "--scaling-type", "UNIFORM_SCALING"]
        answer = aws("update-shard-count", *named, *target)
        self.assertEqual((answer["CurrentShardCount"], answer["TargetShardCount"]), (1, 2))
        wait(self.kinesis, "stream_exists", name)
        put(["e"])
        shards = aws("list-shards", *named)["Shards"]
        self.assertEqual(len(shards), 6)
        place = ["--shard-id", "shardId-0", "--shard-iterator-type", "TRIM_HORIZON"]
        iterator = aws("get-shard-iterator", *named, *place)["ShardIterator"]
        answer = aws("get-records", "--shard-iterator", iterator)
        self.assertEqual(len(answer["Records"]), 2)
        self.assertIsNone(answer.get("NextShardIterator"))
        self.assertEqual(len(answer["ChildShards"]), 2)
        self.assertEqual(
            read_tree(self, self.kinesis, name), {"k": [b"a", b"b", b"c", b"d", b"e"]}
        )


class Durable(unittest.TestCase):
    def test_shards_are_what_they_were_after_a_kill(self):
        host = Host()
        self.addCleanup(host.close)
        if host.external:
            self.skipTest("this server is not ours to stop")
        kinesis = host.kinesis()
        name = create_stream(self, kinesis, unique("killed"), 2)
        kinesis.put_record(StreamName=name, Data=b"before", PartitionKey="k")
        split(kinesis, name, 0)
        scale(kinesis, name, 2)
        before = kinesis.list_shards(StreamName=name)["Shards"]
        host.kill()
        host.start()
        kinesis = host.kinesis()
        self.assertEqual(kinesis.list_shards(StreamName=name)["Shards"], before)
        kinesis.put_record(StreamName=name, Data=b"after", PartitionKey="k")
        merge(kinesis, name, 0)
        kinesis.put_record(StreamName=name, Data=b"last", PartitionKey="k")
        self.assertEqual(read_tree(self, kinesis, name), {"k": [b"before", b"after", b"last"]})


if __name__ == "__main__":
    unittest.main()
