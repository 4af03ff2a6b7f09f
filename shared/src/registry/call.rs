//! An authenticated registry request, and the ways to answer it.

use axum::response::Response;
use http::request::Parts;
use url::Url;

use super::download::{self, PackageFile};
use super::metadata::kept::{Kept, Key};
use super::metadata::{self, Unmodified, Variant};
use super::splice::Spliced;
use super::upstream::{Document, Fetched};
use super::{RegistryApp, RegistryUser};
use crate::accept;
use crate::error::ApiError;

/// An authenticated registry request.
#[derive(Debug)]
pub struct Call<'a, O> {
    /// The state of the registries.
    pub app: &'a RegistryApp,
    /// The caller.
    pub user: &'a RegistryUser<O>,
    /// The request, without its body.
    pub parts: &'a Parts,
}

impl<O> Call<'_, O> {
    /// Answers with the upstream's document at this URL after `rewrite`, or with 304 if the
    /// caller's copy is current. `rewrite` returns the content type and the new body. The answer is
    /// kept: if the upstream says that it is current, it goes out as it is.
    ///
    /// # Errors
    ///
    /// Those of [`fetch`](super::Registries::fetch), of [`metadata::answer`] and of `rewrite`.
    pub async fn metadata(
        &self,
        url: Url,
        accept: &'static str,
        variant: Variant,
        rewrite: impl FnOnce(Document) -> Result<(&'static str, Spliced), ApiError>,
    ) -> Result<Response, ApiError> {
        let (headers, registries) = (&self.parts.headers, &self.app.registries);
        let cached = variant.cached(headers);
        let key = Key::new(&url, accept, &variant, accept::accepts_gzip(headers));
        let kept = if metadata::has_directive(headers, "no-cache") { None } else { registries.kept.get(&key) };
        let kept = kept.as_deref();
        let document = match registries.fetch(url.clone(), accept, cached.condition(kept)).await? {
            Fetched::Document(document) => document,
            Fetched::NotModified(etag, place) => match (cached.unmodified(kept, etag.as_ref(), &place), kept) {
                (Unmodified::Callers(etag), _) => return Ok(metadata::not_modified(&variant, etag.as_ref())),
                (Unmodified::Kept, Some(kept)) => return Ok(kept.encoded.response(&variant)),
                _ => registries.fetch_document(url, accept).await?,
            },
        };
        let (etag, may_be_kept, url) = (document.etag.clone(), document.may_be_kept, document.url.clone());
        let (content_type, body) = rewrite(document)?;
        let encoded = match metadata::encoded(self.parts, &variant, etag, content_type, body)? {
            Ok(encoded) => encoded,
            Err(response) => {
                // What is kept is older, and an upstream that compares lists of tags as text would
                // send the document each time.
                if kept.is_some() {
                    registries.kept.remove(&key);
                }
                return Ok(response);
            }
        };
        let response = encoded.response(&variant);
        if may_be_kept {
            registries.kept.keep(key, Kept { url, encoded });
        }
        Ok(response)
    }

    /// Redirects to a file of a package, and records the download in the installation log.
    ///
    /// # Errors
    ///
    /// 502 if clients must not be redirected to this URL.
    pub async fn redirect_to_file(&self, file: PackageFile, target: &Url) -> Result<Response, ApiError> {
        download::redirect_to_file(self.app, self.user, self.parts, file, target).await
    }

    /// Redirects without recording a download, such as to a file's metadata.
    ///
    /// # Errors
    ///
    /// As [`Self::redirect_to_file`].
    pub fn redirect(&self, target: &Url) -> Result<Response, ApiError> {
        download::redirect(self.app, self.parts, target)
    }
}
