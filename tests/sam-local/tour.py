"""The calls: each function's event over HTTP, then refusals, then the life of each kind of token
across functions."""

import contextlib
import html.parser
import http.client
import json
import re
import string
import urllib.parse

from expectations import EXPECTED
from harness import CODE, KEY, ROOT, SECRETS, Answer, Service, assert_equal

SECONDS_TO_ANSWER = 60
PUBLIC_URL = "https://guard.example.com"
# A function without a route of its own, by the function whose requests API Gateway authorizes with
# it.
CALLED_BEFORE = {"tokens-authorize": "tokens-whoami"}
# Functions that run on a schedule: `sam local start-api` invokes routes alone.
SCHEDULED = {name for name, expected in EXPECTED.items() if expected.scheduled}
# Functions whose callers API Gateway refuses with its own 403 instead of our 401.
AUTHORIZED_BY_GATEWAY = {"tokens-whoami"}


class Deployed(Service):
    """The functions behind `sam local start-api`, with the same helpers as the local service."""

    # API Gateway's own.
    refusal_of_whoami = 403

    def __init__(self, service, url):
        self.service = service
        self.env = service.env | {"BASE_URL": url}
        # Start above the numbers that the local service uses for names and addresses.
        self.addresses = self.names = 1000

    def session(self):
        """The session of the local service's demo owner."""
        return self.service.session()

    def mails(self):
        """The local service's outbox."""
        return self.service.mails()

    def call(self, method, path, headers=None, body=None):
        """Sends a request and returns status, headers and text. Does not follow redirects."""
        host = urllib.parse.urlsplit(self.env["BASE_URL"]).netloc
        connection = http.client.HTTPConnection(host, timeout=SECONDS_TO_ANSWER)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read().decode()

    def stop(self):
        """Does nothing: whoever started the service checks it."""


