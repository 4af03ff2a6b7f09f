//! Rewrites the file URLs in a project page, in HTML (PEP 503) or JSON (PEP 691). Every other byte
//! stays unchanged, including hashes and `data-` attributes.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::ops::Range;

use html_escape::decode_html_entities;
use lol_html::html_content::Element;
use lol_html::{HtmlRewriter, Settings, element};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::registry::splice::{Edit, Spliced, replacing, string_value};
use url::Url;

use crate::link::{Base, Link};

/// Why a page cannot be parsed.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not the JSON of PEP 691.
    #[error("invalid JSON, line {}, column {}", .0.line(), .0.column())]
    Json(#[from] serde_json::Error),
    /// JSON, but no project page.
    #[error("JSON without `files`")]
    NoPage,
    /// Not HTML.
    #[error("invalid HTML")]
    Html(#[from] lol_html::errors::RewritingError),
    /// Not text.
    #[error("not UTF-8")]
    Text(#[from] std::str::Utf8Error),
}

/// The format of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PEP 503.
    Html,
    /// PEP 691.
    Json,
}

impl Format {
    /// Parses a content type without parameters.
    pub fn of(content_type: &str) -> Option<Self> {
        match content_type {
            "application/vnd.pypi.simple.v1+json" => Some(Format::Json),
            "application/vnd.pypi.simple.v1+html" | "text/html" => Some(Format::Html),
            _ => None,
        }
    }

    /// The content type of responses in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Html => "text/html; charset=utf-8",
            Format::Json => "application/vnd.pypi.simple.v1+json",
        }
    }

    /// Replaces each file URL by the result of `place`, which gets the file name and the link. `url`
    /// is that of the page.
    ///
    /// # Errors
    ///
    /// If the body is not such a page.
    pub fn rewritten(
        self,
        body: Vec<u8>,
        url: Url,
        place: impl Fn(&str, &Link<'_>) -> String,
    ) -> Result<Spliced, Unreadable> {
        let (text, base) = (str::from_utf8(&body)?, Base::new(url));
        let edits = match self {
            Format::Html => in_html(text, base, |link| Some(place(&link.file_name(), link)))?,
            Format::Json => in_json(text, &base, place)?,
        };
        Ok(Spliced::new(body, edits))
    }

    /// The URL of the file with this name in a project page.
    ///
    /// # Errors
    ///
    /// If the body is not such a page.
    pub fn place_of(self, name: &str, body: &[u8], url: Url) -> Result<Option<Url>, Unreadable> {
        let (body, base) = (str::from_utf8(body)?, Base::new(url));
        match self {
            Format::Html => {
                let found = RefCell::new(None);
                in_html(body, base, |link| {
                    if link.file_name() == name {
                        found.borrow_mut().get_or_insert_with(|| link.to_url());
                    }
                    None
                })?;
                Ok(found.into_inner().flatten())
            }
            Format::Json => {
                let files = Page::read(body)?;
                let mut places = files.iter().filter_map(|file| {
                    let written = string_value(file.url)?;
                    let link = base.link(&written).filter(|link| file.name(link) == name)?;
                    link.to_url()
                });
                Ok(places.next())
            }
        }
    }
}

/// The parsed part of a JSON page: the raw file URLs.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    files: Option<Vec<File<'a>>>,
}

impl<'a> Page<'a> {
    fn read(body: &'a str) -> Result<Vec<File<'a>>, Unreadable> {
        let page: Self = serde_json::from_str(body)?;
        page.files.ok_or(Unreadable::NoPage)
    }
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    filename: Option<Text<'a>>,
    #[serde(borrow)]
    url: &'a RawValue,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl File<'_> {
    /// The file name. In JSON the URL need not end in it.
    fn name<'a>(&'a self, link: &'a Link<'_>) -> Cow<'a, str> {
        match &self.filename {
            Some(Text(name)) => Cow::Borrowed(name),
            None => link.file_name(),
        }
    }
}

