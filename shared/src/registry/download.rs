//! Redirects to files at the upstream registry, and records downloads in the installation log.

use std::pin::pin;
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use futures::future::{Either, select};
use http::header::{LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use super::client::Client;
use super::upstream::is_plain_http_url;
use super::{RegistryApp, RegistryUser, credential_in};
use crate::auth::Credential;
use crate::domain::Ecosystem;
use crate::error::ApiError;
use crate::observe::Origin;
use crate::principal::Holder;
use crate::secret::TokenHash;
use crate::store::StoreError;
use crate::store::installations::{Attempt, Download, InstallationLog, Place, Recorded};
use crate::store::tokens::StoredToken;

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// The ecosystem.
    pub ecosystem: Ecosystem,
    /// The package name; for Python the normalized one.
    pub package: String,
    /// The version in the file name.
    pub version: String,
    /// The file name.
    pub name: String,
}

/// A download that is being logged: begun while its token was read, and finished once it is let in.
#[derive(Debug)]
pub(super) struct Logging {
    client: Client,
    /// The place of its entry; `None` if it is already logged.
    place: Option<Place>,
    /// How much longer the response may be delayed.
    left: Duration,
}

/// What [`Logging`] begins with.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    token: TokenHash,
    client: Client,
    file: &'a PackageFile,
}

impl<'a> Begun<'a> {
    /// A request for a file. `None` if it is not logged, or can only be refused.
    pub fn of(parts: &Parts, file: &'a PackageFile) -> Option<Self> {
        let Ok(Credential::Token(token)) = credential_in(&parts.headers) else { return None };
        let client = Client::from_headers(&parts.headers);
        is_download(&parts.method, &parts.headers).then(|| Self { token: token.hash(), client, file })
    }

    /// Looks up whether it is already logged. It runs beside `guard`, so that the answer waits for
    /// the slower of them, and for the look-up at most the log's patience longer; what `guard`
    /// refuses is refused at once.
    pub async fn beside<T>(
        self,
        log: &InstallationLog,
        guard: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<(T, Option<Logging>), ApiError> {
        let Self { token, client, file } = self;
        let [name, command, session] = [&client.name, &client.command, &client.session].map(Option::as_deref);
        let PackageFile { ecosystem, package, name: file, .. } = file;
        let attempt = Attempt { token, ecosystem: *ecosystem, package, file, client: name, command, session };
        let (guarded, place, delay) = match select(pin!(guard), pin!(log.look_up(attempt))).await {
            Either::Left((guarded, look_up)) => {
                let (guarded, since) = (guarded?, Instant::now());
                let place = tokio::time::timeout(log.patience(), look_up).await.ok();
                (guarded, place, since.elapsed())
            }
            Either::Right((place, guard)) => (guard.await?, Some(place), Duration::ZERO),
        };
        let place = place.and_then(Result::ok);
        let logging = place.map(|place| Logging { client, place, left: log.patience().saturating_sub(delay) });
        Ok((guarded, logging))
    }
}

/// Redirects to a file of a package, and records the download. A failure to record is only logged.
///
/// # Errors
///
/// 502 if clients must not be redirected to this URL.
pub(super) async fn redirect_to_file<O>(
    app: &RegistryApp,
    user: &RegistryUser<O>,
    parts: &Parts,
    file: PackageFile,
    target: &Url,
) -> Result<Response, ApiError> {
    let answer = redirect(app, parts, target)?;
    if let Some(holder) = &user.holder
        && is_download(&parts.method, &parts.headers)
    {
        let is_logged = match &user.logging {
            Some(logging) => record(app, holder, &user.origin, logging, file).await.is_ok(),
            None => false,
        };
        if !is_logged {
            // A metric filter in template.yaml matches this message.
            tracing::error!(principal = holder.token.id(), "a download was not logged");
        }
    }
    Ok(answer)
}

/// Redirects without recording a download, such as to a file's metadata.
///
/// # Errors
///
/// As [`redirect_to_file`].
pub(super) fn redirect(app: &RegistryApp, parts: &Parts, target: &Url) -> Result<Response, ApiError> {
    if app.registries.is_on_our_host(&parts.headers, target) {
        return Err(ApiError::BadGateway(ON_OUR_HOST));
    }
    found(target)
}

fn found(target: &Url) -> Result<Response, ApiError> {
    let location = HeaderValue::from_str(target.as_str()).ok().filter(|_| is_plain_http_url(target));
    let location = location.ok_or(ApiError::BadGateway(UNUSABLE_URL))?;
    Ok((StatusCode::FOUND, [(LOCATION, location)]).into_response())
}

const UNUSABLE_URL: &str = "The upstream registry returned no usable URL for this file.";

const ON_OUR_HOST: &str =
    "The upstream uses this service's own host name, so clients would send it their tokens. Configure a different one.";

/// The largest range at a file's end that counts as a look at a wheel's metadata, in bytes.
const MAX_PEEK: u64 = 1024 * 1024;

/// Whether a request is recorded as a download. `HEAD` is not, nor is a resolver's range request
/// for a wheel's metadata; doubtful ranges are.
fn is_download(method: &Method, headers: &HeaderMap) -> bool {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    method == Method::GET && !range.is_some_and(is_peek)
}

/// Whether a range is bounded and starts inside the file, or is a small one at its end.
fn is_peek(range: &str) -> bool {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return false;
    };
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (number(first), number(last)) {
        (Some(first), Some(last)) => first > 0 && first <= last,
        (None, Some(last)) => first.is_empty() && last <= MAX_PEEK,
        _ => false,
    }
}

