"""A host under test, as a process with a data folder of its own, and AWS's clients for it.

`SHARDMILL_BIN` names the binary. `SHARDMILL_TEST_ENDPOINT` names a server that runs already
instead; tests that stop and start the host are then skipped.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

import boto3
import botocore.config

REGION = "us-east-1"
ACCOUNT = "000000000000"

# Any key is taken in open mode; 12 digits would name another account.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}

READY_SECONDS = 60
STOP_SECONDS = 30

_shared = None


def shared():
    """The host that all tests share which do not stop it; streams have names of their own."""
    global _shared
    if _shared is None:
        _shared = Host()
        atexit.register(_shared.close)
    return _shared


class Host:
    """One host. `start` again after `stop` or `kill` serves the same data on another port."""

    def __init__(self, manifest=None):
        self.process = None
        self.manifest = None
        # What says how the host runs is for a host of its own.
        self.endpoint = os.environ.get("SHARDMILL_TEST_ENDPOINT") if manifest is None else None
        self.external = self.endpoint is not None
        if not self.external:
            self.data_dir = tempfile.mkdtemp(prefix="shardmill-clients-")
            if manifest is not None:
                self.manifest = os.path.join(self.data_dir, "shardmill.toml")
                with open(self.manifest, "w") as file:
                    file.write(manifest)
            self.start()

    def start(self):
        self.process = subprocess.Popen(
            [
                os.environ["SHARDMILL_BIN"],
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
                self.data_dir,
                *(["--config", self.manifest] if self.manifest else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        # A host that says nothing and does not end must not hold up the tests for ever.
        watchdog = threading.Timer(READY_SECONDS, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                if line.startswith("listening on "):
                    self.endpoint = line.removeprefix("listening on ").strip()
                    break
            else:
                raise AssertionError(f"the host ended ({self.process.wait()}) before it was ready")
        finally:
            watchdog.cancel()
        # Whatever it prints later must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self):
        """Asks it to stop (SIGTERM) and expects a clean end."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=STOP_SECONDS)
        if code != 0:
            raise AssertionError(f"the host ended with {code} after SIGTERM")

    def kill(self):
        """Ends it at once, as a crash does (SIGKILL)."""
        self.process.kill()
        self.process.wait(timeout=STOP_SECONDS)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if not self.external:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def health(self):
        """The status of the health check."""
        with urllib.request.urlopen(f"{self.endpoint}/_shardmill/health", timeout=10) as answer:
            return answer.status

    def kinesis(self, **config):
        """boto3's client, with nothing retried so that every answer is seen."""
        config.setdefault("retries", {"total_max_attempts": 1})
        return boto3.client(
            "kinesis",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=botocore.config.Config(**config),
        )

    def aws(self, *arguments):
        """Runs `aws kinesis ARGUMENTS`: the exit code, the parsed answer, the error text."""
        environment = {
            **os.environ,
            **CREDENTIALS,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
        }
        environment.pop("AWS_PROFILE", None)
        done = subprocess.run(
            [sys.executable, "-m", "awscli", "--endpoint-url", self.endpoint, "--output", "json"]
            + ["kinesis", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        answer = json.loads(done.stdout) if done.stdout.strip() else None
        return done.returncode, answer, done.stderr.strip()


class HostTest(unittest.TestCase):
    """A test against the shared host. Streams it creates are deleted after it."""

    def setUp(self):
        self.host = shared()
        self.kinesis = self.host.kinesis()
        self.addCleanup(self.kinesis.close)

    def stream(self, shards=1):
        """Creates an active stream named after the test and returns its name."""
        return create_stream(self, self.kinesis, unique(self.id().rsplit(".", 1)[-1]), shards)

    def refused(self, code, message, call, **arguments):
        """Expects AWS's error of this name with this message; None takes any message."""
        with self.assertRaises(self.kinesis.exceptions.ClientError) as caught:
            call(**arguments)
        error = caught.exception.response["Error"]
        self.assertEqual(error["Code"], code, error)
        self.assertEqual(caught.exception.response["ResponseMetadata"]["HTTPStatusCode"], 400)
        if message is not None:
            self.assertEqual(error["Message"], message)


def create_stream(test, kinesis, name, shards):
    """Creates a stream, waits until it is active, and has it deleted after the test."""
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    test.addCleanup(delete_stream, kinesis, name)
    wait(kinesis, "stream_exists", name)
    return name


def delete_stream(kinesis, name):
    try:
        kinesis.delete_stream(StreamName=name)
    except (kinesis.exceptions.ResourceNotFoundException, botocore.exceptions.BotoCoreError):
        pass


def wait(kinesis, waiter, name):
    """boto3's waiter, looking more often than its ten seconds."""
    kinesis.get_waiter(waiter).wait(StreamName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})


def unique(name):
    """A stream name nobody else uses in this run."""
    return f"{name}-{time.monotonic_ns() % 10**10}"


def read_from(kinesis, iterator, limit=10_000):
    """All records from an iterator to the tip, in order, with each answer checked."""
    return read_to_end(kinesis, iterator, limit)[0]


def read_to_end(kinesis, iterator, limit=10_000):
    """The same, and the children when that is the end of a closed shard, else None."""
    records = []
    while True:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=limit)
        records += answer["Records"]
        iterator = answer.get("NextShardIterator")
        if iterator is None:
            return records, answer["ChildShards"]
        if answer["MillisBehindLatest"] == 0 and not answer["Records"]:
            return records, None


def read_tree(test, kinesis, stream):
    """All records of a stream, a shard after its parents: lists of data by partition key."""
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    waiting = [one["ShardId"] for one in shards if "ParentShardId" not in one]
    done = set()
    records = {}
    while waiting:
        shard = waiting.pop(0)
        test.assertNotIn(shard, done, "a shard is reached once")
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )
        found, children = read_to_end(kinesis, iterator["ShardIterator"])
        done.add(shard)
        for one in found:
            records.setdefault(one["PartitionKey"], []).append(one["Data"])
        for child in children or []:
            if done.issuperset(child["ParentShards"]):
                waiting.append(child["ShardId"])
    test.assertEqual(done, {one["ShardId"] for one in shards}, "every shard is reached")
    return records


def read_shard(kinesis, stream, shard, limit=10_000, **position):
    """All records of a shard from a position, by default from the oldest."""
    position = position or {"ShardIteratorType": "TRIM_HORIZON"}
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, **position)
    return read_from(kinesis, iterator["ShardIterator"], limit)
