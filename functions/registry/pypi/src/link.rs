//! The links of a project page, most of which need no parsing.

use std::borrow::Cow;
use std::cell::RefCell;
use std::iter;
use std::ops::Range;

use percent_encoding::percent_decode_str;
use url::{Position, Url};

/// How far up from its page a link may lead without being parsed.
const MAX_UP: usize = 8;

/// An absolute URL, written as [`Url`] writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link<'a> {
    url: Cow<'a, str>,
    path: Range<usize>,
    is_plain: bool,
}

impl Link<'_> {
    /// Scheme, user, host and port.
    pub fn origin(&self) -> &str {
        &self.url[..self.path.start]
    }

    /// The path, still percent-encoded.
    pub fn path(&self) -> &str {
        &self.url[self.path.clone()]
    }

    /// Whether it has a query, be it empty.
    pub fn has_query(&self) -> bool {
        self.url[self.path.end..].starts_with('?')
    }

    /// The fragment.
    pub fn fragment(&self) -> Option<&str> {
        self.url[self.path.end..].split_once('#').map(|(_, fragment)| fragment)
    }

    /// Whether all its segments are [plain](is_plain_segment).
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The last path segment, which is the file name in HTML pages.
    pub fn file_name(&self) -> Cow<'_, str> {
        let last = self.path().rsplit('/').next().unwrap_or_default();
        if self.is_plain { Cow::Borrowed(last) } else { percent_decode_str(last).decode_utf8_lossy() }
    }

    /// The URL.
    pub fn to_url(&self) -> Option<Url> {
        Url::parse(&self.url).ok()
    }
}

impl From<Url> for Link<'_> {
    fn from(url: Url) -> Self {
        let path = url[..Position::BeforePath].len()..url[..Position::AfterPath].len();
        Self { url: Cow::Owned(url.into()), path, is_plain: false }
    }
}

/// What the links of a page are relative to.
#[derive(Debug)]
pub struct Base {
    url: Url,
    /// The folder of the page, and those above it, and whether their segments are plain.
    folders: Vec<(String, bool)>,
    /// The last origin of a link that was parsed. Nearly all links of a page have the same.
    origin: RefCell<String>,
}

impl Base {
    /// Links relative to this URL.
    pub fn new(url: Url) -> Self {
        let is_plain = |folder: &Url| folder.path()[1..].split_terminator('/').all(is_plain_segment);
        let folders = iter::successors(url.join(".").ok(), |folder| folder.join("..").ok());
        let folders = folders.take(MAX_UP).map(|folder| (folder.to_string(), is_plain(&folder))).collect();
        Self { url, folders, origin: RefCell::default() }
    }

    /// The link that is written like this. `None` if it is no URL.
    pub fn link<'a>(&self, written: &'a str) -> Option<Link<'a>> {
        self.plain(written).or_else(|| self.parsed(written))
    }

    fn parsed<'a>(&self, written: &str) -> Option<Link<'a>> {
        let url = self.url.join(written.trim()).ok()?;
        if url.as_str() == written && matches!(url.scheme(), "http" | "https") {
            url[..Position::BeforePath].clone_into(&mut self.origin.borrow_mut());
        }
        Some(url.into())
    }

    /// A link as nearly all are written: parsing would only put it behind the origin or a folder.
    fn plain<'a>(&self, written: &'a str) -> Option<Link<'a>> {
        let origin = self.origin.borrow();
        let below = written.strip_prefix(origin.as_str()).filter(|_| !origin.is_empty());
        if let Some(path) = below.and_then(|below| below.strip_prefix('/')) {
            let path = origin.len()..origin.len() + 1 + plain_length(path)?;
            return Some(Link { url: Cow::Borrowed(written), path, is_plain: true });
        }
        let (mut rest, mut up) = (written, 0);
        while let Some(further) = rest.strip_prefix("../") {
            (rest, up) = (further, up + 1);
        }
        let origin = &self.url[..Position::BeforePath];
        let (folder, rest, is_plain) = match written.strip_prefix('/') {
            Some(path) => ([origin, "/"], path, true),
            None => {
                let (folder, is_plain) = self.folders.get(up)?;
                ([folder, ""], rest, *is_plain)
            }
        };
        let length = plain_length(rest)?;
        let url = [folder[0], folder[1], rest].concat();
        let path = origin.len()..url.len() - rest.len() + length;
        Some(Link { url: Cow::Owned(url), path, is_plain })
    }
}

