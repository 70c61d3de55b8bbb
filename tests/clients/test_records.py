"""Records as boto3 sees them: put, find a place in a shard, read to the end."""

import datetime
import hashlib
import time
import unittest

from host import ACCOUNT, HostTest, read_from, read_shard

SHARD = "shardId-000000000000"


class Puts(HostTest):
    def test_a_record_comes_back_as_it_was_put(self):
        name = self.stream()
        for data, key in [(b"plain", "a"), (b"", "empty"), (bytes(range(256)), "ü" * 256)]:
            put = self.kinesis.put_record(StreamName=name, Data=data, PartitionKey=key)
            self.assertEqual(put["ShardId"], SHARD)
            self.assertNotIn("EncryptionType", put)
            record = read_shard(
                self.kinesis,
                name,
                SHARD,
                ShardIteratorType="AT_SEQUENCE_NUMBER",
                StartingSequenceNumber=put["SequenceNumber"],
            )[0]
            self.assertEqual(record["Data"], data)
            self.assertEqual(record["PartitionKey"], key)
            self.assertEqual(record["SequenceNumber"], put["SequenceNumber"])
            self.assertNotIn("EncryptionType", record)
            age = datetime.datetime.now(datetime.timezone.utc) - record["ApproximateArrivalTimestamp"]
            self.assertLess(abs(age.total_seconds()), 60)

    def test_the_largest_record_is_taken_and_one_byte_more_is_not(self):
        name = self.stream()
        largest = b"x" * (1024 * 1024 - 1)
        self.kinesis.put_record(StreamName=name, Data=largest, PartitionKey="k")
        with self.assertRaises(self.kinesis.exceptions.ClientError):
            self.kinesis.put_record(StreamName=name, Data=largest + b"x", PartitionKey="k")
        self.assertEqual([len(one["Data"]) for one in read_shard(self.kinesis, name, SHARD)], [len(largest)])

    def test_the_md5_of_the_key_chooses_the_shard(self):
        name = self.stream(shards=4)
        for key in ["a", "b", "e", "ü", "client-17"]:
            put = self.kinesis.put_record(StreamName=name, Data=b"x", PartitionKey=key)
            index = int(hashlib.md5(key.encode()).hexdigest(), 16) // (2**128 // 4)
            self.assertEqual(put["ShardId"], f"shardId-{index:012}", key)

    def test_an_explicit_hash_key_overrules_the_key(self):
        name = self.stream(shards=4)
        for index in range(4):
            for hash_key in [index * 2**126, (index + 1) * 2**126 - 1]:
                put = self.kinesis.put_record(
                    StreamName=name, Data=b"x", PartitionKey="a", ExplicitHashKey=str(hash_key)
                )
                self.assertEqual(put["ShardId"], f"shardId-{index:012}", hash_key)

    def test_a_hash_key_beyond_the_space_is_refused(self):
        name = self.stream()
        self.refused(
            "InvalidArgumentException",
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
            f"Specified value was {2**128}",
            self.kinesis.put_record,
            StreamName=name,
            Data=b"x",
            PartitionKey="a",
            ExplicitHashKey=str(2**128),
        )

    def test_sequence_numbers_rise_and_can_be_given_for_ordering(self):
        name = self.stream()
        start = int(
            self.kinesis.list_shards(StreamName=name)["Shards"][0]["SequenceNumberRange"][
                "StartingSequenceNumber"
            ]
        )
        last, ordering = start, {}
        for _ in range(5):
            put = self.kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="a", **ordering)
            number = put["SequenceNumber"]
            self.assertGreater(int(number), last)
            last, ordering = int(number), {"SequenceNumberForOrdering": number}

    def test_put_records_answers_in_the_order_of_the_request(self):
        name = self.stream(shards=4)
        records = [
            {"Data": f"record {index}".encode(), "PartitionKey": f"key {index}"}
            for index in range(500)
        ]
        answer = self.kinesis.put_records(StreamName=name, Records=records)
        self.assertEqual(answer["FailedRecordCount"], 0)
        self.assertEqual(len(answer["Records"]), 500)
        wanted = {}
        for record, put in zip(records, answer["Records"]):
            wanted.setdefault(put["ShardId"], []).append((put["SequenceNumber"], record["Data"]))
        for shard, want in wanted.items():
            got = [
                (one["SequenceNumber"], one["Data"]) for one in read_shard(self.kinesis, name, shard)
            ]
            self.assertEqual(got, want, shard)

    def test_a_request_with_one_bad_record_stores_none(self):
        name = self.stream()
        records = [
            {"Data": b"good", "PartitionKey": "a"},
            {"Data": b"bad", "PartitionKey": "a", "ExplicitHashKey": str(2**128)},
        ]
        self.refused(
            "InvalidArgumentException",
            None,
            self.kinesis.put_records,
            StreamName=name,
            Records=records,
        )
        self.assertEqual(read_shard(self.kinesis, name, SHARD), [])


