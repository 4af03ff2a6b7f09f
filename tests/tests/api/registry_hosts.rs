//! Registries at hosts of their own: every documented command works there, the registry stands at the
//! root, and nothing else is served.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared::hosts::RegistryHosts;
use shared::permissions::Role;
use tests::console::issued_token;
use tests::coverage::{COVERED, Fixtures, Guard};
use tests::email::{code_in, token_in};
use tests::shell::Shell;
use tests::upstream::{Registry, Reply};
use tests::{Answer, Service};

/// A service with registries, and calls to its hosts.
struct Setup {
    service: Service,
    registry: Registry,
    fixtures: Fixtures,
}

impl Setup {
    async fn start() -> Self {
        let registry = Registry::with_widgets().await;
        let service = Service::start_with_registries(registry.settings()).await;
        let fixtures = Fixtures::create(&service).await;
        Self { service, registry, fixtures }
    }

    /// `npm.localhost` or `pypi.localhost`, with the service's port.
    fn host(&self, registry: &str) -> String {
        format!("{registry}.localhost:{}", self.service.base_url.rsplit_once(':').unwrap().1)
    }

    /// A request to a registry's own host.
    fn request(&self, registry: &str, method: Method, path: &str) -> RequestBuilder {
        self.service.request(method, path).header("host", self.host(registry))
    }

    async fn get(&self, registry: &str, path: &str) -> Answer {
        self.call(registry, Method::GET, path).await
    }

    async fn call(&self, registry: &str, method: Method, path: &str) -> Answer {
        self.service.send(self.request(registry, method, path).bearer_auth(&self.fixtures.token.token)).await
    }

    /// A shell whose curl finds the hosts, and the base URLs of both.
    fn shell(&self) -> (Shell, [String; 2]) {
        let (shell, hosts) = (Shell::new(), ["npm", "pypi"].map(|registry| self.host(registry)));
        let resolve = hosts.clone().map(|host| format!("resolve = \"{host}:127.0.0.1\"\n")).concat();
        shell.write("home/.curlrc", &format!("{}{resolve}", shell.read("home/.curlrc")));
        (shell, hosts.map(|host| format!("http://{host}")))
    }
}

const HOSTS: [&str; 2] = ["npm", "pypi"];

/// The commands as they are documented, with `{host}`, `{key}` and `{code}` in place of the values.
const REGISTER: &str = r#"curl -X POST {host}/api/v1/tokens \
-H "Content-Type: application/json" \
-d '{"email": "you@example.com", "language": "en"}'"#;
const STATUS: &str = r#"curl -H "Authorization: Bearer {key}" \
  {host}/api/v1/tokens/status"#;
const REGENERATE: &str = r#"curl -X POST \
-H "Authorization: Bearer {key}" \
{host}/api/v1/tokens/regenerate"#;
const RESET: &str = r#"curl --json '{"email": "you@example.com", "code": "{code}"}' \
{host}/api/v1/tokens/reset"#;
const REVOKE: &str = r#"curl -X DELETE \
  -H "Authorization: Bearer {key}" \
  {host}/api/v1/tokens"#;

#[tokio::test(flavor = "multi_thread")]
async fn documented_commands_work_at_both_hosts() {
    let setup = Setup::start().await;
    let (shell, bases) = setup.shell();
    let person = setup.service.person("you@example.com");
    for base in &bases {
        let run = |command: &str, key: &str, code: &str| {
            let (status, body) =
                shell.curl(&command.replace("{host}", base).replace("{key}", key).replace("{code}", code));
            (status, serde_json::from_str(&body).unwrap_or(Value::Null))
        };
        let token = |(status, answer): (u16, Value)| {
            assert_eq!(status, 200, "{answer}");
            answer["token"].as_str().unwrap().to_owned()
        };
        assert_eq!(run(REGISTER, "", "").0, 202);
        let first = token_in(&person.newest_mail());
        let (status, answer) = run(STATUS, &first, "");
        assert_eq!((status, &answer["status"]), (200, &json!("pending")));
        let second = token(run(REGENERATE, &first, ""));
        assert_eq!(run(STATUS, &first, "").0, 401);

        assert_eq!(run(REGISTER, "", "").0, 202);
        let key = token(run(RESET, "", &code_in(&person.newest_mail())));
        assert_eq!(run(STATUS, &second, "").0, 401);
        // One token for all ecosystems, whichever host issued it.
        let [npm, pypi] = &bases;
        let npm = format!("curl -H 'Authorization: Bearer {key}' {npm}/widgets");
        let pypi = format!("curl {}/simple/widgets/", pypi.replace("://", &format!("://token:{key}@")));
        assert_eq!([npm, pypi].map(|command| shell.curl(&command).0), [200, 200]);

        assert_eq!(run(REVOKE, &key, "").0, 204);
        assert_eq!(run(STATUS, &key, "").0, 401);
    }
}

