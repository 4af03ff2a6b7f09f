//! `/pypi/`, before an upstream that the tests say the words of.

use reqwest::Method;
use serde_json::{Value, json};
use shared::registry::Settings;
use tests::coverage::Stage;
use tests::upstream::{Registry, Says};
use tests::{Answer, Service, no_upstreams};

const JSON: &str = "application/vnd.pypi.simple.v1+json";
const PIP: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";

/// A service before an index, and the token to install with.
struct Stand {
    service: Service,
    registry: Registry,
    stage: Stage,
}

impl Stand {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(hosts: &[&str]) -> Self {
        let registry = Registry::start().await;
        let pypi_file_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let settings = Settings { pypi: registry.upstream("/simple/"), pypi_file_hosts, ..no_upstreams() };
        let service = Service::start_with_registries(settings).await;
        let stage = Stage::set(&service).await;
        Self { service, registry, stage }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.service.request(Method::GET, path).basic_auth("__token__", Some(&self.stage.token.token));
        self.service.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// Where a path is for callers.
    fn ours(&self, path: &str) -> String {
        format!("{}/pypi/files/{path}", self.service.base_url)
    }

    async fn logged(&self) -> Vec<Value> {
        let log = self.service.installations(&self.stage.org, &self.stage.owner.credential, "").await;
        let fields = ["package", "version", "file"];
        let entries = log["installations"].as_array().unwrap().iter();
        entries.map(|entry| fields.map(|field| entry[field].clone()).into_iter().collect()).collect()
    }
}

#[tokio::test]
async fn a_page_is_the_upstreams_but_for_the_places_of_files() {
    let stand = Stand::start_with(&["files.example.com"]).await;
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
    stand
        .registry
        .says("/simple/widgets/", Says::found("text/html; charset=UTF-8", page(theirs)).with("etag", "\"7\""));
    let answer = stand.get("/pypi/simple/widgets/").await;
    let ours = [
        stand.ours("widgets/-/packages/widgets-1.0.tar.gz"),
        stand.ours("widgets/files.example.com/ab/widgets-1.1.tar.gz"),
        stand.ours("widgets/widgets-1.2.tar.gz"),
    ];
    assert_eq!(answer.text, page([&ours[0], &ours[1], &ours[2]]));
    assert_eq!(
        (answer.header("content-type"), answer.header("vary")),
        ("text/html; charset=utf-8", "Accept, Accept-Encoding")
    );
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    let tag = answer.header("etag");
    assert_eq!(stand.get_with("/pypi/simple/widgets/", &[("if-none-match", tag)]).await.status, 304);
}

#[tokio::test]
async fn json_is_answered_to_whoever_reads_it() {
    let stand = Stand::start().await;
    let page = |place: &str| {
        let file = json!({
            "filename": "widgets-1.0-py3-none-any.whl", "url": place, "hashes": {"sha256": "00"}, "yanked": false,
            "core-metadata": {"sha256": "11"}, "provenance": "https://index.example/integrity/widgets",
        });
        json!({"meta": {"api-version": "1.3"}, "name": "widgets", "files": [file]})
    };
    stand
        .registry
        .says("/simple/widgets/", Says::found(JSON, page("../../packages/widgets-1.0-py3-none-any.whl").to_string()));
    for accept in
        [PIP, JSON, "application/vnd.pypi.simple.latest+json", "application/vnd.pypi.simple.v1+json, */*;q=0.1"]
    {
        let answer = stand.get_with("/pypi/simple/widgets/", &[("accept", accept)]).await;
        assert_eq!(answer.json(), page(&stand.ours("widgets/-/packages/widgets-1.0-py3-none-any.whl")));
        assert_eq!(answer.header("content-type"), JSON);
        assert!(stand.registry.asked_once().headers["accept"].to_str().unwrap().starts_with(JSON));
    }
    // Who says nothing of JSON, or reads HTML rather, is not given it: whatever the upstream would.
    for accept in ["*/*", "text/html", "application/vnd.pypi.simple.v1+json;q=0.1, text/html", ""] {
        stand.get_with("/pypi/simple/widgets/", &[("accept", accept)]).await;
        assert!(!stand.registry.asked_once().headers["accept"].to_str().unwrap().contains("json"), "{accept}");
    }
}

#[tokio::test]
async fn a_file_is_called_what_the_index_calls_it() {
    let stand = Stand::start_with(&["files.example.com"]).await;
    let files =
        json!({"files": [{"filename": "widgets-1.0-py3-none-any.whl", "url": "https://files.example.com/blob/7"}]});
    stand.registry.says("/simple/widgets/", Says::found(JSON, files.to_string()));
    let page = stand.get_with("/pypi/simple/widgets/", &[("accept", PIP)]).await.json();
    let ours = page["files"][0]["url"].as_str().unwrap();
    assert_eq!(ours, stand.ours("widgets/widgets-1.0-py3-none-any.whl"));
    let answer = stand.get(ours.strip_prefix(&stand.service.base_url).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, "https://files.example.com/blob/7"));
}

#[tokio::test]
async fn a_page_that_is_not_utf_8_is_not_passed_on_as_if_it_were() {
    let stand = Stand::start().await;
    stand.registry.says("/simple/widgets/", Says::found("text/html; charset=iso-8859-1", b"<p>\xe9</p>".as_slice()));
    assert_eq!(stand.get("/pypi/simple/widgets/").await.status, 502);
}

