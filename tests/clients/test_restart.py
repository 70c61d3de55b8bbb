"""What was acknowledged is there after a restart, however the host ended."""

import threading
import unittest

import botocore.exceptions

from host import Host, create_stream, read_shard, unique

SHARD_COUNT = 2
WRITER_COUNT = 4


class Restart(unittest.TestCase):
    def setUp(self):
        self.host = Host()
        self.addCleanup(self.host.close)
        if self.host.external:
            self.skipTest("this server is not ours to stop")

    def stream(self):
        kinesis = self.host.kinesis()
        return create_stream(self, kinesis, unique("restart"), SHARD_COUNT)

    def check_records(self, stream, acknowledged):
        """Every acknowledged record is there, where it was said to be, and in order."""
        kinesis = self.host.kinesis()
        for shard, want in acknowledged.items():
            got = [
                (int(one["SequenceNumber"]), one["Data"])
                for one in read_shard(kinesis, stream, shard)
            ]
            self.assertEqual(got, sorted(got), "records are in the order of their numbers")
            self.assertEqual(len(got), len(set(number for number, _ in got)))
            missing = set(want) - set(got)
            self.assertEqual(missing, set(), f"{len(missing)} acknowledged records lost in {shard}")

    def check_describe(self, stream, before):
        after = self.host.kinesis().describe_stream(StreamName=stream)["StreamDescription"]
        self.assertEqual(after, before)

    def put(self, stream, count):
        kinesis = self.host.kinesis()
        acknowledged = {}
        for index in range(count):
            data = f"before {index}".encode()
            put = kinesis.put_record(StreamName=stream, Data=data, PartitionKey=f"key {index}")
            acknowledged.setdefault(put["ShardId"], []).append((int(put["SequenceNumber"]), data))
        return acknowledged

    def test_a_clean_stop_keeps_records_and_streams(self):
        stream = self.stream()
        before = self.host.kinesis().describe_stream(StreamName=stream)["StreamDescription"]
        acknowledged = self.put(stream, 50)
        self.host.stop()
        self.host.start()
        self.check_describe(stream, before)
        self.check_records(stream, acknowledged)
        # Numbers go on rising.
        kinesis = self.host.kinesis()
        put = kinesis.put_record(StreamName=stream, Data=b"after", PartitionKey="key 0")
        last = max(number for number, _ in acknowledged[put["ShardId"]])
        self.assertGreater(int(put["SequenceNumber"]), last)

    def test_a_kill_under_load_loses_nothing_acknowledged(self):
        stream = self.stream()
        before = self.host.kinesis().describe_stream(StreamName=stream)["StreamDescription"]
        acknowledged = {}
        for round_number in range(2):
            self.write_and_kill(stream, acknowledged, round_number)
            self.host.start()
            self.check_describe(stream, before)
            self.check_records(stream, acknowledged)
        self.assertGreater(sum(map(len, acknowledged.values())), 100)

    def write_and_kill(self, stream, acknowledged, round_number):
        """Writers put until the host is killed under them; only answers count."""
        lock = threading.Lock()
        enough = threading.Event()
        counted = 0

        def write(writer):
            nonlocal counted
            kinesis = self.host.kinesis(connect_timeout=5, read_timeout=10)
            for index in range(100_000):
                records = [
                    {
                        "Data": f"{round_number}/{writer}/{index}/{part}".encode(),
                        "PartitionKey": f"key {index} {part}",
                    }
                    for part in range(5)
                ]
                try:
                    answer = kinesis.put_records(StreamName=stream, Records=records)
                except botocore.exceptions.BotoCoreError:
                    return  # The host is gone.
                with lock:
                    for record, put in zip(records, answer["Records"]):
                        acknowledged.setdefault(put["ShardId"], []).append(
                            (int(put["SequenceNumber"]), record["Data"])
                        )
                        counted += 1
                    if counted >= 500:
                        enough.set()

        writers = [threading.Thread(target=write, args=(index,)) for index in range(WRITER_COUNT)]
        for writer in writers:
            writer.start()
        self.assertTrue(enough.wait(timeout=60), "the host takes no records")
        self.host.kill()
        for writer in writers:
            writer.join()


if __name__ == "__main__":
    unittest.main()
