//! Invariants of the two tables that hold at any time, after any fault or race. Every item is
//! checked against its source of truth; an item that nothing explains is a finding.
//!
//! Every test service is checked when its test ends; see [`crate::Service`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::Moment;
use shared::domain::Name;
use shared::email::EmailAddress;
use shared::ids::{AuditId, OrgId};
use shared::secret::{Token, TokenHash};

use crate::table::text;

/// The states in which org user tokens and API keys are listed.
const STATES: [&str; 3] = ["ACTIVE", "EXPIRED", "REVOKED"];

/// Maximum mails to an address per hour.
const MAILS_PER_HOUR: u64 = 5;

/// How long an idempotency key is kept, in seconds.
const KEPT: i64 = 24 * 60 * 60;

/// How long a notice about a leaked token is kept, in seconds.
const NOTICE: i64 = 30 * 24 * 60 * 60;

/// How long a bot token is kept after its end, in seconds.
const ENDED_BOT_TOKEN: i64 = 14 * 24 * 60 * 60;

/// TTL of audit log and installation log entries, in seconds.
const AUDITED: i64 = 400 * 24 * 60 * 60;
/// How long after its removal an email-verified token is erased, and how long its audit entries are
/// kept after that, in seconds.
const ERASED_AFTER: i64 = 7 * 24 * 60 * 60;
const ERASED_ENTRY: i64 = 30 * 24 * 60 * 60;
const A_DAY: i64 = 24 * 60 * 60;
const LOGGED: i64 = 14 * 24 * 60 * 60;

/// Describes every violated invariant; empty if there are none. `copied` are IDs of tokens that a
/// test inserted without audit entries.
pub fn findings(items: &[Value], installations: &[Value], copied: &BTreeSet<String>) -> Vec<String> {
    let mut tokens_table = TokensTable::new(items, copied);
    tokens_table.check();
    let mut findings = tokens_table.findings;
    findings.extend(installations.iter().filter_map(installation));
    let ids: BTreeSet<&str> = installations.iter().map(|entry| text(entry, "id")).collect();
    if ids.len() != installations.len() {
        findings.push("two installations have one id".to_owned());
    }
    findings
}

struct TokensTable<'a> {
    items: BTreeMap<(&'a str, &'a str), &'a Value>,
    /// Audited actions by log and target ID.
    done: BTreeMap<(&'a str, &'a str), Vec<&'a str>>,
    copied: &'a BTreeSet<String>,
    /// Keys of items that are accounted for.
    explained: BTreeSet<(String, String)>,
    findings: Vec<String>,
}

impl<'a> TokensTable<'a> {
    fn new(items: &'a [Value], copied: &'a BTreeSet<String>) -> Self {
        let mut done: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        // Leaks that an organization is told about only change nothing.
        let is_told_only = |item: &Value| text(item, "detail").starts_with("not revoked, told only");
        for entry in items.iter().filter(|item| item["outcome"] == "done" && !is_told_only(item)) {
            let id = text(&entry["target"], "id");
            done.entry((text(entry, "pk"), id)).or_default().push(text(entry, "action"));
        }
        let items = items.iter().map(|item| ((text(item, "pk"), text(item, "sk")), item)).collect();
        Self { items, done, copied, explained: BTreeSet::new(), findings: Vec::new() }
    }

    fn check(&mut self) {
        for ((pk, sk), item) in self.items.clone() {
            let kind: Vec<&str> = pk.split('#').collect();
            match (kind.as_slice(), sk) {
                (["TOKEN", hash], "TOKEN") => self.token(hash, item),
                (["ORG", org], "ORG") => self.org(org, item),
                (["ORG", org], "API_KEY_COUNT") => self.api_key_count(org, item),
                (["ORG", org], "ACCESS_TOKEN_COUNT") => self.access_token_count(org, item),
                (["ORG", org], "ACCESS_TOKEN_LAST_ID") => self.last_access_token(org, item),
                (["ORG", org], place) if place.starts_with("PROJECT#") => self.project(org, place),
                (["BOT", bot], "BOT") => self.bot(bot, item),
                (["BOT", bot], place) if place.starts_with("TRUST#") => self.trust(bot, place, item),
                (["ID_TOKEN", hash], "ID_TOKEN") => self.exchanged_id_token(hash, item),
                (["SESSION", hash], "SESSION") => self.session(hash, item),
                (["PERSON", _], "PERSON") => self.explain(item),
                (["PERSON", person], place) if place.starts_with("ORG#") => self.member(person, item),
                (["PERSON", _], place) if place.starts_with("SCIM_ENDED#") => self.ended_membership(item),
                (["INVITED", address], org) => self.invitation(address, org, item),
                (["ORG", org, "SCIM_USERS"], id) => self.scim_user(org, id, item),
                (["ORG", org, "SCIM_ENDED"], address) => self.scim_ended(org, address, item),
                (["ORG", org], "SCIM_USER_COUNT") => self.scim_user_count(org, item),
                (["ORG", org], "OWNER_COUNT") => self.owner_count(org, item),
                (["EMAIL", hash], "ADDRESS") => self.address(hash, item),
                (["EMAIL", _], "MAILS") => self.counter(item, "count", 0..=MAILS_PER_HOUR, true),
                (["EMAIL", _], place) if place.starts_with("CHANGES#") => {
                    self.counter(item, "count", 1..=u64::MAX, true)
                }
                (["CALLS" | "REFUSED" | "WRONG_CODES" | "EXCHANGES_FAILED" | "EXCHANGES_REFUSED", _], _)
                | (["LEAK_REPORTS" | "LEAKED_TOKENS", _], _) => self.counter(item, "count", 1..=u64::MAX, true),
                (["LEAKED", hash], "LEAKED") => self.only_end(TokenHash::from_hex(hash).is_some(), item),
                (["LEAK_MAIL", kind, id], "LEAK_MAIL") => self.only_end(is_recipient(kind, id), item),
                (["LEAK_NOTICES"], place) => self.leak_notice(item, place),
                // 0 after a mail that SES refused.
                (["MAILS", ..], _) => self.counter(item, "count", 0..=u64::MAX, true),
                (["SIGN_IN_CODE" | "SIGNED_IN_DEVICE", _], _) => self.expiring(item),
                (["DEPLOYMENT"], "REGISTRATION") => self.explain(item),
                (["EXPIRES", day, shard], place) => self.expiry(item, day, shard, place),
                (["REMINDED", hash], "REMINDED") => self.reminded(hash, item),
                (["SUBSCRIPTIONS"], org) => self.subscription(org, item),
                (["REMINDERS"], "REMINDERS") => {
                    self.explain(item);
                    if day(text(item, "done")).is_none() || item.as_object().unwrap().len() != 3 {
                        self.found(item, "no day, or more than a day");
                    }
                }
                (["UNUSED_RUN"], "UNUSED_RUN") => {
                    self.explain(item);
                    let begun = text(item, "at").split_once('#').and_then(|(begun, _)| day(begun));
                    if begun.is_none() || item.as_object().unwrap().len() != 3 {
                        self.found(item, "no day, or more than a place");
                    }
                }
                (["USAGE", _], day) => self.usage(item, day),
                (["ERASURES"], place) => self.erasure(item, place),
                (["ORG" | "EMAIL", _, "AUDIT"] | ["DEPLOYMENT", "AUDIT"], _) => self.entry(item),
                (["ORG", org, "IDEMPOTENCY"], _) => self.idempotency_key(org, item),
                // Pointers are checked from the items they point to.
                _ => {}
            }
            self.check_secrets(item, item);
        }
        for ((pk, sk), item) in &self.items {
            if !self.explained.contains(&((*pk).to_owned(), (*sk).to_owned())) {
                self.findings.push(format!("{pk} {sk}: unexplained item {item}"));
            }
        }
        self.check_deletions();
    }

