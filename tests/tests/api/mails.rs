//! The mails: their exact text, and what their commands do when pasted into a shell.

use local::outbox::Mail;
use reqwest::Method;
use serde_json::{Value, json};
use shared::email::{EmailAddress, Language};
use shared::mail::{self, Expiring, ExpiringOf, Leak};
use shared::permissions::Role;
use shared::secret::MailedCode;
use shared::store::notices::Happened;
use tests::Service;
use tests::email::{code_in, is_code, is_token, new_token, token_in};
use tests::shell::{Call, Shell};

const LANGUAGES: [&str; 2] = ["en", "ja"];

/// The placeholder for the reader's own token in commands.
const ANY_KEY: &str = "tg_anon_xxxxxx";

/// One mail of each kind to an address, and the secrets they contain.
struct Mails {
    welcome: Mail,
    recovery: Mail,
    regenerated: Mail,
    reset: Mail,
    removed: Mail,
    sign_in_code: Mail,
    invitation: Mail,
    operators_invitation: Mail,
    leaked: [(&'static str, Mail); 5],
    expiring: [(&'static str, Mail); 3],
    key: String,
    code: String,
    to_sign_in: String,
}

impl Mails {
    async fn to(service: &Service, address: &str, language: &str) -> Self {
        let person = service.person(address);
        person.register_in(language).await;
        let welcome = person.newest_mail();
        let key = token_in(&welcome);
        new_token(&service.regenerate(&key).await);
        let regenerated = person.newest_mail();
        person.register().await;
        let recovery = person.newest_mail();
        let code = code_in(&recovery);
        let last = person.reset_with(&code).await;
        let reset = person.newest_mail();
        assert_eq!(service.revoke_email_token(&last).await.status, 204);
        let removed = person.newest_mail();
        let sign_in_code = MailedCode::generate().unwrap();
        let sign_in_code = send(service, address, language, &mail::Mail::SignInCode { code: &sign_in_code }).await;
        let to_sign_in = code_in(&sign_in_code);
        let alice = EmailAddress::try_from("Alice@example.com".to_owned()).unwrap();
        let roles = [Role::Owner, Role::Manager];
        let invitation = mail::Mail::Invitation { organization: "Acme", inviter: Some(&alice), roles: &roles };
        let invitation = send(service, address, language, &invitation).await;
        let by_operator = mail::Mail::Invitation { organization: "Acme", inviter: None, roles: &roles[..1] };
        let operators_invitation = send(service, address, language, &by_operator).await;
        let leaked = leaked(service, address, language).await;
        let expiring = expiring(service, address, language).await;
        assert!(is_token(&key) && is_code(&code) && is_code(&to_sign_in));
        Self {
            welcome,
            recovery,
            regenerated,
            reset,
            removed,
            sign_in_code,
            invitation,
            operators_invitation,
            leaked,
            expiring,
            key,
            code,
            to_sign_in,
        }
    }

    /// The mails about keys and the ones about the console.
    fn all(&self) -> Vec<(&'static str, &Mail)> {
        let console = [
            ("sign_in_code", &self.sign_in_code),
            ("invitation", &self.invitation),
            ("invitation_by_operator", &self.operators_invitation),
        ];
        let leaked: Vec<_> = self.leaked.iter().chain(&self.expiring).map(|(name, mail)| (*name, mail)).collect();
        [self.about_keys().as_slice(), &console, &leaked].concat()
    }

    fn about_keys(&self) -> [(&'static str, &Mail); 5] {
        [
            ("welcome", &self.welcome),
            ("recovery", &self.recovery),
            ("key_changed_by_regenerate", &self.regenerated),
            ("key_changed_by_reset", &self.reset),
            ("key_removed", &self.removed),
        ]
    }

    /// A text with its secrets replaced by placeholders.
    fn redacted(&self, text: &str) -> String {
        text.replace(&self.key, "[KEY]").replace(&self.code, "[CODE]").replace(&self.to_sign_in, "[CODE]")
    }
}

/// One mail of each kind about leaked tokens.
async fn leaked(service: &Service, address: &str, language: &str) -> [(&'static str, Mail); 5] {
    let leak = |kind: &str, number: u8, place: Option<&str>, ended| Leak {
        kind: kind.to_owned(),
        id: format!("01KAJ8M4R2X7Z9V5T3Q1N6P8{number:02}"),
        place: place.map(str::to_owned),
        at: service.clock.now(),
        ended,
    };
    let place = Some("github.com/acme/widgets/blob/main/.npmrc");
    let revoked = [leak("org_user_token", 1, place, true), leak("bot_api_key", 2, None, true)];
    let told = [leak("api_key", 3, Some("paste.example/<b>o'brien</b>"), false)];
    let both: Vec<Leak> = told.iter().chain(&revoked).cloned().cycle().take(23).collect();
    let [key, session] = ["email_token", "session"].map(|kind| leak(kind, 4, place, true));
    let of_org = |leaks| mail::Mail::TokensLeaked { organization: "Acme", leaks };
    let own = |leaks| mail::Mail::OwnTokensLeaked { leaks };
    let key_and_session = [key, session];
    let mut sent = Vec::new();
    for (name, mail) in [
        ("tokens_leaked_and_revoked", of_org(&revoked)),
        ("tokens_leaked_tell_only", of_org(&told)),
        ("tokens_leaked_many", of_org(&both)),
        ("own_tokens_leaked_key", own(&key_and_session[..1])),
        ("own_tokens_leaked_session", own(&key_and_session[1..])),
    ] {
        sent.push((name, send(service, address, language, &mail).await));
    }
    sent.try_into().unwrap()
}

/// Reminders, one of two organizations' tokens and one that lists only some, and a notice.
async fn expiring(service: &Service, address: &str, language: &str) -> [(&'static str, Mail); 3] {
    let token = |kind, prefix: &str, name: &str, days_left| Expiring {
        kind,
        id: "01KAJ8M4R2X7Z9V5T3Q1N6P8WC".to_owned(),
        prefix: prefix.to_owned(),
        name: name.to_owned(),
        expires_at: service.clock.now(),
        days_left,
    };
    let of = |organization: &str, tokens| ExpiringOf { organization: organization.to_owned(), tokens };
    let own = token("org_user_token", "tg_org_a1B2", "alice@example.com", 0);
    let key = token("api_key", "tk_live_a1b2c3d4", "<b>o'brien</b>", 1);
    let access = token("org_access_token", "rjm9czn9", "Factor export pipeline", 30);
    let all = [of("Acme", vec![own.clone()]), of("Beta Ltd", vec![key, access])];
    let some = [of("Acme", vec![own])];
    let mut sent = Vec::new();
    for (name, of, more) in [("tokens_expire", &all[..], 0), ("tokens_expire_many", &some[..], 3)] {
        sent.push((name, send(service, address, language, &mail::Mail::TokensExpire { of, more }).await));
    }
    let happened = |action: &str, kind: &str, id: &str| -> Happened {
        let actor = json!({"kind": "bot", "id": "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"});
        let at = service.clock.now();
        let entry =
            json!({"at": at, "actor": actor, "action": action, "target": {"kind": kind, "id": id}, "outcome": "done"});
        serde_json::from_value(entry).unwrap()
    };
    let happened = [
        happened("org_user_token.issue", "org_user_token", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
        happened("org_access_token.create", "org_access_token", "12"),
        happened("bot.rotate_key", "bot", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
    ];
    let notice = mail::Mail::Happened { organization: "Acme", happened: &happened, more: 4 };
    sent.push(("happened", send(service, address, language, &notice).await));
    sent.try_into().unwrap()
}

/// Sends a mail that no operation sends by itself.
async fn send(service: &Service, address: &str, language: &str, mail: &mail::Mail<'_>) -> Mail {
    let to = EmailAddress::try_from(address.to_owned()).unwrap();
    let language = if language == "ja" { Language::Ja } else { Language::En };
    service.mailer.send(&to, language, mail).await.unwrap();
    service.person(address).newest_mail()
}

/// A block of a mail that is meant to be copied, with its title if it has one.
#[derive(Debug, PartialEq, Eq)]
struct Copied {
    title: Option<String>,
    content: String,
}

/// The blocks to copy in the plain text: blocks under a title, tokens, codes, URLs, curl commands.
fn copied_from_text(text: &str) -> Vec<Copied> {
    let mut copied = Vec::new();
    let mut title = None;
    for block in text.trim_end().split("\n\n") {
        if let Some(new) = block.strip_prefix("* ") {
            assert_eq!(title.replace(new.to_owned()), None, "title without content: {text}");
        } else if title.is_some() || is_token(block) || is_code(block) || is_url_or_call(block) {
            copied.push(Copied { title: title.take(), content: block.to_owned() });
        }
    }
    copied
}

fn is_url_or_call(block: &str) -> bool {
    block.starts_with("https://") || block.starts_with("curl ")
}

/// The blocks to copy in the HTML, as a mail client displays them.
fn copied_from_html(html: &str) -> Vec<Copied> {
    let pieces = html.split("<pre><code>").skip(1).zip(html.split("<pre><code>"));
    pieces
        .map(|(piece, before)| {
            let title = before.trim_end().strip_suffix("</h3>").and_then(|before| before.rsplit("<h3>").next());
            let content = piece.split("</code></pre>").next().unwrap();
            Copied { title: title.map(unescaped), content: unescaped(content) }
        })
        .collect()
}

fn unescaped(html: &str) -> String {
    let entities = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    entities.iter().fold(html.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

/// The only block whose title starts with `title`.
#[track_caller]
fn step<'a>(copied: &'a [Copied], title: &str) -> &'a str {
    let is_it = |piece: &&Copied| piece.title.as_deref().is_some_and(|found| found.starts_with(title));
    let found: Vec<&Copied> = copied.iter().filter(is_it).collect();
    let [step] = found[..] else { panic!("{} titles start with {title:?}: {copied:#?}", found.len()) };
    &step.content
}

/// The first block without a title that starts with `beginning`.
#[track_caller]
fn piece<'a>(copied: &'a [Copied], beginning: &str) -> &'a str {
    let found = copied.iter().find(|piece| piece.title.is_none() && piece.content.starts_with(beginning));
    &found.unwrap_or_else(|| panic!("no block starts with {beginning:?}: {copied:#?}")).content
}

fn call(words: &[&str]) -> Call {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn mail_texts_match_their_snapshots() {
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "you@example.com", language).await;
        for (name, mail) in mails.all() {
            let text = format!("Subject: {}\n\n{}", mail.subject, mails.redacted(&mail.text));
            insta::assert_snapshot!(format!("{name}_{language}_text"), text);
            insta::assert_snapshot!(format!("{name}_{language}_html"), mails.redacted(&mail.html));
        }
    }
}

#[tokio::test]
async fn html_and_plain_text_contain_the_same_commands() {
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "o'brien&co@example.com", language).await;
        for (name, mail) in mails.all() {
            let from_text = copied_from_text(&mail.text);
            assert_eq!(from_text, copied_from_html(&mail.html), "{name} {language}");
            let is_about_keys = mails.about_keys().iter().any(|(about_keys, _)| *about_keys == name);
            assert_eq!(from_text.len() > 8, is_about_keys, "{name} {language}");
        }
    }
}

#[tokio::test]
async fn html_is_well_formed_and_loads_no_remote_content() {
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "o'brien@example.com", language).await;
        for (name, mail) in mails.all() {
            let html = &mail.html;
            assert!(html.starts_with("<!doctype html>\n"), "{name} {language}");
            assert!(html.contains(&format!("<html lang=\"{language}\">")), "{name} {language}");
            assert!(html.contains("prefers-color-scheme: dark"), "{name} {language}");
            for fetching in ["<img", "<a ", "<link", "<script", "<iframe", "src=", "href=", "url(", "@import"] {
                assert!(!html.contains(fetching), "{name} {language}: {fetching}");
            }
            // All tags are closed in order, and text is escaped exactly once.
            let mut open = Vec::new();
            for piece in html.split('<').skip(1) {
                let (tag, _) = piece.split_once('>').unwrap();
                match (tag.strip_prefix('/'), tag.split(' ').next().unwrap()) {
                    (Some(closed), _) => assert_eq!(open.pop(), Some(closed), "{name} {language}: {html}"),
                    (None, "meta" | "!doctype") => {}
                    (None, opened) => open.push(opened),
                }
            }
            assert_eq!(open, [""; 0], "{name} {language}");
            assert!(!html.contains("&#38;") && !html.contains("&amp;"), "{name} {language}: escaped twice");
        }
    }
}

#[tokio::test]
async fn plain_text_has_clean_lines_and_no_markup() {
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "o'brien@example.com", language).await;
        for (name, mail) in mails.all() {
            let text = &mail.text;
            assert!(text.ends_with('\n') && !text.contains("\n\n\n") && !text.contains('\r'), "{name} {language}");
            for line in text.lines() {
                assert!(line == line.trim_end() && line.len() < 998, "{name} {language}: {line:?}");
                assert!(
                    !line.contains("{{") && !line.contains("{%") && !line.contains("&#"),
                    "{name} {language}: {line}"
                );
            }
            // An interactive zsh would try to run a comment.
            let copied = copied_from_text(text);
            assert!(copied.iter().flat_map(|piece| piece.content.lines()).all(|line| !line.starts_with('#')));
        }
    }
}

