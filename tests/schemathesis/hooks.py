"""Hooks for Schemathesis: the credentials, and the 400 responses that no schema can express."""

import base64
import itertools
import os
import re
from collections import Counter

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service import KEY, call

URL = os.environ["URL"]

# Reasons for which a request that matches its schema may be refused with 400: field and message of
# a field error, or the code of another error.
EXPLAINED = {
    # Opaque, and valid only for the query that returned it.
    ("cursor", "must be the `next_cursor` of a page with the same filters; omit it to start over"),
    # Depend on the time or on the organization's data.
    ("expires_at", "must be in the future"),
    ("name", "is already used by another token of this organization; choose another name"),
    # The pattern would fill a page.
    ("name", "must not contain invisible characters"),
    ("name", "must not begin or end with whitespace"),
    ("access_config.projects", "must contain only existing projects of this organization"),
    # Space-separated scopes (RFC 6749): a pattern would have to repeat the list of all scopes.
    ("scope", "must be known scopes separated by single spaces, such as shield:read audit:read"),
    # In JSON Schema, 1.0 is an integer, as is a number with any number of digits.
    ("expected_count", "must be a non-negative integer"),
    ("expires_in", "must be a non-negative integer"),
    # A pattern for at most 7 days in each unit would fill a page.
    ("overlap", "must be a number with `s`, `m`, `h` or `d`, such as `24h`, and at most `7d`"),
    # A key belongs to one request.
    ("Idempotency-Key", "was used for another request; send a new key"),
    # No pattern can tell hosts that exist from others, nor the scheme from its spellings.
    ("tokens[].url", "must be an https URL"),
    # A code is mailed, and works once.
    "INVALID_RESET_CODE",
}
INDEX = re.compile(r"\[\d+\]")
ADDRESSES = (f"schemathesis-{number}@example.com" for number in itertools.count())


@schemathesis.check
def valid_request_is_accepted(ctx, response, case):
    """`positive_data_acceptance`, except for the reasons listed above."""
    # The limit of reports holds in any mode of operation.
    if response.status_code == 429 and case.operation.definition.raw.get("operationId") == "tokens-leaked":
        return None
    if response.status_code == 400:
        body = response.json()
        # A registry: no pattern can tell the paths of packages and files from all others.
        if response.headers["content-type"] == ["application/problem+json"]:
            return None if body["code"] == "BAD_REQUEST" else positive_data_acceptance(ctx, response, case)
        # SCIM names no field. Filters and addresses have no pattern, nor has a word in any case.
        # What an operation needs beside `op` depends on it.
        if response.headers["content-type"] == ["application/scim+json"]:
            is_operation = case.operation.definition.raw.get("operationId") == "scim-users-update"
            is_explained = is_operation or body["scimType"] in ("invalidFilter", "invalidValue", "mutability")
            return None if is_explained else positive_data_acceptance(ctx, response, case)
        error = body["error"]
        details = [(INDEX.sub("[]", detail["field"]), detail["message"]) for detail in error.get("details", [])]
        if all(reason in EXPLAINED for reason in details or [error["code"]]):
            return None
        # A form has no null: Schemathesis sends the word "null".
        null = [
            ("environment", 'must be "live" or "test"'),
            ("role", 'must be one of "readonly", "operator", "manager"'),
        ]
        if (
            details
            and all(detail in null for detail in details)
            and case.media_type == "application/x-www-form-urlencoded"
        ):
            return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.auth(refresh_interval=None)
class Credentials:
    """Credentials for an operation's security schemes, each scheme in turn."""

    def __init__(self):
        self.calls = Counter()
        self.email_token = None

    def get(self, case, ctx):
        """The `Authorization` header, if the operation needs one."""
        schemes = [scheme for requirement in ctx.operation.definition.raw.get("security", []) for scheme in requirement]
        if not schemes:
            return None
        self.calls[ctx.operation.label] += 1
        scheme = schemes[self.calls[ctx.operation.label] % len(schemes)]
        if scheme == "email_token":
            return f"Bearer {self.active_email_token()}"
        if scheme == "registry_password":
            return "Basic " + base64.b64encode(f"token:{os.environ['ORG_TOKEN']}".encode()).decode()
        return f"Bearer {os.environ[scheme.upper()]}"

    def set(self, case, data, ctx):
        """Adds the header to the request."""
        case.headers["Authorization"] = data

    def active_email_token(self):
        """An email-verified token; a new one whenever a call has revoked or replaced the last
        one."""
        if self.email_token is None or call(f"{URL}/api/v1/tokens/status", self.email_token).status != 200:
            email = next(ADDRESSES)
            call(f"{URL}/api/v1/tokens", method="POST", body={"email": email})
            mails = [mail for mail in call(f"{URL}/_local/mail.json").json if mail["to"] == email]
            # One source gets 60 mails an hour to new addresses: beyond that, calls are made with
            # a token that is no longer active.
            self.email_token = KEY.search(mails[0]["text"])[0] if mails else self.email_token
        return self.email_token