    fn found(&mut self, item: &Value, what: &str) {
        self.findings.push(format!("{} {}: {what}: {item}", text(item, "pk"), text(item, "sk")));
    }

    fn explain(&mut self, item: &Value) {
        self.explained.insert((text(item, "pk").to_owned(), text(item, "sk").to_owned()));
    }

    /// Looks up an optional pointer. If it exists, its content must match.
    fn check_pointer(&mut self, owner: &Value, pk: &str, sk: &str, pointer: &Value) -> bool {
        self.explained.insert((pk.to_owned(), sk.to_owned()));
        let Some(item) = self.items.get(&(pk, sk)) else { return false };
        let mut body = (*item).clone();
        for name in ["pk", "sk"] {
            body.as_object_mut().unwrap().remove(name);
        }
        if body != *pointer {
            self.found(owner, &format!("pointer {pk} {sk} is {body}, expected {pointer}"));
        }
        true
    }

    fn require_pointer(&mut self, owner: &Value, pk: &str, sk: &str, pointer: &Value) {
        if !self.check_pointer(owner, pk, sk, pointer) {
            self.found(owner, &format!("pointer {pk} {sk} is missing"));
        }
    }

    /// Checks that the log has exactly the given number of entries for each action.
    fn check_log(&mut self, owner: &Value, log: &str, id: &str, expected_actions: &[(&str, usize)]) {
        if self.copied.contains(id) {
            return;
        }
        let logged = self.done.get(&(log, id)).cloned().unwrap_or_default();
        for (expected_action, times) in expected_actions {
            let is_expected = |action: &&&str| match *expected_action {
                "revoke" => is_revocation(action),
                other => action.ends_with(&format!(".{other}")),
            };
            let found = logged.iter().filter(is_expected).count();
            if found != *times {
                self.found(owner, &format!("the log has {found} entries of {expected_action}, expected {times}"));
            }
        }
    }

    fn token(&mut self, hash: &str, token: &Value) {
        self.explain(token);
        let place = ("TOKEN".to_owned() + "#" + hash, "TOKEN");
        assert_eq!((place.0.as_str(), place.1), (text(token, "pk"), text(token, "sk")));
        match text(token, "kind") {
            "org_user" => self.org_user_token(hash, token),
            "api_key" => self.api_key(hash, token),
            "org_access" => self.org_access_token(hash, token),
            "email_verified" => self.email_token(token),
            "bot_token" => self.bot_token(token),
            "bot_api_key" => self.bot_api_key(hash, token),
            _ => self.found(token, "unknown kind"),
        }
    }

    fn org_user_token(&mut self, hash: &str, token: &Value) {
        let (org, id, user) = (text(token, "org_id"), text(token, "id"), text(token, "user_identifier"));
        let mut pointer = pointer_to(token, json!({"id": id, "user_identifier": user, "hash": hash}));
        if let Some(binding) = token.get("bound_to") {
            pointer["bound_to"] = binding.clone();
        }
        self.require_pointer(token, &format!("ORG#{org}#USER_TOKEN"), id, &pointer);
        let listings = STATES.map(|state| (format!("ORG#{org}#USER_TOKENS#{state}"), format!("{user}#{id}")));
        let listed = listings.map(|(pk, sk)| self.check_pointer(token, &pk, &sk, &pointer));
        self.check_lists(token, listed, &format!("ORG#{org}#USER_TOKENS#EXPIRY"), &pointer);
        let revoked = usize::from(token.get("revoked_at").is_some());
        let rotated = self.check_rotation(token);
        self.check_log(token, &format!("ORG#{org}#AUDIT"), id, &[("issue", 1), ("revoke", revoked - rotated)]);
        self.require_org(token, org);
    }