#[tokio::test]
async fn each_mail_contains_only_its_own_secret() {
    let service = Service::start_with_manual_clock().await;
    let mails = Mails::to(&service, "you@example.com", "en").await;
    for (name, mail) in mails.all() {
        let source = mail.source.to_string();
        assert_eq!(source.contains(&mails.key), name == "welcome", "{name}");
        assert_eq!(source.contains(&mails.code), name == "recovery", "{name}");
        assert_eq!(source.contains(&mails.to_sign_in), name == "sign_in_code", "{name}");
        let words = source.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        assert!(words.filter(|word| is_token(word)).all(|word| word == mails.key), "{name}");
    }
}

/// Asserts that the commands configure each package manager with the token.
fn assert_set_up(copied: &[Copied], base_url: &str, key: &str) {
    let (scheme, authority) = base_url.split_once("://").unwrap();
    let npm_registry = format!("{base_url}/npm/");
    let auth_token = format!("//{authority}/npm/:_authToken");
    let pypi_with_key = format!("{scheme}://token:{key}@{authority}/pypi/simple/");
    let npm = |program: &str| {
        vec![
            call(&[program, "config", "set", "registry", &npm_registry]),
            call(&[program, "config", "set", &auth_token, key]),
        ]
    };
    let shell = Shell::new();
    shell.stub(&["npm", "pnpm", "yarn", "bun", "pip", "uv", "poetry"]);
    let calls = |title: &str| {
        assert_eq!(shell.run(step(copied, title)), "", "{title}");
        shell.calls()
    };

    assert_eq!(calls("npm"), npm("npm"));
    assert_eq!(calls("pnpm"), npm("pnpm"));
    shell.write("home/.npmrc", "before=1\n");
    assert_eq!(calls("yarn 1"), npm("npm"));
    assert_eq!(shell.read("home/.npmrc"), format!("before=1\n//{authority}/npm/:always-auth=true\n"));
    let berry = |setting: &str| format!("npmRegistries[\"//{authority}/npm\"].{setting}");
    let expected = [
        call(&["yarn", "config", "set", "--home", "npmRegistryServer", &npm_registry]),
        call(&["yarn", "config", "set", "--home", &berry("npmAuthToken"), key]),
        call(&["yarn", "config", "set", "--home", &berry("npmAlwaysAuth"), "true"]),
    ];
    assert_eq!(calls("yarn 2"), expected);
    let bunfig = format!("[install]\nregistry = {{ url = \"{npm_registry}\", token = \"{key}\" }}");
    assert_eq!(step(copied, "bun"), bunfig);
    assert_eq!(calls("pip"), [call(&["pip", "config", "set", "global.index-url", &pypi_with_key])]);
    shell.write("home/.profile", step(copied, "uv"));
    assert_eq!(shell.run(". ~/.profile; printenv UV_DEFAULT_INDEX"), format!("{pypi_with_key}\n"));
    let expected = [
        call(&["poetry", "source", "add", "--priority=primary", "takumi-guard", &format!("{base_url}/pypi/simple/")]),
        call(&["poetry", "config", "http-basic.takumi-guard", "token", key]),
    ];
    assert_eq!(calls("poetry"), expected);
}

