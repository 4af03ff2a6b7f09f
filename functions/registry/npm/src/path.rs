//! What lies where in an npm registry.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use shared::secret::Token;

/// What of a path's part is not written as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');

/// How long a package's name may be, its scope included.
const LONGEST_NAME: usize = 214;

/// How long a version or the name of a file may be.
const LONGEST_PART: usize = 256;

/// What a request asks of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// All that is known of a package.
    Package(Package),
    /// All that is known of one version of it, or of what a tag names.
    Version(Package, String),
    /// The file of a version, where npm registries keep it.
    Tarball(Tarball),
    /// The file of a version that the upstream keeps elsewhere: only its metadata says where.
    TarballByMetadata(Tarball),
    /// Who calls.
    Whoami,
    /// Whether the registry is there.
    Ping,
    /// The keys that versions are signed with.
    Keys,
    /// The tags of a package's versions.
    Tags(Package),
    /// The attestations of a version.
    Attestations(Package, String),
    /// What is wrong with these versions, as `npm audit` asks since npm 7.
    Advisories,
    /// What is wrong with these versions, as `pnpm audit` and `yarn audit` ask.
    Audit,
    /// The same, in short.
    QuickAudit,
}

impl Resource {
    /// Reads a path below the registry's root, percent-encoded as it arrived. API Gateway decodes a path once, so
    /// `@scope%2fname` arrives as it was sent or as `@scope/name`: both mean the same.
    pub fn parse(path: &str) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let parts: Vec<&str> = path.split('/').collect();
        Some(match &parts[..] {
            ["-", "whoami"] => Resource::Whoami,
            ["-", "ping"] => Resource::Ping,
            ["-", "npm", "v1", "keys"] => Resource::Keys,
            ["-", "npm", "v1", "security", "advisories", "bulk"] => Resource::Advisories,
            ["-", "npm", "v1", "security", "audits"] => Resource::Audit,
            ["-", "npm", "v1", "security", "audits", "quick"] => Resource::QuickAudit,
            ["-", "npm", "v1", "attestations", package @ ..] => {
                let (last, scope) = package.split_last()?;
                // A scope begins with the same sign.
                let (name, version) = last.rsplit_once('@')?;
                let package = [scope, &[name]].concat();
                let (package, []) = Package::read(&package)? else { return None };
                Resource::Attestations(package, part(version)?)
            }
            ["-", "package", package @ .., "dist-tags"] => {
                let (package, []) = Package::read(package)? else { return None };
                Resource::Tags(package)
            }
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

    /// Whether it is asked with `POST`.
    pub fn is_posted(&self) -> bool {
        matches!(self, Resource::Advisories | Resource::Audit | Resource::QuickAudit)
    }
}

/// What stands before the name of a file that the upstream does not keep where npm registries do.
const BY_METADATA: &str = "by-metadata";

/// A package: `name` or `@scope/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    scope: Option<String>,
    name: String,
}

impl Package {
    /// Takes a name from the beginning of a path; what is left is answered too.
    fn read<'a, 'b>(parts: &'a [&'b str]) -> Option<(Self, &'a [&'b str])> {
        let (scope, name, rest) = match parts {
            [first, name, rest @ ..] if first.starts_with('@') => (Some(word(&first[1..])?), *name, rest),
            [name, rest @ ..] => (None, *name, rest),
            [] => return None,
        };
        let package = Self { scope, name: word(name)? };
        (package.to_string().len() <= LONGEST_NAME).then_some((package, rest))
    }

    /// The path of its metadata, percent-encoded.
    pub fn path(&self) -> String {
        match &self.scope {
            Some(scope) => format!("@{}%2f{}", encoded(scope), encoded(&self.name)),
            None => encoded(&self.name),
        }
    }

    /// The path that its files lie below, percent-encoded.
    fn folder(&self) -> String {
        match &self.scope {
            Some(scope) => format!("@{}/{}/-", encoded(scope), encoded(&self.name)),
            None => format!("{}/-", encoded(&self.name)),
        }
    }

    /// The path of one of its versions, percent-encoded.
    pub fn version_path(&self, version: &str) -> String {
        format!("{}/{}", self.path(), encoded(version))
    }

    /// The path of a version's attestations below their root, percent-encoded.
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
    /// The file's name: `name-1.0.0.tgz`.
    pub file: String,
}

