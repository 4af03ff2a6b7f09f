//! Issuers, and which URLs their metadata may name.

use url::{Host, Url};

use crate::resolver::has_internal_host;

/// Whether plain `http` is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainHttp {
    /// Never: in a deployment.
    Refused,
    /// For an issuer on the loopback interface: in local mode.
    OnLoopback,
}

/// An issuer of ID tokens that the deployment allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    url: Url,
}

impl Issuer {
    /// Parses an `https` URL without credentials, query and fragment. The text is kept as it is:
    /// `iss` must be the same, to the last slash.
    pub fn parse(text: &str, plain_http: PlainHttp) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_secure = match url.scheme() {
            "https" => true,
            "http" => plain_http == PlainHttp::OnLoopback && is_loopback(&url),
            _ => false,
        };
        let is_identifier = is_plain(&url) && url.query().is_none();
        (is_secure && is_identifier).then(|| Self { text: text.to_owned(), url })
    }

    /// The issuer as `iss` names it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the issuer serves many tenants, whose administrators may set any address.
    pub(super) fn is_multi_tenant(&self) -> bool {
        let mut segments = self.url.path_segments().into_iter().flatten();
        segments.any(|segment| {
            ["common", "organizations", "consumers"].iter().any(|name| segment.eq_ignore_ascii_case(name))
        })
    }

    /// Whether the issuer is reached by plain `http`, on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// The issuer as a URL.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of the metadata.
    pub(super) fn metadata_url(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/.well-known/openid-configuration", self.url.path().trim_end_matches('/')));
        url
    }

    /// A URL that the metadata names. `None` if requests must not go there: not `https` (a local
    /// issuer may name `http` on this machine), or an internal address besides the issuer's own.
    pub(super) fn endpoint(&self, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok().filter(is_plain)?;
        let is_allowed = match url.scheme() {
            "https" => url.host() == self.url.host() || !has_internal_host(&url),
            "http" => self.is_local() && is_loopback(&url),
            _ => false,
        };
        is_allowed.then_some(url)
    }
}

/// Whether a URL has neither credentials nor a fragment.
fn is_plain(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none() && url.fragment().is_none()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(text: &str) -> Option<Issuer> {
        Issuer::parse(text, PlainHttp::Refused)
    }

    #[test]
    fn issuers_are_https_urls_and_plain_http_needs_loopback_in_local_mode() {
        for text in ["https://token.actions.githubusercontent.com", "https://id.example.com:8443/a/"] {
            assert_eq!(issuer(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "id.example.com",
            "ftp://id.example.com",
            "https://user@id.example.com",
            "https://:password@id.example.com",
            "https://id.example.com?a",
            "https://id.example.com#a",
        ] {
            assert_eq!(Issuer::parse(text, PlainHttp::OnLoopback), None, "{text}");
        }
        for text in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:9000/realms/a"] {
            assert_eq!(issuer(text), None, "{text}");
            assert!(Issuer::parse(text, PlainHttp::OnLoopback).is_some(), "{text}");
        }
        for text in ["http://id.example.com", "http://10.0.0.1", "http://localhost.example.com", "http://0.0.0.0"] {
            assert_eq!(Issuer::parse(text, PlainHttp::OnLoopback), None, "{text}");
        }
    }

    #[test]
    fn metadata_is_below_the_issuer() {
        for (text, url) in [
            ("https://id.example.com", "https://id.example.com/.well-known/openid-configuration"),
            ("https://id.example.com/", "https://id.example.com/.well-known/openid-configuration"),
            ("https://id.example.com/a/b/", "https://id.example.com/a/b/.well-known/openid-configuration"),
        ] {
            assert_eq!(issuer(text).unwrap().metadata_url().as_str(), url);
        }
    }

    #[test]
    fn metadata_leads_to_no_plain_http_and_no_internal_address() {
        let public = issuer("https://id.example.com/a").unwrap();
        for url in ["https://id.example.com/keys", "https://keys.example.net/a?b=c"] {
            assert!(public.endpoint(url).is_some(), "{url}");
        }
        for url in [
            "http://id.example.com/keys",
            "http://127.0.0.1:9001/keys",
            "https://127.0.0.1/keys",
            "https://localhost/keys",
            "https://169.254.169.254/keys",
            "https://[::ffff:10.0.0.1]/keys",
            "https://user:password@id.example.com/keys",
            "https://id.example.com/keys#a",
            "file:///etc/passwd",
            "/keys",
        ] {
            assert_eq!(public.endpoint(url), None, "{url}");
        }
        let internal = issuer("https://10.0.0.1").unwrap();
        assert!(internal.endpoint("https://10.0.0.1:8443/keys").is_some());
        assert_eq!(internal.endpoint("https://10.0.0.2/keys"), None);
        let local = Issuer::parse("http://127.0.0.1:9000", PlainHttp::OnLoopback).unwrap();
        assert!(local.endpoint("http://localhost:9000/keys").is_some());
        assert_eq!(local.endpoint("http://id.example.com/keys"), None);
    }

    #[test]
    fn issuers_of_many_tenants_are_known_by_their_path() {
        for (text, expected) in [
            ("https://login.microsoftonline.com/common/v2.0", true),
            ("https://login.microsoftonline.com/Organizations/v2.0", true),
            ("https://login.microsoftonline.com/consumers", true),
            ("https://login.microsoftonline.com/8b87af7d-8647-4dc7-8df4-5f69a2011bb5/v2.0", false),
            ("https://common.example.com/uncommon", false),
        ] {
            assert_eq!(issuer(text).unwrap().is_multi_tenant(), expected, "{text}");
        }
    }
}