    fn api_key(&mut self, hash: &str, key: &Value) {
        let (org, id, environment) = (text(key, "org_id"), text(key, "id"), text(key, "environment"));
        let mut pointer = pointer_to(key, json!({"id": id, "environment": environment, "hash": hash}));
        if let Some(uncounted) = key.get("uncounted") {
            pointer["uncounted"] = uncounted.clone();
        }
        self.require_pointer(key, &format!("ORG#{org}#API_KEY"), id, &pointer);
        let environment = environment.to_uppercase();
        let listings = STATES.map(|state| format!("ORG#{org}#API_KEYS#{state}#{environment}"));
        let listed = listings.map(|pk| self.check_pointer(key, &pk, id, &pointer));
        self.check_lists(key, listed, &format!("ORG#{org}#API_KEYS#EXPIRY"), &pointer);
        let revoked = usize::from(key.get("revoked_at").is_some());
        let rotated = self.check_rotation(key);
        self.check_log(key, &format!("ORG#{org}#AUDIT"), id, &[("create", 1), ("revoke", revoked - rotated)]);
        self.require_org(key, org);
        let counter = self.items.get(&(format!("ORG#{org}").as_str(), "API_KEY_COUNT")).copied();
        if counter.is_none() {
            self.found(key, "organization has no API key counter");
        }
    }

    /// A rotated token and its successor name each other, unless the token was rotated again. Returns
    /// 1 if the rotation itself has ended the token, so that no entry of its own says so.
    fn check_rotation(&mut self, token: &Value) -> usize {
        if let Some(replaces) = token.get("replaces") {
            let old = self.items.get(&(format!("TOKEN#{}", text(replaces, "hash")).as_str(), "TOKEN")).copied();
            if old.is_none_or(|old| old["id"] != replaces["id"] || old.get("rotated").is_none()) {
                self.found(token, "it replaces a token that was not rotated");
            }
        }
        let Some(rotated) = token.get("rotated") else { return 0 };
        let successor = self.items.get(&(format!("TOKEN#{}", text(rotated, "hash")).as_str(), "TOKEN")).copied();
        if successor
            .is_none_or(|successor| successor["id"] != rotated["id"] || successor["replaces"]["id"] != token["id"])
        {
            self.found(token, "its successor does not know it");
        }
        let is_by_rotation = |revoked_by: &Value| revoked_by["id"] != rotated["id"];
        let log = format!("ORG#{}#AUDIT", text(token, "org_id"));
        let entries = self.done.get(&(log.as_str(), text(token, "id"))).cloned().unwrap_or_default();
        let revocations = entries.iter().filter(|action| is_revocation(action)).count();
        let ended = token.get("revoked_by").is_some_and(is_by_rotation) && revocations == 0;
        usize::from(ended && entries.iter().any(|action| action.ends_with(".rotate")))
    }

    /// A token is in the listing of exactly one state, consistent with its revocation. While listed
    /// as active, it is also in the expiry index if it expires.
    fn check_lists(&mut self, token: &Value, listed: [bool; 3], expiries: &str, pointer: &Value) {
        if listed.iter().filter(|listed| **listed).count() != 1 {
            self.found(token, &format!("not in exactly one list of {STATES:?}: {listed:?}"));
        }
        let [is_active, _, is_revoked] = listed;
        if is_revoked != token.get("revoked_at").is_some() {
            self.found(token, "list and revocation disagree");
        }
        let expiry = token["expires_at"].as_str().and_then(Moment::parse).map(Moment::epoch_seconds);
        if expiry.is_some() != token.get("expires_at").is_some() {
            self.found(token, "malformed expiry");
        }
        let is_due = expiry.is_some_and(|at| {
            let place = format!("{at:012}#{}", text(token, "id"));
            self.check_pointer(token, expiries, &place, pointer)
        });
        if is_due != (is_active && expiry.is_some()) {
            self.found(token, "expiry index and active list disagree");
        }
    }

    fn org_access_token(&mut self, hash: &str, token: &Value) {
        let (org, id, name) = (text(token, "org_id"), token["id"].as_u64().unwrap(), text(token, "name"));
        let pointer = json!({"id": id, "hash": hash});
        self.require_pointer(token, &format!("ORG#{org}#ACCESS_TOKENS"), &format!("{id:020}"), &pointer);
        // Names are compared after normalization, and stored as given.
        let unique = Name::try_from(name.to_owned()).unwrap();
        self.require_pointer(token, &format!("ORG#{org}#ACCESS_TOKEN_NAMES"), &unique.normalized(), &pointer);
        let last = self.items.get(&(format!("ORG#{org}").as_str(), "ACCESS_TOKEN_LAST_ID")).copied();
        if last.is_none_or(|last| id > last["count"].as_u64().unwrap()) {
            self.found(token, "ID is beyond the ID counter");
        }
        let revision = usize::try_from(token["revision"].as_u64().unwrap()).unwrap();
        let (log, id) = (format!("ORG#{org}#AUDIT"), id.to_string());
        let logged = self.done.get(&(log.as_str(), id.as_str())).cloned().unwrap_or_default();
        let updates = logged.iter().filter(|action| **action == "org_access_token.update").count();
        // That it ended unused is a change without an entry. Only an update lets it end once more.
        let changes = if (updates..=2 * updates + 1).contains(&revision) { updates } else { revision };
        let expected_actions = [("create", 1), ("update", changes), ("delete", 0)];
        self.check_log(token, &log, &id, &expected_actions);
        self.require_org(token, org);
    }

    fn email_token(&mut self, token: &Value) {
        let address = text(token, "address");
        match self.items.get(&(format!("EMAIL#{address}").as_str(), "ADDRESS")).copied() {
            None => self.found(token, "address is missing"),
            Some(item) => {
                if format!("TOKEN#{}", text(item, "token")) != text(token, "pk") || item["token_id"] != token["id"] {
                    self.found(token, &format!("address has another token: {item}"));
                }
            }
        }
        let pointer = json!({"address": address});
        self.require_pointer(token, &format!("EMAIL_TOKEN#{}", text(token, "id")), "EMAIL_TOKEN", &pointer);
        let log = format!("EMAIL#{address}#AUDIT");
        let logged = self.done.get(&(log.as_str(), text(token, "id"))).cloned().unwrap_or_default();
        if logged.is_empty() || logged.contains(&"email_token.revoke") {
            self.found(token, &format!("the log has {logged:?}"));
        }
    }