#[tokio::test]
async fn npm_registry_stands_at_the_root_of_its_host() {
    let setup = Setup::start().await;
    let host = setup.host("npm");
    let answer = setup.get("npm", "/widgets").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let tarball = answer.json()["versions"]["1.0.0"]["dist"]["tarball"].as_str().unwrap().to_owned();
    assert_eq!(tarball, format!("http://{host}/widgets/-/widgets-1.0.0.tgz"));
    let at_upstream = format!("{}/npm/widgets/-/widgets-1.0.0.tgz", setup.registry.url);
    let answer = setup.get("npm", "/widgets/-/widgets-1.0.0.tgz").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, at_upstream.as_str()));

    let scoped = json!({"name": "@example/widgets", "versions": {}});
    setup.registry.stub("/npm/@example%2fwidgets", Reply::ok("application/json", scoped.to_string()));
    for path in ["/@example%2fwidgets", "/@example%2Fwidgets", "/@example/widgets", "//widgets", "/widgets?write=true"]
    {
        assert_eq!(setup.get("npm", path).await.status, 200, "{path}");
    }
    let answer = setup.get("npm", "/-/whoami").await;
    assert_eq!(answer.json(), json!({"username": setup.fixtures.token.user_identifier}));
    assert_eq!(setup.get("npm", "/-/ping").await.json(), json!({}));
    setup.registry.stub("/npm/-/npm/v1/security/advisories/bulk", Reply::ok("application/json", "{}"));
    let audit = setup.request("npm", Method::POST, "/-/npm/v1/security/advisories/bulk");
    let audit = audit.bearer_auth(&setup.fixtures.token.token).json(&json!({"widgets": ["1.0.0"]}));
    assert_eq!(setup.service.send(audit).await.status, 200);

    // Both downloads leave the entries of one registry.
    let log = setup.service.installations(&setup.fixtures.org, &setup.fixtures.owner.credential, "").await;
    assert_eq!(log["installations"][0]["file"], "widgets-1.0.0.tgz");
    assert_eq!(log["installations"].as_array().unwrap().len(), 1);

    let logout = format!("/-/user/token/{}", setup.fixtures.token.token);
    assert_eq!(setup.call("npm", Method::DELETE, &logout).await.status, 200);
    let answer = setup.get("npm", "/-/whoami").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (401, "application/problem+json"));
    assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="guard-tokens", error="invalid_token""#);
}

#[tokio::test]
async fn python_index_stands_at_simple_of_its_host() {
    let setup = Setup::start().await;
    let host = setup.host("pypi");
    let basic = format!("Basic {}", BASE64.encode(format!("token:{}", setup.fixtures.token.token)));
    let get = async |path: &str| {
        setup.service.send(setup.request("pypi", Method::GET, path).header("authorization", &basic)).await
    };
    let answer = get("/simple/widgets/").await;
    let wheel = format!("http://{host}/files/widgets/-/packages/widgets-1.0-py3-none-any.whl");
    assert!(answer.status == 200 && answer.text.contains(&format!("\"{wheel}#sha256=00\"")), "{}", answer.text);
    let answer = get(wheel.strip_prefix(&format!("http://{host}")).unwrap()).await;
    let at_upstream = format!("{}/packages/widgets-1.0-py3-none-any.whl", setup.registry.url);
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, at_upstream.as_str()));
    let answer = get("/simple/Widgets").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (301, "widgets/"));
    let answer = get("/simple/").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "NOT_FOUND"));
    assert!(answer.text.contains("does not list all projects"), "{}", answer.text);
    let answer = setup.service.send(setup.request("pypi", Method::GET, "/simple/widgets/")).await;
    let challenge = r#"Basic realm="guard-tokens", charset="UTF-8""#;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, challenge));
}

