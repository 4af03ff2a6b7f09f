//! What lies where in a simple index, and how the files of Python packages are named.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use shared::domain::Ecosystem;
use shared::registry::upstream::Upstream;
use shared::secret::Token;
use url::Url;

/// What of a path's part is not written as it is.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+').remove(b'!');

/// How long a project's or a file's name may be.
const LONGEST: usize = 255;

/// What the files of packages end in, in any case: wheels, source distributions as pip and uv unpack them, and what there
/// was before.
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

/// What may lie beside a file: its metadata (PEP 658), and a signature.
const COMPANIONS: [&str; 2] = [".metadata", ".asc"];

/// What a request asks of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// All projects.
    Index,
    /// A project's files.
    Project(Project),
    /// One of the two under another spelling, or without the slash at its end: it is at this place, relative to the
    /// request's.
    Misspelled(String),
    /// A file, or what lies beside one.
    File(FilePath),
}

impl Resource {
    /// Reads a path below `/pypi/`, percent-encoded as it arrived.
    pub fn parse(path: &str) -> Option<Self> {
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        let parts: Vec<&str> = decoded.split('/').collect();
        let has_hidden_slash = path.split('/').count() != parts.len();
        let resource = match &parts[..] {
            ["simple", ""] => Resource::Index,
            ["simple"] => Resource::Misspelled("simple/".to_owned()),
            ["simple", name] => Resource::Misspelled(format!("{}/", Project::read(name)?.0)),
            ["simple", name, ""] => match Project::read(name)? {
                project if project.0 == *name => Resource::Project(project),
                project => Resource::Misspelled(format!("../{}/", project.0)),
            },
            ["files", project, place @ .., name] => {
                let project = Project::read(project).filter(|known| known.0 == *project)?;
                Resource::File(FilePath { place: Place::read(place, name)?, file: File::parse(&project, name)? })
            }
            _ => return None,
        };
        // A place that is relative to the request's has to count the slashes that its sender sees.
        (!has_hidden_slash || !matches!(resource, Resource::Misspelled(_))).then_some(resource)
    }
}

/// What stands for the upstream's own host in the path of a file.
const UPSTREAM: &str = "-";

/// A project, by its normalised name (PEP 503).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project(String);

impl Project {
    /// Reads a name in any spelling (PEP 508).
    pub fn read(name: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = (1..=LONGEST).contains(&name.len())
            && name.chars().all(allowed)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric());
        // A token in the wrong place must not reach the upstream.
        (is_name && Token::parse(name).is_none()).then(|| Self(Ecosystem::Pypi.normalized(name)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of its files' list below the index.
    pub fn path(&self) -> String {
        format!("{}/", self.0)
    }
}

/// A file of a project, or what lies beside one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The project.
    pub project: Project,
    /// Its version, as the name has it.
    pub version: String,
    /// The file's name.
    pub name: String,
    /// What lies beside it, where that is meant: `.metadata`.
    pub companion: Option<&'static str>,
}

impl File {
    /// Reads a file's name: `Project-1.0.tar.gz`, `project-1.0-py3-none-any.whl`.
    pub fn parse(project: &Project, name: &str) -> Option<Self> {
        let companion = COMPANIONS.into_iter().find(|companion| name.ends_with(companion));
        let name = name.strip_suffix(companion.unwrap_or_default())?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._+!~".contains(c);
        if name.len() > LONGEST || !name.chars().all(allowed) {
            return None;
        }
        let in_lower_case = name.to_ascii_lowercase();
        let extension = EXTENSIONS.into_iter().find(|extension| in_lower_case.ends_with(extension))?;
        let stem = &name[..name.len() - extension.len()];
        // The project's name, in whatever spelling, may have hyphens of its own.
        let mut hyphens = stem.match_indices('-').map(|(at, _)| at);
        let end = hyphens.find(|at| Ecosystem::Pypi.normalized(&stem[..*at]) == project.0)?;
        let rest = &stem[end + 1..];
        let version = match extension {
            ".whl" | ".egg" => rest.split('-').next().unwrap_or_default(),
            _ => rest,
        };
        let version = Some(version).filter(|version| !version.is_empty())?.to_owned();
        Some(Self { project: project.clone(), version, name: name.to_owned(), companion })
    }

