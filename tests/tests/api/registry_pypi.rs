//! `/pypi/`, in front of a stubbed upstream.

use reqwest::Method;
use serde_json::{Value, json};
use shared::registry::Settings;
use tests::coverage::Fixtures;
use tests::upstream::{Registry, Reply};
use tests::{Answer, Service, no_upstreams};

const JSON: &str = "application/vnd.pypi.simple.v1+json";
const PIP: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";

/// A service in front of an index, and fixtures with a token.
struct Setup {
    service: Service,
    registry: Registry,
    fixtures: Fixtures,
}

impl Setup {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(hosts: &[&str]) -> Self {
        let registry = Registry::start().await;
        let pypi_file_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let settings = Settings { pypi: registry.upstream("/simple/"), pypi_file_hosts, ..no_upstreams() };
        let service = Service::start_with_registries(settings).await;
        let fixtures = Fixtures::create(&service).await;
        Self { service, registry, fixtures }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.service.request(Method::GET, path).basic_auth("__token__", Some(&self.fixtures.token.token));
        self.service.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// The URL of a file path on this service.
    fn ours(&self, path: &str) -> String {
        format!("{}/pypi/files/{path}", self.service.base_url)
    }

    async fn logged(&self) -> Vec<Value> {
        let log = self.service.installations(&self.fixtures.org, &self.fixtures.owner.credential, "").await;
        let fields = ["package", "version", "file"];
        let entries = log["installations"].as_array().unwrap().iter();
        entries.map(|entry| fields.map(|field| entry[field].clone()).into_iter().collect()).collect()
    }
}

#[tokio::test]
async fn project_page_passes_through_with_rewritten_file_urls() {
    let setup = Setup::start_with(&["files.example.com"]).await;
    let page = |places: [&str; 3]| {
        let [one, two, three] = places;
        format!(
            "<!DOCTYPE html><html><head><meta name=\"pypi:repository-version\" content=\"1.1\"></head><body>\n\
             <a href=\"{one}#sha256=00\" data-requires-python=\"&gt;=3.8\" data-core-metadata=\"sha256=11\">widgets-1.0.tar.gz</a><br/>\n\
             <a href=\"{two}#sha256=22\">widgets-1.1.tar.gz</a>\n<a href=\"{three}\">widgets-1.2.tar.gz</a></body></html>"
        )
    };
    let theirs = [
        "../../packages/widgets-1.0.tar.gz",
        "https://files.example.com/ab/widgets-1.1.tar.gz",
        "https://elsewhere.example/widgets-1.2.tar.gz",
    ];
    setup
        .registry
        .stub("/simple/widgets/", Reply::ok("text/html; charset=UTF-8", page(theirs)).with_header("etag", "\"7\""));
    let answer = setup.get("/pypi/simple/widgets/").await;
    let ours = [
        setup.ours("widgets/-/packages/widgets-1.0.tar.gz"),
        setup.ours("widgets/files.example.com/ab/widgets-1.1.tar.gz"),
        setup.ours("widgets/widgets-1.2.tar.gz"),
    ];
    assert_eq!(answer.text, page([&ours[0], &ours[1], &ours[2]]));
    assert_eq!(
        (answer.header("content-type"), answer.header("vary")),
        ("text/html; charset=utf-8", "Accept, Accept-Encoding")
    );
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    let tag = answer.header("etag");
    assert_eq!(setup.get_with("/pypi/simple/widgets/", &[("if-none-match", tag)]).await.status, 304);
}

#[tokio::test]
async fn json_index_is_negotiated() {
    let setup = Setup::start().await;
    let page = |place: &str| {
        let file = json!({
            "filename": "widgets-1.0-py3-none-any.whl", "url": place, "hashes": {"sha256": "00"}, "yanked": false,
            "core-metadata": {"sha256": "11"}, "provenance": "https://index.example/integrity/widgets",
        });
        json!({"meta": {"api-version": "1.3"}, "name": "widgets", "files": [file]})
    };
    setup
        .registry
        .stub("/simple/widgets/", Reply::ok(JSON, page("../../packages/widgets-1.0-py3-none-any.whl").to_string()));
    for accept in
        [PIP, JSON, "application/vnd.pypi.simple.latest+json", "application/vnd.pypi.simple.v1+json, */*;q=0.1"]
    {
        let answer = setup.get_with("/pypi/simple/widgets/", &[("accept", accept)]).await;
        assert_eq!(answer.json(), page(&setup.ours("widgets/-/packages/widgets-1.0-py3-none-any.whl")));
        assert_eq!(answer.header("content-type"), JSON);
        assert!(setup.registry.take_one_request().headers["accept"].to_str().unwrap().starts_with(JSON));
    }
    // Clients that do not accept or prefer JSON get none, whatever the upstream would send.
    for accept in ["*/*", "text/html", "application/vnd.pypi.simple.v1+json;q=0.1, text/html", ""] {
        setup.get_with("/pypi/simple/widgets/", &[("accept", accept)]).await;
        assert!(!setup.registry.take_one_request().headers["accept"].to_str().unwrap().contains("json"), "{accept}");
    }
}

#[tokio::test]
async fn file_names_come_from_the_index() {
    let setup = Setup::start_with(&["files.example.com"]).await;
    let files =
        json!({"files": [{"filename": "widgets-1.0-py3-none-any.whl", "url": "https://files.example.com/blob/7"}]});
    setup.registry.stub("/simple/widgets/", Reply::ok(JSON, files.to_string()));
    let page = setup.get_with("/pypi/simple/widgets/", &[("accept", PIP)]).await.json();
    let ours = page["files"][0]["url"].as_str().unwrap();
    assert_eq!(ours, setup.ours("widgets/widgets-1.0-py3-none-any.whl"));
    let answer = setup.get(ours.strip_prefix(&setup.service.base_url).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, "https://files.example.com/blob/7"));
}