#[tokio::test]
async fn registry_hosts_serve_no_other_route() {
    let setup = Setup::start().await;
    let visitor = setup.service.member(&setup.fixtures.org, &[Role::Owner]).await;
    let with_route = COVERED.iter().filter(|covered| covered.guard.has_route() && !covered.path.is_empty());
    let others = with_route.filter(|covered| {
        let is_of_email_tokens = covered.path.starts_with("/api/v1/tokens");
        covered.guard != Guard::Registry && !covered.path.starts_with("/npm/") && !is_of_email_tokens
    });
    let mut paths: Vec<(Method, String)> =
        others.map(|covered| (covered.method.clone(), covered.path_with(&setup.fixtures))).collect();
    let org = &setup.fixtures.org.id;
    for path in ["/console/", "/console/sign-in", "/console/account", &format!("/console/o/{org}/tokens")] {
        paths.push((Method::GET, path.to_owned()));
    }
    assert!(paths.len() > 40);
    for (method, path) in paths.into_iter().filter(|(_, path)| !["/", "/console"].contains(&path.as_str())) {
        for registry in HOSTS {
            let credentials = ["", &setup.fixtures.owner.credential, &setup.fixtures.token.token];
            for credential in credentials {
                let request = setup.request(registry, method.clone(), &path).header("cookie", visitor.cookie());
                let request = if credential.is_empty() { request } else { request.bearer_auth(credential) };
                let answer = setup.service.send(request).await;
                assert_eq!(answer.status, 404, "{method} {path} at {registry}: {}", answer.text);
                assert!(method == Method::HEAD || answer.code() == "NOT_FOUND", "{path}: {}", answer.text);
                assert_eq!(answer.header("set-cookie"), "", "{path}");
            }
        }
    }
    assert!(setup.registry.take_requests().is_empty());
    // These are packages at npm's host, and nothing at PyPI's. A session opens nothing.
    for path in ["/console", "/v1", "/npm", "/pypi"] {
        for registry in HOSTS {
            let request = setup.request(registry, Method::GET, path).header("cookie", visitor.cookie());
            let answer = setup.service.send(request).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "UNAUTHORIZED"), "{path}");
        }
        assert_eq!(setup.get("npm", path).await.status, 404, "{path}");
        assert_eq!(setup.registry.take_one_request().path, format!("/npm{path}"));
        assert_eq!(setup.get("pypi", path).await.status, 400, "{path}");
        assert!(setup.registry.take_requests().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn path_that_is_no_package_is_answered_as_at_the_services_host() {
    let setup = Setup::start().await;
    for (registry, path, statuses) in [
        ("npm", "/", [400, 400]),
        ("npm", "/widgets/-/x", [401, 400]),
        ("npm", "/wid%20gets", [401, 400]),
        ("pypi", "/", [400, 400]),
        ("pypi", "/flask/", [401, 400]),
        ("pypi", "/npm/widgets", [401, 400]),
        ("pypi", "/simple/-/", [401, 400]),
        ("pypi", "/-/whoami", [401, 400]),
    ] {
        let token = &setup.fixtures.token.token;
        let at_service = format!("/{registry}{path}");
        let stranger = [setup.request(registry, Method::GET, path), setup.service.request(Method::GET, &at_service)];
        let holder = [setup.request(registry, Method::GET, path), setup.service.request(Method::GET, &at_service)];
        let holder = holder.map(|request| request.bearer_auth(token));
        for (requests, status) in [stranger, holder].into_iter().zip(statuses) {
            let mut problems = Vec::new();
            for request in requests {
                let answer = setup.service.send(request).await;
                let kind = answer.header("content-type").to_owned();
                assert_eq!((answer.status.as_u16(), kind.as_str()), (status, "application/problem+json"), "{path}");
                problems.push(answer.json());
            }
            assert_eq!(problems[0], problems[1], "{registry}{path}");
        }
    }
    assert!(setup.registry.take_requests().is_empty());
}

#[tokio::test]
async fn hosts_of_two_registries_never_mix() {
    let setup = Setup::start().await;
    // What serves a package at one host, and at the service's own.
    for (registry, path) in [
        ("pypi", "/widgets"),
        ("pypi", "/npm/widgets"),
        ("pypi", "/pypi/simple/widgets/"),
        ("npm", "/simple/widgets/"),
        ("npm", "/pypi/simple/widgets/"),
        ("npm", "/files/widgets/-/packages/widgets-1.0-py3-none-any.whl"),
        ("npm", "/npm/widgets"),
        ("pypi", "/-/whoami"),
        ("pypi", "/simple/../npm/widgets"),
    ] {
        let answer = setup.get(registry, path).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404), "{registry}{path}: {}", answer.text);
        let served = ["/npm/widgets", "/simple/widgets/"];
        let asked = setup.registry.take_requests();
        assert!(asked.iter().all(|request| !served.contains(&request.path.as_str())), "{registry}{path}: {asked:?}");
    }
    // The token in the path is not revoked where `npm logout` is not.
    let logout = format!("/-/user/token/{}", setup.fixtures.token.token);
    assert_eq!(setup.call("pypi", Method::DELETE, &logout).await.status, 400);
    let main = async |path: &str| setup.service.call(Method::GET, path, &setup.fixtures.token.token).await.status;
    assert_eq!(main("/npm/widgets").await, 200);
    assert_eq!(main("/pypi/simple/widgets/").await, 200);
    for path in ["/widgets", "/simple/widgets/", "/-/whoami"] {
        assert_eq!(main(path).await, 404, "{path}");
    }
}

