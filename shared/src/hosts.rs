//! Hosts of the registries' own.
//!
//! Beside its path at the service's host (`/npm/`, `/pypi/`), a registry can stand at the root of a
//! host of its own: `https://npm.example.com/<package>`, `https://pypi.example.com/simple/`. A request
//! to such a host becomes one for the registry's path before it is routed, so that each function has
//! one set of routes. Besides its registry, such a host has the endpoints of email-verified tokens,
//! and nothing else: the service's other paths lead to one that no function serves. All that remains
//! is the registry's, which answers as it does at the service's host: a 404 is the upstream's alone.
//!
//! The host is the domain that API Gateway names in its event, or in the local service the one that
//! the caller names; see [`RegistryHosts::enter`].

use http::uri::PathAndQuery;
use http::{Request, Uri};

use crate::config;
use crate::domain::Ecosystem;

/// The endpoints of email-verified tokens, at and below this path.
const TOKENS: &str = "/api/v1/tokens";

/// A path that no function serves.
const NOWHERE: &str = "/-";

/// The first segments of the service's own paths. Packages may have these names: their metadata and
/// files are served at npm's host, and only the documents of single versions are not.
const OURS: [&str; 5] = ["api", "bots", "console", "scim", "v1"];

/// The hosts of the registries' own, if they have any.
#[derive(Debug, Clone, Default)]
pub struct RegistryHosts {
    npm: Option<Host>,
    pypi: Option<Host>,
}

#[derive(Debug, Clone)]
struct Host {
    scheme: &'static str,
    /// With the port, unless it is the scheme's own.
    authority: String,
}

impl Host {
    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    fn is(&self, authority: &str) -> bool {
        let own_port = if self.scheme == "http" { ":80" } else { ":443" };
        authority.strip_suffix(own_port).unwrap_or(authority).eq_ignore_ascii_case(&self.authority)
    }
}

/// A request extension: the request came to a registry's own host, whose URL this is, without a
/// trailing slash.
#[derive(Debug, Clone)]
pub struct AtOwnHost(pub String);

impl RegistryHosts {
    /// Reads `NPM_HOST` and `PYPI_HOST`, which may be missing.
    pub fn from_env() -> Self {
        Self::new(config::optional("NPM_HOST").as_deref(), config::optional("PYPI_HOST").as_deref())
    }

    /// These hosts, reached by `https`.
    pub fn new(npm: Option<&str>, pypi: Option<&str>) -> Self {
        let host = |name: &str| Host { scheme: "https", authority: name.to_ascii_lowercase() };
        Self { npm: npm.map(host), pypi: pypi.map(host) }
    }

    /// `npm.localhost` and `pypi.localhost` on this port, as the local service has them.
    pub fn on_this_machine(port: u16) -> Self {
        let host = |name: &str| Host {
            scheme: "http",
            authority: if port == 80 { name.to_owned() } else { format!("{name}:{port}") },
        };
        Self { npm: Some(host("npm.localhost")), pypi: Some(host("pypi.localhost")) }
    }

    /// The URL of a registry's own host, without a trailing slash.
    pub fn url(&self, ecosystem: Ecosystem) -> Option<String> {
        let host = match ecosystem {
            Ecosystem::Npm => &self.npm,
            Ecosystem::Pypi => &self.pypi,
        };
        host.as_ref().map(Host::url)
    }

    /// The URLs of all hosts, without a trailing slash.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        Ecosystem::ALL.iter().filter_map(|ecosystem| self.url(*ecosystem))
    }

    /// Leads a request to its registry's path if it came to a registry's own host. `authority` is the
    /// host that it came to; it must not be a header that the caller could forge.
    pub fn enter<B>(&self, authority: &str, mut request: Request<B>) -> Request<B> {
        let (host, root) = match (&self.npm, &self.pypi) {
            (Some(host), _) if host.is(authority) => (host, "/npm"),
            (_, Some(host)) if host.is(authority) => (host, "/pypi"),
            _ => return request,
        };
        let path = below(root, request.uri().path()).unwrap_or_else(|| NOWHERE.to_owned());
        *request.uri_mut() = with_path(request.uri(), &path);
        request.extensions_mut().insert(AtOwnHost(host.url()));
        request
    }
}

/// The service's path for a path at the host of the registry with this root.
fn below(root: &str, path: &str) -> Option<String> {
    if is_of_email_tokens(path) {
        return Some(path.to_owned());
    }
    let mut segments = path.strip_prefix('/')?.split('/');
    let first = segments.next()?;
    let is_ours = OURS.contains(&first) && segments.next().is_some_and(|second| second != "-");
    (!is_ours).then(|| format!("{root}{path}"))
}