#[tokio::test]
async fn another_spelling_of_a_name_leads_to_the_one() {
    let stand = Stand::start().await;
    for (path, place) in [
        ("/pypi/simple/My_Widgets", "my-widgets/"),
        ("/pypi/simple/My.-_Widgets/", "../my-widgets/"),
        ("/pypi/simple/my-widgets", "my-widgets/"),
        ("/pypi/simple", "simple/"),
    ] {
        let answer = stand.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (301, place), "{path}");
        // Relative, so that it is right behind whatever stands before us, and has no user in it.
        let whole =
            reqwest::Url::parse(&format!("http://token:x@guard.example.com{path}")).unwrap().join(place).unwrap();
        assert!(whole.path() == "/pypi/simple/my-widgets/" || whole.path() == "/pypi/simple/", "{whole}");
    }
    assert!(stand.registry.asked().is_empty());
}

#[tokio::test]
async fn the_list_of_projects_leads_to_their_pages_with_us() {
    let stand = Stand::start().await;
    for link in ["widgets/", "/simple/widgets/", "/simple/widgets", "https://elsewhere.example/simple/widgets/"] {
        stand.registry.says("/simple/", Says::found("text/html", format!("<a href=\"{link}\">widgets</a>")));
        assert_eq!(stand.get("/pypi/simple/").await.text, "<a href=\"widgets/\">widgets</a>");
    }
    let projects = json!({"meta": {"api-version": "1.3"}, "projects": [{"name": "widgets"}]});
    stand.registry.says("/simple/", Says::found(JSON, projects.to_string()));
    assert_eq!(stand.get_with("/pypi/simple/", &[("accept", PIP)]).await.json(), projects);
}

#[tokio::test]
async fn a_file_on_a_known_host_needs_no_looking_up() {
    let stand = Stand::start_with(&["files.example.com"]).await;
    for (path, place) in [
        ("widgets/-/packages/widgets-1.0.tar.gz", format!("{}/packages/widgets-1.0.tar.gz", stand.registry.url)),
        (
            "widgets/files.example.com/ab/cd/Widgets-1.0+cpu.zip",
            "https://files.example.com/ab/cd/Widgets-1.0+cpu.zip".to_owned(),
        ),
        (
            "widgets/files.example.com/ab/widgets-1.0-py3-none-any.whl.metadata",
            "https://files.example.com/ab/widgets-1.0-py3-none-any.whl.metadata".to_owned(),
        ),
    ] {
        let answer = stand.get(&format!("/pypi/files/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place.as_str()));
    }
    assert!(stand.registry.asked().is_empty());
    // A host that files lay on once, as a lock file may have it, or never did: where they lie now, the metadata says.
    for host in ["once.example.com", "evil.example"] {
        let path = format!("/pypi/files/widgets/{host}/x/widgets-1.1.tar.gz");
        assert_eq!(stand.get(&path).await.status, 404);
        let page = "<a href=\"https://now.example.com/widgets-1.1.tar.gz\">widgets</a>";
        stand.registry.says("/simple/widgets/", Says::found("text/html", page));
        assert_eq!(stand.get(&path).await.header("location"), "https://now.example.com/widgets-1.1.tar.gz");
        stand.registry.says("/simple/widgets/", Says::status(404));
    }
    // Its metadata is no download.
    let logged = stand.logged().await;
    assert_eq!(logged.len(), 3, "{logged:?}");
    assert!(logged.contains(&json!(["widgets", "1.0+cpu", "Widgets-1.0+cpu.zip"])));
}

#[tokio::test]
async fn a_file_elsewhere_is_where_the_index_says_and_nowhere_else() {
    let stand = Stand::start().await;
    let html = "<a href=\"https://elsewhere.example/x/widgets-1.0-py3-none-any.whl?key=1#sha256=00\">widgets</a>";
    let files = json!({"files": [{"url": "https://elsewhere.example/x/widgets-1.0-py3-none-any.whl?key=1"}]});
    for says in [Says::found("text/html", html), Says::found(JSON, files.to_string())] {
        stand.registry.says("/simple/widgets/", says);
        let answer = stand.get("/pypi/files/widgets/widgets-1.0-py3-none-any.whl").await;
        let place = "https://elsewhere.example/x/widgets-1.0-py3-none-any.whl?key=1";
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place));
        let answer = stand.get("/pypi/files/widgets/widgets-1.0-py3-none-any.whl.metadata").await;
        let place = "https://elsewhere.example/x/widgets-1.0-py3-none-any.whl.metadata?key=1";
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place));
        assert_eq!(stand.get("/pypi/files/widgets/widgets-2.0-py3-none-any.whl").await.status, 404);
    }
    assert_eq!(stand.logged().await, [json!(["widgets", "1.0", "widgets-1.0-py3-none-any.whl"])]);
    let evil = json!({"files": [{"url": "javascript:widgets-1.0.zip"}, {"url": "https://u:p@elsewhere.example/widgets-1.1.zip"}]});
    stand.registry.says("/simple/widgets/", Says::found(JSON, evil.to_string()));
    for file in ["widgets-1.0.zip", "widgets-1.1.zip"] {
        let answer = stand.get(&format!("/pypi/files/widgets/{file}")).await;
        assert!(answer.status.as_u16() >= 400 && answer.header("location").is_empty(), "{file}");
    }
}