const GUARD: &str = "https://guard.example.com";

#[tokio::test]
async fn welcome_mail_configures_every_package_manager() {
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "you@example.com", language).await;
        let (copied, key) = (copied_from_text(&mails.welcome.text), mails.key.as_str());
        assert_eq!(copied[0], Copied { title: None, content: key.to_owned() });
        assert_set_up(&copied, GUARD, key);
        let shell = Shell::new();
        shell.stub(&["curl"]);
        let authorization = format!("Authorization: Bearer {key}");
        for (method, path) in [("POST", "/api/v1/tokens/regenerate"), ("DELETE", "/api/v1/tokens")] {
            let command = piece(&copied, &format!("curl -X {method}"));
            assert_eq!(command.lines().count(), 1, "one line: {command}");
            shell.run(command);
            let url = format!("{GUARD}{path}");
            assert_eq!(shell.calls(), [call(&["curl", "-X", method, "-H", &authorization, &url])]);
        }
        assert!(!mails.welcome.text.contains(ANY_KEY));
    }
}

#[tokio::test]
async fn other_mails_configure_package_managers_with_a_placeholder() {
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "you@example.com", language).await;
        for (_, mail) in &mails.about_keys()[1..] {
            let copied = copied_from_text(&mail.text);
            // The recovery mail first explains where to find a token, under similar titles.
            let set_up = copied.iter().rposition(|piece| piece.title.as_deref() == Some("npm")).unwrap();
            assert_set_up(&copied[set_up..], GUARD, ANY_KEY);
        }
    }
}