    /// Where what is meant lies, if the file lies there.
    pub fn beside(&self, place: &Url) -> Url {
        let mut place = place.clone();
        place.set_fragment(None);
        if let Some(companion) = self.companion {
            place.set_path(&format!("{}{companion}", place.path()));
        }
        place
    }
}

/// A file as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    /// The file.
    pub file: File,
    /// Where it lies.
    pub place: Place,
}

/// Where a file lies. Paths begin with a slash, end in the file's name, and are percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On the upstream's host.
    Upstream(String),
    /// On this host, if that is one that files may lie on.
    Host(String, String),
    /// Where the upstream's metadata says.
    ByMetadata,
}

impl Place {
    /// Reads what stands between a project and the name of a file.
    fn read(parts: &[&str], name: &str) -> Option<Self> {
        let [host, folders @ ..] = parts else { return Some(Place::ByMetadata) };
        // A host without a name would leave its place in a URL to what comes next.
        if !parts.iter().all(|part| is_folder(part)) {
            return None;
        }
        // Encoded anew, so that what arrives decoded and what arrives as it was written are the same.
        let path = folders.iter().chain([&name]).map(|part| format!("/{}", encoded(part))).collect();
        Some(if *host == UPSTREAM { Place::Upstream(path) } else { Place::Host((*host).to_owned(), path) })
    }
}

/// Where files lie: at the upstream, and for callers.
#[derive(Debug)]
pub struct Places<'a> {
    /// The upstream.
    pub upstream: &'a Upstream,
    /// Other hosts that files may lie on.
    pub hosts: &'a [String],
    /// Our `/pypi/files/` as callers see it, with a slash at the end.
    pub root: &'a str,
}

impl Places<'_> {
    /// Where callers find the file of this name that lies there. What hash the fragment names, it goes on naming.
    pub fn for_callers(&self, project: &Project, name: &str, url: &Url) -> String {
        let known = match self.upstream.path_on_host(url) {
            Some(path) => Some((UPSTREAM, path)),
            None => self.known_host(url).map(|host| (host, url.path())),
        };
        let place = known.map(|(host, path)| format!("{host}{path}"));
        // Only where it is read as the same place when it comes back. What is not, has to be looked up; and what is no
        // file's name at all is not found there either: no client installs it.
        let place = place.filter(|place| {
            let read = Resource::parse(&format!("files/{}/{place}", project.0));
            let (path, file) = match &read {
                Some(Resource::File(FilePath { place: Place::Upstream(path) | Place::Host(_, path), file })) => {
                    (path, file)
                }
                _ => return false,
            };
            path == url.path() && file.name == name
        });
        let place = place.unwrap_or_else(|| encoded(name));
        let fragment = url.fragment().map(|fragment| format!("#{fragment}")).unwrap_or_default();
        format!("{}{}/{place}{fragment}", self.root, project.0)
    }

    /// The host of a URL that is on one that files may lie on, and that says nothing else.
    fn known_host<'a>(&self, url: &'a Url) -> Option<&'a str> {
        let is_plain = url.scheme() == "https" && url.port().is_none() && url.query().is_none();
        let is_plain = is_plain && url.username().is_empty() && url.password().is_none();
        url.host_str().filter(|host| is_plain && self.hosts.iter().any(|known| known == host))
    }
}

