//! The paths of a simple index, and the file names of Python packages.

use std::iter;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use shared::domain::Ecosystem;
use shared::registry::upstream::Upstream;
use shared::secret::Token;
use url::Url;

use crate::link::{Link, is_plain, is_plain_segment};

/// Characters percent-encoded in a path segment.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+').remove(b'!');

/// Maximum length of a project or file name.
const LONGEST: usize = 255;

/// No token is shorter.
const SHORTEST_TOKEN: usize = 40;

/// File extensions of packages, case-insensitive: wheels, source distributions that pip and uv can
/// unpack, and legacy formats.
const EXTENSIONS: [&str; 19] = [
    ".whl",
    ".tar.gz",
    ".zip",
    ".tgz",
    ".tar.bz2",
    ".tbz",
    ".tar.xz",
    ".txz",
    ".tar.lz",
    ".tlz",
    ".tar.lzma",
    ".tar.zst",
    ".tar.z",
    ".tar",
    ".egg",
    ".exe",
    ".msi",
    ".rpm",
    ".deb",
];

/// Suffixes of companion files: metadata (PEP 658) and signature.
const COMPANIONS: [&str; 2] = [".metadata", ".asc"];

/// A resource of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The list of all projects.
    Index,
    /// The files of a project.
    Project(Project),
    /// A project in another spelling or without the trailing slash, with the redirect target
    /// relative to the request.
    Misspelled(String),
    /// A file or its companion.
    File(FilePath),
}

impl Resource {
    /// Parses a percent-encoded path below `/pypi/`. Empty segments of an index URL are ignored,
    /// since clients join URLs carelessly. `None` if a part is invalid or contains a token, which must not reach the
    /// upstream.
    pub fn parse(path: &str) -> Option<Self> {
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        if Token::found_in(&decoded).is_some() {
            return None;
        }
        let parts: Vec<&str> = decoded.split('/').filter(|part| !part.is_empty()).collect();
        let has_hidden_slash = path.matches('/').count() != decoded.matches('/').count();
        let resource = match &parts[..] {
            ["simple"] => Resource::Index,
            ["simple", name] => {
                let project = Project::read(name)?;
                let has_slash = decoded.ends_with('/');
                // A relative redirect would need to count the slashes.
                let is_careless = decoded.starts_with('/') || decoded.contains("//");
                if is_careless || has_slash && project.0 == *name {
                    Resource::Project(project)
                } else if has_slash {
                    Resource::Misspelled(format!("../{}/", project.0))
                } else {
                    Resource::Misspelled(format!("{}/", project.0))
                }
            }
            // Here an empty segment is no carelessness: what follows it could be meant as a host.
            ["files", project, place @ .., name] if !decoded.contains("//") => {
                let project = Project::read(project).filter(|known| known.0 == *project)?;
                Resource::File(FilePath { place: Place::read(place, name)?, file: File::parse(&project, name)? })
            }
            _ => return None,
        };
        // A relative redirect needs the client's slash count, which an encoded slash would change.
        (!has_hidden_slash || !matches!(resource, Resource::Misspelled(_))).then_some(resource)
    }
}

/// The path segment for the upstream's own host.
const UPSTREAM: &str = "-";

/// A project, by its normalized name (PEP 503).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project(String);

impl Project {
    /// Parses a name in any spelling (PEP 508).
    pub fn read(name: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = (1..=LONGEST).contains(&name.len())
            && name.chars().all(allowed)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric());
        is_name.then(|| Self(Ecosystem::Pypi.normalized(name)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the project page below the index.
    pub fn path(&self) -> String {
        format!("{}/", self.0)
    }

    /// Whether this is a spelling of its name: whether it would be this one when normalized.
    fn is_spelled(&self, spelling: &str) -> bool {
        let (mut rest, mut last) = (self.0.bytes(), 0);
        for c in spelling.bytes() {
            let c = if matches!(c, b'_' | b'.') { b'-' } else { c.to_ascii_lowercase() };
            if (c, last) != (b'-', b'-') && rest.next() != Some(c) {
                return false;
            }
            last = c;
        }
        rest.next().is_none()
    }
}

/// A file of a project, or its companion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The project.
    pub project: Project,
    /// The version in the file name.
    pub version: String,
    /// The file name.
    pub name: String,
    /// The suffix, such as `.metadata`, if the companion is requested.
    pub companion: Option<&'static str>,
}

impl File {
    /// Parses a file name such as `Project-1.0.tar.gz` or `project-1.0-py3-none-any.whl`.
    pub fn parse(project: &Project, name: &str) -> Option<Self> {
        let companion = COMPANIONS.into_iter().find(|companion| name.ends_with(companion));
        let name = name.strip_suffix(companion.unwrap_or_default())?;
        let version = version_in(project, name)?.to_owned();
        Some(Self { project: project.clone(), version, name: name.to_owned(), companion })
    }

