//! What all answers below `/console/` share: security headers, error pages, the way to sign-in, and
//! the refusal of requests that another site's page sends.

use askama::Template;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::page::{Frame, html, preferred, see_other};
use super::{Console, METHODS, ROOT, SIGN_IN};
use crate::error::{ApiError, Rendered, Unauthorized};
use crate::observe::{Origin, routing_error};

/// Pages load their own stylesheet, script and images, and send forms to their own origin. Nothing
/// may be written into a page, and no site may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Characters that a path keeps in a query.
const IN_RETURN_TO: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// The page of an error.
#[derive(Template)]
#[template(path = "console/problem.html")]
struct Problem<'a> {
    page: Frame,
    status: u16,
    text: &'a str,
    detail: &'a str,
    request_id: &'a str,
    href: &'a str,
    link: &'a str,
}

/// A layer around every router: it acts on requests below `/console/`.
pub async fn respond(State(console): State<Console>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if !path.starts_with(ROOT) && path != ROOT.trim_end_matches('/') {
        return next.run(request).await;
    }
    let language = preferred(request.headers());
    let is_get = [Method::GET, Method::HEAD].contains(request.method());
    let request_id = request.extensions().get::<Origin>().map(|origin| origin.request_id.clone()).unwrap_or_default();
    let return_to = is_get.then(|| request.uri().path_and_query().map_or(path.clone(), ToString::to_string));
    let response = if is_get || is_same_origin(&console, request.headers()) {
        next.run(request).await
    } else {
        ApiError::ForeignForm.into_response()
    };
    let error = response.extensions().get::<ApiError>().cloned().or_else(|| routing_error(&response));
    let error = error.or_else(|| is_unreadable(&response).then_some(ApiError::NotFound));
    let mut response = match error {
        None => response,
        Some(ApiError::Unauthorized(reason)) => to_sign_in(reason, return_to.as_deref()),
        Some(ApiError::MethodNotAllowed(_)) => {
            error_page(&ApiError::MethodNotAllowed(METHODS.to_owned()), &request_id, Frame::new(language, ""))
        }
        Some(error) => error_page(&error, &request_id, Frame::new(language, "")),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether axum refused the request, in plain text: its path or query cannot be read.
fn is_unreadable(response: &Response) -> bool {
    let media_type = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    response.status().is_client_error() && media_type.starts_with(b"text/plain")
}

/// The page of an error. Handlers may use it to answer with a frame of their own.
pub fn error_page(error: &ApiError, request_id: &str, frame: Frame) -> Response {
    let ((status, _), m) = (error.status_and_code(), frame.m);
    let (title, text) = match error {
        ApiError::Forbidden => (m.forbidden, m.forbidden_text.to_owned()),
        ApiError::ForeignForm | ApiError::Exceeds(_) => (m.form_forbidden, m.form_forbidden_text.to_owned()),
        ApiError::NotFound | ApiError::TokenNotFound | ApiError::BotNotFound => {
            (m.not_found, m.not_found_text.to_owned())
        }
        ApiError::Conflict(_) => (m.changed_meanwhile, m.changed_meanwhile_text.to_owned()),
        ApiError::MethodNotAllowed(_) | ApiError::UnsupportedMediaType => {
            (m.method_not_allowed, m.method_not_allowed_text.to_owned())
        }
        ApiError::RateLimited(left) => (m.too_many_requests, m.retry_after(left.as_secs().max(1))),
        ApiError::Unavailable | ApiError::GatewayTimeout => (m.unavailable, m.try_again_later.to_owned()),
        ApiError::SubscriptionRequired | ApiError::Suspended => (m.forbidden, m.guard_is_off.to_owned()),
        ApiError::PlanLimitReached => (m.forbidden, m.plan_limit_reached.to_owned()),
        _ if status.is_client_error() => (m.form_forbidden, m.nothing_was_saved.to_owned()),
        _ => (m.internal_error, m.internal_error_text.to_owned()),
    };
    let mut response = problem(status, Frame { title: title.to_owned(), ..frame }, &text, request_id);
    error.add_headers(response.headers_mut());
    response.extensions_mut().insert(Rendered(error.clone()));
    response
}

/// A page that says what went wrong.
pub fn problem(status: StatusCode, page: Frame, text: &str, request_id: &str) -> Response {
    let link = page.m.to_overview;
    let page = Problem { page, status: status.as_u16(), text, detail: "", request_id, href: ROOT, link };
    html(status, &page).unwrap_or_else(|_| status.into_response())
}

/// Sends somebody who is not signed in to do so, and then back.
fn to_sign_in(reason: Unauthorized, return_to: Option<&str>) -> Response {
    let mut response = see_other(&return_to.map_or_else(|| SIGN_IN.to_owned(), |path| returning(SIGN_IN, path)));
    response.extensions_mut().insert(Rendered(ApiError::Unauthorized(reason)));
    response
}

/// The path of a step of signing in that leads to this path afterwards.
pub fn returning(step: &str, return_to: &str) -> String {
    format!("{step}?return_to={}", utf8_percent_encode(return_to, IN_RETURN_TO))
}

/// Whether an unsafe request comes from a page of ours. Browsers send `Sec-Fetch-Site`, or at least
/// `Origin`.
fn is_same_origin(console: &Console, headers: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let all = |name: header::HeaderName| headers.get_all(name).iter().map(text).collect::<Vec<_>>();
    let (sites, origins) = (all(header::HeaderName::from_static("sec-fetch-site")), all(header::ORIGIN));
    let own = console.origin(headers);
    let is_own = origins.iter().all(|origin| *origin == own);
    match sites.as_slice() {
        [] => is_own && !origins.is_empty(),
        [site] => is_own && site == "same-origin",
        _ => false,
    }
}

/// A path below `/console/` to return to; anything else leads to the console's root.
pub fn return_path(text: Option<&str>) -> &str {
    let is_path = |text: &&str| {
        let is_plain = text.bytes().all(|c| (0x21..0x7f).contains(&c) && c != b'\\');
        // Browsers read an encoded dot as a dot.
        let leads_up = text.contains("..") || text.to_ascii_lowercase().contains("%2e");
        text.starts_with(ROOT) && !text.contains("//") && !leads_up && is_plain
    };
    text.filter(is_path).filter(|text| !text.starts_with(SIGN_IN)).unwrap_or(ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        is_same_origin(&Console::at("https://guard.example.com"), &headers.collect())
    }

    #[test]
    fn unsafe_request_is_taken_only_from_an_own_page() {
        let origin = ("origin", "https://guard.example.com");
        assert!(taken(&[("sec-fetch-site", "same-origin")]));
        assert!(taken(&[("sec-fetch-site", "same-origin"), origin]));
        assert!(taken(&[origin]));
        for refused in [
            &[][..],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-site"), origin],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
            &[("origin", "http://guard.example.com")],
            &[("origin", "https://guard.example.com:8443")],
            &[("origin", "https://guard.example.com.evil.example")],
        ] {
            assert!(!taken(refused), "{refused:?}");
        }
    }

    #[test]
    fn only_paths_of_the_console_are_returned_to() {
        assert_eq!(return_path(Some("/console/o/OG1/tokens?state=revoked")), "/console/o/OG1/tokens?state=revoked");
        for text in [
            "https://evil.example/",
            "//evil.example/console/",
            "/console//evil.example",
            "/console/../evil",
            "/console/%2e%2E/evil",
            "/console/.%2e/evil",
            "/console/\\evil",
            "/v1/whoami",
            "/console",
            "/console/a b",
            "/console/\r\nSet-Cookie: a=b",
            "/console/sign-in?return_to=/console/",
            "",
        ] {
            assert_eq!(return_path(Some(text)), ROOT, "{text}");
        }
        assert_eq!(return_path(None), ROOT);
    }
}
