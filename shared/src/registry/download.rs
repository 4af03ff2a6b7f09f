//! Answers with a file's place, and the log of it.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use super::client::Client;
use super::holder_name;
use super::upstream::is_web_place;
use crate::app::App;
use crate::auth::RegistryUser;
use crate::domain::Ecosystem;
use crate::error::ApiError;
use crate::http::Origin;
use crate::principal::Holder;
use crate::store::StoreError;
use crate::store::installations::{Download, Recorded};
use crate::store::tokens::StoredToken;

/// How long the log may hold up an answer.
const RECORDING: Duration = Duration::from_millis(500);

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// Whose package.
    pub ecosystem: Ecosystem,
    /// The package, as its ecosystem writes it: Python's normalised.
    pub package: String,
    /// Its version, as the file's name has it.
    pub version: String,
    /// The file's name.
    pub name: String,
}

/// Sends a caller on to where a file lies, and notes that it was taken.
///
/// # Errors
///
/// 502 where the file lies at no place that a caller can be sent to.
pub async fn send_on<O>(
    app: &App,
    user: &RegistryUser<O>,
    parts: &Parts,
    file: PackageFile,
    place: &Url,
) -> Result<Response, ApiError> {
    let answer = to_place(app, parts, place)?;
    if let Some(holder) = &user.holder
        && is_download(&parts.method, &parts.headers)
    {
        let client = Client::from_headers(&parts.headers);
        let recording = tokio::time::timeout(RECORDING, record(app, holder, &user.origin, client, file));
        if !matches!(recording.await, Ok(Ok(()))) {
            // An alarm counts these lines.
            tracing::error!(principal = holder.token.id(), "a download was not logged");
        }
    }
    Ok(answer)
}

/// Sends a caller on to something that is no file of a package, such as the metadata beside one.
///
/// # Errors
///
/// As [`send_on`].
pub fn to_place(app: &App, parts: &Parts, place: &Url) -> Result<Response, ApiError> {
    if app.registries()?.is_on_our_host(&parts.headers, place) {
        return Err(ApiError::BadGateway(ON_OUR_HOST));
    }
    redirect(place)
}

fn redirect(place: &Url) -> Result<Response, ApiError> {
    let location = HeaderValue::from_str(place.as_str()).ok().filter(|_| is_web_place(place));
    let location = location.ok_or(ApiError::BadGateway(NOWHERE))?;
    Ok((StatusCode::FOUND, [(LOCATION, location)]).into_response())
}

const NOWHERE: &str = "The registry behind this one names no place for this file that a client could fetch it from.";

const ON_OUR_HOST: &str =
    "The registry behind this one has the same host name, and clients would send it their tokens: call one by another.";

/// How much of a file's end resolvers read, in bytes, to find a wheel's metadata in it.
const PEEK: u64 = 1024 * 1024;

/// Whether a request takes a file: not where it asks about it, or looks into it as resolvers do for a wheel's metadata.
/// Where that is not sure, it does.
fn is_download(method: &Method, headers: &HeaderMap) -> bool {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    method == Method::GET && !range.is_some_and(is_peek)
}

/// Whether a range is a piece from the inside, or a small one from the end.
fn is_peek(range: &str) -> bool {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return false;
    };
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (number(first), number(last)) {
        (Some(first), Some(last)) => first > 0 && first <= last,
        (None, Some(last)) => first.is_empty() && last <= PEEK,
        _ => false,
    }
}

async fn record(
    app: &App,
    holder: &Holder,
    origin: &Origin,
    client: Client,
    file: PackageFile,
) -> Result<(), StoreError> {
    let (org, token_id) = match &holder.token {
        StoredToken::OrgUser(token) => (Some(&token.org_id), &token.id),
        StoredToken::EmailVerified(token) => (None, &token.id),
        // The guard lets no other kind in.
        StoredToken::ApiKey(_) | StoredToken::OrgAccess(_) => return Err(StoreError::Defect),
    };
    let download = Download {
        ecosystem: file.ecosystem,
        package: file.package,
        version: file.version,
        file: file.name,
        user_identifier: holder_name(app, &holder.token).await?,
        token_id: token_id.clone(),
        client: client.name,
        client_version: client.version,
        command: client.command,
        session: client.session,
        source_ip: origin.source_ip,
    };
    let log = app.installation_log().map_err(|_| StoreError::Defect)?;
    let recorded = log.record(org, &download).await?;
    // What an organization's tokens are used for, its log says.
    let is_counted = recorded == Recorded::New && org.is_none();
    if is_counted && app.store().count_download(token_id, file.ecosystem).await.is_err() {
        tracing::warn!(principal = holder.token.id(), "a download was not counted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_by_a_get_from_its_beginning() {
        let with = |range: &str| HeaderMap::from_iter([(RANGE, HeaderValue::from_str(range).unwrap())]);
        assert!(is_download(&Method::GET, &HeaderMap::new()));
        assert!(is_download(&Method::GET, &with("bytes=0-")));
        assert!(is_download(&Method::GET, &with("bytes=0-99999999")));
        // These get all of it, or as good as all.
        for range in
            ["bytes=-99999999999", "bytes=1-", "items=1-2", "x", "bytes=5-2", "bytes=+1-2", "bytes=1-2,3-4", ""]
        {
            assert!(is_download(&Method::GET, &with(range)), "{range}");
        }
        assert!(!is_download(&Method::HEAD, &HeaderMap::new()));
        assert!(!is_download(&Method::GET, &with("bytes=-16384")));
        assert!(!is_download(&Method::GET, &with("bytes=100-200")));
    }

    #[test]
    fn nobody_is_sent_to_what_is_no_place_on_the_web() {
        for place in ["https://files.example.com/a.whl", "http://localhost:8080/a.tgz"] {
            let answer = redirect(&Url::parse(place).unwrap()).unwrap();
            assert_eq!(answer.status(), StatusCode::FOUND);
            assert_eq!(answer.headers()[LOCATION], place);
        }
        for place in ["file:///etc/passwd", "javascript:alert(1)", "https://user:pw@files.example.com/a.whl"] {
            assert!(redirect(&Url::parse(place).unwrap()).is_err(), "{place}");
        }
    }
}