    /// The URL of the requested file or companion, given the URL of the file.
    pub fn beside(&self, place: &Url) -> Url {
        let mut place = place.clone();
        place.set_fragment(None);
        if let Some(companion) = self.companion {
            place.set_path(&format!("{}{companion}", place.path()));
        }
        place
    }
}

/// The version in the name of a file of this project.
fn version_in<'a>(project: &Project, name: &'a str) -> Option<&'a str> {
    if name.len() > LONGEST || !name.bytes().all(is_plain) {
        return None;
    }
    let start = |extension: &str| {
        let start = name.len().checked_sub(extension.len())?;
        name.as_bytes()[start..].eq_ignore_ascii_case(extension.as_bytes()).then_some(start)
    };
    let (extension, end) = EXTENSIONS.into_iter().find_map(|extension| Some((extension, start(extension)?)))?;
    let stem = &name[..end];
    // The project name, in any spelling, may contain hyphens.
    let mut hyphens = stem.match_indices('-').map(|(at, _)| at);
    let rest = &stem[hyphens.find(|at| project.is_spelled(&stem[..*at]))? + 1..];
    let version = match extension {
        ".whl" | ".egg" => rest.split('-').next().unwrap_or_default(),
        _ => rest,
    };
    Some(version).filter(|version| !version.is_empty())
}

/// A file and its location, parsed from a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    /// The file.
    pub file: File,
    /// Its location.
    pub place: Place,
}

/// The location of a file. Paths begin with a slash, end in the file name, and are percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On the upstream's host.
    Upstream(String),
    /// On this host, if it is a configured file host.
    Host(String, String),
    /// At the URL in the upstream's metadata.
    ByMetadata,
}

impl Place {
    /// Parses the segments between the project and the file name.
    fn read(parts: &[&str], name: &str) -> Option<Self> {
        let [host, folders @ ..] = parts else { return Some(Place::ByMetadata) };
        if !parts.iter().all(|part| is_folder(part)) {
            return None;
        }
        // Encoded again, so that decoded and encoded requests give the same path.
        let path = folders.iter().chain([&name]).map(|part| format!("/{}", encoded(part))).collect();
        Some(if *host == UPSTREAM { Place::Upstream(path) } else { Place::Host((*host).to_owned(), path) })
    }
}

/// Maps file URLs of the upstream to those of this index.
#[derive(Debug)]
pub struct Places<'a> {
    project: &'a Project,
    /// The URL of the project's files as callers see it.
    root: String,
    /// The origins that file URLs name by a path segment.
    known: Vec<(String, &'a str)>,
}

impl<'a> Places<'a> {
    /// The places of a project's files. They are at the upstream index or at other configured
    /// `hosts`; callers see them below `root`, the URL of `/pypi/files/`.
    pub fn new(project: &'a Project, upstream: &'a Upstream, hosts: &'a [String], root: &str) -> Self {
        let is_host =
            |host: &str| Url::parse(&format!("https://{host}/")).is_ok_and(|url| url.host_str() == Some(host));
        let hosts = hosts.iter().filter(|host| is_host(host)).map(|host| (format!("https://{host}"), host.as_str()));
        let known = iter::once((upstream.origin().to_owned(), UPSTREAM)).chain(hosts).collect();
        Self { project, root: format!("{root}{}/", project.0), known }
    }