async fn record(
    app: &RegistryApp,
    holder: &Holder,
    origin: &Origin,
    logging: &Logging,
    file: PackageFile,
) -> Result<(), StoreError> {
    let Logging { client, place: Some(place), left } = logging else { return Ok(()) };
    let deadline = tokio::time::Instant::now() + *left;
    let (org, token_id, user_identifier, subject) = match &holder.token {
        StoredToken::Bot(token) => (Some(&token.org_id), &token.id, None, Some(token.subject.clone())),
        StoredToken::OrgUser(token) => {
            (Some(&token.org_id), &token.id, Some(token.user_identifier.as_str().to_owned()), None)
        }
        // No list has these entries, so nobody's address is in the log.
        StoredToken::EmailVerified(token) => (None, &token.id, None, None),
        // The guard refuses these kinds.
        StoredToken::ApiKey(_) | StoredToken::OrgAccess(_) => return Err(StoreError::Defect),
    };
    let client = client.clone();
    let download = Download {
        ecosystem: file.ecosystem,
        package: file.package,
        version: file.version,
        file: file.name,
        user_identifier,
        token_id: token_id.clone(),
        subject,
        client: client.name,
        client_version: client.version,
        command: client.command,
        session: client.session,
        source_ip: origin.source_ip,
    };
    // Org user tokens have no counters: their organization's log has every download.
    let count = async |count| {
        let store = app.app.store();
        if org.is_none() && store.count_downloads(token_id, file.ecosystem, count).await.is_err() {
            tracing::warn!(principal = holder.token.id(), "a download was not counted");
        }
    };
    let _: Recorded = app.log.write(org, place.clone(), &download, deadline, count).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_from_the_start_counts_as_a_download() {
        let with = |range: &str| HeaderMap::from_iter([(RANGE, HeaderValue::from_str(range).unwrap())]);
        assert!(is_download(&Method::GET, &HeaderMap::new()));
        assert!(is_download(&Method::GET, &with("bytes=0-")));
        assert!(is_download(&Method::GET, &with("bytes=0-99999999")));
        // These return the whole file or nearly all of it, or are invalid.
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
    fn redirects_lead_only_to_http_urls_without_credentials() {
        for target in ["https://files.example.com/a.whl", "http://localhost:8080/a.tgz"] {
            let answer = found(&Url::parse(target).unwrap()).unwrap();
            assert_eq!(answer.status(), StatusCode::FOUND);
            assert_eq!(answer.headers()[LOCATION], target);
        }
        for target in ["file:///etc/passwd", "javascript:alert(1)", "https://user:pw@files.example.com/a.whl"] {
            assert!(found(&Url::parse(target).unwrap()).is_err(), "{target}");
        }
    }
}