fn in_json(body: &str, base: &Base, place: impl Fn(&str, &Link<'_>) -> String) -> Result<Vec<Edit>, Unreadable> {
    let files = Page::read(body)?;
    let places = files.iter().filter_map(|file| {
        let written = string_value(file.url)?;
        let link = base.link(&written)?;
        Some((file.url, place(&file.name(&link), &link)))
    });
    Ok(replacing(body, places))
}

/// Replaces each link by the result of `place`, if any. Nothing is written: the rewriter only finds
/// where the links are.
fn in_html(body: &str, page: Base, place: impl Fn(&Link<'_>) -> Option<String>) -> Result<Vec<Edit>, Unreadable> {
    let (edits, base) = (RefCell::new(Vec::new()), OnceCell::new());
    let set_base = |element: &mut Element<'_, '_>| {
        let written = href(body, element).map(|at| decode_html_entities(&body[at]));
        if let Some(url) = written.and_then(|written| page.link(&written)?.to_url()) {
            // Only the first `base` element applies.
            let _ = base.set(Base::new(url));
        }
        // Rewritten URLs are absolute, and clients follow no others.
        edits.borrow_mut().push(Edit { at: element.source_location().bytes(), new: String::new() });
        Ok(())
    };
    let set_place = |element: &mut Element<'_, '_>| {
        let Some(at) = href(body, element) else { return Ok(()) };
        let written = decode_html_entities(&body[at.clone()]);
        if let Some(place) = base.get().unwrap_or(&page).link(&written).and_then(|link| place(&link)) {
            edits.borrow_mut().push(Edit { at: with_quotes(body, at), new: quoted(&place) });
        }
        Ok(())
    };
    let settings = Settings::new()
        .append_element_content_handler(element!("base[href]", set_base))
        .append_element_content_handler(element!("a[href]", set_place));
    let mut rewriter = HtmlRewriter::new(settings, |_: &[u8]| ());
    rewriter.write(body.as_bytes())?;
    rewriter.end()?;
    Ok(edits.into_inner())
}

/// Where the value of an element's `href` is. `None` if it has no value.
fn href(body: &str, element: &Element<'_, '_>) -> Option<Range<usize>> {
    let is_href = |name: Range<usize>| body[name].eq_ignore_ascii_case("href");
    let mut attributes = element.attributes().iter();
    let href = attributes.find(|each| each.name_source_location().is_some_and(|name| is_href(name.bytes())))?;
    Some(href.value_source_location()?.bytes())
}

/// Where the value of an attribute is with its quotes, if it has any.
fn with_quotes(body: &str, value: Range<usize>) -> Range<usize> {
    let is_quoted = body[..value.start].ends_with(['"', '\'']);
    value.start - usize::from(is_quoted)..value.end + usize::from(is_quoted)
}

/// The value of an attribute that is this URL.
fn quoted(url: &str) -> String {
    let escaped = if url.contains(['&', '"']) {
        Cow::Owned(url.replace('&', "&amp;").replace('"', "&quot;"))
    } else {
        Cow::Borrowed(url)
    };
    ["\"", &escaped, "\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://index.example.com/simple/a/";

    fn rewritten(format: Format, body: &str) -> String {
        let place =
            |_: &str, link: &Link<'_>| format!("<{}>", link.to_url().unwrap().as_str().trim_start_matches("https://"));
        let page = format.rewritten(body.into(), Url::parse(BASE).unwrap(), place).unwrap();
        String::from_utf8(page.concat()).unwrap()
    }

    #[test]
    fn only_file_urls_are_rewritten_in_html() {
        let of = |one: &str, two: &str| {
            format!(
                "<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.3\"></head><body>\n\
                 <h1>Links &amp; more</h1><a data-requires-python=\"&gt;=3.8\" href={one} data-dist-info-metadata=\"sha256=00\"\
                 >a-1.0.tar.gz</a><br />\n<a href={two}>a</a></body></html>\n<!--SERIAL 7-->"
            )
        };
        let before =
            of("\"../../packages/a-1.0.tar.gz#sha256=0&amp;1\"", "'https://files.example.com/a-1.0&#43;cpu.zip'");
        let after =
            of("\"<index.example.com/packages/a-1.0.tar.gz#sha256=0&amp;1>\"", "\"<files.example.com/a-1.0+cpu.zip>\"");
        assert_eq!(rewritten(Format::Html, &before), after);
    }

    #[test]
    fn links_are_rewritten_however_their_attribute_is_written() {
        let of = |one: &str| {
            let before = format!("<p><A class=x\n  {one}\t data-yanked='a \"b\"'  >a</A ><!-- <a href='c'> --></p>");
            rewritten(Format::Html, &before).replace(" data-yanked='a \"b\"'  >a</A ><!-- <a href='c'> --></p>", "")
        };
        let after = |attribute: &str| format!("<p><A class=x\n  {attribute}\"<index.example.com/a-1.0.zip>\"\t");
        for (attribute, start) in [
            ("href=/a-1.0.zip", "href="),
            ("HREF = '/a-1.0.zip'", "HREF = "),
            ("href=\"/&#97;-1.0.zip\" href=b", "href="),
        ] {
            let rest = if attribute.ends_with('b') { " href=b\t" } else { "\t" };
            assert_eq!(of(attribute), after(start).replace('\t', rest));
        }
        for page in ["<a href>a</a>", "<a href=>a</a>", "<a name=\"href\">a</a>", "<link href=\"a\"><a"] {
            assert_eq!(rewritten(Format::Html, page), page);
        }
    }

    #[test]
    fn html_base_is_applied_and_removed() {
        let page = "<base href=\"https://files.example.com/x/\"><base href=\"/y/\"><a href=\"a-1.0.zip\">a</a>";
        assert_eq!(rewritten(Format::Html, page), "<a href=\"<files.example.com/x/a-1.0.zip>\">a</a>");
    }

    #[test]
    fn only_file_urls_are_rewritten_in_json() {
        let of = |one: &str, two: &str| {
            format!(
                r#"{{"meta":{{"api-version":"1.3"}}, "name":"a","url":"x","files":[ {{"filename":"a-1.0.tar.gz","url" : {one},"hashes":{{"sha256":"\u0030"}},
                "provenance":"https://index.example.com/x"}},{{"url":{two},"yanked":false,"size":1e3}}],"versions":["1.0"]}}"#
            )
        };
        let before = of(r#""https:\/\/files.example.com\/a-1.0.tar.gz""#, r#""..\/a-1.0.whl""#);
        let after = of(r#""<files.example.com/a-1.0.tar.gz>""#, r#""<index.example.com/simple/a-1.0.whl>""#);
        assert_eq!(rewritten(Format::Json, &before), after);
    }

    #[test]
    fn file_url_is_found_by_file_name() {
        let base = Url::parse(BASE).unwrap();
        for (format, page, place) in [
            (
                Format::Html,
                r##"<a href="../../a-1.0.zip#sha256=0">a</a>"##,
                "https://index.example.com/a-1.0.zip#sha256=0",
            ),
            (Format::Json, r##"{"files":[{"url":"../../a-1.0.zip"}]}"##, "https://index.example.com/a-1.0.zip"),
            (
                Format::Json,
                r##"{"files":[{"filename":"a-1.0.zip","url":"/blob/1"}]}"##,
                "https://index.example.com/blob/1",
            ),
        ] {
            let found = format.place_of("a-1.0.zip", page.as_bytes(), base.clone()).unwrap();
            assert_eq!(found, Some(Url::parse(place).unwrap()), "{page}");
            assert_eq!(format.place_of("a-1.1.zip", page.as_bytes(), base.clone()).unwrap(), None);
        }
    }

    #[test]
    fn malformed_pages_are_refused() {
        for body in ["", "{}", "[]", r#"{"files":{}}"#, r#"{"files":[{}]}"#] {
            let rewritten = Format::Json.rewritten(body.into(), Url::parse(BASE).unwrap(), |name, _| name.to_owned());
            assert!(rewritten.is_err(), "{body}");
        }
        assert_eq!(Format::of("text/html"), Some(Format::Html));
        assert_eq!(Format::of("application/json"), None);
    }
}