    /// The URL at this index of the file with this name at this link. Keeps the fragment, which has
    /// the hash.
    pub fn for_callers(&self, name: &str, link: &Link<'_>) -> String {
        let known = self.known.iter().find(|(origin, _)| link.origin() == origin && !link.has_query());
        let mut url = String::with_capacity(self.root.len() + LONGEST);
        url.push_str(&self.root);
        match known {
            // Only if the path parses back to the same location. Otherwise the file is looked up in the
            // metadata; an invalid file name is not found there either, and clients skip it.
            Some((_, host)) if self.is_plainly(name, host, link) || self.parses_back(name, host, link) => {
                url.extend([host, link.path()]);
            }
            _ => url.extend(utf8_percent_encode(name, ENCODED)),
        }
        url.extend(link.fragment().into_iter().flat_map(|fragment| ["#", fragment]));
        url
    }

    fn parses_back(&self, name: &str, host: &str, link: &Link<'_>) -> bool {
        match Resource::parse(&format!("files/{}/{host}{}", self.project.0, link.path())) {
            Some(Resource::File(FilePath { place: Place::Upstream(path) | Place::Host(_, path), file })) => {
                path == link.path() && file.name == name
            }
            _ => false,
        }
    }

    /// Whether a path parses back, for the paths that nearly all files have: nothing is encoded,
    /// decoded or refused, so that only the file name is left to parse.
    fn is_plainly(&self, name: &str, host: &str, link: &Link<'_>) -> bool {
        // A token is one long word with a `_`.
        let is_long = |word: &str| word.len() >= SHORTEST_TOKEN && word.contains('_');
        let is_in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let may_have_token = |part: &str| is_long(part) && part.split(|c| !is_in_word(c)).any(is_long);
        link.is_plain()
            && is_plain_segment(host)
            && link.path().strip_suffix(name).is_some_and(|folder| folder.ends_with('/'))
            && !link.path().split('/').any(may_have_token)
            && version_in(self.project, name).is_some()
    }
}

