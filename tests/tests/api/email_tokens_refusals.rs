//! What the operations on email-verified tokens refuse, and with which errors.

use reqwest::{Method, header};
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::secret::TokenKind;
use tests::coverage::unknown_token;
use tests::email::{Kind, assert_accepted};
use tests::{Answer, Service};

/// The operations that need an email-verified token.
const AUTHENTICATED: [(Method, &str); 3] = [
    (Method::GET, "/api/v1/tokens/status"),
    (Method::POST, "/api/v1/tokens/regenerate"),
    (Method::DELETE, "/api/v1/tokens"),
];

const REGISTER: &str = "/api/v1/tokens";
const RESET: &str = "/api/v1/tokens/reset";

const CHALLENGE: &str = r#"Bearer realm="guard-tokens""#;
const INVALID_TOKEN: &str = r#"Bearer realm="guard-tokens", error="invalid_token""#;

#[track_caller]
fn assert_unauthorized(answer: &Answer, challenge: &str) {
    answer.assert_error(401, "UNAUTHORIZED");
    assert_eq!(answer.header("www-authenticate"), challenge);
    assert!(answer.json()["error"].get("details").is_none());
}

async fn send_raw(service: &Service, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = service.request(Method::POST, path).header(header::CONTENT_TYPE, content_type);
    service.send(request.body(body)).await
}

async fn send(service: &Service, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    send_raw(service, path, "application/json", body).await
}

// Credentials

