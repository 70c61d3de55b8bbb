"""A function as AWS Lambda runs it, unchanged: put your own in its place."""

import base64
import json


def lambda_handler(event, context):
    failures = []
    for record in event["Records"]:
        try:
            click = json.loads(base64.b64decode(record["kinesis"]["data"]))
            print(context.aws_request_id, click["page"])
        except (KeyError, ValueError):
            failures.append({"itemIdentifier": record["kinesis"]["sequenceNumber"]})
    return {"batchItemFailures": failures}
