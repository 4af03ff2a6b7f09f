//! A project's page with the places of files changed, and nothing else: hashes, `data-` attributes and all other bytes
//! stay as the upstream wrote them. In HTML (PEP 503) and in JSON (PEP 691).

use std::cell::RefCell;
use std::ops::Range;

use lol_html::html_content::Element;
use lol_html::{HtmlRewriter, Settings, element};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

/// Why a page cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON of PEP 691.
    #[error("JSON, line {}, column {}", .0.line(), .0.column())]
    Json(#[from] serde_json::Error),
    /// It is no HTML.
    #[error("HTML")]
    Html(#[from] lol_html::errors::RewritingError),
    /// It is no text.
    #[error("not UTF-8")]
    Text(#[from] std::str::Utf8Error),
}

/// What a page is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PEP 503.
    Html,
    /// PEP 691.
    Json,
}

impl Format {
    /// Reads a content type.
    pub fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/vnd.pypi.simple.v1+json" => Some(Format::Json),
            "application/vnd.pypi.simple.v1+html" | "text/html" => Some(Format::Html),
            _ => None,
        }
    }

    /// A page with each file's place as `place` says; `base` is where the page is.
    ///
    /// # Errors
    ///
    /// Where it is no such page.
    pub fn rewritten(self, body: &[u8], base: &Url, place: impl Fn(&Url) -> String) -> Result<Vec<u8>, Unreadable> {
        match self {
            Format::Html => in_html(body, base, |url| Some(place(url))),
            Format::Json => in_json(str::from_utf8(body)?, base, place),
        }
    }

    /// The places of a page's files.
    ///
    /// # Errors
    ///
    /// Where it is no such page.
    pub fn places(self, body: &[u8], base: &Url) -> Result<Vec<Url>, Unreadable> {
        match self {
            Format::Html => {
                let found = RefCell::new(Vec::new());
                in_html(body, base, |url| {
                    found.borrow_mut().push(url.clone());
                    None
                })?;
                Ok(found.into_inner())
            }
            Format::Json => {
                let page: Page<'_> = serde_json::from_slice(body)?;
                Ok(page.files.iter().filter_map(|file| joined(base, &text(file.url)?)).collect())
            }
        }
    }
}

/// What is read of a page in JSON: where files lie, as it is written.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    files: Vec<File<'a>>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    url: &'a RawValue,
}

fn in_json(body: &str, base: &Url, place: impl Fn(&Url) -> String) -> Result<Vec<u8>, Unreadable> {
    let page: Page<'_> = serde_json::from_str(body)?;
    let mut rewritten = Vec::with_capacity(body.len() + 64 * page.files.len());
    let mut done = 0;
    for file in page.files {
        let Some(url) = text(file.url).and_then(|url| joined(base, &url)) else { continue };
        let Range { start, end } = range_of(file.url.get(), body);
        rewritten.extend_from_slice(&body.as_bytes()[done..start]);
        serde_json::to_writer(&mut rewritten, &place(&url))?;
        done = end;
    }
    rewritten.extend_from_slice(&body.as_bytes()[done..]);
    Ok(rewritten)
}

/// A page with each link's place as `place` says, where it says one.
fn in_html(body: &[u8], base: &Url, place: impl Fn(&Url) -> Option<String>) -> Result<Vec<u8>, Unreadable> {
    let mut rewritten = Vec::with_capacity(body.len() + body.len() / 4);
    let base = RefCell::new(base.clone());
    let set_base = |element: &mut Element<'_, '_>| {
        let url = element.get_attribute("href").and_then(|href| joined(&base.borrow(), &unescaped(&href)));
        if let Some(url) = url {
            *base.borrow_mut() = url;
        }
        // Our places are whole; what else is relative there, nobody follows.
        element.remove();
        Ok(())
    };
    let set_place = |element: &mut Element<'_, '_>| {
        let url = element.get_attribute("href").and_then(|href| joined(&base.borrow(), &unescaped(&href)));
        if let Some(place) = url.and_then(|url| place(&url)) {
            element.set_attribute("href", &place.replace('&', "&amp;"))?;
        }
        Ok(())
    };
    let settings = Settings::new()
        .append_element_content_handler(element!("base[href]", set_base))
        .append_element_content_handler(element!("a[href]", set_place));
    let mut rewriter = HtmlRewriter::new(settings, |piece: &[u8]| rewritten.extend_from_slice(piece));
    rewriter.write(body)?;
    rewriter.end()?;
    Ok(rewritten)
}

/// An attribute's value without the escapes that URLs are written with.
fn unescaped(attribute: &str) -> String {
    attribute.replace("&#43;", "+").replace("&#x2B;", "+").replace("&#38;", "&").replace("&amp;", "&")
}

fn joined(base: &Url, url: &str) -> Option<Url> {
    base.join(url.trim()).ok()
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

    const BASE: &str = "https://index.example.com/simple/a/";

    fn rewritten(format: Format, body: &str) -> String {
        let place = |url: &Url| format!("<{}>", url.as_str().trim_start_matches("https://"));
        String::from_utf8(format.rewritten(body.as_bytes(), &Url::parse(BASE).unwrap(), place).unwrap()).unwrap()
    }

    #[test]
    fn in_html_places_change_and_nothing_else() {
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
    fn in_html_a_base_counts_and_goes() {
        let page = "<base href=\"https://files.example.com/x/\"><a href=\"a-1.0.zip\">a</a>";
        assert_eq!(rewritten(Format::Html, page), "<a href=\"<files.example.com/x/a-1.0.zip>\">a</a>");
    }

    #[test]
    fn in_json_places_change_and_nothing_else() {
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
    fn the_places_are_read_as_they_are_rewritten() {
        let base = Url::parse(BASE).unwrap();
        for (format, page) in [
            (Format::Html, r##"<a href="../../a-1.0.zip#sha256=0">a</a>"##),
            (Format::Json, r##"{"files":[{"url":"../../a-1.0.zip#sha256=0"}]}"##),
        ] {
            let places = format.places(page.as_bytes(), &base).unwrap();
            assert_eq!(places, [Url::parse("https://index.example.com/a-1.0.zip#sha256=0").unwrap()]);
        }
    }

    #[test]
    fn what_is_no_page_is_an_error() {
        for body in ["", "{}", "[]", r#"{"files":{}}"#, r#"{"files":[{}]}"#] {
            assert!(
                Format::Json.rewritten(body.as_bytes(), &Url::parse(BASE).unwrap(), Url::to_string).is_err(),
                "{body}"
            );
        }
        assert_eq!(Format::of("Text/HTML; charset=utf-8"), Some(Format::Html));
        assert_eq!(Format::of("application/json"), None);
    }
}
