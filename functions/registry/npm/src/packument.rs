//! Metadata with the places of files changed, and nothing else: every other byte stays as the upstream wrote it, hashes
//! and signatures among them.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::registry::upstream::Upstream;
use url::Url;

use crate::path::{Package, Tarball};

/// What is read of a package.
#[derive(Deserialize)]
struct Packument<'a> {
    #[serde(borrow, default)]
    versions: BTreeMap<String, Manifest<'a>>,
}

/// What is read of a version.
#[derive(Deserialize)]
struct Manifest<'a> {
    #[serde(borrow)]
    dist: Option<Dist<'a>>,
}

#[derive(Deserialize)]
struct Dist<'a> {
    /// Where the file lies, as it is written.
    #[serde(borrow)]
    tarball: Option<&'a RawValue>,
}

/// The version that a manifest is of.
#[derive(Deserialize)]
struct Versioned {
    version: String,
}

/// Where files lie: at the upstream, and for callers.
pub struct Places<'a> {
    /// The upstream.
    pub upstream: &'a Upstream,
    /// Our registry's root as callers see it, with a slash at the end.
    pub root: &'a str,
}

impl Places<'_> {
    /// The metadata of a package as callers see it.
    ///
    /// # Errors
    ///
    /// Where it is not what npm registries answer.
    pub fn in_packument(&self, package: &Package, body: &str) -> serde_json::Result<Vec<u8>> {
        let packument: Packument<'_> = serde_json::from_str(body)?;
        let manifests = packument.versions.iter();
        Ok(self.rewritten(body, package, manifests.map(|(version, manifest)| (version.as_str(), manifest))))
    }

    /// The metadata of one version as callers see it.
    ///
    /// # Errors
    ///
    /// Where it is not what npm registries answer.
    pub fn in_manifest(&self, package: &Package, body: &str) -> serde_json::Result<Vec<u8>> {
        let (Versioned { version }, manifest) = (serde_json::from_str(body)?, serde_json::from_str(body)?);
        Ok(self.rewritten(body, package, [(version.as_str(), &manifest)].into_iter()))
    }

    fn rewritten<'a>(
        &self,
        body: &'a str,
        package: &Package,
        manifests: impl Iterator<Item = (&'a str, &'a Manifest<'a>)>,
    ) -> Vec<u8> {
        let mut changes: Vec<(Range<usize>, String)> = manifests
            .filter_map(|(version, manifest)| {
                let written = manifest.dist.as_ref()?.tarball?;
                let place = self.place(package, version, &text(written)?)?;
                Some((range_of(written.get(), body), format!("\"{place}\"")))
            })
            .collect();
        changes.sort_by_key(|(range, _)| range.start);
        let mut rewritten = Vec::with_capacity(body.len() + 64 * changes.len());
        let mut done = 0;
        for (range, place) in changes {
            rewritten.extend_from_slice(&body.as_bytes()[done..range.start]);
            rewritten.extend_from_slice(place.as_bytes());
            done = range.end;
        }
        rewritten.extend_from_slice(&body.as_bytes()[done..]);
        rewritten
    }

    /// Where callers find a version's file. A version that is none, no client installs.
    fn place(&self, package: &Package, version: &str, tarball: &str) -> Option<String> {
        let url = Url::parse(tarball).ok()?;
        let file = Tarball::of(package, version)?;
        let is_usual = self.upstream.path_below(&url).is_some_and(|path| file.lies_at(path));
        let path = if is_usual { file.path() } else { file.path_by_metadata() };
        Some(format!("{}{path}", self.root))
    }
}

/// Where a version's file lies, by its manifest.
///
/// # Errors
///
/// Where the manifest is not what npm registries answer.
pub fn tarball_of(body: &str) -> serde_json::Result<Option<Url>> {
    let manifest: Manifest<'_> = serde_json::from_str(body)?;
    let written = manifest.dist.and_then(|dist| dist.tarball);
    Ok(written.and_then(text).and_then(|url| Url::parse(&url).ok()))
}

fn text(written: &RawValue) -> Option<String> {
    serde_json::from_str(written.get()).ok()
}

/// Where in a text a piece of it lies.
fn range_of(piece: &str, whole: &str) -> Range<usize> {
    let start = piece.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(name: &str, body: &str) -> String {
        let upstream = Upstream::parse("https://packages.example.com/npm").unwrap();
        let places = Places { upstream: &upstream, root: "https://guard.example.com/npm/" };
        let Some(crate::path::Resource::Package(package)) = crate::path::Resource::parse(name) else { panic!() };
        String::from_utf8(places.in_packument(&package, body).unwrap()).unwrap()
    }

    #[test]
    fn places_change_and_no_other_byte_does() {
        let of = |one: &str, two: &str| {
            format!(
                r#"{{ "name":"a", "_x":1.0e400, "versions" : {{"1.0.0":{{"dist":{{"integrity":"sha512-\u002f==","tarball":{one},
                "signatures":[{{"sig":"MEUC\/"}}]}}}}, "2.0.0" : {{"dist":{{"tarball" : {two} }},"tarball":"x"}}}}, "tarball": "y" }}"#
            )
        };
        let before =
            of(r#""https:\/\/packages.example.com\/npm\/a\/-\/a-1.0.0.tgz""#, r#""https://elsewhere.example/b.tgz""#);
        let after = of(
            r#""https://guard.example.com/npm/a/-/a-1.0.0.tgz""#,
            r#""https://guard.example.com/npm/a/-/by-metadata/a-2.0.0.tgz""#,
        );
        assert_eq!(rewritten("a", &before), after);
    }

    #[test]
    fn a_scope_may_be_encoded_upstream() {
        let body =
            r#"{"versions":{"1.0.0":{"dist":{"tarball":"https://packages.example.com/npm/@s%2fa/-/a-1.0.0.tgz"}}}}"#;
        assert!(rewritten("@s/a", body).contains(r#""https://guard.example.com/npm/@s/a/-/a-1.0.0.tgz""#));
    }

    #[test]
    fn what_has_no_versions_stays_as_it_is() {
        for body in [r#"{"name":"a","time":{"unpublished":{}}}"#, r#"{"versions":{}}"#, r#"{"versions":{"1.0.0":{}}}"#]
        {
            assert_eq!(rewritten("a", body), body);
        }
    }
}