    fn bot_token(&mut self, token: &Value) {
        let (org, id) = (text(token, "org_id"), text(token, "id"));
        let revoked = token.get("revoked_at").is_some();
        if revoked != token.get("revoked_by").is_some() {
            self.found(token, "revoked by nobody, or by somebody without a time");
        }
        let ends = Moment::parse(text(token, "expires_at")).map(Moment::epoch_seconds);
        if token["ttl"].as_i64() != ends.map(|ends| ends + ENDED_BOT_TOKEN) {
            self.found(token, "TTL is not 14 days after the expiry");
        }
        let log = format!("ORG#{org}#AUDIT");
        self.check_log(token, &log, id, &[("exchange", 1)]);
        let logged = self.done.get(&(log.as_str(), id)).cloned().unwrap_or_default();
        if revoked && !logged.iter().any(|action| ["bot_token.revoke", "bot_token.leaked"].contains(action)) {
            self.found(token, "the log has no revocation");
        }
        if !revoked && logged.contains(&"bot_token.revoke") {
            self.found(token, "the log has a revocation");
        }
        self.require_org(token, org);
    }

    /// The API key of a bot is one of those in the bot's item.
    fn bot_api_key(&mut self, hash: &str, key: &Value) {
        let bot = self.items.get(&(format!("BOT#{}", text(key, "bot_id")).as_str(), "BOT")).copied();
        let is_held = bot.is_some_and(|bot| {
            let keys = bot["keys"].as_array().into_iter().flatten();
            bot["org_id"] == key["org_id"] && keys.into_iter().any(|key| key["hash"] == hash)
        });
        if !is_held {
            self.found(key, "the bot does not have this API key");
        }
    }

    fn address(&mut self, hash: &str, address: &Value) {
        self.explain(address);
        match self.items.get(&(format!("TOKEN#{}", text(address, "token")).as_str(), "TOKEN")).copied() {
            None => self.found(address, "token is missing"),
            Some(token) if text(token, "address") != hash => self.found(address, "token belongs to another address"),
            Some(_) => {}
        }
    }

    fn org(&mut self, id: &str, org: &Value) {
        self.explain(org);
        self.require_pointer(org, "ORGS", id, &json!({}));
        self.check_log(org, &format!("ORG#{id}#AUDIT"), id, &[("create", 1)]);
        if text(org, "id") != id {
            self.found(org, "stored under another ID");
        }
    }

    fn require_org(&mut self, item: &Value, org: &str) {
        if !self.items.contains_key(&(format!("ORG#{org}").as_str(), "ORG")) {
            self.found(item, "organization is missing");
        }
    }

    fn bot(&mut self, id: &str, bot: &Value) {
        self.explain(bot);
        let org = text(bot, "org_id");
        self.require_pointer(bot, &format!("ORG#{org}"), &format!("BOT#{id}"), &json!({}));
        let log = format!("ORG#{org}#AUDIT");
        self.check_log(bot, &log, id, &[("create", 1), ("delete", 0)]);
        let logged = self.done.get(&(log.as_str(), id)).cloned().unwrap_or_default();
        let count = |actions: &[&str]| logged.iter().filter(|action| actions.contains(action)).count() as u64;
        let of_keys = ["bot.rotate_key", "bot_api_key.revoke", "bot_api_key.leaked"];
        let changes = count(&["bot.set_roles", "bot.end_tokens"]) + count(&of_keys);
        if bot["revision"].as_u64() != Some(changes) {
            self.found(bot, &format!("the log has {changes} changes"));
        }
        if bot["token_generation"].as_u64().unwrap_or_default() != count(&["bot.end_tokens"]) {
            self.found(bot, "the log has another number of ends of tokens");
        }
        let place = format!("BOT#{id}");
        let trusts = self.items.keys().filter(|(pk, sk)| *pk == place && sk.starts_with("TRUST#")).count() as u64;
        let counted = bot["trust_count"].as_u64().unwrap_or_default();
        if counted != trusts || counted + count(&["bot.remove_trust"]) != count(&["bot.add_trust"]) {
            self.found(bot, &format!("it has {trusts} trusts"));
        }
        self.require_org(bot, org);
    }

    fn trust(&mut self, bot: &str, place: &str, trust: &Value) {
        self.explain(trust);
        if place != format!("TRUST#{}", text(trust, "id")) || !trust["claims"].is_object() {
            self.found(trust, "stored under another ID, or without claims");
        }
        if !self.items.contains_key(&(format!("BOT#{bot}").as_str(), "BOT")) {
            self.found(trust, "bot is missing");
        }
    }

    /// The item of an exchanged ID token holds nothing but its end.
    fn exchanged_id_token(&mut self, hash: &str, item: &Value) {
        self.explain(item);
        let fields = item.as_object().map_or(0, |fields| fields.len());
        if TokenHash::from_hex(hash).is_none() || !item["ttl"].is_i64() || fields != 3 {
            self.found(item, "has no hash, does not expire, or says more");
        }
    }

    fn session(&mut self, hash: &str, session: &Value) {
        self.explain(session);
        let (id, person) = (text(session, "id"), text(session, "person"));
        let pointer = json!({"hash": hash, "ttl": session["ttl"]});
        self.require_pointer(session, &format!("PERSON#{person}"), &format!("SESSION#{id}"), &pointer);
        self.check_ttl(session);
    }

    /// The TTL is that of `expires_at`.
    fn check_ttl(&mut self, item: &Value) {
        let ends = Moment::parse(text(item, "expires_at")).map(Moment::epoch_seconds);
        if ends.is_none() || item["ttl"].as_i64() != ends {
            self.found(item, "TTL is not the time of expiry");
        }
    }