#[tokio::test]
async fn mail_commands_use_the_service_public_url() {
    let service = Service::start_with_mail_links_to_itself().await;
    let mails = Mails::to(&service, "you@example.com", "en").await;
    assert_set_up(&copied_from_text(&mails.welcome.text), &service.base_url, &mails.key);
    assert!(mails.invitation.text.contains(&format!("\n{}/console/\n", service.base_url)));
    for (name, mail) in mails.all() {
        assert!(!mail.source.to_string().contains("guard.example.com"), "{name}");
    }
}

#[tokio::test]
async fn recovery_mail_commands_find_stored_tokens() {
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "you@example.com", language).await;
        let copied = copied_from_text(&mails.recovery.text);
        let reset = copied.iter().position(|piece| is_code(&piece.content)).unwrap();
        let copied = &copied[..reset];
        let shell = Shell::new();
        shell.stub(&["pnpm", "pip", "keyring"]);
        let looks = |title: &str, found: &[&str]| {
            let printed = shell.look(step(copied, title));
            assert_eq!(printed.matches("tg_anon_").count(), found.len(), "{title}: {printed}");
            for key in found {
                assert!(printed.contains(&format!("tg_anon_{key}")), "{title}: {printed}");
            }
        };
        for title in ["npm", "yarn 2", "bun", "uv"] {
            looks(title, &[]);
        }
        shell.write(
            "home/.npmrc",
            "//guard.example.com/npm/:_authToken=tg_anon_1\n//other.example/:_authToken=tg_anon_x\n",
        );
        shell.write(
            "project/.npmrc",
            "registry=https://guard.example.com/npm/\n//guard.example.com/npm/:_authToken=tg_anon_2\n",
        );
        looks("npm", &["1", "2"]);
        shell
            .write("home/.yarnrc.yml", "npmRegistries:\n  \"//guard.example.com/npm\":\n    npmAuthToken: tg_anon_3\n");
        shell.write("project/.yarnrc.yml", "npmAuthToken: tg_anon_4\n");
        looks("yarn 2", &["3", "4"]);
        shell.write("home/.bunfig.toml", "[install]\nregistry = { url = \"x\", token = \"tg_anon_5\" }\n");
        shell.write("project/bunfig.toml", "[install.registry]\ntoken = \"tg_anon_6\"\n");
        looks("bun", &["5", "6"]);
        let index = |key: &str| format!("https://token:{key}@guard.example.com/pypi/simple/");
        shell.write("home/.config/uv/uv.toml", &format!("[[index]]\nurl = \"{}\"\n", index("tg_anon_7")));
        shell.write("project/uv.toml", &format!("index-url = \"{}\"\n", index("tg_anon_8")));
        shell.write("project/pyproject.toml", &format!("[[tool.uv.index]]\nurl = \"{}\"\n", index("tg_anon_9")));
        looks("uv", &["7", "8", "9"]);
        let auth = "[http-basic.takumi-guard]\nusername = \"token\"\npassword = \"tg_anon_10\"\n";
        shell.write("home/.config/pypoetry/auth.toml", auth);
        let [poetry, keyring] = &copied[copied.len() - 2..] else { panic!("{copied:#?}") };
        assert!(shell.run(&poetry.content).contains("tg_anon_10"));

        assert_eq!(shell.calls(), Vec::<Call>::new());
        shell.run(&keyring.content);
        assert_eq!(shell.calls(), [call(&["keyring", "get", "poetry-repository-takumi-guard", "token"])]);
        shell.run(step(copied, "pnpm 11"));
        assert_eq!(shell.calls(), [call(&["pnpm", "config", "get", "//guard.example.com/npm/:_authToken"])]);
        let with_environment = |title: &str, name: &str| {
            shell.look(&format!("export {name}={}\n{}", index("tg_anon_11"), step(copied, title)))
        };
        assert!(with_environment("pip", "PIP_INDEX_URL").contains("tg_anon_11"));
        assert_eq!(shell.calls(), [call(&["pip", "config", "get", "global.index-url"])]);
        for name in ["UV_DEFAULT_INDEX", "UV_INDEX_URL"] {
            assert!(with_environment("uv", name).contains("tg_anon_11"));
        }
    }
}