/// A part of a path that leads nowhere but down. A token in the wrong place must not reach the upstream.
fn is_folder(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '?' | '#' | '%' | ';');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed) && Token::parse(part).is_none()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn project(name: &str) -> Project {
        Project::read(name).unwrap()
    }

    fn misspelled(to: &str) -> Option<Resource> {
        Some(Resource::Misspelled(to.to_owned()))
    }

    #[test]
    fn a_project_has_one_name_and_a_slash() {
        assert_eq!(Resource::parse("simple/"), Some(Resource::Index));
        assert_eq!(Resource::parse("simple/my-lib/"), Some(Resource::Project(project("my-lib"))));
        assert_eq!(Resource::parse("simple/my-lib"), misspelled("my-lib/"));
        assert_eq!(Resource::parse("simple/My_.Lib"), misspelled("my-lib/"));
        assert_eq!(Resource::parse("simple/My_.Lib/"), misspelled("../my-lib/"));
        assert_eq!(Resource::parse("simple"), misspelled("simple/"));
    }

    #[test]
    fn the_version_is_read_from_the_files_name() {
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

    #[test]
    fn a_file_is_found_again_by_the_place_that_callers_are_given() {
        let upstream = Upstream::parse("https://index.example.com/simple/").unwrap();
        let hosts = ["files.example.com".to_owned()];
        let places = Places { upstream: &upstream, hosts: &hosts, root: "https://guard.example.com/pypi/files/" };
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
            let url = Url::parse(url).unwrap();
            let name = if url.path().contains("+cpu") { "a-1.0+cpu.tar.gz" } else { "a-1.0.tar.gz" };
            let found = places.for_callers(&project("a"), name, &url);
            assert_eq!(found, format!("https://guard.example.com/pypi/files/{path}"));
        }
        // A name that the URL does not end in: what the index calls it counts.
        let blob = Url::parse("https://files.example.com/blob/12345").unwrap();
        let found = places.for_callers(&project("a"), "a-1.0.tar.gz", &blob);
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
    fn what_is_no_file_is_nothing() {
        for path in [
            "",
            "files/",
            "files/a/",
            "files/a/a-1.0.sh",
            "files/A/A-1.0.tar.gz",
            "files/a/b-1.0.tar.gz",
            "files/a/-/../a-1.0.tar.gz",
            "files/a/-/%2e%2e/a-1.0.tar.gz",
            "files/a/-/..%2f../a-1.0.tar.gz",
            "files/a/-//evil.example/a-1.0.tar.gz",
            "files/a//evil.example/a-1.0.tar.gz",
            "files/a//a-1.0.tar.gz",
            "files/a/../a-1.0.tar.gz",
            "files/a/files.example.com%3f/a-1.0.tar.gz",
            "files/a/-/x%00/a-1.0.tar.gz",
            "files/a/-/x%0d%0ax/a-1.0.tar.gz",
            "files/a/-/x%3fx/a-1.0.tar.gz",
            "files/a/-/x%5cx/a-1.0.tar.gz",
            "files/a/-/x%2523/a-1.0.tar.gz",
            "files/a/-/tg_org_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0vAgUq/a-1.0.tar.gz",
            "simple/a/b/",
            "simple/-a/",
            "simple/a%2fb/",
            "simple//",
            "simple%2fMy_Lib",
            "simple/My_Lib%2f",
            "simple/\u{e9}/",
        ] {
            assert_eq!(Resource::parse(path), None, "{path}");
        }
    }

    proptest! {
        /// Whatever path comes, where it leads is on the upstream's host.
        #[test]
        fn no_path_leads_to_another_host(rest in "[-@a.:/%2fe\\\\?#]{0,30}") {
            let upstream = Upstream::parse("https://index.example.com/simple/").unwrap();
            let path = format!("files/a/-/{rest}/a-1.0.tar.gz");
            if let Some(Resource::File(FilePath { place: Place::Upstream(path), .. })) = Resource::parse(&path) {
                let url = upstream.on_host(&path);
                prop_assert!(url.as_str().starts_with("https://index.example.com/"));
                let read = Url::parse(url.as_str()).unwrap();
                prop_assert_eq!(read.path(), path);
            }
        }
    }
}
