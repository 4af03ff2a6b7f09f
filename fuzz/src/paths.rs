use percent_encoding::percent_decode_str;
use registry_npm::path::{Package, Resource as Npm, Tarball};
use registry_pypi::path::{FilePath, Place, Resource as Pypi};
use shared::registry::upstream::Upstream;
use shared::secret::Token;
use url::Url;

/// Paths below `/npm/` and `/pypi/`: every upstream URL stays below the upstream's root, on its
/// host, and contains no token.
pub fn paths(data: &[u8]) {
    let Ok(path) = str::from_utf8(data) else { return };
    npm(path);
    pypi(path);
    // API Gateway may decode a path once: both forms must mean the same.
    if let Ok(decoded) = percent_decode_str(path).decode_utf8() {
        let (npm, pypi) = (Npm::parse(path), Pypi::parse(path));
        assert!(npm.is_none() || npm == Npm::parse(&decoded), "{path:?}: {npm:?}");
        assert!(pypi.is_none() || pypi == Pypi::parse(&decoded), "{path:?}: {pypi:?}");
    }
}

fn upstream(text: &str) -> Upstream {
    Upstream::parse(text).unwrap_or_else(|| panic!("{text} is not an upstream URL"))
}

fn npm(path: &str) {
    let upstream = upstream("https://packages.example.com/npm/");
    let Some(resource) = Npm::parse(path) else { return };
    let asked: Vec<String> = match &resource {
        Npm::Package(package) => vec![package.path()],
        Npm::Tags(package) => vec![format!("-/package/{}/dist-tags", package.path())],
        Npm::Version(package, version) => vec![package.version_path(version), package.path()],
        Npm::Attestations(package, version) => {
            vec![format!("-/npm/v1/attestations/{}", package.attestations_path(version))]
        }
        Npm::Tarball(tarball) => vec![tarball.path(), tarball.package.path()],
        Npm::TarballByMetadata(tarball) => vec![tarball.path_by_metadata(), tarball.package.path()],
        Npm::Whoami | Npm::Ping | Npm::Keys | Npm::Advisories | Npm::Audit | Npm::QuickAudit => vec![],
        Npm::Login | Npm::Logout | Npm::NotOffered => vec![],
    };
    for path in &asked {
        below(&upstream.join(path), "packages.example.com", "/npm/", path);
    }
    // The first URL is that of the resource itself, in its canonical spelling.
    if let Some(canonical) = asked.first() {
        assert_eq!(Npm::parse(canonical).as_ref(), Some(&resource), "{path:?}: {canonical}");
    }
    if let Npm::Tarball(tarball) | Npm::TarballByMetadata(tarball) = &resource {
        assert!(tarball.is_at(&tarball.path()), "{tarball:?}");
        let same: Option<Tarball> = Tarball::of(&tarball.package, &tarball.version);
        assert_eq!(same.as_ref(), Some(tarball), "{path:?}");
        let named: &Package = &tarball.package;
        assert!(tarball.file.len() > tarball.version.len() && named.to_string().len() <= 214, "{tarball:?}");
    }
}

fn pypi(path: &str) {
    let upstream = upstream("https://index.example.com/simple/");
    match Pypi::parse(path) {
        None | Some(Pypi::Index) => {}
        Some(Pypi::Project(project)) => {
            below(&upstream.join(&project.path()), "index.example.com", "/simple/", path);
            assert_eq!(Pypi::parse(&format!("simple/{}", project.path())), Some(Pypi::Project(project)));
        }
        Some(Pypi::Misspelled(to)) => {
            // The redirect leads directly to the canonical spelling.
            let asked = Url::parse("https://guard.example.com/pypi/").and_then(|root| root.join(path));
            let place = asked.and_then(|asked| asked.join(&to)).unwrap_or_else(|_| panic!("{path:?}: {to}"));
            below(&place, "guard.example.com", "/pypi/simple/", path);
            let found = place.path().strip_prefix("/pypi/").and_then(Pypi::parse);
            assert!(matches!(found, Some(Pypi::Project(_))), "{path:?}: {place}");
        }
        Some(Pypi::File(FilePath { file, place })) => {
            assert!(!file.version.is_empty() && file.name.contains(&file.version), "{file:?}");
            let (url, path) = match place {
                Place::ByMetadata => return,
                Place::Upstream(path) => (upstream.on_host(&path), path),
                // Requested there only if it is a configured host.
                Place::Host(host, path) => {
                    assert!(!host.is_empty() && !host.contains('/'), "{host}");
                    (self::upstream("https://files.example.com/").on_host(&path), path)
                }
            };
            below(&url, url.host_str().unwrap_or_default(), "/", &path);
            assert_eq!(url.path(), path, "the URL normalizes to another path");
            let name = path.rsplit('/').next().map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
            assert_eq!(name, Some(format!("{}{}", file.name, file.companion.unwrap_or_default())));
        }
    }
}

/// Checks that a URL is on this host and below this root, however it is parsed, and contains no
/// token.
fn below(url: &Url, host: &str, root: &str, path: &str) {
    let again = Url::parse(url.as_str());
    assert_eq!(again.as_ref(), Ok(url), "{path:?}: {url} does not parse back");
    assert_eq!((url.scheme(), url.host_str(), url.port()), ("https", Some(host), None), "{path:?}: {url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{path:?}: {url}");
    assert!(url.query().is_none() && url.fragment().is_none(), "{path:?}: {url}");
    let rest = url.path().strip_prefix(root).unwrap_or_else(|| panic!("{path:?}: {url} is not below {root}"));
    let decoded = percent_decode_str(rest).decode_utf8_lossy();
    let slashes = rest.matches("%2f").count() + rest.matches("%2F").count();
    // Only in a scoped package name.
    assert!(slashes <= 1 && (slashes == 0 || decoded.contains('@')), "{path:?}: {url}");
    // The root itself has no segments.
    for part in decoded.trim_end_matches('/').split('/').filter(|_| !rest.is_empty()) {
        assert!(!part.is_empty() && part != "." && part != "..", "{path:?}: {url}");
        assert!(!part.contains(['\\', '\0', '\r', '\n', '?', '#', '%']), "{path:?}: {url}");
    }
    assert!(Token::found_in(&decoded).is_none(), "{path:?}: contains a token");
}