#[tokio::test]
async fn page_that_is_not_utf_8_is_502() {
    let setup = Setup::start().await;
    setup.registry.stub("/simple/widgets/", Reply::ok("text/html; charset=iso-8859-1", b"<p>\xe9</p>".as_slice()));
    assert_eq!(setup.get("/pypi/simple/widgets/").await.status, 502);
}

#[tokio::test]
async fn unnormalized_names_redirect_to_the_normalized_name() {
    let setup = Setup::start().await;
    for (path, place) in [
        ("/pypi/simple/My_Widgets", "my-widgets/"),
        ("/pypi/simple/My.-_Widgets/", "../my-widgets/"),
        ("/pypi/simple/my-widgets", "my-widgets/"),
    ] {
        let answer = setup.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (301, place), "{path}");
        // The redirect is relative, so it works behind any proxy and contains no credentials.
        let whole =
            reqwest::Url::parse(&format!("http://token:x@guard.example.com{path}")).unwrap().join(place).unwrap();
        assert_eq!(whole.path(), "/pypi/simple/my-widgets/");
    }
    assert!(setup.registry.take_requests().is_empty());
}

#[tokio::test]
async fn list_of_all_projects_is_not_served() {
    let setup = Setup::start().await;
    setup.registry.stub("/simple/", Reply::ok("text/html", "<a href=\"widgets/\">widgets</a>"));
    for path in ["/pypi/simple/", "/pypi/simple", "/pypi//simple/"] {
        let answer = setup.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (404, json!("NOT_FOUND")), "{path}");
        assert!(answer.text.contains("mirror_no_project_list"), "{}", answer.text);
    }
    assert!(setup.registry.take_requests().is_empty());
}

#[tokio::test]
async fn etag_tells_json_from_html() {
    let setup = Setup::start().await;
    let page = Reply::ok("text/html", "<a href=\"/widgets-1.0.zip\">widgets</a>").with_header("etag", "\"7\"");
    setup.registry.stub("/simple/widgets/", page);
    let tag = async |accept: &str| {
        setup.get_with("/pypi/simple/widgets/", &[("accept", accept)]).await.header("etag").to_owned()
    };
    assert_ne!(tag(PIP).await, tag("text/html").await);
}