class Iterators(HostTest):
    def setUp(self):
        super().setUp()
        self.name = self.stream()
        self.puts = [self._put(index) for index in range(5)]

    def _put(self, index):
        return self.kinesis.put_record(
            StreamName=self.name, Data=f"{index}".encode(), PartitionKey="k"
        )["SequenceNumber"]

    def read(self, **position):
        return [
            int(one["Data"]) for one in read_shard(self.kinesis, self.name, SHARD, **position)
        ]

    def test_trim_horizon_is_the_oldest_record(self):
        self.assertEqual(self.read(ShardIteratorType="TRIM_HORIZON"), [0, 1, 2, 3, 4])

    def test_latest_is_what_comes_after(self):
        iterator = self.kinesis.get_shard_iterator(
            StreamName=self.name, ShardId=SHARD, ShardIteratorType="LATEST"
        )["ShardIterator"]
        self.assertEqual(read_from(self.kinesis, iterator), [])
        self._put(5)
        self.assertEqual([one["Data"] for one in read_from(self.kinesis, iterator)], [b"5"])

    def test_at_and_after_a_sequence_number(self):
        for kind, want in [("AT_SEQUENCE_NUMBER", [2, 3, 4]), ("AFTER_SEQUENCE_NUMBER", [3, 4])]:
            got = self.read(ShardIteratorType=kind, StartingSequenceNumber=self.puts[2])
            self.assertEqual(got, want, kind)

    def test_the_shards_own_start_is_a_position(self):
        shard = self.kinesis.list_shards(StreamName=self.name)["Shards"][0]
        start = shard["SequenceNumberRange"]["StartingSequenceNumber"]
        for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]:
            got = self.read(ShardIteratorType=kind, StartingSequenceNumber=start)
            self.assertEqual(got, [0, 1, 2, 3, 4], kind)

    def test_at_timestamp_finds_the_first_record_from_then(self):
        time.sleep(0.02)  # Arrival is counted in milliseconds; the next record must have another.
        later = self._put(5)
        arrival = read_shard(
            self.kinesis,
            self.name,
            SHARD,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            StartingSequenceNumber=later,
        )[0]["ApproximateArrivalTimestamp"]
        self.assertEqual(self.read(ShardIteratorType="AT_TIMESTAMP", Timestamp=arrival), [5])
        old = arrival - datetime.timedelta(days=400)
        self.assertEqual(
            self.read(ShardIteratorType="AT_TIMESTAMP", Timestamp=old), [0, 1, 2, 3, 4, 5]
        )

    def test_an_iterator_is_not_used_up(self):
        iterator = self.kinesis.get_shard_iterator(
            StreamName=self.name, ShardId=SHARD, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        first = self.kinesis.get_records(ShardIterator=iterator)
        again = self.kinesis.get_records(ShardIterator=iterator)
        self.assertEqual(first["Records"], again["Records"])
        self.assertEqual(len(first["Records"]), 5)

    def test_a_limit_pages_without_losing_or_repeating(self):
        got = read_shard(self.kinesis, self.name, SHARD, limit=2)
        self.assertEqual([int(one["Data"]) for one in got], [0, 1, 2, 3, 4])

    def test_an_empty_answer_still_gives_another_iterator(self):
        iterator = self.kinesis.get_shard_iterator(
            StreamName=self.name, ShardId=SHARD, ShardIteratorType="LATEST"
        )["ShardIterator"]
        answer = self.kinesis.get_records(ShardIterator=iterator)
        self.assertEqual((answer["Records"], answer["MillisBehindLatest"]), ([], 0))
        self.assertNotEqual(answer["NextShardIterator"], iterator)
        self.assertNotIn("ChildShards", answer)

    def test_positions_that_do_not_fit_together_are_refused(self):
        must = (
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and "
            "StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
        )
        for position, message in [
            (
                {"ShardIteratorType": "AT_SEQUENCE_NUMBER"},
                must + "Request specified AT_SEQUENCE_NUMBER and no StartingSequenceNumber.",
            ),
            (
                {"ShardIteratorType": "LATEST", "StartingSequenceNumber": self.puts[0]},
                must + "Request specified LATEST and also a StartingSequenceNumber.",
            ),
            (
                {"ShardIteratorType": "AT_TIMESTAMP"},
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                "Current request has no timestamp parameter.",
            ),
            (
                {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "5"},
                None,
            ),
        ]:
            with self.subTest(position["ShardIteratorType"]):
                self.refused(
                    "InvalidArgumentException",
                    message,
                    self.kinesis.get_shard_iterator,
                    StreamName=self.name,
                    ShardId=SHARD,
                    **position,
                )

    def test_a_missing_shard_is_not_found(self):
        self.refused(
            "ResourceNotFoundException",
            f"Shard shardId-000000000007 in stream {self.name} under account {ACCOUNT} does not exist",
            self.kinesis.get_shard_iterator,
            StreamName=self.name,
            ShardId="shardId-000000000007",
            ShardIteratorType="LATEST",
        )

    def test_a_made_up_iterator_is_refused(self):
        self.refused(
            "InvalidArgumentException",
            "Invalid ShardIterator.",
            self.kinesis.get_records,
            ShardIterator="AAAAAAAAAAEnonsense",
        )


if __name__ == "__main__":
    unittest.main()