    fn member(&mut self, person: &str, member: &Value) {
        self.explain(member);
        let (org, id) = (text(member, "org_id"), text(member, "id"));
        if text(member, "person") != person || text(member, "sk") != format!("ORG#{org}") {
            self.found(member, "stored under another person or organization");
        }
        self.require_pointer(member, &format!("ORG#{org}#MEMBERS"), id, &json!({"person": person}));
        let address = EmailAddress::try_from(text(member, "email").to_owned()).unwrap().hash().to_hex();
        self.require_pointer(member, &format!("ORG#{org}#MEMBERS_AT#{address}"), id, &json!({"person": person}));
        let log = format!("ORG#{org}#AUDIT");
        let changes = usize::try_from(member["revision"].as_u64().unwrap()).unwrap();
        // Joined by an invitation, or was brought back.
        let logged = self.done.get(&(log.as_str(), id)).cloned().unwrap_or_default();
        let restored = usize::from(logged.contains(&"member.restore"));
        let joined = 1 - restored;
        let made = [("invite", joined), ("join", joined), ("restore", restored)];
        self.check_log(member, &log, id, &[&made[..], &[("set_roles", changes), ("remove", 0)]].concat());
        self.require_org(member, org);
        if is_owner(member) && !self.items.contains_key(&(format!("ORG#{org}").as_str(), "OWNER_COUNT")) {
            self.found(member, "organization has no counter of owners");
        }
    }

    /// The counter equals the number of owners among the members.
    fn owner_count(&mut self, org: &str, count: &Value) {
        self.explain(count);
        let members =
            self.items.iter().filter(|((pk, sk), _)| pk.starts_with("PERSON#") && *sk == format!("ORG#{org}"));
        let owners = members.filter(|(_, member)| is_owner(member)).count();
        if count["count"].as_u64() != u64::try_from(owners).ok() || owners == 0 {
            self.found(count, &format!("the counter differs from {owners} owners, or there is none"));
        }
        self.require_org(count, org);
    }

    fn invitation(&mut self, address: &str, org: &str, invitation: &Value) {
        self.explain(invitation);
        let id = text(invitation, "id");
        let email = EmailAddress::try_from(text(invitation, "email").to_owned());
        if email.map(|email| email.hash().to_hex()) != Ok(address.to_owned()) || text(invitation, "org_id") != org {
            self.found(invitation, "stored under another address or organization");
        }
        // Those of SCIM do not lapse.
        let is_lasting = invitation.get("expires_at").is_none();
        let pointer = match is_lasting {
            true => json!({"invited": address}),
            false => json!({"invited": address, "ttl": invitation["ttl"]}),
        };
        self.require_pointer(invitation, &format!("ORG#{org}#MEMBERS"), id, &pointer);
        if !is_lasting {
            self.check_ttl(invitation);
        } else if invitation.get("ttl").is_some() || invitation["roles"] != json!(["organization/member"]) {
            self.found(invitation, "a lasting invitation that ends, or gives more than the role of member");
        }
        let expected_actions = [("invite", 1), ("join", 0), ("remove", 0)];
        self.check_log(invitation, &format!("ORG#{org}#AUDIT"), id, &expected_actions);
        self.require_org(invitation, org);
    }

    fn scim_user(&mut self, org: &str, id: &str, user: &Value) {
        self.explain(user);
        let address = EmailAddress::try_from(text(user, "email").to_owned()).unwrap().hash().to_hex();
        self.require_pointer(user, &format!("ORG#{org}#SCIM_USER_NAMES"), &address, &json!({"id": id}));
        if text(user, "id") != id || text(user, "org_id") != org {
            self.found(user, "stored under another ID or organization");
        }
        let changes = usize::try_from(user["revision"].as_u64().unwrap()).unwrap();
        let expected_actions = [("create", 1), ("update", changes), ("delete", 0)];
        self.check_log(user, &format!("ORG#{org}#AUDIT"), id, &expected_actions);
        self.require_org(user, org);
    }

    /// What SCIM ended belongs to a user, and no owner is brought back while somebody is invited.
    fn scim_ended(&mut self, org: &str, address: &str, ended: &Value) {
        self.explain(ended);
        if !self.items.contains_key(&(format!("ORG#{org}#SCIM_USER_NAMES").as_str(), address)) {
            self.found(ended, "SCIM user is missing");
        }
        if self.items.contains_key(&(format!("INVITED#{address}").as_str(), org)) {
            self.found(ended, "the address is invited");
        }
    }

    /// Whose membership SCIM ended is no member, and the membership has ended.
    fn ended_membership(&mut self, ended: &Value) {
        self.explain(ended);
        let (person, org) = (text(ended, "pk"), text(ended, "sk").trim_start_matches("SCIM_ENDED#"));
        if self.items.contains_key(&(person, format!("ORG#{org}").as_str())) {
            self.found(ended, "the person is a member");
        }
        self.check_log(ended, &format!("ORG#{org}#AUDIT"), text(ended, "id"), &[("remove", 1)]);
    }

    /// The counter equals the number of SCIM users.
    fn scim_user_count(&mut self, org: &str, count: &Value) {
        self.explain(count);
        let list = format!("ORG#{org}#SCIM_USERS");
        let listed = self.items.keys().filter(|(pk, _)| *pk == list).count();
        if count["count"].as_u64() != u64::try_from(listed).ok() {
            self.found(count, &format!("the counter differs from {listed} SCIM users"));
        }
    }

    fn project(&mut self, org: &str, place: &str) {
        let pk = format!("ORG#{org}");
        let item = *self.items.get(&(pk.as_str(), place)).unwrap();
        self.explain(item);
        self.require_org(item, org);
    }

    /// The counter equals the number of keys listed as active, successors in place of what they replace.
    fn api_key_count(&mut self, org: &str, count: &Value) {
        self.explain(count);
        let active = format!("ORG#{org}#API_KEYS#ACTIVE#");
        let is_counted = |item: &Value| item.get("uncounted").is_none();
        let listed = self.items.iter().filter(|((pk, _), item)| pk.starts_with(&active) && is_counted(item)).count();
        if count["active"].as_u64() != u64::try_from(listed).ok() {
            self.found(count, &format!("the counter differs from {listed} listed API keys"));
        }
    }