impl Tarball {
    /// Reads a file's name.
    pub fn parse(package: Package, file: &str) -> Option<Self> {
        let version = file.strip_prefix(package.name.as_str())?.strip_prefix('-')?.strip_suffix(".tgz")?;
        let version = part(version)?;
        Some(Self { package, version, file: part(file)? })
    }

    /// The file of this version.
    pub fn of(package: &Package, version: &str) -> Option<Self> {
        Self::parse(package.clone(), &format!("{}-{version}.tgz", package.name))
    }

    /// Its path where npm registries keep it, percent-encoded.
    pub fn path(&self) -> String {
        format!("{}/{}", self.package.folder(), encoded(&self.file))
    }

    /// Its path with us where the upstream keeps it elsewhere, percent-encoded.
    pub fn path_by_metadata(&self) -> String {
        format!("{}/{BY_METADATA}/{}", self.package.folder(), encoded(&self.file))
    }

    /// Whether this path, as an upstream wrote it, is the one that it lies at.
    pub fn lies_at(&self, path: &str) -> bool {
        percent_decode_str(path).eq(percent_decode_str(&self.path()))
    }
}

/// A name without its scope. npm once took more than it does now, and what it took is still there.
fn word(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!'()*".contains(c);
    let is_word = !text.is_empty() && !text.starts_with(['.', '-']) && text.chars().all(allowed);
    (is_word && !is_token(text)).then(|| text.to_owned())
}

/// A version, a tag or the name of a file.
fn part(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+!'()*".contains(c);
    let is_part = (1..=LONGEST_PART).contains(&text.len()) && !text.starts_with('.') && text.chars().all(allowed);
    (is_part && !is_token(text)).then(|| text.to_owned())
}

/// Whether somebody has put a token into the path: it must not reach the upstream.
fn is_token(text: &str) -> bool {
    Token::parse(text).is_some()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn package(name: &str) -> Package {
        Package::read(&name.split('/').collect::<Vec<_>>()).unwrap().0
    }

    #[test]
    fn a_package_is_found_however_its_scope_is_written() {
        for path in ["@scope/name", "@scope%2fname", "@scope%2Fname", "%40scope%2fname", "%40scope/name"] {
            assert_eq!(Resource::parse(path), Some(Resource::Package(package("@scope/name"))), "{path}");
        }
        assert_eq!(Resource::parse("is-odd"), Some(Resource::Package(package("is-odd"))));
        assert_eq!(package("@scope/name").path(), "@scope%2fname");
    }

    #[test]
    fn versions_files_and_attestations_are_told_apart() {
        let version = |name, version: &str| Some(Resource::Version(package(name), version.to_owned()));
        assert_eq!(Resource::parse("is-odd/latest"), version("is-odd", "latest"));
        assert_eq!(Resource::parse("@scope/name/1.0.0-rc.1+build"), version("@scope/name", "1.0.0-rc.1+build"));
        let Some(Resource::Tarball(tarball)) = Resource::parse("@scope%2fname/-/name-1.0.0-rc.1.tgz") else { panic!() };
        assert_eq!(
            (tarball.version.as_str(), tarball.path()),
            ("1.0.0-rc.1", "@scope/name/-/name-1.0.0-rc.1.tgz".into())
        );
        assert!(tarball.lies_at("@scope%2fname/-/name-1.0.0-rc.1.tgz"));
        assert!(!tarball.lies_at("@scope/name/-/name-1.0.0.tgz"));
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
    fn what_is_no_package_is_nothing() {
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
            "is-odd/",
            "is-odd//1",
            "//evil.example/is-odd",
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
            "-",
            "-/all",
            "-/npm/v1/attestations/is-odd",
            "-/npm/v1/attestations/a/b/c@1",
            "\u{e9}",
        ] {
            assert_eq!(Resource::parse(path), None, "{path}");
        }
        assert_eq!(Resource::parse(&"a".repeat(LONGEST_NAME + 1)), None);
    }

    proptest! {
        /// Whatever is asked for, what the upstream is asked for is a path below its root.
        #[test]
        fn no_path_leads_out(path in "[-@a./%2fe~\\\\]{0,40}") {
            if let Some(Resource::Tarball(tarball)) = Resource::parse(&path) {
                let base = url::Url::parse("https://packages.example.com/npm/").unwrap();
                let joined = base.join(&tarball.path()).unwrap();
                prop_assert!(joined.as_str().starts_with("https://packages.example.com/npm/"));
            }
        }
    }
}