/// Whether nothing in this path segment is encoded, decoded or refused, here or by a URL's parser.
pub fn is_plain_segment(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain)
}

/// The characters of most file names.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut c = 0_u8;
    while c < 128 {
        plain[c as usize] = c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~' | b'+' | b'!');
        c += 1;
    }
    plain
};

/// Whether this is one of the characters of most file names.
pub fn is_plain(c: u8) -> bool {
    PLAIN[usize::from(c)]
}

/// The length of the path at the start of a relative URL that no parser changes: of plain segments.
fn plain_length(url: &str) -> Option<usize> {
    let mut last = b'/';
    let mut length = 0;
    for c in url.bytes().take_while(|c| *c != b'#') {
        let is_allowed = if last == b'/' { c != b'.' && is_plain(c) } else { c == b'/' || is_plain(c) };
        if !is_allowed {
            return None;
        }
        (last, length) = (c, length + 1);
    }
    let is_kept = |c: u8| is_plain(c) || matches!(c, b'=' | b'&' | b':');
    (last != b'/' && url.bytes().skip(length + 1).all(is_kept)).then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: [&str; 4] = [
        "https://index.example.com/simple/a/",
        "http://index.example.com:8080/a",
        "https://user@index.example.com/x%20y//simple/a/?q#f",
        "https://index.example.com",
    ];

    #[test]
    fn usual_links_are_not_parsed() {
        let base = Base::new(Url::parse(PAGES[0]).unwrap());
        for (written, url) in [
            ("../../packages/a-1.zip#sha256=0", "https://index.example.com/packages/a-1.zip#sha256=0"),
            ("a-1.zip", "https://index.example.com/simple/a/a-1.zip"),
            ("/a-1.zip", "https://index.example.com/a-1.zip"),
        ] {
            assert_eq!(base.plain(written).unwrap().url, url);
        }
        let written = "https://files.example.com/a-1.zip";
        assert_eq!(base.plain(written), None);
        assert!(base.link(written).is_some() && base.plain(written).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// A link that is not parsed is the one that a parser would make of it.
        #[test]
        fn links_are_alike_with_and_without_parsing(
            page in proptest::sample::select(&PAGES[..]),
            origin in "|(https?|HTTPS|ftp|x):(//(u(:p)?@)?(files\\.example\\.com|Files|%66|127\\.1|\\[::1\\])?(:443|:80|:)?)?",
            ways in proptest::collection::vec("(/|(\\.\\./){0,9}|\\./|//)(([ab_.~+!@%:;-]|%2e|\\\\|é| |\t){0,4}/){0,3}a-1\\.zip(\\?x?)?(#[a=&:<]{0,3})?[ \n]?", 1..4),
        ) {
            let page = Url::parse(page).unwrap();
            let base = Base::new(page.clone());
            for way in ways {
                let written = format!("{origin}{way}");
                let parsed = page.join(written.trim()).ok();
                let link = base.link(&written);
                prop_assert_eq!(link.as_ref().map(|link| link.url.as_ref()), parsed.as_ref().map(Url::as_str));
                let (Some(link), Some(parsed)) = (link, parsed) else { continue };
                prop_assert_eq!(link.origin(), &parsed[..Position::BeforePath]);
                prop_assert_eq!(link.path(), parsed.path());
                prop_assert_eq!((link.has_query(), link.fragment()), (parsed.query().is_some(), parsed.fragment()));
                let name = percent_decode_str(parsed.path().rsplit('/').next().unwrap()).decode_utf8_lossy();
                prop_assert_eq!(link.file_name(), name);
                prop_assert!(!link.is_plain() || parsed.path().split('/').skip(1).all(is_plain_segment), "{}", written);
            }
        }
    }
}