    /// The counter equals the number of access tokens.
    fn access_token_count(&mut self, org: &str, count: &Value) {
        self.explain(count);
        let list = format!("ORG#{org}#ACCESS_TOKENS");
        let listed = self.items.keys().filter(|(pk, _)| *pk == list).count();
        if count["count"].as_u64() != u64::try_from(listed).ok() {
            self.found(count, &format!("the counter differs from {listed} access tokens"));
        }
    }

    fn last_access_token(&mut self, org: &str, last: &Value) {
        self.explain(last);
        self.require_org(last, org);
    }

    fn counter(&mut self, item: &Value, name: &str, allowed: std::ops::RangeInclusive<u64>, ends: bool) {
        self.explain(item);
        if !item[name].as_u64().is_some_and(|count| allowed.contains(&count)) {
            self.found(item, &format!("{name} is not in {allowed:?}"));
        }
        if ends != item["ttl"].as_i64().is_some() {
            self.found(item, "TTL is missing or unexpected");
        }
    }

    fn usage(&mut self, item: &Value, day: &str) {
        self.explain(item);
        for ecosystem in ["npm", "pypi"] {
            if item.get(ecosystem).is_some_and(|count| count.as_u64().is_none_or(|count| count == 0)) {
                self.found(item, &format!("{ecosystem} is not a download count"));
            }
        }
        let is_day = Moment::parse(&format!("{day}T00:00:00Z")).is_some();
        if day != "TOTAL" && !is_day {
            self.found(item, "sort key is neither a day nor TOTAL");
        }
    }

    /// An erasure is due 7 days after the removal that its address's log records.
    fn erasure(&mut self, erasure: &Value, place: &str) {
        self.explain(erasure);
        let log = format!("EMAIL#{}#AUDIT", text(erasure, "address"));
        let Some(removal) = self.items.get(&(log.as_str(), text(erasure, "removal"))).copied() else {
            return self.found(erasure, "the removal is not in the log");
        };
        let at = Moment::parse(text(removal, "at")).map_or(i64::MIN, Moment::epoch_seconds);
        let due = format!("{:012}#{}", at.saturating_add(ERASED_AFTER), text(&removal["target"], "id"));
        if removal["action"] != "email_token.revoke" || due != place {
            self.found(erasure, &format!("does not match the removal {removal}"));
        }
    }

    /// A used key names something that its caller made, and ends 24 hours after that.
    fn idempotency_key(&mut self, org: &str, key: &Value) {
        self.explain(key);
        let (actor, made) = (text(key, "sk").split('#').next().unwrap_or_default(), &key["made"]);
        let log = format!("ORG#{org}#AUDIT");
        let of_its_making = self.items.values().filter(|entry| {
            let at = Moment::parse(text(entry, "at")).map_or(0, Moment::epoch_seconds);
            let verb = text(entry, "action").rsplit('.').next().unwrap_or_default();
            let makes = ["issue", "create"].contains(&verb);
            // The target of a new trust or key is its bot.
            let is_trust = verb == "add_trust" && made["kind"] == "trust" && entry["detail"] == made["id"];
            let is_key = verb == "rotate_key"
                && made["kind"] == "bot_api_key"
                && entry["detail"].as_str().is_some_and(|detail| detail.contains(text(made, "id")));
            let is_made = makes && entry["target"] == *made || is_trust || is_key;
            let is_its = is_made && entry["actor"]["id"] == actor && entry["outcome"] == "done";
            // The two are dated one after the other.
            let ends = key["ttl"].as_i64().unwrap_or_default() - at - KEPT;
            text(entry, "pk") == log && is_its && (0..=1).contains(&ends)
        });
        if of_its_making.count() == 0 {
            self.found(key, "does not name what its caller made");
        }
    }

    /// An item under two hashes, which DynamoDB deletes.
    fn expiring(&mut self, item: &Value) {
        self.explain(item);
        let is_hash = |text: &str| TokenHash::from_hex(text).is_some();
        let browser = text(item, "pk").split('#').next_back().unwrap_or_default();
        if !is_hash(browser) || !is_hash(text(item, "sk")) || !item["ttl"].is_i64() {
            self.found(item, "has no hashes or does not expire");
        }
    }

    /// An item that holds nothing but its end.
    fn only_end(&mut self, is_key: bool, item: &Value) {
        self.explain(item);
        if !is_key || !item["ttl"].is_i64() || item.as_object().unwrap().len() != 3 {
            self.found(item, "wrong key, or more than an end");
        }
    }

    /// A notice is stored under its recipient, and only a person's holds an address.
    fn leak_notice(&mut self, notice: &Value, place: &str) {
        self.explain(notice);
        let parts: Vec<&str> = place.split('#').collect();
        let is_key =
            matches!(parts[..], [kind, id, entry] if is_recipient(kind, id) && AuditId::parse(entry).is_some());
        let at = Moment::parse(text(notice, "at")).map_or(0, Moment::epoch_seconds);
        if !is_key || notice["ttl"] != json!(at + NOTICE) {
            self.found(notice, "wrong key or end");
        }
        if notice.get("contact").is_some() != place.starts_with("ADDRESS#") || notice["ended"].as_bool().is_none() {
            self.found(notice, "contact of an organization, none of a person, or no outcome");
        }
        if text(notice, "place").contains(['?', '#', '@']) {
            self.found(notice, "place with more than host and path");
        }
    }