/// Addresses and their form in commands, with the domain in its ASCII form.
const ADDRESSES: [(&str, &str); 6] = [
    ("you@example.com", "you@example.com"),
    ("o'brien+npm@example.com", "o'brien+npm@example.com"),
    ("You@例え.テスト", "You@xn--r8jz45g.xn--zckzah"),
    ("'@BÜCHER.example", "'@xn--bcher-kva.example"),
    // All characters allowed in a local part that are special to a shell.
    ("$HOME`id`&|*?~!#%^{}=/@example.com", "$HOME`id`&|*?~!#%^{}=/@example.com"),
    ("--json@example.com", "--json@example.com"),
];

#[tokio::test]
async fn mail_commands_never_execute_the_address() {
    let shell = Shell::new();
    shell.stub(&["curl", "id"]);
    for language in LANGUAGES {
        let service = Service::start_with_manual_clock().await;
        for (address, written) in ADDRESSES {
            let mails = Mails::to(&service, address, language).await;
            let recovery = copied_from_text(&mails.recovery.text);
            assert_eq!(shell.run(piece(&recovery, "curl --json")), "");
            let [reset] = &shell.calls()[..] else { panic!("expected one call: {address}") };
            let [program, option, body, url] = &reset[..] else { panic!("{reset:?}") };
            assert_eq!([program, option, url], ["curl", "--json", &format!("{GUARD}/api/v1/tokens/reset")]);
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body, json!({"email": written, "code": mails.code}));

            for changed in [&mails.regenerated, &mails.reset, &mails.removed] {
                assert_eq!(shell.run(piece(&copied_from_text(&changed.text), "curl -X POST")), "");
                let [register] = &shell.calls()[..] else { panic!("expected one call: {address}") };
                let (body, words) = register.split_last().unwrap();
                let (url, header) = (format!("{GUARD}/api/v1/tokens"), "Content-Type: application/json");
                assert_eq!(words, call(&["curl", "-X", "POST", &url, "-H", header, "-d"]));
                let body: Value = serde_json::from_str(body).unwrap();
                assert_eq!(body, json!({"email": written, "language": language}));
            }
        }
    }
}

