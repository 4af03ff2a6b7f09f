//! Rewrites the file URLs in npm metadata. Every other byte stays unchanged, including hashes and
//! signatures.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use shared::registry::splice::{Edit, replacing, string_value};
use shared::registry::upstream::Upstream;
use url::Url;

use crate::path::{Package, Tarball};

/// The parsed part of a package's metadata.
#[derive(Deserialize)]
struct Packument<'a> {
    #[serde(borrow, default)]
    versions: Option<Versions<'a>>,
}

/// The versions of a package, each with its raw file URL. Versions without a URL or with malformed
/// metadata are skipped and so stay unchanged: old packages contain odd ones.
struct Versions<'a>(Vec<(String, &'a RawValue)>);

impl<'a, 'de: 'a> Deserialize<'de> for Versions<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Versions<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Versions<'de>, A::Error> {
                let mut versions = Vec::new();
                while let Some((version, manifest)) = map.next_entry::<String, &'de RawValue>()? {
                    let manifest: Option<Manifest<'de>> = serde_json::from_str(manifest.get()).ok();
                    versions.extend(manifest.and_then(Manifest::tarball).map(|tarball| (version, tarball)));
                }
                Ok(Versions(versions))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

/// The parsed part of a version's metadata.
#[derive(Deserialize)]
struct Manifest<'a> {
    #[serde(borrow)]
    dist: Option<Dist<'a>>,
}

#[derive(Deserialize)]
struct Dist<'a> {
    /// The raw file URL.
    #[serde(borrow)]
    tarball: Option<&'a RawValue>,
}

impl<'a> Manifest<'a> {
    fn tarball(self) -> Option<&'a RawValue> {
        self.dist?.tarball
    }
}

/// The version in a manifest.
#[derive(Deserialize)]
struct Versioned {
    version: String,
}

/// Maps file URLs of the upstream to those of this registry.
pub struct Places<'a> {
    /// The upstream registry.
    pub upstream: &'a Upstream,
    /// The root URL of this registry as callers see it, with a trailing slash.
    pub root: &'a str,
}

impl Places<'_> {
    /// Rewrites the metadata of a package.
    ///
    /// # Errors
    ///
    /// If the body is not npm metadata.
    pub fn in_packument(&self, package: &Package, body: &str) -> serde_json::Result<Vec<Edit>> {
        let packument: Packument<'_> = serde_json::from_str(body)?;
        let tarballs = packument.versions.map_or(Vec::new(), |versions| versions.0);
        Ok(self.rewritten(body, package, tarballs))
    }

    /// Rewrites the metadata of one version.
    ///
    /// # Errors
    ///
    /// If the body is not npm metadata.
    pub fn in_manifest(&self, package: &Package, body: &str) -> serde_json::Result<Vec<Edit>> {
        let (Versioned { version }, manifest): (_, Manifest<'_>) =
            (serde_json::from_str(body)?, serde_json::from_str(body)?);
        Ok(self.rewritten(body, package, manifest.tarball().map(|tarball| (version, tarball)).into_iter().collect()))
    }

    fn rewritten(&self, body: &str, package: &Package, tarballs: Vec<(String, &RawValue)>) -> Vec<Edit> {
        let places = tarballs.into_iter().filter_map(|(version, written)| {
            let place = self.place(package, &version, &string_value(written)?)?;
            Some((written, place))
        });
        replacing(body, places.collect())
    }

    /// The URL of a version's file at this registry. `None` for invalid versions; clients skip
    /// them.
    fn place(&self, package: &Package, version: &str, tarball: &str) -> Option<String> {
        let url = Url::parse(tarball).ok()?;
        let file = Tarball::of(package, version)?;
        let is_usual = self.upstream.path_below(&url).is_some_and(|path| file.is_at(path));
        let path = if is_usual { file.path() } else { file.path_by_metadata() };
        Some(format!("{}{path}", self.root))
    }
}

/// The upstream URL of a version's file, from its package's metadata.
///
/// # Errors
///
/// If the body is not npm metadata.
pub fn tarball_of(version: &str, body: &str) -> serde_json::Result<Option<Url>> {
    let packument: Packument<'_> = serde_json::from_str(body)?;
    let tarballs = packument.versions.map_or(Vec::new(), |versions| versions.0);
    let written = tarballs.into_iter().rfind(|(known, _)| known == version);
    Ok(written.and_then(|(_, written)| string_value(written)).and_then(|url| Url::parse(&url).ok()))
}

#[cfg(test)]
mod tests {
    use shared::registry::splice::Spliced;

    use super::*;

    fn rewritten(name: &str, body: &str) -> String {
        let upstream = Upstream::parse("https://packages.example.com/npm").unwrap();
        let places = Places { upstream: &upstream, root: "https://guard.example.com/npm/" };
        let Some(crate::path::Resource::Package(package)) = crate::path::Resource::parse(name) else { panic!() };
        let edits = places.in_packument(&package, body).unwrap();
        String::from_utf8(Spliced::new(body.into(), edits).concat()).unwrap()
    }

    #[test]
    fn only_tarball_urls_are_rewritten() {
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
    fn encoded_scope_in_an_upstream_url_is_recognized() {
        let body =
            r#"{"versions":{"1.0.0":{"dist":{"tarball":"https://packages.example.com/npm/@s%2fa/-/a-1.0.0.tgz"}}}}"#;
        assert!(rewritten("@s/a", body).contains(r#""https://guard.example.com/npm/@s/a/-/a-1.0.0.tgz""#));
    }

    #[test]
    fn malformed_version_does_not_affect_other_versions() {
        let body = r#"{"versions":{"0.0.1":{"dist":"gone"},"1.0.0":{"dist":{"tarball":"https://packages.example.com/npm/a/-/a-1.0.0.tgz"}}}}"#;
        assert!(
            rewritten("a", body)
                .contains(r#"{"0.0.1":{"dist":"gone"},"1.0.0":{"dist":{"tarball":"https://guard.example.com/"#)
        );
        let place = tarball_of("1.0.0", body).unwrap().unwrap();
        assert_eq!(place.as_str(), "https://packages.example.com/npm/a/-/a-1.0.0.tgz");
        assert_eq!((tarball_of("0.0.1", body).unwrap(), tarball_of("latest", body).unwrap()), (None, None));
    }

    #[test]
    fn metadata_without_files_is_unchanged() {
        for body in [r#"{"name":"a","time":{"unpublished":{}}}"#, r#"{"versions":{}}"#, r#"{"versions":{"1.0.0":{}}}"#]
        {
            assert_eq!(rewritten("a", body), body);
        }
    }
}
