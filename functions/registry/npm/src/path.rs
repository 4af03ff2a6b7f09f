//! The paths of an npm registry.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use shared::secret::Token;

/// Characters percent-encoded in a path segment.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');

/// Maximum length of a package name, including its scope.
const LONGEST_NAME: usize = 214;

/// Maximum length of a version or a file name.
const LONGEST_PART: usize = 256;

/// A resource of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The metadata of a package.
    Package(Package),
    /// The metadata of one version, or of the version with a tag.
    Version(Package, String),
    /// The file of a version, at npm's usual path.
    Tarball(Tarball),
    /// The file of a version that the upstream keeps elsewhere; only its metadata tells where.
    TarballByMetadata(Tarball),
    /// The caller's name.
    Whoami,
    /// A health check.
    Ping,
    /// The public keys of package signatures.
    Keys,
    /// The dist-tags of a package.
    Tags(Package),
    /// The attestations of a version.
    Attestations(Package, String),
    /// Advisories for given versions, as `npm audit` requests since npm 7.
    Advisories,
    /// Advisories for given versions, as `pnpm audit` and `yarn audit` request.
    Audit,
    /// The same, abbreviated.
    QuickAudit,
    /// `npm login`.
    Login,
    /// `npm logout`, with a token as the last segment. `registry-npm-logout` serves it.
    Logout,
    /// Another function of npm registries.
    NotOffered,
}

impl Resource {
    /// Parses a percent-encoded path below the registry root. API Gateway may decode a path once,
    /// so `@scope%2fname` and `@scope/name` mean the same. Empty segments are ignored, since
    /// clients join URLs carelessly. `None` if a part is invalid or contains a token, which must
    /// not reach the upstream.
    pub fn parse(path: &str) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        // No part has one; a client that encodes twice would mean another path once it is decoded.
        if path.contains('%') {
            return None;
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if let ["-", "user", "token", _] = &parts[..] {
            return Some(Resource::Logout);
        }
        if Token::found_in(&path).is_some() {
            return None;
        }
        Some(match &parts[..] {
            ["-", "v1", "login"] => Resource::Login,
            ["-", "user", user, ..] if user.starts_with("org.couchdb.user:") => Resource::Login,
            ["-", "whoami"] => Resource::Whoami,
            ["-", "ping"] => Resource::Ping,
            ["-", "npm", "v1", "keys"] => Resource::Keys,
            ["-", "npm", "v1", "security", "advisories", "bulk"] => Resource::Advisories,
            ["-", "npm", "v1", "security", "audits"] => Resource::Audit,
            ["-", "npm", "v1", "security", "audits", "quick"] => Resource::QuickAudit,
            ["-", "npm", "v1", "attestations", package @ ..] => {
                let (last, scope) = package.split_last()?;
                // The last `@`: a scope begins with one too.
                let (name, version) = last.rsplit_once('@')?;
                let package = [scope, &[name]].concat();
                let (package, []) = Package::read(&package)? else { return None };
                Resource::Attestations(package, part(version)?)
            }
            ["-", "package", package @ .., "dist-tags"] => {
                let (package, []) = Package::read(package)? else { return None };
                Resource::Tags(package)
            }
            // A package named `-` exists.
            ["-", function, ..] if *function != "-" => Resource::NotOffered,
            parts => {
                let (package, rest) = Package::read(parts)?;
                match rest {
                    [] => Resource::Package(package),
                    ["-", file] => Resource::Tarball(Tarball::parse(package, file)?),
                    ["-", BY_METADATA, file] => Resource::TarballByMetadata(Tarball::parse(package, file)?),
                    [version] => Resource::Version(package, part(version)?),
                    _ => return None,
                }
            }
        })
    }

    /// Whether the resource is requested with `POST`.
    pub fn is_posted(&self) -> bool {
        matches!(self, Resource::Advisories | Resource::Audit | Resource::QuickAudit)
    }
}

/// The path segment before a file name that the upstream does not keep at npm's usual path.
const BY_METADATA: &str = "by-metadata";

/// A package: `name` or `@scope/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    scope: Option<String>,
    name: String,
}