#[tokio::test]
async fn forged_hosts_serve_no_registry_at_their_root() {
    let setup = Setup::start().await;
    let (npm, base) = (setup.host("npm"), &setup.service.base_url);
    let port = npm.rsplit_once(':').unwrap().1;
    for host in [
        "npm.localhost".to_owned(),
        "npm.localhost:1".to_owned(),
        format!("npm.localhost.:{port}"),
        format!("x.npm.localhost:{port}"),
        format!("npm.localhost.example.com:{port}"),
        format!("user@{npm}"),
        format!("{npm}, {npm}"),
        format!("guard.example.com/{npm}"),
        format!("guard.example.com#{npm}"),
    ] {
        for path in ["/widgets", "/simple/widgets/"] {
            let request = setup.service.request(Method::GET, path).bearer_auth(&setup.fixtures.token.token);
            let answer = setup.service.send(request.header("host", &host)).await;
            assert!(matches!(answer.status.as_u16(), 400 | 404), "{host}{path}: {}", answer.text);
        }
    }
    let headers = ["x-forwarded-host", "forwarded", "x-original-host", "x-host"];
    for name in headers {
        let request = setup.service.request(Method::GET, "/widgets").bearer_auth(&setup.fixtures.token.token);
        assert_eq!(setup.service.send(request.header(name, &npm)).await.status, 404, "{name}");
        // Nor does one lead away from a registry's host.
        let request = setup.request("npm", Method::GET, "/widgets").bearer_auth(&setup.fixtures.token.token);
        let answer = setup.service.send(request.header(name, base.as_str())).await;
        assert!(answer.text.contains(&format!("http://{npm}/widgets/-/")), "{name}: {}", answer.text);
    }
    let upper = setup.service.request(Method::GET, "/widgets").header("host", npm.to_uppercase());
    let answer = setup.service.send(upper.bearer_auth(&setup.fixtures.token.token)).await;
    assert!(answer.text.contains(&format!("http://{npm}/widgets/-/")), "{}", answer.text);
    assert!(setup.registry.take_requests().iter().all(|request| request.path == "/npm/widgets"));
}