def request_of(event):
    """The HTTP request from which API Gateway would create this event."""
    dropped = ("host", "x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "accept-encoding")
    headers = {name: value for name, value in event["headers"].items() if name not in dropped}
    if "cookies" in event:
        headers["cookie"] = "; ".join(event["cookies"])
    path = urllib.parse.quote(event["rawPath"], safe="/@")
    if event["rawQueryString"]:
        path += "?" + event["rawQueryString"]
    return event["requestContext"]["http"]["method"], path, headers, event.get("body")


def event_of(name, values):
    """A function's event with its placeholders replaced."""
    return json.loads(string.Template((ROOT / "events" / f"{name}.json").read_text()).substitute(values))


def placeholders(name):
    """The names of the placeholders in a function's event."""
    return set(re.findall(r"\$\{(\w+)\}", (ROOT / "events" / f"{name}.json").read_text()))


def answer_event(name, deployed, fixtures):
    """Sends the request of a function's event and checks the answer as tests/rie does."""
    values = fixtures.values(placeholders(name))
    event = event_of(name, values)
    method, path, headers, body = request_of(event)
    status, headers, text = deployed.call(method, path, headers, body)
    answer = Answer({"statusCode": status, "headers": headers, "body": text}, event, values)
    assert_equal(status, EXPECTED[name].status, f"status ({text[:300]})")
    EXPECTED[name].body(answer, fixtures)
    return str(status), answer.secrets


def refuse(name, deployed, fixtures):
    """Sends the request of a function's event without a credential and with a well-formed but
    invalid one."""
    values = fixtures.values(placeholders(name))
    method, path, headers, body = request_of(event_of(name, values))
    if "authorization" not in headers:
        return None, []
    by_gateway = name in AUTHORIZED_BY_GATEWAY
    seen = []
    unknown = f"Bearer {KEY.pattern[:8]}{'0' * 42}"
    for credential, want in [(None, 401), (unknown, 403 if by_gateway else 401)]:
        headers = {key: value for key, value in headers.items() if key != "authorization"}
        if credential:
            headers["authorization"] = credential
        status, _, text = deployed.call(method, path, headers, body)
        assert_equal(status, want, f"status with {'an invalid' if credential else 'no'} credential ({text[:300]})")
        if by_gateway:
            assert set(json.loads(text)) == {"message"}, f"not API Gateway's own response: {text}"
        else:
            problem = json.loads(text)
            if "scim" in problem.get("schemas", [""])[0]:
                assert_equal(problem["status"], "401", "status in the body")
            else:
                assert_equal(problem.get("code") or problem["error"]["code"], "UNAUTHORIZED", "code")
        seen.append(str(status))
    return ", ".join(seen), [value for key, value in values.items() if key in SECRETS]


def whoami(deployed, fixtures):
    """The authorizer's context names the key's principal; the next request with a revoked key is
    refused."""
    values = fixtures.values({"API_KEY"})
    bearer = {"authorization": f"Bearer {values['API_KEY']}"}
    status, _, text = deployed.call("GET", "/v1/whoami", bearer)
    assert_equal(status, 200, f"status ({text})")
    scopes = ["shield:write", "org:read"]
    principal = {"kind": "api_key", "id": values["API_KEY_ID"], "org_id": fixtures.env["ORG"]}
    principal |= {"environment": "live", "scopes": scopes}
    assert_equal(json.loads(text), principal, "principal")
    fixtures.bot("DELETE", f"/v1/api-keys/{values['API_KEY_ID']}")
    assert_equal(deployed.call("GET", "/v1/whoami", bearer)[0], 403, "status with a revoked key")
    return "200, then 403 for the revoked key", [values["API_KEY"]]


def install(deployed, fixtures, upstream, ecosystem):
    """Fetches metadata and a file, finds the file in the installation log; a revoked token gets
    neither."""
    values = fixtures.values({"TOKEN", "TOKEN_AS_PASSWORD"})
    if ecosystem == "npm":
        credential, page = f"Bearer {values['TOKEN']}", "/npm/widgets"
        agent, stored = "npm/11.5.2 node/v20.20.2 linux x64 workspaces/false", "/widgets/-/widgets-1.0.0.tgz"
    else:
        credential, page = f"Basic {values['TOKEN_AS_PASSWORD']}", "/pypi/simple/widgets/"
        agent, stored = (
            'pip/25.3 {"installer":{"name":"pip","version":"25.3"}}',
            "/packages/widgets-1.0-py3-none-any.whl",
        )
    headers = {"authorization": credential, "user-agent": agent}
    status, _, text = deployed.call("GET", page, headers)
    assert_equal(status, 200, f"status of the metadata ({text[:300]})")
    if ecosystem == "npm":
        url = json.loads(text)["versions"]["1.0.0"]["dist"]["tarball"]
    else:
        parser = Links()
        parser.feed(text)
        url = urllib.parse.urljoin(PUBLIC_URL + page, parser.links[0])
    assert url.startswith(f"{PUBLIC_URL}/{ecosystem}/"), f"the metadata links to another host: {url}"
    path = urllib.parse.urlsplit(url).path
    status, headers_of_answer, text = deployed.call("GET", path, headers)
    assert_equal((status, text), (302, ""), "status and body of the file")
    assert_equal(headers_of_answer["location"], upstream + stored, "location")
    log = f"/v1/o/{fixtures.env['ORG']}/guard/installations?ecosystem={ecosystem}&package=widgets"
    entries = [entry for entry in fixtures.bot("GET", log)["installations"] if entry["token_id"] == values["TOKEN_ID"]]
    logged = [(each["file"], each["user_identifier"]) for each in entries]
    assert_equal(logged, [(stored.split("/")[-1], "alice-laptop")], "log")
    tokens = f"/v1/o/{fixtures.env['ORG']}/guard/org-user-tokens"
    fixtures.bot("DELETE", f"{tokens}/by-id/{values['TOKEN_ID']}")
    for target in (page, path):
        assert_equal(deployed.call("GET", target, headers)[0], 401, f"status of {target} with a revoked token")
    return "200, 302 and logged; 401 for the revoked token", [values["TOKEN"], values["TOKEN_AS_PASSWORD"]]


class Links(html.parser.HTMLParser):
    """Collects the links of a page, without fragments."""

    def __init__(self):
        super().__init__()
        self.links = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs)["href"].split("#")[0])