#[tokio::test]
async fn missing_bearer_credential_is_401_with_challenge() {
    let service = Service::start().await;
    let key = service.person("alice@example.com").obtain_token().await;
    let before = service.table.items().await;
    for (method, path) in AUTHENTICATED {
        let request = || service.request(method.clone(), path);
        let requests = [
            request(),
            request().basic_auth("token", Some(&key)),
            request().basic_auth("__token__", Some(&key)),
            request().header("authorization", &key),
            request().header("authorization", format!("Token {key}")),
            request().header("x-api-key", &key),
            request().header("cookie", format!("token={key}")),
            service.request(method.clone(), &format!("{path}?access_token={key}")),
            request().json(&json!({"token": key})),
        ];
        for request in requests {
            assert_unauthorized(&service.send(request).await, CHALLENGE);
        }
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn invalid_credentials_get_the_same_401() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let key = service.person("alice@example.com").obtain_token().await;
    let revoked = service.person("bob@example.com").obtain_token().await;
    assert_eq!(service.revoke_email_token(&revoked).await.status, 204);
    let org_token = service.issue(&org, &owner, "alice-laptop").await;
    service.revoke(&org, &owner, &org_token).await;
    let bad_checksum = format!("{}{}", &key[..49], if key.ends_with('0') { '1' } else { '0' });
    let (bot_key, bot_id) = owner.credential.split_once(':').unwrap();
    let credentials = [
        "x",
        "tg_anon_",
        "tg_anon_xxxxxx",
        &bad_checksum,
        &key[..49],
        &format!("{key}0"),
        &format!("{key} {key}"),
        &format!("{key},{key}"),
        &key.to_uppercase(),
        &key.replace("tg_anon_", "tg_org_"),
        &format!("token:{key}"),
        &format!("{key}:{bot_id}"),
        &unknown_token(TokenKind::EmailVerified),
        &unknown_token(TokenKind::OrgUser),
        &unknown_token(TokenKind::OrgAccess),
        &unknown_token(TokenKind::ApiKeyLive),
        &unknown_token(TokenKind::ApiKeyTest),
        &format!("{}:{bot_id}", unknown_token(TokenKind::BotApiKey)),
        bot_key,
        &revoked,
        &org_token.token,
    ];
    let before = service.table.items().await;
    for (method, path) in AUTHENTICATED {
        for credential in credentials {
            let answer = service.call(method.clone(), path, credential).await;
            assert_unauthorized(&answer, INVALID_TOKEN);
            assert!(!answer.text.contains(credential), "{}", answer.text);
        }
        let twice = service.request(method.clone(), path).bearer_auth(&key).bearer_auth(&key);
        assert_unauthorized(&service.send(twice).await, INVALID_TOKEN);
        let empty = service.request(method, path).header("authorization", "Bearer ");
        assert_unauthorized(&service.send(empty).await, INVALID_TOKEN);
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn other_kinds_of_credentials_are_403() {
    let service = Service::start().await;
    let org = service.org().await;
    let bot = service.bot(&org, Role::ALL).await;
    let org_token = service.issue(&org, &bot, "alice-laptop").await.token;
    let api_key = service.api_key(&bot.credential, &["org:read", "org:write"]).await.key;
    let access_token = service.access_token(&bot, &json!({"name": "server"})).await.token;
    let credentials = [&bot.credential, &org_token, &api_key, &access_token];
    for credential in credentials {
        // Updates `last_used_at`, at most once a minute, so that the calls below do not.
        assert_eq!(service.whoami(credential).await.status, 200);
    }
    let before = service.table.items().await;
    for (method, path) in AUTHENTICATED {
        for credential in credentials {
            service.call(method.clone(), path, credential).await.assert_error(403, "FORBIDDEN");
        }
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn bearer_scheme_is_case_insensitive() {
    let service = Service::start().await;
    let key = service.person("alice@example.com").obtain_token().await;
    for scheme in ["bearer", "BEARER", "BeArEr"] {
        let request = service.request(Method::GET, "/api/v1/tokens/status");
        let answer = service.send(request.header("authorization", format!("{scheme} {key}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn register_and_reset_ignore_credentials() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    for (place, credential) in
        ["x", &unknown_token(TokenKind::EmailVerified), &owner.credential].into_iter().enumerate()
    {
        let email = format!("alice{place}@example.com");
        assert_accepted(&service.post(REGISTER, credential, &json!({"email": email})).await);
        let answer = service.post(RESET, credential, &json!({"email": email, "code": "x"})).await;
        answer.assert_error(400, "INVALID_RESET_CODE");
    }
}

// Routes and query parameters

#[tokio::test]
async fn unknown_query_parameters_are_refused_without_side_effects() {
    let service = Service::start().await;
    let key = service.person("alice@example.com").obtain_token().await;
    let before = service.table.items().await;
    for (method, path) in AUTHENTICATED {
        for (query, field) in [("?verbose=1", "verbose"), ("?dry_run", "dry_run"), ("?a=1&b=2", "a")] {
            let answer = service.call(method.clone(), &format!("{path}{query}"), &key).await;
            answer.assert_invalid(field);
        }
        let answer = service.call(method, &format!("{path}?{key}=tg_anon_x"), &key).await;
        answer.assert_invalid("(unknown)");
        assert!(!answer.text.contains("tg_anon_"), "{}", answer.text);
    }
    let body = json!({"email": "bob@example.com", "code": "x"}).to_string();
    for path in [REGISTER, RESET] {
        send(&service, &format!("{path}?language=ja"), body.clone()).await.assert_invalid("language");
    }
    assert_eq!(service.table.items().await, before);
    assert!(service.is_active(&key).await);
}

#[tokio::test]
async fn other_methods_are_405_and_other_paths_404() {
    let service = Service::start().await;
    let key = service.person("alice@example.com").obtain_token().await;
    for (method, path) in [
        (Method::GET, "/api/v1/tokens"),
        (Method::PUT, "/api/v1/tokens"),
        (Method::PATCH, "/api/v1/tokens"),
        (Method::POST, "/api/v1/tokens/status"),
        (Method::DELETE, "/api/v1/tokens/status"),
        (Method::GET, "/api/v1/tokens/regenerate"),
        (Method::GET, "/api/v1/tokens/reset"),
        (Method::DELETE, "/api/v1/tokens/reset"),
    ] {
        let answer = service.call(method.clone(), path, &key).await;
        answer.assert_error(405, "METHOD_NOT_ALLOWED");
        assert!(!answer.header("allow").is_empty() && !answer.header("allow").contains(method.as_str()));
    }
    for path in ["/api/v1/tokens/", "/api/v1/tokens/status/", "/api/v1/token", "/api/v1/tokens/reset/x"] {
        service.call(Method::POST, path, &key).await.assert_error(404, "NOT_FOUND");
    }
    assert!(service.is_active(&key).await);
}

// Bodies

#[tokio::test]
async fn bodies_other_than_json_objects_are_refused() {
    let service = Service::start().await;
    for path in [REGISTER, RESET] {
        for body in [
            "",
            " ",
            "null",
            "1",
            "\"you@example.com\"",
            "[\"you@example.com\"]",
            "{",
            "{\"email\"",
            "{}x",
            "\u{feff}{}",
        ] {
            let answer = send(&service, path, body).await;
            answer.assert_error(400, "BAD_REQUEST");
            assert!(!answer.text.contains("you@"), "{body}: {}", answer.text);
        }
        send(&service, path, vec![b'{', 0xff, b'}']).await.assert_error(400, "BAD_REQUEST");
        let body = r#"{"email":"you@example.com"}"#;
        for content_type in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp", ""] {
            let answer = send_raw(&service, path, content_type, body).await;
            answer.assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
        }
    }
    assert!(service.outbox.mails().is_empty());
}

#[tokio::test]
async fn body_limit_is_16384_bytes() {
    let service = Service::start().await;
    let padded = |length: usize| format!("{:<length$}", r#"{"email":"you@example.com"}"#);
    send(&service, REGISTER, padded(16_385)).await.assert_error(413, "PAYLOAD_TOO_LARGE");
    assert!(service.outbox.mails().is_empty());
    assert_accepted(&send(&service, REGISTER, padded(16_384)).await);
}

#[tokio::test]
async fn invalid_field_is_named_and_its_value_not_echoed() {
    let service = Service::start().await;
    let before = service.table.items().await;
    let secret = "tg_anon_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ25DLYQ";
    let cases = [
        (REGISTER, r#"{}"#.to_owned(), "email"),
        (REGISTER, r#"{"language":"en"}"#.to_owned(), "email"),
        (REGISTER, r#"{"Email":"secret@example.com"}"#.to_owned(), "Email"),
        (REGISTER, r#"{"email":"secret@example.com","name":"secret"}"#.to_owned(), "name"),
        (REGISTER, r#"{"email":"secret@example.com","code":"secret"}"#.to_owned(), "code"),
        (REGISTER, format!(r#"{{"email":"secret@example.com","{secret}":1}}"#), "(unknown)"),
        (REGISTER, r#"{"email":"secret@example.com","secret@example.com":1}"#.to_owned(), "(unknown)"),
        (REGISTER, r#"{"email":"a@example.com","email":"secret@example.com"}"#.to_owned(), "email"),
        (REGISTER, r#"{"email":"a@example.com","language":"en","language":"ja"}"#.to_owned(), "language"),
        (REGISTER, r#"{"email":null}"#.to_owned(), "email"),
        (REGISTER, r#"{"email":1234567}"#.to_owned(), "email"),
        (REGISTER, r#"{"email":true}"#.to_owned(), "email"),
        (REGISTER, r#"{"email":["secret@example.com"]}"#.to_owned(), "email"),
        (REGISTER, r#"{"email":{"address":"secret@example.com"}}"#.to_owned(), "email"),
        (REGISTER, r#"{"email":"secret"}"#.to_owned(), "email"),
        (REGISTER, r#"{"email":"a@example.com","language":"secret"}"#.to_owned(), "language"),
        (REGISTER, r#"{"email":"a@example.com","language":"EN"}"#.to_owned(), "language"),
        (REGISTER, r#"{"email":"a@example.com","language":""}"#.to_owned(), "language"),
        (REGISTER, r#"{"email":"a@example.com","language":1234567}"#.to_owned(), "language"),
        (REGISTER, r#"{"email":"a@example.com","language":["ja"]}"#.to_owned(), "language"),
        (RESET, r#"{}"#.to_owned(), "email"),
        (RESET, r#"{"email":"secret@example.com"}"#.to_owned(), "code"),
        (RESET, r#"{"code":"secret"}"#.to_owned(), "email"),
        (RESET, r#"{"email":"secret","code":"secret"}"#.to_owned(), "email"),
        (RESET, r#"{"email":"secret@example.com","code":1234567}"#.to_owned(), "code"),
        (RESET, r#"{"email":"secret@example.com","code":null}"#.to_owned(), "code"),
        (RESET, r#"{"email":"secret@example.com","code":["secret"]}"#.to_owned(), "code"),
        (RESET, r#"{"email":"secret@example.com","code":{"secret":1}}"#.to_owned(), "code"),
        (RESET, r#"{"email":"a@example.com","code":"secret","code":"secret"}"#.to_owned(), "code"),
        (RESET, r#"{"email":"a@example.com","code":"secret","language":"en"}"#.to_owned(), "language"),
        (RESET, format!(r#"{{"email":"a@example.com","code":"x","token":"{secret}"}}"#), "token"),
    ];
    for (path, body, field) in cases {
        let answer = send(&service, path, body.clone()).await;
        answer.assert_invalid(field);
        for value in ["secret", "1234567", "0123456789ABCDEF"] {
            assert!(!answer.text.contains(value), "{body}: {}", answer.text);
        }
    }
    assert!(service.outbox.mails().is_empty());
    assert_eq!(service.table.items().await, before);
}

// Addresses

#[tokio::test]
async fn undeliverable_addresses_are_refused() {
    let service = Service::start().await;
    let addresses = [
        "",
        " ",
        "@",
        "you",
        "you@",
        "@example.com",
        "you@localhost",
        "you@example..com",
        "you@.example.com",
        "you@example.com.",
        "you@-example.com",
        "you@exa_mple.com",
        "you@exa mple.com",
        "you@xn--\u{fc}.com",
        "you@[192.0.2.1]",
        "you@192.0.2.1",
        "you@[IPv6:2001:db8::1]",
        "you@me@example.com",
        "y ou@example.com",
        ".you@example.com",
        "you.@example.com",
        "y..ou@example.com",
        "\"you\"@example.com",
        "You <you@example.com>",
        "<you@example.com>",
        "mailto:you@example.com",
        "you@example.com, me@example.com",
        "you@example.com;me@example.com",
        "you(comment)@example.com",
        "you\\@example.com",
        "you@example.com?cc=me@example.com",
        "you@example.com%0aBcc:me@example.com",
        "you\u{ff20}example.com",
        "you@ex\u{ff20}mple.com",
        "you@example.com\u{ff0c}example.org",
    ];
    let mut taken = Vec::new();
    for address in addresses {
        let bodies = [(REGISTER, json!({"email": address})), (RESET, json!({"email": address, "code": "x"}))];
        for (path, body) in bodies {
            let answer = send(&service, path, body.to_string()).await;
            if answer.status == 202 || answer.code() == "INVALID_RESET_CODE" {
                taken.push((path, address));
                continue;
            }
            answer.assert_invalid("email");
            assert!(address.len() < 4 || !answer.text.contains(address), "{address:?}: {}", answer.text);
        }
    }
    assert_eq!(taken, []);
    assert!(service.outbox.mails().is_empty());
}

#[tokio::test]
async fn control_characters_in_addresses_are_refused() {
    let service = Service::start().await;
    for control in ["\r\n", "\n", "\r", "\0", "\t", "\u{7f}", "\u{85}", "\u{1b}", "\u{b}", "\u{2028}", "\u{2029}"] {
        for address in [
            format!("you@example.com{control}Bcc: all@example.com"),
            format!("you{control}@example.com"),
            format!("you@{control}example.com"),
            format!("you@exam{control}ple.com"),
            format!("{control}{control}X: y{control}you@example.com"),
        ] {
            send(&service, REGISTER, json!({"email": address}).to_string()).await.assert_invalid("email");
        }
    }
    assert!(service.outbox.mails().is_empty());
}

#[tokio::test]
async fn whitespace_around_addresses_is_trimmed() {
    let service = Service::start().await;
    for address in [" you@example.com", "you@example.com\r\n", "\t you@example.com \n", "\u{3000}you@example.com\u{a0}"]
    {
        assert_accepted(&service.register(&json!({"email": address})).await);
    }
    let mails = service.outbox.mails();
    assert_eq!(mails.len(), 4);
    assert!(mails.iter().all(|mail| mail.to == "you@example.com"));
    assert_eq!(service.person("you@example.com").stored_tokens().await.len(), 1);
}

#[tokio::test]
async fn address_length_limits_follow_smtp() {
    let service = Service::start().await;
    let label = "a".repeat(63);
    let domain = |last: usize| format!("{label}.{label}.{}.com", "b".repeat(last));
    for (address, is_good) in [
        (format!("{}@example.com", "x".repeat(64)), true),
        (format!("{}@example.com", "x".repeat(65)), false),
        (format!("{}@{}", "x".repeat(64), domain(57)), true),
        (format!("{}@{}", "x".repeat(64), domain(58)), false),
        (format!("you@{label}.com"), true),
        (format!("you@{label}a.com"), false),
        (format!("you@{}.com", "ü".repeat(40)), true),
        (format!("you@{}.com", "ü".repeat(63)), false),
        (format!("{}@example.com", "x".repeat(16_000)), false),
        (format!("you@{}", "é.".repeat(4_000)), false),
    ] {
        let answer = service.register(&json!({"email": address})).await;
        match is_good {
            true => assert_accepted(&answer),
            false => answer.assert_invalid("email"),
        }
        assert_eq!(service.person(&address).mails().len(), usize::from(is_good), "{} {address}", address.len());
    }
}

/// Unicode look-alikes of `victim@example.com`, and where their mail goes: nowhere, or to the ASCII
/// form of the address.
#[tokio::test]
async fn unicode_lookalikes_are_not_the_same_address() {
    let service = Service::start().await;
    let victim = service.person("victim@example.com");
    let key = victim.obtain_token().await;
    let variants = [
        // The local part must be ASCII: Unicode case mapping would merge different users.
        ("v\u{131}ctim@example.com", None),
        ("V\u{130}CTIM@example.com", None),
        ("v\u{456}ctim@example.com", None),
        ("\u{ff56}\u{ff49}\u{ff43}\u{ff54}\u{ff49}\u{ff4d}@example.com", None),
        ("victi\u{1d0d}@example.com", None),
        ("vi\u{200b}ctim@example.com", None),
        ("victim\u{301}@example.com", None),
        ("\u{202e}mitciv@example.com", None),
        // The domain is converted by IDNA, so letters of other scripts are other domains.
        ("victim@ex\u{430}mple.com", Some("victim@xn--exmple-4nf.com")),
        ("victim@examp\u{142}e.com", Some("victim@xn--exampe-7db.com")),
        ("victim@\u{131}example.com", Some("victim@xn--example-qfb.com")),
        ("victim@example.c\u{43e}m", Some("victim@example.xn--cm-fmc")),
        ("victim@exampless.com", Some("victim@exampless.com")),
        ("victim@example\u{df}.com", Some("victim@xn--example-6va.com")),
        ("victim@\u{130}example.com", Some("victim@xn--iexample-o0e.com")),
        // These map to the domain itself: full width, ideographic full stop, soft hyphen,
        // mathematical letters.
        ("victim@\u{ff45}\u{ff58}\u{ff41}\u{ff4d}\u{ff50}\u{ff4c}\u{ff45}.com", Some("victim@example.com")),
        ("victim@example\u{3002}com", Some("victim@example.com")),
        ("victim@exam\u{ad}ple.com", Some("victim@example.com")),
        ("VICTIM@\u{1d404}xample.com", Some("victim@example.com")),
    ];
    let mut found = Vec::new();
    for (variant, _) in variants {
        let mails = service.outbox.mails().len();
        let answer = service.register(&json!({"email": variant})).await;
        let sent = service.outbox.mails().len() - mails;
        found.push((variant, (sent > 0).then(|| service.outbox.mails()[0].to.clone())));
        match sent {
            0 => answer.assert_invalid("email"),
            _ => assert_accepted(&answer),
        }
        assert!(sent < 2);
    }
    assert_eq!(found, variants.map(|(variant, owner)| (variant, owner.map(str::to_owned))));
    assert_eq!(victim.mail_kinds()[1..], [Kind::Recovery; 4]);
    assert!(service.is_active(&key).await);
    service.assert_sound_without(&[&key]).await;
}

#[tokio::test]
async fn every_mail_has_one_recipient_and_the_required_headers() {
    let service = Service::start().await;
    let person = service.person("o'brien+npm@例え.テスト");
    let key = person.obtain_token().await;
    person.register_in("ja").await;
    service.regenerate(&key).await;
    person.recover().await;
    let mails = person.mails();
    assert_eq!(mails.len(), 5);
    for mail in mails {
        let message = &mail.source["Content"]["Simple"];
        assert_eq!(mail.source["Destination"], json!({"ToAddresses": ["o'brien+npm@xn--r8jz45g.xn--zckzah"]}));
        assert_eq!(message["Headers"], json!([{"Name": "Auto-Submitted", "Value": "auto-generated"}]));
        assert_eq!(mail.source["FromEmailAddress"], "guard-tokens <no-reply@guard-tokens.example>");
        assert_eq!(mail.source["ReplyToAddresses"], json!(["support@guard-tokens.example"]));
        assert_eq!(mail.source["ConfigurationSetName"], "guard-tokens");
        for part in [&message["Subject"], &message["Body"]["Text"], &message["Body"]["Html"]] {
            assert_eq!(part["Charset"], "UTF-8");
            assert!(part["Data"].as_str().is_some_and(|data| !data.trim().is_empty()), "{part}");
        }
        assert!(!message["Subject"]["Data"].as_str().unwrap().contains(['\r', '\n']));
        let names: Vec<&String> = mail.source.as_object().map(|source| source.keys().collect()).unwrap();
        let known = ["ConfigurationSetName", "Content", "Destination", "FromEmailAddress", "ReplyToAddresses"];
        assert_eq!(names, known, "nothing else: {}", Value::from(mail.source.to_string()));
    }
}