impl Package {
    /// Parses a name from the beginning of a path. Also returns the rest.
    fn read<'a, 'b>(parts: &'a [&'b str]) -> Option<(Self, &'a [&'b str])> {
        let (scope, name, rest) = match parts {
            [first, name, rest @ ..] if first.starts_with('@') => (Some(word(&first[1..])?), *name, rest),
            [name, rest @ ..] => (None, *name, rest),
            [] => return None,
        };
        let package = Self { scope, name: word(name)? };
        (package.to_string().len() <= LONGEST_NAME).then_some((package, rest))
    }

    /// The path of the package's metadata, percent-encoded.
    pub fn path(&self) -> String {
        match &self.scope {
            Some(scope) => format!("@{}%2f{}", encoded(scope), encoded(&self.name)),
            None => encoded(&self.name),
        }
    }

    /// The path of the package's files, percent-encoded.
    fn folder(&self) -> String {
        match &self.scope {
            Some(scope) => format!("@{}/{}/-", encoded(scope), encoded(&self.name)),
            None => format!("{}/-", encoded(&self.name)),
        }
    }

    /// The path of a version, percent-encoded.
    pub fn version_path(&self, version: &str) -> String {
        format!("{}/{}", self.path(), encoded(version))
    }

    /// The path of a version's attestations below the attestations root, percent-encoded.
    pub fn attestations_path(&self, version: &str) -> String {
        format!("{}@{}", self.path(), encoded(version))
    }
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "@{scope}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The file of a version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tarball {
    /// The package.
    pub package: Package,
    /// The version.
    pub version: String,
    /// The file name, such as `name-1.0.0.tgz`.
    pub file: String,
}

impl Tarball {
    /// Parses a file name.
    pub fn parse(package: Package, file: &str) -> Option<Self> {
        let version = file.strip_prefix(package.name.as_str())?.strip_prefix('-')?.strip_suffix(".tgz")?;
        let version = part(version)?;
        Some(Self { package, version, file: part(file)? })
    }

    /// The file of this version.
    pub fn of(package: &Package, version: &str) -> Option<Self> {
        Self::parse(package.clone(), &format!("{}-{version}.tgz", package.name))
    }

    /// Its usual path in npm registries, percent-encoded.
    pub fn path(&self) -> String {
        format!("{}/{}", self.package.folder(), encoded(&self.file))
    }

    /// Its path at this registry if the upstream keeps it elsewhere, percent-encoded.
    pub fn path_by_metadata(&self) -> String {
        format!("{}/{BY_METADATA}/{}", self.package.folder(), encoded(&self.file))
    }

    /// Whether a path from upstream metadata is this file's usual path.
    pub fn is_at(&self, path: &str) -> bool {
        percent_decode_str(path).eq(percent_decode_str(&self.path()))
    }
}

/// Parses a name without scope. Allows what npm allowed for old packages, such as a hyphen or a dot
/// at the beginning.
fn word(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!'()*".contains(c);
    let is_word = !text.is_empty() && !is_dots(text) && text.chars().all(allowed);
    is_word.then(|| text.to_owned())
}

/// Whether a segment would be resolved instead of sent.
fn is_dots(text: &str) -> bool {
    matches!(text, "." | "..")
}