    /// An expiry is under the day of its token's end, in the shard of its hash. The token may be gone, or
    /// have another end by now.
    fn expiry(&mut self, expiry: &Value, on: &str, shard: &str, place: &str) {
        self.explain(expiry);
        let hash = text(expiry, "hash");
        let of_hash = hash.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).map(|byte| byte % 10);
        if of_hash.map(|shard| shard.to_string()).as_deref() != Some(shard) || TokenHash::from_hex(hash).is_none() {
            self.found(expiry, "wrong shard or hash");
        }
        let (ttl, start) = (expiry["ttl"].as_i64(), day(on));
        // No time is later than the last day of 9999.
        let days = i64::from(on != "9999-12-31");
        if ttl.zip(start).is_none_or(|(ttl, start)| ttl.div_euclid(A_DAY) != start.div_euclid(A_DAY) + days) {
            self.found(expiry, "does not end a day after the token");
        }
        let Some(token) = self.items.get(&(format!("TOKEN#{hash}").as_str(), "TOKEN")).copied() else { return };
        let kind = match text(token, "kind") {
            "org_user" => "org_user_token",
            "org_access" => "org_access_token",
            kind => kind,
        };
        let id = token["id"].as_str().map_or_else(|| token["id"].to_string(), str::to_owned);
        if place != format!("{}#{kind}#{id}", text(token, "org_id")) {
            self.found(expiry, "stored under another token");
        }
    }

    /// What is known about the reminders of an address, without the address.
    fn reminded(&mut self, hash: &str, reminded: &Value) {
        self.explain(reminded);
        let told = reminded.get("told").map(|told| told.as_str().and_then(day));
        if TokenHash::from_hex(hash).is_none() || told == Some(None) || !reminded["ttl"].is_i64() {
            self.found(reminded, "no hash, no day or no end");
        }
        let known = ["pk", "sk", "told", "until", "ttl"];
        if reminded.as_object().unwrap().keys().any(|name| !known.contains(&name.as_str())) {
            self.found(reminded, "says more");
        }
    }

    /// An organization that has asked for something is told of it, from an entry of its log on.
    fn subscription(&mut self, org: &str, subscription: &Value) {
        self.explain(subscription);
        let asks = self.items.get(&(format!("ORG#{org}").as_str(), "ORG")).is_some_and(|org| org["notify"].is_array());
        if !asks || AuditId::parse(text(subscription, "after")).is_none() {
            self.found(subscription, "of an organization that asks for nothing, or without a place");
        }
    }

    /// An entry is stored under its ID and indexed only in its own log.
    fn entry(&mut self, entry: &Value) {
        self.explain(entry);
        let (log, actor, action) = (text(entry, "pk"), text(&entry["actor"], "id"), text(entry, "action"));
        let at = Moment::parse(text(entry, "at")).map_or(i64::MIN, Moment::epoch_seconds);
        let ttl = at.saturating_add(AUDITED);
        let earliest_erased = at.saturating_add(ERASED_AFTER + ERASED_ENTRY);
        let is_erased = log.starts_with("EMAIL#")
            && entry["source_ip"].is_null()
            && entry["ttl"].as_i64().is_some_and(|end| (earliest_erased..=ttl).contains(&end));
        let ttl = if is_erased { entry["ttl"].clone() } else { json!(ttl) };
        let right = json!({
            "sk": entry["id"],
            "actor_pk": format!("{log}#{actor}"),
            "action_pk": format!("{log}#{action}"),
            "actor_action_pk": format!("{log}#{actor}#{action}"),
            "target_pk": format!("{log}#{}", text(&entry["target"], "id")),
            "ttl": ttl,
        });
        for (name, value) in right.as_object().unwrap() {
            if entry[name] != *value {
                self.found(entry, &format!("{name} is not {value}"));
            }
        }
        if entry["outcome"] != "done" && entry["outcome"] != "refused" {
            self.found(entry, "outcome is missing");
        }
    }

    /// Everything that was created according to the log and no longer exists was deleted once.
    fn check_deletions(&mut self) {
        for ((log, id), logged) in &self.done {
            let Some(org) = log.strip_prefix("ORG#").and_then(|log| log.strip_suffix("#AUDIT")) else { continue };
            let (made, deleted, place) = if logged.contains(&"org_access_token.create") {
                let number: u64 = id.parse().unwrap();
                let place = (format!("ORG#{org}#ACCESS_TOKENS"), format!("{number:020}"));
                ("org_access_token.create", "org_access_token.delete", place)
            } else if logged.contains(&"bot.create") {
                ("bot.create", "bot.delete", (format!("BOT#{id}"), "BOT".to_owned()))
            } else if logged.contains(&"member.join") {
                ("member.join", "member.remove", (format!("ORG#{org}#MEMBERS"), (*id).to_owned()))
            } else if logged.contains(&"member.restore") {
                ("member.restore", "member.remove", (format!("ORG#{org}#MEMBERS"), (*id).to_owned()))
            } else if logged.contains(&"scim_user.create") {
                ("scim_user.create", "scim_user.delete", (format!("ORG#{org}#SCIM_USERS"), (*id).to_owned()))
            } else {
                continue;
            };
            let count = |action: &str| logged.iter().filter(|logged| **logged == action).count();
            let deletions = match deleted {
                "org_access_token.delete" => logged.iter().filter(|action| is_revocation(action)).count(),
                deleted => count(deleted),
            };
            let is_there = self.items.contains_key(&(place.0.as_str(), place.1.as_str()));
            if (count(made), deletions) != (1, usize::from(!is_there)) {
                self.findings.push(format!("{log}: {id} exists: {is_there}, but the log has {logged:?}"));
            }
        }
    }

    /// No text of an item is a plaintext token, except text that callers chose themselves.
    fn check_secrets(&mut self, item: &Value, value: &Value) {
        let pk = text(item, "pk");
        let is_key_with_caller_text = pk.ends_with("#ACCESS_TOKEN_NAMES") || pk.contains("#USER_TOKENS#");
        let is_caller_text =
            |field: &str| matches!(field, "name" | "user_identifier") || field == "sk" && is_key_with_caller_text;
        match value {
            Value::String(text) if text.split('#').any(|part| Token::parse(part).is_some()) => {
                self.found(item, "contains a plaintext token")
            }
            Value::Array(values) => values.iter().for_each(|value| self.check_secrets(item, value)),
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(name, _)| !is_caller_text(name));
                fields.for_each(|(_, value)| self.check_secrets(item, value));
            }
            _ => {}
        }
    }
}

