"""Posts audit events to a URL, signed as Standard Webhooks (https://www.standardwebhooks.com).

An event that is not delivered raises an exception; SQS then delivers it again, later, with the same
`webhook-id`. No line of the log holds the URL, the secret or the event.
"""

import base64
import hmac
import http.client
import json
import os
import ssl
import time
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

TIMEOUT = 5  # seconds to connect, and for each read
SECRET_AGE = 300  # seconds until the secret is read again

tls = ssl.create_default_context()
secrets_manager = boto3.client("secretsmanager", config=Config(connect_timeout=TIMEOUT, read_timeout=TIMEOUT))
cached = {"keys": [], "until": 0.0}


class NotDelivered(Exception):
    """The receiver did not take the event."""


def signing_keys():
    """The keys of the secret. During a rotation it holds two, separated by a space."""
    if time.monotonic() >= cached["until"]:
        secret = secrets_manager.get_secret_value(SecretId=os.environ["WEBHOOK_SECRET_ARN"])["SecretString"]
        keys = [base64.b64decode(text.removeprefix("whsec_"), validate=True) for text in secret.split()]
        if not keys or min(map(len, keys)) < 24:
            raise NotDelivered("the secret is not whsec_ and at least 24 bytes in Base64")
        cached.update(keys=keys, until=time.monotonic() + SECRET_AGE)
    return cached["keys"]


def signatures(message_id, timestamp, body):
    """The header `webhook-signature`: one signature for each key."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(key, signed, "sha256") for key in signing_keys())
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)


def optional(values):
    """A field that an entry may lack: a list with at most one value in DynamoDB's JSON."""
    for value in values:
        if isinstance(value, dict) and "S" in value:
            return value["S"]
        if isinstance(value, dict) and "N" in value:
            return int(value["N"])
    return None


def message(detail):
    """The body of the webhook: the entry as the service's API shows it."""
    names = ("id", "at", "actor", "action", "target", "outcome", "request_id")
    entry = {name: detail[name] for name in names}
    entry["source_ip"] = optional(detail["source_ip"])
    for name in ("detail", "workload", "count"):
        if (value := optional(detail[name])) is not None:
            entry[name] = value
    org_id = detail["log"].removeprefix("ORG#").removesuffix("#AUDIT")
    data = {"stack": detail["stack"], "org_id": org_id, **entry}
    return {"type": entry["action"], "timestamp": entry["at"], "data": data}


def post(message_id, body):
    """Posts a message. Redirects are not followed, and nothing but a 2xx counts as delivered."""
    url = urlsplit(os.environ["WEBHOOK_URL"])
    if url.scheme != "https" or not url.hostname:
        raise NotDelivered("the URL does not begin with https://")
    timestamp = int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": "guard-tokens-audit-webhook",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures(message_id, timestamp, body),
    }
    connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=TIMEOUT, context=tls)
    try:
        connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotDelivered(f"no answer: {type(error).__name__}") from None
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise NotDelivered(f"the receiver answered {status}")


def handle(event, _context):
    """Forwards the EventBridge events of a batch of SQS, which holds one."""
    for record in event["Records"]:
        detail = json.loads(record["body"])["detail"]
        body = json.dumps(message(detail), ensure_ascii=False, separators=(",", ":")).encode()
        post(detail["id"], body)