/// Parses a version, a tag or a file name.
fn part(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+!'()*".contains(c);
    let is_part = (1..=LONGEST_PART).contains(&text.len()) && !is_dots(text) && text.chars().all(allowed);
    is_part.then(|| text.to_owned())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use shared::registry::upstream::Upstream;
    use shared::secret::TokenKind;
    use url::Url;

    use super::*;

    fn package(name: &str) -> Package {
        Package::read(&name.split('/').collect::<Vec<_>>()).unwrap().0
    }

    #[test]
    fn encoded_and_plain_scopes_are_the_same_package() {
        for path in ["@scope/name", "@scope%2fname", "@scope%2Fname", "%40scope%2fname", "%40scope/name"] {
            assert_eq!(Resource::parse(path), Some(Resource::Package(package("@scope/name"))), "{path}");
        }
        assert_eq!(Resource::parse("is-odd"), Some(Resource::Package(package("is-odd"))));
        assert_eq!(package("@scope/name").path(), "@scope%2fname");
    }

    #[test]
    fn versions_files_tags_and_attestations_are_distinguished() {
        let version = |name, version: &str| Some(Resource::Version(package(name), version.to_owned()));
        assert_eq!(Resource::parse("is-odd/latest"), version("is-odd", "latest"));
        assert_eq!(Resource::parse("@scope/name/1.0.0-rc.1+build"), version("@scope/name", "1.0.0-rc.1+build"));
        let Some(Resource::Tarball(tarball)) = Resource::parse("@scope%2fname/-/name-1.0.0-rc.1.tgz") else { panic!() };
        assert_eq!(
            (tarball.version.as_str(), tarball.path()),
            ("1.0.0-rc.1", "@scope/name/-/name-1.0.0-rc.1.tgz".into())
        );
        assert!(tarball.is_at("@scope%2fname/-/name-1.0.0-rc.1.tgz"));
        assert!(!tarball.is_at("@scope/name/-/name-1.0.0.tgz"));
        let by_metadata = Resource::TarballByMetadata(tarball.clone());
        assert_eq!(Resource::parse(&tarball.path_by_metadata()), Some(by_metadata));
        let tags = Resource::Tags(package("@scope/name"));
        assert_eq!(Resource::parse("-/package/@scope%2fname/dist-tags"), Some(tags));
        let attestations = Resource::Attestations(package("@scope/name"), "1.0.0".to_owned());
        assert_eq!(Resource::parse("-/npm/v1/attestations/@scope%2fname@1.0.0"), Some(attestations));
        let attestations = Resource::Attestations(package("is-odd"), "1.0.0".to_owned());
        assert_eq!(Resource::parse("-/npm/v1/attestations/is-odd@1.0.0"), Some(attestations));
    }

    #[test]
    fn names_may_begin_with_a_hyphen_or_a_dot() {
        for name in ["@ember-data/-build-infra", "@-xun/fs", "@scope/.github", "--hepl", "-"] {
            assert_eq!(Resource::parse(name), Some(Resource::Package(package(name))), "{name}");
            assert_eq!(Resource::parse(&package(name).path()), Some(Resource::Package(package(name))), "{name}");
            let file = Tarball::of(&package(name), "1.0.0").unwrap();
            assert_eq!(Resource::parse(&file.path()), Some(Resource::Tarball(file)), "{name}");
        }
    }

    #[test]
    fn empty_segments_are_ignored() {
        for path in ["/is-odd", "is-odd/", "//is-odd//", "%2fis-odd"] {
            assert_eq!(Resource::parse(path), Some(Resource::Package(package("is-odd"))), "{path}");
        }
        assert_eq!(Resource::parse("is-odd//latest"), Resource::parse("is-odd/latest"));
        assert_eq!(Resource::parse("/-/ping"), Some(Resource::Ping));
    }

    #[test]
    fn login_logout_and_other_functions_are_known() {
        for path in ["-/v1/login", "-/user/org.couchdb.user:alice", "-/user/org.couchdb.user:a@b.com/-rev/1"] {
            assert_eq!(Resource::parse(path), Some(Resource::Login), "{path}");
        }
        for path in ["-/v1/search", "-/all", "-/npm/v1/tokens", "-/npm/v1/user", "-/team/acme/devs/user", "-/x/y/z"] {
            assert_eq!(Resource::parse(path), Some(Resource::NotOffered), "{path}");
        }
        let token = "tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq";
        let path = format!("-/user/token/{token}");
        assert_eq!(Resource::parse(&path), Some(Resource::Logout));
    }

    #[test]
    fn token_at_any_place_is_refused() {
        let token = "tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq";
        for path in [
            token.to_owned(),
            format!("x-{token}"),
            format!("@{token}/x"),
            format!("foo/-/foo-1.0.0-{token}.tgz"),
            format!("foo/-/by-metadata/foo-1.0.0+{token}.tgz"),
            format!("foo/1.0.0-{token}x"),
            format!("-/package/{token}/dist-tags"),
            format!("-/npm/v1/attestations/foo@1.0.0-{token}"),
            format!("foo/-/foo-1.0.0-%74{}.tgz", &token[1..]),
            format!("-/npm/v1/tokens/token/{token}"),
            format!("-/user/token/{token}/x"),
        ] {
            assert_eq!(Resource::parse(&path), None, "{path}");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [
            "",
            "/",
            ".",
            "..",
            "%2e%2e",
            "../../etc",
            "is-odd/-/../../x-1.tgz",
            "is-odd/-/..%2f..%2fx.tgz",
            "is-odd/-/is-odd-1.0.0.tgz/x",
            "is-odd/-/other-1.0.0.tgz",
            "is-odd/-/is-odd-.tgz",
            "is-odd/-/is-odd-1.0.0.zip",
            "is-odd/-/is-odd-@evil.example.tgz",
            "https://evil.example",
            "https:%2f%2fevil.example",
            "is-odd%00",
            "is-odd%0d%0a",
            "is-odd?x",
            "is-odd%3fx",
            "is odd",
            "%ff",
            "@scope",
            "@scope/",
            "@/name",
            "@@scope/name",
            "@scope%252fname",
            "-/-/whoami",
            "is-odd/-/./x",
            "@scope/..",
            "@scope/%2e",
            "-/npm/v1/attestations/is-odd",
            "-/npm/v1/attestations/a/b/c@1",
            "\u{e9}",
        ] {
            assert_eq!(Resource::parse(path), None, "{path}");
        }
        assert_eq!(Resource::parse(&"a".repeat(LONGEST_NAME + 1)), None);
    }

    #[test]
    fn upstream_paths_are_percent_encoded() {
        let scoped = package("@scope/name");
        assert_eq!(scoped.version_path("1.0.0-rc(1)"), "@scope%2fname/1.0.0-rc%281%29");
        assert_eq!(scoped.attestations_path("1.0.0"), "@scope%2fname@1.0.0");
        assert_eq!(package("is-odd").version_path("latest"), "is-odd/latest");
    }

    #[test]
    fn only_audits_are_posted() {
        for audit in [Resource::Advisories, Resource::Audit, Resource::QuickAudit] {
            assert!(audit.is_posted());
        }
        for read in [Resource::Whoami, Resource::Keys, Resource::Package(package("is-odd"))] {
            assert!(!read.is_posted());
        }
    }

    #[test]
    fn tokens_in_a_path_are_refused() {
        let token = Token::generate(TokenKind::OrgUser).unwrap();
        let token = token.expose();
        for path in [
            token.to_owned(),
            format!("@{token}/name"),
            format!("@scope%2f{token}"),
            format!("is-odd/{token}"),
            format!("-/package/{token}/dist-tags"),
            format!("-/npm/v1/attestations/is-odd@{token}"),
        ] {
            assert_eq!(Resource::parse(&path), None, "{path}");
        }
    }

    /// The path at the upstream that a resource is fetched from.
    fn upstream_path(resource: Resource) -> Option<String> {
        match resource {
            Resource::Package(package) | Resource::Tags(package) => Some(package.path()),
            Resource::Version(package, version) => Some(package.version_path(&version)),
            Resource::Attestations(package, version) => Some(package.attestations_path(&version)),
            Resource::Tarball(tarball) | Resource::TarballByMetadata(tarball) => Some(tarball.path()),
            _ => None,
        }
    }

    #[test]
    fn no_path_escapes_the_upstream_root() {
        let parts = ["-", ".", "..", "%2e%2e", "@s", "@..", "a", "a~b", "a-1.0.0.tgz", "a-..tgz", "a-%2f..%2f.tgz"];
        let more = ["a@1.0.0", "a%5c..", "by-metadata", "dist-tags", "package", "npm/v1/attestations", "", "%00", "?x"];
        let part = prop::sample::select([&parts[..], &more[..]].concat());
        let separator = prop::sample::select(vec!["/", "/", "%2f", "\\"]);
        let path = prop::collection::vec((part, separator), 1..6)
            .prop_map(|parts| {
                parts.into_iter().map(|(part, separator)| format!("{part}{separator}")).collect::<String>()
            })
            .prop_map(|path| path.strip_suffix('/').map_or(path.clone(), str::to_owned));
        let upstream = Upstream::parse("https://packages.example.com/npm/").unwrap();
        let hits = std::cell::Cell::new(0);
        let mut runner = TestRunner::new(ProptestConfig::with_cases(4_000));
        let held = runner.run(&path, |path| {
            if let Some(place) = Resource::parse(&path).and_then(upstream_path) {
                hits.set(hits.get() + 1);
                let url = upstream.join(&place);
                // Parsed again, as a client that resolves dot segments would.
                let read = Url::parse(url.as_str()).unwrap();
                prop_assert_eq!(read.path(), format!("/npm/{place}"));
                prop_assert!(read.as_str().starts_with("https://packages.example.com/npm/"));
                prop_assert!(read.query().is_none() && read.fragment().is_none());
            }
            Ok(())
        });
        held.unwrap();
        assert!(hits.get() > 100, "only {} paths were resources", hits.get());
    }
}