#[tokio::test]
async fn key_changed_mail_states_time_and_cause() {
    for (language, when, by_reset, by_regenerate) in [
        ("en", "When: 2026-11-21T10:00:00Z (UTC)", "How: with a reset code", "How: with the regenerate command"),
        ("ja", "日時：2026-11-21T10:00:00Z（UTC）", "リセットコードの使用", "古いキーを使った再発行"),
    ] {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "you@example.com", language).await;
        for (mail, how, other) in
            [(&mails.reset, by_reset, by_regenerate), (&mails.regenerated, by_regenerate, by_reset)]
        {
            for part in [&mail.text, &mail.html] {
                assert!(part.contains(when) && part.contains(how) && !part.contains(other), "{part}");
            }
        }
    }
}

#[tokio::test]
async fn key_removed_mail_states_time_and_erasure() {
    for (language, when, erased) in [
        ("en", "When: 2026-11-21T10:00:00Z (UTC)", "after 2026-11-28T10:00:00Z"),
        ("ja", "日時：2026-11-21T10:00:00Z（UTC）", "2026-11-28T10:00:00Z以降"),
    ] {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "you@example.com", language).await;
        for part in [&mails.removed.text, &mails.removed.html] {
            assert!(part.contains(when) && part.contains(erased), "{part}");
        }
    }
}

