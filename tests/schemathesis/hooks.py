"""What Schemathesis has to be told in code: which credentials there are, and which refusals no schema can announce."""

import base64
import itertools
import os
from collections import Counter

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance
from service import KEY, call

URL = os.environ["URL"]

# Why a request that fits its schema may be refused with 400 all the same: the field of a field error and what is said of
# it, or the code of another.
EXPLAINED = {
    # Opaque, and good for the query that answered it.
    ("cursor", "is not a cursor that this query has answered"),
    # What is true of a field depends on the time, or on what there is in the organization.
    ("expires_at", "must lie in the future"),
    ("name", "is the name of another token of the organization"),
    # The pattern would be as long as a page.
    ("name", "must not contain invisible characters"),
    ("name", "must not begin or end with a space"),
    ("access_config.projects", "must name only projects of the organization"),
    # Scopes with spaces between them, as RFC 6749 has it: a pattern would have to repeat the list of all scopes.
    ("scope", "must name scopes, with one space between two"),
    # JSON Schema takes 1.0 for an integer, and any number of digits.
    ("expected_count", "must be a whole number that is not negative"),
    # A code comes in a mail, and is good once.
    "INVALID_RESET_CODE",
}
ADDRESSES = (f"schemathesis-{number}@example.com" for number in itertools.count())


@schemathesis.check
def a_valid_request_is_taken(ctx, response, case):
    """`positive_data_acceptance`, but for what is explained above."""
    if response.status_code == 400:
        error = response.json()["error"]
        details = [(detail["field"], detail["message"]) for detail in error.get("details", [])]
        if all(reason in EXPLAINED for reason in details or [error["code"]]):
            return None
        # A form has no null; Schemathesis writes the word, which is then the value.
        role = ("role", 'must be one of "readonly", "operator", "manager"')
        if details == [role] and case.media_type == "application/x-www-form-urlencoded":
            return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.auth(refresh_interval=None)
class Credentials:
    """What opens an operation, by the security that the document says it has: each of several kinds in turn."""

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
            return f"Bearer {self.living_email_token()}"
        if scheme == "registry_password":
            return "Basic " + base64.b64encode(f"token:{os.environ['ORG_TOKEN']}".encode()).decode()
        return f"Bearer {os.environ[scheme.upper()]}"

    def set(self, case, data, ctx):
        """Sends it along."""
        case.headers["Authorization"] = data

    def living_email_token(self):
        """Deleting and regenerating a token kill it; then there is another."""
        if self.email_token is None or call(f"{URL}/api/v1/tokens/status", self.email_token).status != 200:
            email = next(ADDRESSES)
            call(f"{URL}/api/v1/tokens", method="POST", body={"email": email})
            mail = next(mail for mail in call(f"{URL}/_local/mail.json").json if mail["to"] == email)
            self.email_token = KEY.search(mail["text"])[0]
        return self.email_token
