//! Rewrites the file URLs in npm metadata. Every other byte stays unchanged, including hashes and
//! signatures.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use shared::registry::splice::{Edit, replacing, string_value};
use shared::registry::upstream::Upstream;
use url::Url;

use crate::path::{Package, Tarball};

/// The parsed part of a package's metadata, with each version's as `M`.
#[derive(Deserialize)]
#[serde(bound(deserialize = "M: Deserialize<'de>"))]
struct Packument<M> {
    #[serde(default = "Option::default")]
    versions: Option<Versions<M>>,
}

/// The versions of a package. A name may occur twice.
struct Versions<M>(Vec<(String, M)>);

impl<'de, M: Deserialize<'de>> Deserialize<'de> for Versions<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<M>(PhantomData<M>);

        impl<'de, M: Deserialize<'de>> Visitor<'de> for Each<M> {
            type Value = Versions<M>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Versions<M>, A::Error> {
                let mut versions = Vec::new();
                while let Some(version) = map.next_entry()? {
                    versions.push(version);
                }
                Ok(Versions(versions))
            }
        }

        deserializer.deserialize_map(Each(PhantomData))
    }
}

impl<M> Packument<M> {
    fn versions(self) -> impl Iterator<Item = (String, M)> {
        self.versions.into_iter().flat_map(|versions| versions.0)
    }
}

/// The raw file URL of each version. Versions without one or with malformed metadata are skipped and
/// so stay unchanged: old packages contain odd ones.
fn tarballs(body: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    // One pass, if no version is malformed.
    let Ok(packument) = serde_json::from_str::<Packument<Manifest<'_>>>(body) else { return tarballs_of_some(body) };
    let tarballs = packument.versions().filter_map(|(version, manifest)| Some((version, manifest.tarball()?)));
    Ok(tarballs.collect())
}

/// Likewise in two passes, of which the second may fail for each version.
fn tarballs_of_some(body: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let packument: Packument<&RawValue> = serde_json::from_str(body)?;
    let tarballs = packument.versions().filter_map(|(version, manifest)| {
        Some((version, serde_json::from_str::<Manifest<'_>>(manifest.get()).ok()?.tarball()?))
    });
    Ok(tarballs.collect())
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
        Ok(self.rewritten(body, package, tarballs(body)?))
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
        replacing(body, places)
    }

    /// The URL of a version's file at this registry. `None` for invalid versions; clients skip
    /// them.
    fn place(&self, package: &Package, version: &str, tarball: &str) -> Option<String> {
        let file = Tarball::of(package, version);
        let usual = file.as_ref().map(Tarball::path);
        // As nearly all are written: a normal URL, which needs no parsing.
        let is_plain = tarball.strip_prefix(self.upstream.as_str()).is_some_and(|path| usual.as_deref() == Some(path));
        let path = match (usual, file) {
            (Some(usual), _) if is_plain => usual,
            (usual, file) => {
                let url = Url::parse(tarball).ok()?;
                let file = file?;
                let is_usual = self.upstream.path_below(&url).is_some_and(|path| file.is_at(path));
                usual.filter(|_| is_usual).unwrap_or_else(|| file.path_by_metadata())
            }
        };
        Some(format!("{}{path}", self.root))
    }
}

/// The upstream URL of a version's file, from its package's metadata.
///
/// # Errors
///
/// If the body is not npm metadata.
pub fn tarball_of(version: &str, body: &str) -> serde_json::Result<Option<Url>> {
    let written = tarballs(body)?.into_iter().rfind(|(known, _)| known == version);
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
    fn metadata_is_read_alike_in_one_pass_and_in_two() {
        let good = r#"{"dist":{"tarball":"https://packages.example.com/npm/a/-/a-1.0.0.tgz","n":[1e400,{"dist":1}]},"x":"\ud800"}"#;
        for version in [
            good,
            "{}",
            "[]",
            "null",
            "1e400",
            r#""x""#,
            r#"{"dist":null}"#,
            r#"{"dist":[]}"#,
            r#"{"dist":{"tarball":null}}"#,
            r#"{"dist":{"tarball":{"x":"y"}}}"#,
            r#"{"dist":{"tarball":"x","tarball":"y"}}"#,
            r#"{"dist":{"tarball":"x"},"dist":{"tarball":"y"}}"#,
            r#"[{"tarball":"x"}]"#,
            r#"{"\u0064ist":{"t\u0061rball":"x"}}"#,
        ] {
            for body in [
                format!(r#"{{"versions":{{"0.9.0":{good},"1.0.0":{version},"1.0.0":{good}}},"time":{version}}}"#),
                format!(r#"{{"versions":{version}}}"#),
                format!(r#"{{"versions":{{"1.0.0":{version}}},"versions":{{}}}}"#),
                format!(r#"{{"versions":{{"1.0.0":{version}}}"#),
            ] {
                let text = |read: serde_json::Result<Vec<(String, &RawValue)>>| {
                    let read = read.ok()?.into_iter();
                    Some(read.map(|(version, raw)| (version, raw.get().to_owned())).collect::<Vec<_>>())
                };
                assert_eq!(text(tarballs(&body)), text(tarballs_of_some(&body)), "{body}");
            }
        }
    }

    #[test]
    fn usual_urls_are_recognized_however_they_are_written() {
        let ours = r#""https://guard.example.com/npm/a/-/a-1.0.0.tgz""#;
        for (tarball, is_usual) in [
            ("https://packages.example.com/npm/a/-/a-1.0.0.tgz", true),
            (" HTTPS://packages.example.com:443/npm/./a/-/%61-1.0.0.tgz", true),
            ("https://packages.example.com/npm/a/-/a-1.0.0.tgz?x", false),
            ("https://packages.example.com/npm/a/-/a-1.0.1.tgz", false),
            ("https://packages.example.com.evil.example/npm/a/-/a-1.0.0.tgz", false),
        ] {
            let body = format!(r#"{{"versions":{{"1.0.0":{{"dist":{{"tarball":"{tarball}"}}}}}}}}"#);
            assert_eq!(rewritten("a", &body).contains(ours), is_usual, "{tarball}");
        }
    }

    #[test]
    fn metadata_without_files_is_unchanged() {
        for body in [r#"{"name":"a","time":{"unpublished":{}}}"#, r#"{"versions":{}}"#, r#"{"versions":{"1.0.0":{}}}"#]
        {
            assert_eq!(rewritten("a", body), body);
        }
    }
}