#[tokio::test]
async fn entity_tag_belongs_to_the_host_that_sent_it() {
    let setup = Setup::start().await;
    let packument = json!({"name": "tagged", "versions": {}}).to_string();
    setup.registry.stub("/npm/tagged", Reply::ok("application/json", packument).with_header("etag", "\"1\""));
    let page = Reply::ok("text/html", "<a href=\"/tagged-1.0.zip\">x</a>").with_header("etag", "\"1\"");
    setup.registry.stub("/simple/tagged/", page);
    for (registry, at_host, at_service) in
        [("npm", "/tagged", "/npm/tagged"), ("pypi", "/simple/tagged/", "/pypi/simple/tagged/")]
    {
        let token = &setup.fixtures.token.token;
        let own = setup.get(registry, at_host).await.header("etag").to_owned();
        let services = setup.service.call(Method::GET, at_service, token).await.header("etag").to_owned();
        assert!(!own.is_empty() && own != services);
        let of = async |request: RequestBuilder, tag: &str| {
            setup.service.send(request.bearer_auth(token).header("if-none-match", tag)).await.status.as_u16()
        };
        assert_eq!(of(setup.request(registry, Method::GET, at_host), &own).await, 304);
        assert_eq!(of(setup.request(registry, Method::GET, at_host), &services).await, 200);
        assert_eq!(of(setup.service.request(Method::GET, at_service), &own).await, 200);
    }
}

#[tokio::test]
async fn files_at_a_registry_host_of_ours_are_refused() {
    let setup = Setup::start().await;
    for own in HOSTS {
        // Where the upstream keeps its file, whatever the port.
        let place = format!("http://{own}.localhost:9/elsewhere/widgets-2.0.0.tgz");
        let packument = json!({"name": "widgets", "versions": {"2.0.0": {"dist": {"tarball": place}}}});
        setup.registry.stub("/npm/widgets", Reply::ok("application/json", packument.to_string()));
        let path = "/widgets/-/by-metadata/widgets-2.0.0.tgz";
        let token = &setup.fixtures.token.token;
        let through_main = setup.service.call(Method::GET, &format!("/npm{path}"), token).await;
        for answer in [through_main, setup.get("npm", path).await] {
            assert_eq!((answer.status.as_u16(), answer.header("location")), (502, ""), "{own}: {}", answer.text);
            assert!(answer.text.contains("own host name"), "{own}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn mails_and_console_name_the_hosts_that_are_set() {
    for (npm, pypi, expected) in [
        (
            Some("npm.example.com"),
            Some("pypi.example.com"),
            [
                "npm config set registry https://npm.example.com/\n",
                "npm config set //npm.example.com/:_authToken {key}",
                "https://token:{key}@pypi.example.com/simple/",
                "poetry source add --priority=primary takumi-guard https://pypi.example.com/simple/\n",
            ],
        ),
        (
            Some("npm.example.com"),
            None,
            [
                "npm config set registry https://npm.example.com/\n",
                "npm config set //npm.example.com/:_authToken {key}",
                "@{main}/pypi/simple/",
                "/pypi/simple/\n",
            ],
        ),
    ] {
        let service = Service::start_with_registry_hosts(RegistryHosts::new(npm, pypi)).await;
        let org = service.org().await;
        let person = service.person("you@example.com");
        person.register().await;
        let mail = person.newest_mail();
        let key = token_in(&mail);
        for line in expected {
            let line = line.replace("{key}", &key).replace("{main}", "guard.example.com");
            assert!(mail.text.contains(&line), "{line}: {}", mail.text);
        }
        assert!(mail.text.contains("https://npm.example.com/api/v1/tokens/regenerate"), "{}", mail.text);
        assert!(!mail.text.contains("guard.example.com/npm/"), "{}", mail.text);

        let visitor = service.member(&org, &[Role::TokenIssuer]).await;
        for path in ["my-tokens/issue", "tokens/issue"] {
            let identifier = Some(("user_identifier", "alice-laptop")).filter(|_| path == "tokens/issue");
            let fields: Vec<_> = identifier.into_iter().chain([("expiry", "90"), ("expiry_date", "")]).collect();
            let answer = visitor.submit(&org.page(path), &fields).await;
            let (key, page) = (issued_token(&answer), tests::console::unescaped(&answer.text));
            for line in expected {
                let main = service.base_url.strip_prefix("http://").unwrap();
                let line = line.replace("{key}", &key).replace("{main}", main);
                assert!(page.contains(line.trim_end()), "{line}: {page}");
            }
        }
    }
}