#[tokio::test]
async fn invitation_names_organization_inviter_roles_and_console() {
    for (language, organization, inviter, operator, roles, expiry) in [
        ("en", "Organization: Acme", "Invited by: Alice@example.com", "Invited by: the operator", "Roles: ", "7 days"),
        ("ja", "組織：Acme", "招待者：Alice@example.com", "招待者：このサービスの運用者", "ロール：", "7日"),
    ] {
        let service = Service::start_with_manual_clock().await;
        let mails = Mails::to(&service, "you@example.com", language).await;
        let roles = format!("{roles}organization/owner, organization/takumi_manager");
        for part in [&mails.invitation.text, &mails.invitation.html] {
            for expected in [organization, inviter, &roles, expiry, "https://guard.example.com/console/"] {
                assert!(part.contains(expected), "{expected}: {part}");
            }
        }
        let mail = &mails.operators_invitation;
        assert!(mail.text.contains(operator) && mail.html.contains(operator), "{}", mail.text);
    }
}

#[tokio::test]
async fn organization_names_and_addresses_in_invitations_are_only_text() {
    let service = Service::start_with_manual_clock().await;
    let inviter = EmailAddress::try_from("o'brien&{{=@example.com".to_owned()).unwrap();
    let organization = "<b>Acme</b> & \"Co\" {{ 1 }}\r\nBcc: all@example.com\n\n== Heading ==\u{202e}\u{200b}x";
    for language in LANGUAGES {
        let roles = [Role::Owner];
        let mail = mail::Mail::Invitation { organization, inviter: Some(&inviter), roles: &roles };
        let mail = send(&service, "you@example.com", language, &mail).await;
        let name = "<b>Acme</b> & \"Co\" {{ 1 }}  Bcc: all@example.com  == Heading ==  x";
        assert!(mail.text.lines().any(|line| line.ends_with(name)), "{}", mail.text);
        assert!(mail.text.lines().any(|line| line.ends_with("o'brien&{{=@example.com")), "{}", mail.text);
        assert!(!mail.html.contains("<b>") && !mail.html.contains("o'brien"), "{}", mail.html);
        assert!(unescaped(&mail.html).contains(name), "{}", mail.html);
        let plain = mail::Mail::Invitation { organization: "Acme", inviter: None, roles: &roles };
        let plain = send(&service, "you@example.com", language, &plain).await;
        assert_eq!(mail.subject, plain.subject);
        for part in ["Destination", "ReplyToAddresses", "FromEmailAddress"] {
            assert_eq!(mail.source[part], plain.source[part], "{part}");
        }
    }
}

