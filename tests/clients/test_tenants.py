"""A closed host against AWS's own signatures: boto3 for two tenants, presigned and by header."""

import unittest
import urllib.error
import urllib.request

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.exceptions

from host import REGION, Host

KEYS = {
    "000000000001": ("AKIDONE", "the/secret+of=tenant one"),
    "000000000002": ("AKIDTWO", "the/secret+of=tenant two"),
}

MANIFEST = """
[server]
access = "closed"
""" + "".join(
    f"""
[[tenant]]
account = "{account}"
[[tenant.access_key]]
id = "{key}"
secret = "{secret}"
"""
    for account, (key, secret) in KEYS.items()
)


class ClosedHost(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = Host(MANIFEST)
        cls.addClassCleanup(cls.host.close)

    def client(self, service, key, secret, **more):
        client = boto3.client(
            service,
            endpoint_url=self.host.endpoint,
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
            **more,
        )
        self.addCleanup(client.close)
        return client

    def refused(self, code, call, **arguments):
        with self.assertRaises(botocore.exceptions.ClientError) as caught:
            call(**arguments)
        self.assertEqual(caught.exception.response["Error"]["Code"], code)

    def test_each_tenant_has_streams_of_its_own(self):
        clients = {account: self.client("kinesis", *key) for account, key in KEYS.items()}
        for account, kinesis in clients.items():
            kinesis.create_stream(StreamName="mine", ShardCount=1)
            kinesis.get_waiter("stream_exists").wait(
                StreamName="mine", WaiterConfig={"Delay": 0.1, "MaxAttempts": 300}
            )
            kinesis.put_record(StreamName="mine", PartitionKey="k", Data=account.encode())
        for account, kinesis in clients.items():
            summary = kinesis.describe_stream_summary(StreamName="mine")
            arn = summary["StreamDescriptionSummary"]["StreamARN"]
            self.assertEqual(arn, f"arn:aws:kinesis:{REGION}:{account}:stream/mine")
            iterator = kinesis.get_shard_iterator(
                StreamName="mine", ShardId="0", ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            records = kinesis.get_records(ShardIterator=iterator)["Records"]
            self.assertEqual([one["Data"] for one in records], [account.encode()])

    def test_queues_are_signed_for_too(self):
        for account, key in KEYS.items():
            sqs = self.client("sqs", *key)
            url = sqs.create_queue(QueueName="mine")["QueueUrl"]
            self.assertIn(account, url)
            sqs.send_message(QueueUrl=url, MessageBody=account)
            messages = sqs.receive_message(QueueUrl=url)["Messages"]
            self.assertEqual([one["Body"] for one in messages], [account])

    def test_wrong_keys_get_awss_errors(self):
        key, secret = KEYS["000000000001"]
        wrong = self.client("kinesis", key, "another")
        self.refused("InvalidSignatureException", wrong.list_streams)
        unknown = self.client("kinesis", "AKIDNOBODY", secret)
        self.refused("UnrecognizedClientException", unknown.list_streams)
        session = self.client("kinesis", key, secret, aws_session_token="token")
        self.refused("UnrecognizedClientException", session.list_streams)
        wrong = self.client("sqs", key, "another")
        self.refused("SignatureDoesNotMatch", wrong.list_queues)

    def presigned(self, secret):
        request = botocore.awsrequest.AWSRequest(
            method="GET", url=f"{self.host.endpoint}/_shardmill/streams?a=a%20b%2Fc&b=~"
        )
        credentials = botocore.credentials.Credentials(KEYS["000000000001"][0], secret)
        signer = botocore.auth.SigV4QueryAuth(credentials, "shardmill", REGION, expires=60)
        signer.add_auth(request)
        return request.url

    def test_a_presigned_request_needs_no_header(self):
        with urllib.request.urlopen(self.presigned(KEYS["000000000001"][1])) as answer:
            self.assertEqual(answer.status, 200)
        for url in (self.presigned("another"), self.presigned(KEYS["000000000001"][1]) + "&y=1"):
            with self.assertRaises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url)
            self.assertEqual(caught.exception.code, 401)
            caught.exception.close()

    def test_health_is_for_all(self):
        self.assertEqual(self.host.health(), 200)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{self.host.endpoint}/_shardmill/streams")
        self.assertEqual(caught.exception.code, 401)
        caught.exception.close()