#[tokio::test]
async fn files_on_known_hosts_need_no_lookup() {
    let setup = Setup::start_with(&["files.example.com"]).await;
    for (path, place) in [
        ("widgets/-/packages/widgets-1.0.tar.gz", format!("{}/packages/widgets-1.0.tar.gz", setup.registry.url)),
        (
            "widgets/files.example.com/ab/cd/Widgets-1.0+cpu.zip",
            "https://files.example.com/ab/cd/Widgets-1.0+cpu.zip".to_owned(),
        ),
        (
            "widgets/files.example.com/ab/widgets-1.0-py3-none-any.whl.metadata",
            "https://files.example.com/ab/widgets-1.0-py3-none-any.whl.metadata".to_owned(),
        ),
    ] {
        let answer = setup.get(&format!("/pypi/files/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place.as_str()));
    }
    assert!(setup.registry.take_requests().is_empty());
    // For a host that is unknown or no longer used, as in an old lock file, the metadata decides.
    for host in ["once.example.com", "evil.example"] {
        let path = format!("/pypi/files/widgets/{host}/x/widgets-1.1.tar.gz");
        assert_eq!(setup.get(&path).await.status, 404);
        let page = "<a href=\"https://now.example.com/widgets-1.1.tar.gz\">widgets</a>";
        setup.registry.stub("/simple/widgets/", Reply::ok("text/html", page));
        assert_eq!(setup.get(&path).await.header("location"), "https://now.example.com/widgets-1.1.tar.gz");
        setup.registry.stub("/simple/widgets/", Reply::status(404));
    }
    // A metadata file is not a download.
    let logged = setup.logged().await;
    assert_eq!(logged.len(), 3, "{logged:?}");
    assert!(logged.contains(&json!(["widgets", "1.0+cpu", "Widgets-1.0+cpu.zip"])));
}

#[tokio::test]
async fn files_on_other_hosts_redirect_only_as_the_index_says() {
    let setup = Setup::start().await;
    let html = "<a href=\"https://elsewhere.example/x/widgets-1.0-py3-none-any.whl?key=1#sha256=00\">widgets</a>";
    let files = json!({"files": [{"url": "https://elsewhere.example/x/widgets-1.0-py3-none-any.whl?key=1"}]});
    for reply in [Reply::ok("text/html", html), Reply::ok(JSON, files.to_string())] {
        setup.registry.stub("/simple/widgets/", reply);
        let answer = setup.get("/pypi/files/widgets/widgets-1.0-py3-none-any.whl").await;
        let place = "https://elsewhere.example/x/widgets-1.0-py3-none-any.whl?key=1";
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place));
        let answer = setup.get("/pypi/files/widgets/widgets-1.0-py3-none-any.whl.metadata").await;
        let place = "https://elsewhere.example/x/widgets-1.0-py3-none-any.whl.metadata?key=1";
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place));
        assert_eq!(setup.get("/pypi/files/widgets/widgets-2.0-py3-none-any.whl").await.status, 404);
    }
    assert_eq!(setup.logged().await, [json!(["widgets", "1.0", "widgets-1.0-py3-none-any.whl"])]);
    let evil = json!({"files": [{"url": "javascript:widgets-1.0.zip"}, {"url": "https://u:p@elsewhere.example/widgets-1.1.zip"}]});
    setup.registry.stub("/simple/widgets/", Reply::ok(JSON, evil.to_string()));
    for file in ["widgets-1.0.zip", "widgets-1.1.zip"] {
        let answer = setup.get(&format!("/pypi/files/widgets/{file}")).await;
        assert!(answer.status.as_u16() >= 400 && answer.header("location").is_empty(), "{file}");
    }
}