/// Whether a path segment is safe: no traversal and no delimiters.
fn is_folder(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '?' | '#' | '%' | ';');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::link::Base;

    fn project(name: &str) -> Project {
        Project::read(name).unwrap()
    }

    fn misspelled(to: &str) -> Option<Resource> {
        Some(Resource::Misspelled(to.to_owned()))
    }

    #[test]
    fn other_spellings_redirect_to_the_normalized_project_path() {
        assert_eq!(Resource::parse("simple/my-lib/"), Some(Resource::Project(project("my-lib"))));
        assert_eq!(Resource::parse("simple/my-lib"), misspelled("my-lib/"));
        assert_eq!(Resource::parse("simple/My_.Lib"), misspelled("my-lib/"));
        assert_eq!(Resource::parse("simple/My_.Lib/"), misspelled("../my-lib/"));
    }

    #[test]
    fn empty_segments_are_ignored() {
        for path in ["simple//my-lib/", "/simple/my-lib//", "simple//My_Lib", "simple/%2fmy-lib", "//simple//my-lib//"]
        {
            assert_eq!(Resource::parse(path), Some(Resource::Project(project("my-lib"))), "{path}");
        }
        for path in ["simple/", "simple", "/simple//"] {
            assert_eq!(Resource::parse(path), Some(Resource::Index), "{path}");
        }
    }

    #[test]
    fn version_is_parsed_from_the_file_name() {
        for (name, file, version) in [
            ("my-lib", "my_lib-1.0-py3-none-any.whl", "1.0"),
            ("my-lib", "my_lib-1.0+cpu-1-cp311-cp311-linux_x86_64.whl", "1.0+cpu"),
            ("my-lib", "My-Lib-1.0.tar.gz", "1.0"),
            ("my-lib", "my.lib-1.0-beta.zip", "1.0-beta"),
            ("my-lib", "my_lib-1.0-py2.7.egg", "1.0"),
            ("a", "a-1!2.0.tar.gz", "1!2.0"),
            ("a", "a-1.0.tar.zst", "1.0"),
            ("a", "a-1.0.ZIP", "1.0"),
            ("zope-interface", "zope.interface-5.0.0.tar.gz", "5.0.0"),
        ] {
            let read = File::parse(&project(name), file).unwrap();
            assert_eq!((read.version.as_str(), read.name.as_str(), read.companion), (version, file, None), "{file}");
            let beside = File::parse(&project(name), &format!("{file}.metadata")).unwrap();
            assert_eq!((beside.name.as_str(), beside.companion), (file, Some(".metadata")));
        }
        for file in
            ["my_lib.whl", "my_lib-.tar.gz", "other-1.0.tar.gz", "my_lib-1.0", "my_lib-1.0.sh", "my_lib-1.0.metadata"]
        {
            assert_eq!(File::parse(&project("my-lib"), file), None, "{file}");
        }
    }

    proptest! {
        #[test]
        fn spelling_is_compared_as_if_it_were_normalized(name in "[aB1._-]{1,6}", spelling in "[aAbB1._-]{0,6}é?") {
            if let Some(project) = Project::read(&name) {
                let is_spelled = |spelling: &str| Ecosystem::Pypi.normalized(spelling) == project.0;
                prop_assert_eq!(project.is_spelled(&spelling), is_spelled(&spelling));
                prop_assert!(project.is_spelled(&name));
            }
        }

        /// The shortcut takes nothing that would not parse back.
        #[test]
        fn plain_paths_parse_back(
            folders in proptest::collection::vec("[ab_.~+!%@;-]{0,6}|oat_[a-z]{3}|TOKEN", 0..4),
            name in "(my-lib|my_lib|a|TOKEN)-[12.+_!~-]{0,4}(\\.zip|\\.whl|\\.zip\\.asc|\\.sh|)",
            host in "-|files\\.example\\.com|files%2f|",
        ) {
            // The shortest kind.
            let token = Token::generate(shared::secret::TokenKind::OrgAccess).unwrap();
            prop_assert!(token.expose().len() > SHORTEST_TOKEN);
            let named = |text: &str| text.replace("TOKEN", token.expose());
            let name = named(&name);
            let path: String = folders.iter().map(|folder| named(folder)).chain([name.clone()]).map(|part| format!("/{part}")).collect();
            let upstream = Upstream::parse("https://index.example.com/simple/").unwrap();
            let base = Base::new(Url::parse("https://index.example.com/").unwrap());
            let Some(link) = base.link(&path) else { return Ok(()) };
            for project in [project("my-lib"), project("a")] {
                let places = Places::new(&project, &upstream, &[], "https://guard.example.com/pypi/files/");
                if places.is_plainly(&name, &host, &link) {
                    let read = Resource::parse(&format!("files/{}/{host}{path}", project.0));
                    let Some(Resource::File(FilePath { place: Place::Upstream(to) | Place::Host(_, to), file })) = read else {
                        panic!("{host}{path} does not parse back");
                    };
                    prop_assert_eq!((to, file.name, file.companion), (path.clone(), name.clone(), None));
                }
            }
        }
    }

    #[test]
    fn rewritten_file_url_parses_back_to_the_same_location() {
        let upstream = Upstream::parse("https://index.example.com/simple/").unwrap();
        let hosts = ["files.example.com".to_owned()];
        let project = project("a");
        let places = Places::new(&project, &upstream, &hosts, "https://guard.example.com/pypi/files/");
        let link = |url: &str| Link::from(Url::parse(url).unwrap());
        for (url, path) in [
            ("https://index.example.com/packages/a/a-1.0.tar.gz#sha256=00", "a/-/packages/a/a-1.0.tar.gz#sha256=00"),
            (
                "https://files.example.com/ab/cd/a-1.0.tar.gz#sha256=00",
                "a/files.example.com/ab/cd/a-1.0.tar.gz#sha256=00",
            ),
            ("https://files.example.com/a-1.0+cpu.tar.gz", "a/files.example.com/a-1.0+cpu.tar.gz"),
            ("https://elsewhere.example.com/a-1.0.tar.gz#sha256=00", "a/a-1.0.tar.gz#sha256=00"),
            ("http://files.example.com/a-1.0.tar.gz", "a/a-1.0.tar.gz"),
            ("https://files.example.com:444/a-1.0.tar.gz", "a/a-1.0.tar.gz"),
            ("https://files.example.com/a-1.0.tar.gz?signature=x", "a/a-1.0.tar.gz"),
            ("https://index.example.com/x%2fy/a-1.0.tar.gz", "a/a-1.0.tar.gz"),
            ("https://index.example.com/x;y/a-1.0.tar.gz", "a/a-1.0.tar.gz"),
        ] {
            let link = link(url);
            let name = if link.path().contains("+cpu") { "a-1.0+cpu.tar.gz" } else { "a-1.0.tar.gz" };
            let found = places.for_callers(name, &link);
            assert_eq!(found, format!("https://guard.example.com/pypi/files/{path}"));
        }
        // If the URL does not end in the file name, the name in the index wins.
        let found = places.for_callers("a-1.0.tar.gz", &link("https://files.example.com/blob/12345"));
        assert_eq!(found, "https://guard.example.com/pypi/files/a/a-1.0.tar.gz");
        let read = |path: &str| match Resource::parse(path) {
            Some(Resource::File(found)) => found.place,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(read("files/a/a-1.0.tar.gz"), Place::ByMetadata);
        assert_eq!(
            read("files/a/-/packages/a%2B/a-1.0.tar.gz"),
            Place::Upstream("/packages/a+/a-1.0.tar.gz".to_owned())
        );
        let place = Place::Host("files.example.com".to_owned(), "/a-1.0.tar.gz.metadata".to_owned());
        assert_eq!(read("files/a/files.example.com/a-1.0.tar.gz.metadata"), place);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [
            "",
            "files/",
            "files/a/",
            "files/a/a-1.0.sh",
            "files/A/A-1.0.tar.gz",
            "files/a/b-1.0.tar.gz",
            "files/a/-//evil.example/a-1.0.tar.gz",
            "files/a//evil.example/a-1.0.tar.gz",
            "files/a//a-1.0.tar.gz",
            "files/a/-/../a-1.0.tar.gz",
            "files/a/-/%2e%2e/a-1.0.tar.gz",
            "files/a/-/..%2f../a-1.0.tar.gz",
            "files/a/../a-1.0.tar.gz",
            "files/a/files.example.com%3f/a-1.0.tar.gz",
            "files/a/-/x%00/a-1.0.tar.gz",
            "files/a/-/x%0d%0ax/a-1.0.tar.gz",
            "files/a/-/x%3fx/a-1.0.tar.gz",
            "files/a/-/x%5cx/a-1.0.tar.gz",
            "files/a/-/x%2523/a-1.0.tar.gz",
            "files/a/-/tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq/a-1.0.tar.gz",
            "files/a/-/token:tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq@host/a-1.0.tar.gz",
            "files/a/a-1.0+tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq.tar.gz",
            "simple/x-tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq/",
            "simple/a/b/",
            "simple/-a/",
            "simple/a%2fb/",
            "simple%2fMy_Lib",
            "simple/My_Lib%2f",
            "simple/\u{e9}/",
        ] {
            assert_eq!(Resource::parse(path), None, "{path}");
        }
    }

    #[test]
    fn project_is_fetched_at_its_normalized_name() {
        let project = Project::read("Flask_RESTful").unwrap();
        assert_eq!((project.as_str(), project.path().as_str()), ("flask-restful", "flask-restful/"));
    }

    #[test]
    fn file_name_has_at_most_255_characters() {
        let project = Project::read("a").unwrap();
        let name = |length: usize| format!("a-1.{}.tar.gz", "0".repeat(length - "a-1..tar.gz".len()));
        assert!(File::parse(&project, &name(LONGEST)).is_some());
        assert!(File::parse(&project, &name(LONGEST + 1)).is_none());
    }

    #[test]
    fn no_path_leads_to_another_host() {
        let upstream = Upstream::parse("https://index.example.com/simple/").unwrap();
        let hits = std::cell::Cell::new(0);
        let mut runner = TestRunner::new(ProptestConfig::with_cases(4_000));
        let held = runner.run(&"[-@a.:/%2fe\\\\?#]{0,12}", |rest| {
            let path = format!("files/a/-/{rest}/a-1.0.tar.gz");
            if let Some(Resource::File(FilePath { place: Place::Upstream(path), .. })) = Resource::parse(&path) {
                hits.set(hits.get() + 1);
                let url = upstream.on_host(&path);
                prop_assert!(url.as_str().starts_with("https://index.example.com/"));
                let read = Url::parse(url.as_str()).unwrap();
                prop_assert_eq!(read.path(), path);
            }
            Ok(())
        });
        held.unwrap();
        assert!(hits.get() > 100, "only {} paths were files", hits.get());
    }
}
