//! Answers requests to this machine's own addresses only. A web page can reach a local port: by its
//! own `Origin`, or by a name of its own that DNS rebinding points to 127.0.0.1.
//!
//! [`guarded`] is a layer around everything on both ports, the API's and DynamoDB's. The tests of
//! the service leave it out, since a deployment has any host name.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, HOST, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use shared::ApiError;
use shared::error::ErrorFormat;
use shared::lambda::new_request_id;
use shared::observe::{REQUEST_ID, SANDBOX};

/// The names of this machine that we answer to, each with our own port.
pub(crate) const NAMES: [&str; 5] = ["127.0.0.1", "localhost", "[::1]", "npm.localhost", "pypi.localhost"];

const FOREIGN: &str = "The `Host` or `Origin` is not this service's own. \
                       In local mode, call it by the URL printed at startup, and not from another site's page.";

/// Refuses requests with a foreign `Host` or `Origin`, before anything else sees them.
pub fn guarded(router: Router, port: u16) -> Router {
    router.layer(from_fn_with_state(port, refuse_foreign))
}

async fn refuse_foreign(State(port): State<u16>, request: Request, next: Next) -> Response {
    if is_ours(&request, port) {
        return next.run(request).await;
    }
    tracing::info!("a request with a foreign `Host` or `Origin` was refused");
    let request_id = new_request_id();
    let error = ApiError::Exceeds(FOREIGN);
    let mut response = error.render(ErrorFormat::at(request.uri().path()), &request_id);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// Whether a request calls us by one name, which is ours, and so is the page that sent it, if any.
fn is_ours(request: &Request, port: u16) -> bool {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let mut targets = request.uri().authority().map(|authority| authority.as_str().as_bytes()).into_iter();
    let mut origins = headers.get_all(ORIGIN).iter().map(HeaderValue::as_bytes);
    let Some(host) = hosts.next() else { return false };
    is_own(host, port)
        && hosts.next().is_none()
        && targets.all(|target| target.eq_ignore_ascii_case(host))
        && origins.all(|origin| origin.strip_prefix(b"http://").is_some_and(|host| is_own(host, port)))
}

/// Whether this is one of our names with our port. Without a port, 80 is meant.
fn is_own(authority: &[u8], port: u16) -> bool {
    let Ok(authority) = str::from_utf8(authority) else { return false };
    let name = authority.strip_suffix(&format!(":{port}")).or((port == 80).then_some(authority));
    name.is_some_and(|name| NAMES.iter().any(|own| name.eq_ignore_ascii_case(own)))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn target_and_host_must_name_the_same_host() {
        let is_served = |target: &str, host: &str| {
            let request = Request::builder().uri(target).header(HOST, host).body(Body::empty()).unwrap();
            is_ours(&request, 3000)
        };
        for own in NAMES {
            let host = format!("{own}:3000");
            assert!(is_served("/", &host) && is_served(&format!("http://{host}/"), &host.to_uppercase()), "{own}");
        }
        // Which registry answers must not depend on the name that is read.
        for (target, host) in [
            ("http://npm.localhost:3000/", "127.0.0.1:3000"),
            ("http://127.0.0.1:3000/", "npm.localhost:3000"),
            ("http://npm.localhost:3000/", "pypi.localhost:3000"),
            ("http://evil.example:3000/", "npm.localhost:3000"),
        ] {
            assert!(!is_served(target, host), "{target} {host}");
        }
    }
}