#[tokio::test]
async fn local_outbox_lists_sent_mails() {
    let service = Service::start_with_manual_clock().await;
    let mails = Mails::to(&service, "o'brien&co@example.com", "ja").await;
    let look = async |path: &str| {
        let answer = service.send(service.request(Method::GET, &format!("/_local/mail{path}"))).await;
        assert_eq!(answer.status, 200, "{path}");
        answer
    };
    let list = look(".json").await.json();
    let numbers: Vec<&Value> = list.as_array().unwrap().iter().map(|mail| &mail["id"]).collect();
    assert_eq!(numbers, (1..=16_u64).rev().collect::<Vec<_>>());
    assert_eq!(list[15]["to"], "o'brien&co@example.com");
    let leaked = mails.leaked.iter().chain(&mails.expiring).rev().map(|(_, mail)| mail);
    let before = [
        &mails.operators_invitation,
        &mails.invitation,
        &mails.sign_in_code,
        &mails.removed,
        &mails.reset,
        &mails.recovery,
        &mails.regenerated,
        &mails.welcome,
    ];
    for (listed, mail) in list.as_array().unwrap().iter().zip(leaked.chain(before)) {
        for (name, part) in [("subject", &mail.subject), ("text", &mail.text), ("html", &mail.html)] {
            assert_eq!(listed[name], part.as_str());
        }
        let html = look(&format!("/{}", mail.id)).await;
        assert_eq!(html.text, mail.html);
        assert_eq!(html.header("content-security-policy"), "sandbox; default-src 'none'; style-src 'unsafe-inline'");
        assert_eq!(look(&format!("/{}/text", mail.id)).await.text, mail.text);
        assert_eq!(look(&format!("/{}/source", mail.id)).await.json(), mail.source);
    }
    for rest in ["", ".json", "/1", "/1/text", "/1/source"] {
        let answer = look(rest).await;
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{rest}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{rest}");
    }
    let page = look("").await.text;
    let places: Vec<usize> = (1..=16).rev().map(|id| page.find(&format!("/_local/mail/{id}\"")).unwrap()).collect();
    assert!(places.is_sorted(), "newest first: {page}");
    assert!(page.contains("o&#39;brien&#38;co@example.com") && !page.contains("o'brien&co"), "{page}");
    assert!(!page.contains(&mails.key) && !page.contains(&mails.code));
    let none = service.send(service.request(Method::GET, "/_local/mail/17")).await;
    assert_eq!(none.status, 404);
}