fn is_of_email_tokens(path: &str) -> bool {
    path.strip_prefix(TOKENS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn with_path(uri: &Uri, path: &str) -> Uri {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    // A URI has a maximum length.
    parts.path_and_query =
        Some(format!("{path}{query}").parse().unwrap_or_else(|_| PathAndQuery::from_static(NOWHERE)));
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static(NOWHERE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> RegistryHosts {
        RegistryHosts::new(Some("npm.example.com"), Some("pypi.example.com"))
    }

    /// The path and query, and the host's URL, that a request to this authority gets.
    fn entered(authority: &str, uri: &str) -> (String, Option<String>) {
        let request = hosts().enter(authority, Request::builder().uri(uri).body(()).unwrap());
        let host = request.extensions().get::<AtOwnHost>().map(|AtOwnHost(url)| url.clone());
        (request.uri().path_and_query().unwrap().to_string(), host)
    }

    #[track_caller]
    fn assert_leads(authority: &str, uri: &str, to: &str) {
        assert_eq!(entered(authority, uri).0, to, "{authority} {uri}");
    }

    #[test]
    fn npm_host_serves_packages_at_its_root() {
        for (at_host, at_service) in [
            ("/widgets", "/npm/widgets"),
            ("/@example%2fwidgets", "/npm/@example%2fwidgets"),
            ("/@example/widgets/-/widgets-1.0.0.tgz?x=%20y", "/npm/@example/widgets/-/widgets-1.0.0.tgz?x=%20y"),
            ("/-/whoami", "/npm/-/whoami"),
            ("/-/user/token/x", "/npm/-/user/token/x"),
            ("/", "/npm/"),
            ("//widgets", "/npm//widgets"),
            // Packages with the names of paths.
            ("/npm", "/npm/npm"),
            ("/npm/latest", "/npm/npm/latest"),
            ("/pypi/-/pypi-1.0.0.tgz", "/npm/pypi/-/pypi-1.0.0.tgz"),
            ("/simple", "/npm/simple"),
            ("/v1", "/npm/v1"),
            ("/console/-/console-1.0.0.tgz", "/npm/console/-/console-1.0.0.tgz"),
        ] {
            assert_leads("npm.example.com", at_host, at_service);
        }
    }

    #[test]
    fn pypi_host_serves_the_index_and_its_files() {
        for (at_host, at_service) in [
            ("/simple", "/pypi/simple"),
            ("/simple/", "/pypi/simple/"),
            ("/simple/widgets/?format=x", "/pypi/simple/widgets/?format=x"),
            ("/files/widgets/-/a/widgets-1.0.tar.gz", "/pypi/files/widgets/-/a/widgets-1.0.tar.gz"),
            // Nothing that the index has, but its own to answer.
            ("/", "/pypi/"),
            ("/widgets/", "/pypi/widgets/"),
            ("/npm/widgets", "/pypi/npm/widgets"),
            ("/pypi/simple/widgets/", "/pypi/pypi/simple/widgets/"),
            ("//simple/", "/pypi//simple/"),
        ] {
            assert_leads("pypi.example.com", at_host, at_service);
        }
        assert_leads("pypi.example.com", "*", NOWHERE);
    }

    #[test]
    fn registry_hosts_have_the_endpoints_of_email_tokens_and_no_other() {
        for host in ["npm.example.com", "pypi.example.com"] {
            for path in ["/api/v1/tokens", "/api/v1/tokens/status", "/api/v1/tokens/reset?x=1"] {
                assert_leads(host, path, path);
            }
            for path in [
                "/api/v1/tokensx",
                "/api/v2/organization/tokens/",
                "/v1/whoami",
                "/v1/o/OG1/guard/org-user-tokens",
                "/bots/exchange",
                "/scim/v2/Users",
                "/console/",
                "/console/sign-in",
            ] {
                assert_leads(host, path, NOWHERE);
            }
        }
    }

    #[test]
    fn other_hosts_are_left_alone() {
        for host in ["guard.example.com", "", "npm.example.com.", "npm.example.com:8443", "x.npm.example.com"] {
            assert_eq!(entered(host, "/v1/whoami"), ("/v1/whoami".to_owned(), None), "{host}");
            assert_eq!(entered(host, "/widgets"), ("/widgets".to_owned(), None), "{host}");
        }
        let without = RegistryHosts::default().enter("", Request::builder().uri("/widgets").body(()).unwrap());
        assert_eq!(without.uri(), "/widgets");
    }

    #[test]
    fn host_is_compared_without_case_and_with_its_default_port() {
        for host in ["NPM.example.com", "npm.example.com:443"] {
            let expected = ("/npm/widgets".to_owned(), Some("https://npm.example.com".to_owned()));
            assert_eq!(entered(host, "/widgets"), expected, "{host}");
        }
        let port_80 = RegistryHosts::on_this_machine(80);
        assert_eq!(port_80.urls().collect::<Vec<_>>(), ["http://npm.localhost", "http://pypi.localhost"]);
        for host in ["npm.localhost", "npm.localhost:80"] {
            let request = port_80.enter(host, Request::builder().uri("/widgets").body(()).unwrap());
            assert_eq!(request.uri(), "/npm/widgets", "{host}");
        }
    }

    #[test]
    fn scheme_and_authority_of_the_uri_are_kept() {
        let request = Request::builder().uri("https://npm.example.com/widgets?a=b").body(()).unwrap();
        assert_eq!(hosts().enter("npm.example.com", request).uri(), "https://npm.example.com/npm/widgets?a=b");
    }

    #[test]
    fn path_that_becomes_too_long_leads_nowhere() {
        let longest = format!("/{}", "a".repeat(65_533));
        assert_leads("npm.example.com", &longest, NOWHERE);
    }
}
