"""What each function must answer to its event in `events/`, shared by tests/rie/run and
tests/sam-local/run."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from harness import KEY, MAIL, Answer, Service, assert_equal


@dataclass
class Expected:
    """The answer that a function must give to its event."""

    # None for an authorizer, which answers API Gateway, and on a schedule: there is no caller.
    status: int | None
    # Checks the body and what the call has changed.
    body: Callable[[Answer, Service], None]
    # Whether the function gets TOKENS_TABLE. Functions that work without it must not start to need
    # it.
    table: bool = True
    # Whether the function gets the settings for mail.
    mail: bool = False
    # Whether the function gets INSTALLATIONS_TABLE.
    installations: bool = False
    # Whether the function runs on a schedule and has no route.
    scheduled: bool = False
    # Whether it answers with a page of the console.
    page: bool = False


def exchange_refused(answer, service):
    assert_equal(set(answer.json), {"error", "message"}, "fields")
    assert_equal(answer.json["message"], answer.json["error"]["message"], "message")
    assert "invalid_token" in answer.header("www-authenticate"), "the challenge names no error"


def issued(answer, service, more=()):
    body = answer.json
    keys = "id token token_prefix user_identifier status created_at created_by expires_at last_used_at"
    assert_equal(set(body), {*keys.split(), *more}, "fields")
    assert_equal(body["user_identifier"], "alice-laptop", "user_identifier")
    assert_equal(body["status"], "active", "status")
    assert_equal(body["created_by"], service.env["BOT_ID"], "created_by")
    assert re.fullmatch(r"tg_org_[0-9A-Za-z]{42}", body["token"]), "the token has the wrong format"
    assert body["token"].startswith(body["token_prefix"].rstrip(".…*")), "token_prefix is not a prefix of the token"
    answer.secrets.append(body["token"])
    assert_equal(service.is_active(body["token"]), True, "active, for the new token")


def rotated(answer, service):
    issued(answer, service, more={"replaces"})
    assert_equal(answer.json["replaces"], answer.values["TOKEN_ID"], "replaces")


def listed(answer, service):
    assert_equal(set(answer.json), {"tokens", "next_cursor"}, "fields")
    ids = [token["id"] for token in answer.json["tokens"]]
    assert answer.values["TOKEN_ID"] in ids, f"the token is not in the list: {ids}"
    for token in answer.json["tokens"]:
        assert "token" not in token, "the list contains a plain token"
        assert_equal(token["status"], "active", "status")


def revoked(answer, service):
    assert_equal(answer.text, "", "body")
    assert_equal(service.is_active(answer.values["TOKEN"]), False, "active, for the revoked token")


def logged_out(answer, service):
    assert_equal(answer.json, {}, "body")
    assert_equal(service.is_active(answer.values["TOKEN"]), False, "active, for the revoked token")


def ended(answer, service):
    assert_equal(set(answer.json), {"message"}, "fields")
    assert_equal(service.is_active(answer.values["TOKEN"]), False, "active, for the leaked token")


def not_offered(answer, service):
    assert_equal(answer.json["error"]["code"], "NOT_FOUND", "code")
    assert_equal(service.is_active(answer.values["TOKEN"]), True, "active, for the token")


def probed(answer, service):
    assert_equal(
        set(answer.json), {"active", "id", "user_identifier", "created_at", "expires_at", "last_used_at"}, "fields"
    )
    assert_equal(answer.json["active"], True, "active")
    assert_equal(answer.json["id"], answer.values["TOKEN_ID"], "id")


def revoked_by_user(answer, service):
    assert_equal(set(answer.json), {"matched", "revoked", "remaining"}, "fields")
    assert_equal(answer.json["matched"], len(answer.json["revoked"]), "matched")
    assert_equal(answer.json["remaining"], 0, "remaining")
    assert answer.values["TOKEN_ID"] in answer.json["revoked"], "the token is not in `revoked`"
    assert_equal(service.is_active(answer.values["TOKEN"]), False, "active, for the revoked token")


def registered(answer, service):
    assert_equal(set(answer.json), {"message"}, "fields")
    mail = mailed(answer, service, "welcome")
    key = KEY.search(mail["text"])
    assert key, "the mail contains no key"
    answer.secrets.append(key[0])
    assert_equal(service.key_status(key[0]), 200, "status for the mailed key")


def status_shown(answer, service):
    keys = "id status email language created_at last_used_at usage"
    assert_equal(set(answer.json), set(keys.split()), "fields")
    assert_equal(answer.json["status"], "pending", "status")
    assert_equal(answer.json["language"], "en", "language")
    assert_equal(answer.json["last_used_at"], None, "last_used_at")
    assert_equal(answer.json["usage"], {"total": 0, "last_30_days": []}, "usage")
    assert answer.values["EMAIL"] not in answer.text, "the address is not masked"


def replaced(answer, service):
    assert_equal(set(answer.json), {"token", "id", "token_prefix", "status", "created_at"}, "fields")
    assert_equal(answer.json["status"], "active", "status")
    assert KEY.fullmatch(answer.json["token"]), "the token has the wrong format"
    answer.secrets.append(answer.json["token"])
    assert_equal(service.key_status(answer.json["token"]), 200, "status for the new key")
    assert_equal(service.key_status(answer.values["KEY"]), 401, "status for the old key")
    mail = mailed(answer, service, "key changed")
    assert not KEY.search(mail["text"]), "the mail contains a key"


def key_revoked(answer, service):
    assert_equal(answer.text, "", "body")
    assert_equal(service.key_status(answer.values["KEY"]), 401, "status for the revoked key")
    mail = mailed(answer, service, "key removed")
    assert not KEY.search(mail["text"]), "the mail contains a key"


def scim_user(answer, name, active):
    assert_equal(answer.header("content-type"), "application/scim+json", "content-type")
    keys = {"schemas", "id", "userName", "active", "emails", "meta"}
    assert_equal(set(answer.json) - {"externalId"}, keys, "fields")
    assert_equal(answer.json["userName"], name, "userName")
    assert_equal(answer.json["active"], active, "active")
    assert_equal(answer.json["meta"]["location"], f"/scim/v2/Users/{answer.json['id']}", "location")


def provisioned(answer, service):
    scim_user(answer, answer.values["EMAIL"], active=True)
    assert_equal(answer.header("location"), answer.json["meta"]["location"], "location")
    assert_equal(service.scim_users(answer.values["EMAIL"]), [answer.json], "the user with this name")


def scim_user_shown(answer, service):
    scim_user(answer, answer.values["SCIM_USER_NAME"], active=True)
    assert_equal(answer.json["id"], answer.values["SCIM_USER_ID"], "id")


def scim_users_listed(answer, service):
    assert_equal(answer.header("content-type"), "application/scim+json", "content-type")
    assert_equal(answer.json["totalResults"], 1, "totalResults")
    assert_equal([user["id"] for user in answer.json["Resources"]], [answer.values["SCIM_USER_ID"]], "ids")


def scim_user_ended(answer, service):
    scim_user(answer, answer.values["SCIM_USER_NAME"], active=False)
    found = service.scim_users(answer.values["SCIM_USER_NAME"])
    assert_equal([user["active"] for user in found], [False], "active, in the list")


def scim_user_deleted(answer, service):
    assert_equal(answer.text, "", "body")
    assert_equal(service.scim_users(answer.values["SCIM_USER_NAME"]), [], "users with this name")


def nothing_due(answer, service):
    """Nothing is due in a new table: that the run has succeeded is all there is to see."""


def mailed(answer, service, which):
    """Returns the mail that the function sent, after checking it against the settings for mail."""
    mail = service.mails()[0]
    assert_equal(mail["to"], answer.values["EMAIL"], f"recipient of the {which} mail")
    assert_equal(mail["source"]["FromEmailAddress"], MAIL["MAIL_FROM"], "FromEmailAddress")
    assert_equal(mail["source"]["ConfigurationSetName"], MAIL["MAIL_CONFIGURATION_SET"], "ConfigurationSetName")
    assert not mail["source"].get("ReplyToAddresses"), "ReplyToAddresses is set, but MAIL_REPLY_TO is empty"
    assert f"{MAIL['PUBLIC_URL']}/" in mail["text"] and MAIL["PUBLIC_URL"] in mail["html"], (
        "PUBLIC_URL is not in the mail"
    )
    return mail


def api_key_created(answer, service, more=()):
    about = "id key prefix name environment scopes status created_by created_at expires_at last_used_at"
    assert_equal(set(answer.json), {*about.split(), *more}, "fields")
    assert re.fullmatch(r"tk_live_[0-9a-f]{64}", answer.json["key"]), "the key has the wrong format"
    assert answer.json["key"].startswith(answer.json["prefix"]), "prefix is not a prefix of the key"
    answer.secrets.append(answer.json["key"])
    assert_equal(answer.json["created_by"], service.env["BOT_ID"], "created_by")
    assert_equal(service.introspect(answer.json["key"])["scope"], "shield:write org:read", "scope")


def api_key_rotated(answer, service):
    api_key_created(answer, service, more={"replaces"})
    assert_equal(answer.json["replaces"], answer.values["API_KEY_ID"], "replaces")


def bot_key_rotated(answer, service):
    keys = "bot_id key_id api_key expires_at replaces previous_key_expires_at"
    assert_equal(set(answer.json), set(keys.split()), "fields")
    assert re.fullmatch(r"shisho_apikey_[0-9A-Za-z]{43}", answer.json["api_key"]), "the API key has the wrong format"
    answer.secrets.append(answer.json["api_key"])
    assert_equal(answer.json["bot_id"], service.env["BOT_ID"], "bot_id")
    assert answer.json["previous_key_expires_at"], "the previous key has ended at once"


def api_keys_listed(answer, service):
    assert_equal(set(answer.json), {"api_keys", "next_cursor", "plan"}, "fields")
    assert_equal(set(answer.json["plan"]), {"name", "max_api_keys", "active_api_keys"}, "fields of the plan")
    for key in answer.json["api_keys"]:
        assert "key" not in key, "the list contains a plain key"
        assert_equal((key["status"], key["environment"]), ("active", "live"), "status and environment")


def api_key_revoked(answer, service):
    assert_equal(answer.text, "", "body")
    assert_equal(service.introspect(answer.values["API_KEY"]), {"active": False}, "introspection of the revoked key")


def access_token_shown(token):
    assert_equal(
        set(token),
        {"id", "name", "token", "is_active", "expires_at", "created_at", "last_used_at", "access_config"},
        "fields",
    )
    assert_equal(set(token["access_config"]), {"role", "all_projects", "projects"}, "fields of access_config")


def access_tokens_listed(answer, service):
    assert isinstance(answer.json, list), "the list is not a bare array"
    for token in answer.json:
        access_token_shown(token)
        assert re.fullmatch(r"[0-9A-Za-z]{8}\.\.\.", token["token"]), "the list does not mask a token"


def access_token_created(answer, service):
    access_token_shown(answer.json)
    assert re.fullmatch(r"oat_[0-9A-Za-z]{42}", answer.json["token"]), "the token has the wrong format"
    answer.secrets.append(answer.json["token"])
    assert_equal(service.introspect(answer.json["token"])["role"], "operator", "role")


def access_token_updated(answer, service):
    access_token_shown(answer.json)
    assert_equal(str(answer.json["id"]), answer.values["ACCESS_TOKEN_ID"], "id")
    assert_equal(answer.json["name"], "Webhook relay (deprecated)", "name")
    assert_equal(answer.json["is_active"], False, "is_active")
    assert_equal(
        service.introspect(answer.values["ACCESS_TOKEN"]), {"active": False}, "introspection of the disabled token"
    )


def access_token_deleted(answer, service):
    assert_equal(answer.text, "", "body")
    assert_equal(
        service.introspect(answer.values["ACCESS_TOKEN"]), {"active": False}, "introspection of the deleted token"
    )


def introspected(answer, service):
    assert_equal(answer.json["active"], True, "active")
    assert_equal(answer.json["token_type"], "api_key", "token_type")
    assert_equal(answer.json["id"], answer.values["API_KEY_ID"], "id")
    assert_equal(answer.json["org_id"], service.env["ORG"], "org_id")
    assert_equal(answer.json["permitted"], True, "permitted")
    assert_equal(answer.json["environment"], "live", "environment")


def authorized(answer, service):
    assert_equal(set(answer.json), {"isAuthorized", "context"}, "fields")
    assert_equal(answer.json["isAuthorized"], True, "isAuthorized")
    principal = {"kind": "api_key", "id": answer.values["API_KEY_ID"], "org_id": service.env["ORG"]}
    principal |= {"environment": "live", "scopes": ["shield:write", "org:read"]}
    assert_equal(answer.json["context"], principal, "context")


def principal_shown(answer, service):
    assert_equal(answer.json, answer.event["requestContext"]["authorizer"]["lambda"], "the authorizer's context")


def audit_log_listed(answer, service):
    assert_equal(set(answer.json), {"entries", "next_cursor"}, "fields")
    entries = {entry["target"]["id"]: entry for entry in answer.json["entries"]}
    entry = entries.get(answer.values["TOKEN_ID"])
    assert entry, f"the log has no entry for the issued token: {list(entries)}"
    assert_equal(entry["actor"], {"kind": "bot", "id": service.env["BOT_ID"]}, "actor")
    assert_equal((entry["action"], entry["outcome"]), ("org_user_token.issue", "done"), "action and outcome")


def installations_listed(answer, service):
    assert_equal(set(answer.json), {"installations", "next_cursor"}, "fields")
    about = "time ecosystem package version file user_identifier token_id client client_version command session"
    about += " source_ip subject"
    for entry in answer.json["installations"]:
        assert_equal(set(entry), set(about.split()), "fields of an entry")
        assert_equal(entry["ecosystem"], "npm", "ecosystem")


def openapi(answer, service):
    assert answer.json["openapi"].startswith("3.1."), f"OpenAPI {answer.json['openapi']}"
    assert "/v1/o/{org_id}/guard/org-user-tokens" in answer.json["paths"], "a path is missing"


def not_found(answer, service):
    error = answer.json["error"]
    assert_equal(error["code"], "NOT_FOUND", "error.code")
    assert_equal(error["request_id"], answer.header("x-request-id"), "error.request_id")
    assert error["message"], "error.message is empty"


def redirected_to(location):
    """A download that redirects to this location and has an entry in the installation log."""

    def check(answer, service):
        assert_equal(answer.text, "", "body")
        assert_equal(answer.header("location"), location, "location")
        found = service.bot("GET", f"/v1/o/{service.env['ORG']}/guard/installations")["installations"]
        # Other calls may have downloaded the same file with tokens of their own.
        own = [entry for entry in found if entry["token_id"] == answer.values["TOKEN_ID"]]
        own = [entry["source_ip"] for entry in own if location.endswith(entry["file"])]
        assert_equal(own, ["203.0.113.7"], "log")

    return check


def shows(text):
    """A page with this heading, for the demo owner if somebody is signed in."""

    def check(answer, service):
        assert text in answer.text, f"{text!r} is not on the page"
        assert answer.values.get("SESSION", "gs_") not in answer.text or "SESSION" not in answer.values, "the session"

    return check


def page(text, **settings):
    """A function of the console."""
    return Expected(200, shows(text), page=True, **settings)


EXPECTED = {
    "console-access-tokens": page("Access Tokens"),
    "console-account": page("My account"),
    "console-api-keys": page("API Keys"),
    "console-assets": Expected(404, shows("Page not found"), page=True, table=False),
    "console-audit-log": page("Audit log"),
    "console-bots": page("Add Bot"),
    "console-installations": page("Installations", installations=True),
    "console-members": page("Invite Member", mail=True),
    "console-my-tokens": page("My tokens"),
    "console-org-user-tokens": page("Issue Token"),
    "console-overview": page("Overview", installations=True),
    "console-policies": page("Policies"),
    "console-projects": page("Projects"),
    "api-keys-create": Expected(201, api_key_created),
    "api-keys-list": Expected(200, api_keys_listed),
    "api-keys-revoke": Expected(204, api_key_revoked),
    "api-keys-rotate": Expected(201, api_key_rotated),
    "audit-log-list": Expected(200, audit_log_listed),
    # No issuer is configured.
    "bots-exchange": Expected(401, exchange_refused),
    "bots-rotate-key": Expected(201, bot_key_rotated),
    "docs-not-found": Expected(404, not_found, table=False),
    "docs-openapi": Expected(200, openapi, table=False),
    "email-tokens-erase": Expected(None, nothing_due, scheduled=True),
    "email-tokens-regenerate": Expected(200, replaced, mail=True),
    "email-tokens-register": Expected(202, registered, mail=True),
    "email-tokens-reset": Expected(200, replaced, mail=True),
    "email-tokens-revoke": Expected(204, key_revoked, mail=True),
    "email-tokens-status": Expected(200, status_shown),
    "installations-list": Expected(200, installations_listed, installations=True),
    # No URL of keys is configured.
    "integrations-github-secret-scanning": Expected(404, not_offered, mail=True),
    "leaks-send": Expected(None, nothing_due, mail=True, scheduled=True),
    "org-access-tokens-create": Expected(201, access_token_created),
    "org-access-tokens-delete": Expected(204, access_token_deleted),
    "org-access-tokens-list": Expected(200, access_tokens_listed),
    "org-access-tokens-update": Expected(200, access_token_updated),
    "org-user-tokens-issue": Expected(201, issued),
    "org-user-tokens-list": Expected(200, listed),
    "org-user-tokens-probe": Expected(200, probed),
    "org-user-tokens-revoke": Expected(204, revoked),
    "org-user-tokens-revoke-by-user": Expected(200, revoked_by_user),
    "org-user-tokens-rotate": Expected(201, rotated),
    "registry-npm": Expected(
        302, redirected_to("https://packages.example.com/npm/@example/widgets/-/widgets-1.0.0.tgz"), installations=True
    ),
    "registry-npm-logout": Expected(200, logged_out),
    "registry-pypi": Expected(
        302, redirected_to("https://packages.example.com/packages/widgets-1.0-py3-none-any.whl"), installations=True
    ),
    "reminders-send": Expected(None, nothing_due, mail=True, scheduled=True),
    "scim-users-create": Expected(201, provisioned),
    "scim-users-delete": Expected(204, scim_user_deleted),
    "scim-users-get": Expected(200, scim_user_shown),
    "scim-users-list": Expected(200, scim_users_listed),
    "scim-users-update": Expected(200, scim_user_ended),
    # No identity provider is configured.
    "sign-in-callback": Expected(404, shows("Page not found"), page=True),
    "sign-in-code": page("Check your mail", mail=True),
    # A form without its token.
    "sign-in-sign-out": Expected(403, shows("The form could not be accepted"), page=True),
    "sign-in-start": page("Sign in"),
    "tokens-authorize": Expected(None, authorized),
    "tokens-end-unused": Expected(None, nothing_due, scheduled=True),
    "tokens-introspect": Expected(200, introspected),
    "tokens-leaked": Expected(202, ended, mail=True),
    "tokens-revoke-self": Expected(204, revoked),
    "tokens-whoami": Expected(200, principal_shown, table=False),
}
