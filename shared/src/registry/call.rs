//! An authenticated registry request, and the ways to answer it.

use axum::response::Response;
use http::request::Parts;
use url::Url;

use super::download::{self, PackageFile};
use super::metadata::{self, Variant};
use super::splice::Spliced;
use super::upstream::{Document, Fetched};
use super::{RegistryApp, RegistryUser};
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
    /// caller's copy is current. `rewrite` returns the content type and the new body.
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
        let headers = &self.parts.headers;
        match self.app.registries.fetch(url, accept, variant.cached(headers).upstream_tags()).await? {
            Fetched::NotModified(etag) => Ok(metadata::not_modified(variant, etag.as_ref())),
            Fetched::Document(document) => {
                let etag = document.etag.clone();
                let (content_type, body) = rewrite(document)?;
                metadata::answer(headers, variant, etag, content_type, body)
            }
        }
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
