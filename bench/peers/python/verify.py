"""The check of an org user token that functions/tokens/authorize makes, in Python.

Verifies the checksum, looks up the token by its hash in one strongly consistent read, and responds
to API Gateway. Omits the update of `last_used_at`, which happens once a minute.
"""

import hashlib
import os
import re
import zlib
from datetime import UTC, datetime

import boto3

FORM = re.compile("tg_org_[0-9A-Za-z]{42}")
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
REFUSED = {"isAuthorized": False}

client = boto3.client("dynamodb")


def handler(event, _context):
    """Authorizes a request."""
    scheme, _, token = event.get("headers", {}).get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not FORM.fullmatch(token) or checksum(token[:-6]) != token[-6:]:
        return REFUSED
    item = client.get_item(
        TableName=os.environ["TOKENS_TABLE"],
        Key={"pk": {"S": f"TOKEN#{hashlib.sha256(token.encode()).hexdigest()}"}, "sk": {"S": "TOKEN"}},
        ConsistentRead=True,
    ).get("Item", {})
    item = {name: value["S"] for name, value in item.items() if "S" in value}
    ended = "expires_at" in item and datetime.fromisoformat(item["expires_at"]) <= datetime.now(UTC)
    if item.get("kind") != "org_user" or "revoked_at" in item or ended:
        return REFUSED
    context = {name: item[name] for name in ("id", "org_id", "user_identifier", "expires_at") if name in item}
    return {"isAuthorized": True, "context": {"kind": "org_user_token"} | context}


def checksum(text):
    """The checksum of a token: its last six characters."""
    rest, digits = zlib.crc32(text.encode()), ""
    while len(digits) < 6:
        rest, digit = divmod(rest, 62)
        digits = DIGITS[digit] + digits
    return digits