/// Whether this is a recipient of notices about leaked tokens.
fn is_recipient(kind: &str, id: &str) -> bool {
    match kind {
        "ORG" => OrgId::parse(id).is_some(),
        "ADDRESS" => TokenHash::from_hex(id).is_some(),
        _ => false,
    }
}

/// The seconds since 1970 at which a day such as `2026-11-21` begins.
fn day(day: &str) -> Option<i64> {
    Moment::parse(&format!("{day}T00:00:00Z")).map(Moment::epoch_seconds)
}

/// Whether an action revokes or deletes a token: `revoke`, `revoke_by_user`, `delete` or `leaked`.
fn is_revocation(action: &str) -> bool {
    let verb = action.rsplit('.').next().unwrap_or_default();
    verb.starts_with("revoke") || verb == "leaked" || verb == "delete"
}

fn is_owner(member: &Value) -> bool {
    member["roles"].as_array().is_some_and(|roles| roles.contains(&json!("organization/owner")))
}

/// A pointer to a token that may expire.
fn pointer_to(token: &Value, mut pointer: Value) -> Value {
    if let Some(expires_at) = token.get("expires_at") {
        pointer["expires_at"] = expires_at.clone();
    }
    pointer
}

/// Describes what is wrong with an entry of the installation log, if anything.
fn installation(entry: &Value) -> Option<String> {
    let pk = text(entry, "pk");
    let hash = u128::from_str_radix(pk, 16).ok().filter(|_| pk.len() == 32);
    let at = Moment::parse(text(entry, "time")).map_or(i64::MIN, Moment::epoch_seconds);
    let is_kept_long_enough = entry["ttl"] == at.saturating_add(LOGGED);
    let places = ["org_pk", "user_pk", "package_pk"].map(|name| text(entry, name));
    let are_places_right = if places[0].is_empty() {
        places == ["", "", ""]
    } else {
        let org = places[0].split('#').nth(1).unwrap_or_default();
        let end = format!("{}#{}", text(entry, "ecosystem").to_uppercase(), hash.unwrap_or_default() % 8);
        let (user, package) = (text(entry, "user_identifier"), text(entry, "package"));
        // A CI job has no identifier.
        let is_job = entry.get("subject").is_some();
        let right = [
            format!("ORG#{org}#{end}"),
            if is_job { String::new() } else { format!("ORG#{org}#USER#{user}#{end}") },
            format!("ORG#{org}#PACKAGE#{package}#{end}"),
        ];
        places == right.each_ref().map(String::as_str) && is_job == user.is_empty()
    };
    let is_sound = hash.is_some() && is_kept_long_enough && are_places_right && !text(entry, "id").is_empty();
    (!is_sound).then(|| format!("an installation is not as it must be: {entry}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest consistent table: an organization and an expiring token.
    fn sound() -> Vec<Value> {
        let org = "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC";
        let (id, hash) = ("01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "ab".repeat(32));
        let expires_at = "2026-12-21T10:00:00Z";
        let pointer = |pk: &str, sk: &str| {
            json!({"pk": format!("ORG#{org}#{pk}"), "sk": sk, "id": id, "user_identifier": "alice",
                "hash": hash, "expires_at": expires_at})
        };
        let entry = |entry: &str, action: &str, target: &str| {
            let log = format!("ORG#{org}#AUDIT");
            json!({"pk": log, "sk": entry, "id": entry, "at": "2026-11-21T10:00:00Z", "action": action, "outcome": "done",
                "actor": {"kind": "operator", "id": "me"}, "target": {"kind": "thing", "id": target},
                "actor_pk": format!("{log}#me"), "action_pk": format!("{log}#{action}"),
                "actor_action_pk": format!("{log}#me#{action}"), "target_pk": format!("{log}#{target}"),
                "ttl": 1_829_815_200})
        };
        vec![
            json!({"pk": format!("ORG#{org}"), "sk": "ORG", "id": org}),
            json!({"pk": "ORGS", "sk": org}),
            json!({"pk": format!("TOKEN#{hash}"), "sk": "TOKEN", "kind": "org_user", "id": id, "org_id": org,
                "user_identifier": "alice", "expires_at": expires_at}),
            pointer("USER_TOKEN", id),
            pointer("USER_TOKENS#ACTIVE", &format!("alice#{id}")),
            pointer("USER_TOKENS#EXPIRY", &format!("001797847200#{id}")),
            entry("1", "org.create", org),
            entry("2", "org_user_token.issue", id),
        ]
    }

    fn found(items: &[Value]) -> Vec<String> {
        findings(items, &[], &BTreeSet::new())
    }

    #[test]
    fn every_missing_or_altered_item_is_reported() {
        assert_eq!(found(&sound()), Vec::<String>::new());
        for place in 0..sound().len() {
            let mut items = sound();
            let removed = items.remove(place);
            assert!(!found(&items).is_empty(), "missing {removed} is not reported");
            for name in removed.as_object().unwrap().keys() {
                let mut items = sound();
                items[place][name] = json!("something else");
                assert!(!found(&items).is_empty(), "altered {name} in {removed} is not reported");
            }
        }
    }

    #[test]
    fn unexplained_items_and_stored_secrets_are_reported() {
        let secret = Token::generate(shared::secret::TokenKind::OrgUser).unwrap();
        for more in [
            json!({"pk": "ORG#OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC#USER_TOKENS#REVOKED", "sk": "bob#1"}),
            json!({"pk": "SOMETHING", "sk": "ELSE"}),
            json!({"pk": "CALLS#203.0.113.7", "sk": "1", "count": 1, "ttl": 1, "said": [secret.expose()]}),
        ] {
            let items = [sound(), vec![more.clone()]].concat();
            assert_eq!(found(&items).len(), 1, "{more}");
        }
    }
}