def life_of_an_org_user_token(deployed):
    """Issue, list, probe, revoke twice; then count and revoke all tokens of one user."""
    tokens = f"/v1/o/{deployed.env['ORG']}/guard/org-user-tokens"
    user = "carol@example.com"
    token = deployed.bot("POST", tokens, {"user_identifier": user})
    listed = deployed.bot("GET", f"{tokens}?user_identifier={user}")["tokens"]
    assert_equal([each["id"] for each in listed], [token["id"]], "the list")
    assert_equal(deployed.is_active(token["token"]), True, "active")
    for _ in range(2):
        deployed.bot("DELETE", f"{tokens}/by-id/{token['id']}")
        assert_equal(deployed.is_active(token["token"]), False, "active after revoking")
    assert_equal(deployed.bot("GET", f"{tokens}?user_identifier={user}")["tokens"], [], "the list after revoking")
    others = [deployed.bot("POST", tokens, {"user_identifier": user}) for _ in range(2)]
    bulk = f"{tokens}/revoke-by-user"
    assert_equal(deployed.bot("POST", bulk, {"user_identifier": user, "dry_run": True})["matched"], 2, "matched")
    assert_equal(
        len(deployed.bot("POST", bulk, {"user_identifier": user, "expected_count": 2})["revoked"]), 2, "revoked"
    )
    assert_equal([deployed.is_active(each["token"]) for each in others], [False, False], "active after revoking all")
    return [each["token"] for each in [token, *others]]


def life_of_an_email_token(deployed):
    """Register, read the status, regenerate, reset with the mailed code, revoke; replaced keys stop
    working at once."""
    email = "dave@example.com"
    key = deployed.mailed_to(email, KEY)
    assert_equal(deployed.request("GET", "/api/v1/tokens/status", key)[1]["status"], "pending", "status")
    status, new = deployed.request("POST", "/api/v1/tokens/regenerate", key)
    assert_equal((status, deployed.key_status(key)), (200, 401), "status of regenerate, and status for the old key")
    code = deployed.mailed_to(email, CODE)
    status, newest = deployed.request("POST", "/api/v1/tokens/reset", body={"email": email, "code": code})
    assert_equal(
        (status, deployed.key_status(new["token"])),
        (200, 401),
        f"status of reset ({newest}), and status for the old key",
    )
    status, again = deployed.request("POST", "/api/v1/tokens/reset", body={"email": email, "code": code})
    assert_equal((status, again["error"]["code"]), (400, "INVALID_RESET_CODE"), "second use of the code")
    assert_equal(deployed.request("DELETE", "/api/v1/tokens", newest["token"])[0], 204, "status of revoke")
    assert_equal(deployed.key_status(newest["token"]), 401, "status for the revoked key")
    return [email, key, new["token"], code, newest["token"]]


def life_of_an_api_key(deployed):
    """Create, list, use, introspect, revoke; the revoked key is refused everywhere."""
    new = {"name": "tour", "environment": "test", "scopes": ["audit:read"]}
    key = deployed.bot("POST", "/v1/api-keys", new)
    listed = deployed.bot("GET", "/v1/api-keys?environment=test")["api_keys"]
    assert key["id"] in [each["id"] for each in listed], "the key is not in the list"
    log = f"/v1/o/{deployed.env['ORG']}/audit-log?action=api_key.create"
    status, entries = deployed.request("GET", log, key["key"])
    assert status == 200 and key["id"] in [each["target"]["id"] for each in entries["entries"]], (
        f"{status}: the audit log has no entry for the key"
    )
    assert_equal(deployed.request("GET", "/v1/whoami", key["key"])[1]["id"], key["id"], "id of the principal")
    assert_equal(deployed.introspect(key["key"])["scope"], "audit:read", "scope")
    deployed.bot("DELETE", f"/v1/api-keys/{key['id']}")
    assert_equal(deployed.introspect(key["key"]), {"active": False}, "introspection of the revoked key")
    assert_equal(deployed.request("GET", log, key["key"])[0], 401, "status of the audit log with the revoked key")
    status = deployed.request("GET", "/v1/whoami", key["key"])[0]
    assert_equal(status, deployed.refusal_of_whoami, "status of whoami with the revoked key")
    return [key["key"]]


