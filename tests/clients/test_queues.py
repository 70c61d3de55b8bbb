"""Queues as boto3 sees them: made, filled, received, and there after a kill."""

import unittest

import boto3
import botocore.config

from host import ACCOUNT, CREDENTIALS, REGION, Host, shared, unique


def client(host):
    """boto3's client, with nothing retried so that every answer is seen."""
    return boto3.client(
        "sqs",
        endpoint_url=host.endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


class Queues(unittest.TestCase):
    def setUp(self):
        self.sqs = client(shared())
        self.addCleanup(self.sqs.close)

    def queue(self, **attributes):
        name = unique(self.id().rsplit(".", 1)[-1])[-80:]
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.addCleanup(self.delete, url)
        return name, url

    def delete(self, url):
        try:
            self.sqs.delete_queue(QueueUrl=url)
        except self.sqs.exceptions.QueueDoesNotExist:
            pass

    def receive(self, url, **arguments):
        return self.sqs.receive_message(QueueUrl=url, **arguments).get("Messages", [])

    def refused(self, code, call, **arguments):
        with self.assertRaises(self.sqs.exceptions.ClientError) as caught:
            call(**arguments)
        self.assertEqual(caught.exception.response["Error"]["Code"], code)

    def test_a_queue_is_found_listed_and_described(self):
        name, url = self.queue(VisibilityTimeout="7")
        self.assertEqual(self.sqs.get_queue_url(QueueName=name)["QueueUrl"], url)
        self.assertIn(url, self.sqs.list_queues(QueueNamePrefix=name)["QueueUrls"])
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        self.assertEqual(attributes["QueueArn"], f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
        self.assertEqual(attributes["VisibilityTimeout"], "7")
        self.assertEqual(attributes["MessageRetentionPeriod"], "345600")
        self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
        self.assertEqual(attributes["Attributes"], {"MessageRetentionPeriod": "60"})

    def test_a_queue_made_twice_is_the_same_unless_its_attributes_differ(self):
        name, url = self.queue(VisibilityTimeout="7")
        self.assertEqual(self.sqs.create_queue(QueueName=name)["QueueUrl"], url)
        with self.assertRaises(self.sqs.exceptions.QueueNameExists):
            self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "8"})

    def test_a_message_is_received_with_what_was_sent(self):
        _, url = self.queue()
        attributes = {
            "text": {"DataType": "String", "StringValue": "ü"},
            "number": {"DataType": "Number.int", "StringValue": "42"},
            "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
        }
        body = "a body with \"quotes\" and ü"
        sent = self.sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes)
        [message] = self.receive(
            url, AttributeNames=["All"], MessageAttributeNames=["All"], WaitTimeSeconds=5
        )
        self.assertEqual(message["MessageId"], sent["MessageId"])
        self.assertEqual(message["Body"], body)
        self.assertEqual(message["MD5OfBody"], sent["MD5OfMessageBody"])
        self.assertEqual(message["MD5OfMessageAttributes"], sent["MD5OfMessageAttributes"])
        self.assertEqual(message["MessageAttributes"], attributes)
        self.assertEqual(message["Attributes"]["ApproximateReceiveCount"], "1")
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        self.assertEqual(self.receive(url, VisibilityTimeout=0), [])

    def test_a_message_given_back_is_received_again(self):
        _, url = self.queue()
        self.sqs.send_message(QueueUrl=url, MessageBody="x")
        [first] = self.receive(url)
        self.assertEqual(self.receive(url), [], "it is hidden")
        self.sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0
        )
        [second] = self.receive(url, MessageSystemAttributeNames=["ApproximateReceiveCount"])
        self.assertEqual(second["Attributes"], {"ApproximateReceiveCount": "2"})
        self.assertNotEqual(first["ReceiptHandle"], second["ReceiptHandle"])

    def test_batches_and_a_purge(self):
        _, url = self.queue()
        entries = [{"Id": str(n), "MessageBody": f"body {n}"} for n in range(10)]
        sent = self.sqs.send_message_batch(QueueUrl=url, Entries=entries)
        self.assertEqual([one["Id"] for one in sent["Successful"]], [one["Id"] for one in entries])
        received = self.receive(url, MaxNumberOfMessages=10)
        self.assertEqual([one["Body"] for one in received], [one["MessageBody"] for one in entries])
        handles = [{"Id": one["MessageId"], "ReceiptHandle": one["ReceiptHandle"]} for one in received[:9]]
        self.assertEqual(len(self.sqs.delete_message_batch(QueueUrl=url, Entries=handles)["Successful"]), 9)
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        self.assertEqual([counts[name] for name in names], ["0", "1"])
        self.sqs.purge_queue(QueueUrl=url)
        counts = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        self.assertEqual([counts[name] for name in names], ["0", "0"])

    def test_errors_have_the_names_that_clients_know(self):
        name, url = self.queue()
        with self.assertRaises(self.sqs.exceptions.QueueDoesNotExist):
            self.sqs.get_queue_url(QueueName=f"{name}-not")
        self.refused("AWS.SimpleQueueService.NonExistentQueue", self.sqs.receive_message, QueueUrl=f"{url}-not")
        with self.assertRaises(self.sqs.exceptions.ReceiptHandleIsInvalid):
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle="nonsense")
        self.refused("InvalidAttributeName", self.sqs.create_queue, QueueName="q", Attributes={"Policy": "{}"})
        self.refused("InvalidParameterValue", self.sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=11)
        self.refused("AWS.SimpleQueueService.UnsupportedOperation", self.sqs.list_queue_tags, QueueUrl=url)
        self.refused("AWS.SimpleQueueService.UnsupportedOperation", self.sqs.create_queue, QueueName="q.fifo")


class Restart(unittest.TestCase):
    def test_messages_and_receives_survive_a_kill(self):
        host = Host()
        self.addCleanup(host.close)
        if host.external:
            self.skipTest("this server is not ours to stop")
        sqs = client(host)
        sqs.create_queue(QueueName="kept")
        url = sqs.get_queue_url(QueueName="kept")["QueueUrl"]
        for body in ["a", "b"]:
            sqs.send_message(QueueUrl=url, MessageBody=body)
        [taken] = sqs.receive_message(QueueUrl=url, VisibilityTimeout=600)["Messages"]
        host.kill()
        host.start()
        sqs = client(host)
        url = sqs.get_queue_url(QueueName="kept")["QueueUrl"]
        [other] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        self.assertEqual((taken["Body"], other["Body"]), ("a", "b"), "what was taken stays hidden")
        sqs.delete_message(QueueUrl=url, ReceiptHandle=taken["ReceiptHandle"])
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        self.assertEqual(attributes["ApproximateNumberOfMessagesNotVisible"], "1")


if __name__ == "__main__":
    unittest.main()