def life_of_an_access_token(deployed):
    """Create, list, disable, enable, delete; with and without a trailing slash."""
    path = "/api/v2/organization/tokens"
    token = deployed.bot("POST", path, {"name": "Tour"})
    for listing in (path, path + "/"):
        names = [each["name"] for each in deployed.bot("GET", listing)]
        assert "Tour" in names, f"the token is not in the list at {listing}: {names}"
    deployed.bot("PATCH", f"{path}/{token['id']}", {"is_active": False})
    assert_equal(deployed.introspect(token["token"]), {"active": False}, "introspection of the disabled token")
    access = {"role": "readonly", "all_projects": True, "projects": []}
    whole = {"name": "Tour 2", "is_active": True, "expires_at": None, "access_config": access}
    assert_equal(deployed.bot("PUT", f"{path}/{token['id']}/", whole)["name"], "Tour 2", "name")
    assert_equal(deployed.introspect(token["token"])["active"], True, "active, after enabling it again")
    deployed.bot("DELETE", f"{path}/{token['id']}/")
    assert_equal(deployed.introspect(token["token"]), {"active": False}, "introspection of the deleted token")
    return [token["token"]]


def documents(deployed):
    """The served OpenAPI document is the checked-in one; unknown routes are 404 for any method."""
    status, _, text = deployed.call("GET", "/v1/docs/openapi.json")
    assert_equal((status, json.loads(text)), (200, json.loads((ROOT / "openapi.json").read_text())), "the document")
    for method, path in [("GET", "/v2"), ("POST", "/v1/docs"), ("DELETE", "/api/v1/token")]:
        status, _, text = deployed.call(method, path)
        assert_equal((status, json.loads(text)["error"]["code"]), (404, "NOT_FOUND"), f"{method} {path}")
    return []


# Checks that need all functions.
LIVES = [life_of_an_org_user_token, life_of_an_email_token, life_of_an_api_key, life_of_an_access_token, documents]


def tour(built, everything, deployed, service, upstream, log):
    """Runs every check that the built functions allow. Returns the failures."""
    # Tokens are created by the deployed functions if all of them are there, else by the local
    # service.
    fixtures = deployed if everything else service
    checks = []
    built = [name for name in built if name not in SCHEDULED]
    for name in built:
        if name in ("registry-npm", "registry-pypi"):
            checks.append((name, lambda name=name: install(deployed, fixtures, upstream, name.split("-")[1])))
        elif name == "tokens-whoami":
            checks.append((f"{name}, tokens-authorize", lambda: whoami(deployed, fixtures)))
        elif name not in CALLED_BEFORE:
            checks.append((name, lambda name=name: answer_event(name, deployed, fixtures)))
    for name in built:
        if name not in CALLED_BEFORE:
            checks.append((f"{name}, refused", lambda name=name: refuse(name, deployed, fixtures)))
    for life in LIVES if everything else []:
        checks.append((life.__name__.replace("_", " "), lambda life=life: ("ok", life(deployed))))
    failures, secrets = [], set()
    for name, check in checks:
        try:
            outcome, used = check()
            secrets.update(used)
            if outcome:
                print(f"ok    {name}: {outcome}", flush=True)
        except Exception as error:  # Report it and continue with the others.
            print(f"FAIL  {name}", flush=True)
            failures.append(f"{name}: {type(error).__name__}: {error}")
    text = log.read_text(errors="replace")
    leaked = sum(secret in text for secret in secrets)
    if leaked:
        failures.append(f"{leaked} of {len(secrets)} secrets are in the functions' logs")
    else:
        print(f"ok    the log ({text.count(chr(10))} lines) contains none of {len(secrets)} secrets", flush=True)
    return failures
