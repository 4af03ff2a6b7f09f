//! Rewrites the file URLs in a project page, in HTML (PEP 503) or JSON (PEP 691). Every other byte
//! stays unchanged, including hashes and `data-` attributes.

use std::cell::{OnceCell, RefCell};

use html_escape::decode_html_entities;
use lol_html::html_content::Element;
use lol_html::{HtmlRewriter, Settings, element};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::registry::splice::{Edit, Spliced, replacing, string_value};
use url::Url;

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

    /// Replaces each file URL by the result of `place`, which gets the file name and URL. `base` is
    /// the URL of the page.
    ///
    /// # Errors
    ///
    /// If the body is not such a page.
    pub fn rewritten(
        self,
        body: Vec<u8>,
        base: &Url,
        place: impl Fn(&str, &Url) -> String,
    ) -> Result<Spliced, Unreadable> {
        let text = str::from_utf8(&body)?;
        match self {
            Format::Html => Ok(in_html(text, base, |url| Some(place(&last_part(url), url)))?.into()),
            Format::Json => {
                let edits = in_json(text, base, place)?;
                Ok(Spliced::new(body, edits))
            }
        }
    }

    /// The URL of the file with this name in a project page.
    ///
    /// # Errors
    ///
    /// If the body is not such a page.
    pub fn place_of(self, name: &str, body: &[u8], base: &Url) -> Result<Option<Url>, Unreadable> {
        let body = str::from_utf8(body)?;
        match self {
            Format::Html => {
                let found = RefCell::new(None);
                in_html(body, base, |url| {
                    if last_part(url) == name {
                        found.borrow_mut().get_or_insert_with(|| url.clone());
                    }
                    None
                })?;
                Ok(found.into_inner())
            }
            Format::Json => {
                let files = Page::read(body)?;
                let places = files.iter().filter_map(|file| Some((file, joined(base, &string_value(file.url)?)?)));
                let mut named = places.filter(|(file, url)| file.name(url) == name);
                Ok(named.next().map(|(_, url)| url))
            }
        }
    }
}

/// The last path segment of a URL, which is the file name in HTML pages.
pub fn last_part(url: &Url) -> String {
    let last = url.path().rsplit('/').next().unwrap_or_default();
    percent_decode_str(last).decode_utf8_lossy().into_owned()
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
    filename: Option<String>,
    #[serde(borrow)]
    url: &'a RawValue,
}

impl File<'_> {
    /// The file name. In JSON the URL need not end in it.
    fn name(&self, url: &Url) -> String {
        self.filename.clone().unwrap_or_else(|| last_part(url))
    }
}

fn in_json(body: &str, base: &Url, place: impl Fn(&str, &Url) -> String) -> Result<Vec<Edit>, Unreadable> {
    let files = Page::read(body)?;
    let places = files.iter().filter_map(|file| {
        let url = joined(base, &string_value(file.url)?)?;
        Some((file.url, place(&file.name(&url), &url)))
    });
    Ok(replacing(body, places.collect()))
}

/// Replaces each link by the result of `place`, if any.
fn in_html(body: &str, base: &Url, place: impl Fn(&Url) -> Option<String>) -> Result<Vec<u8>, Unreadable> {
    let mut rewritten = Vec::with_capacity(body.len() + body.len() / 4);
    let (page, base) = (base, OnceCell::new());
    let set_base = |element: &mut Element<'_, '_>| {
        let url = element.get_attribute("href").and_then(|href| joined(page, &decode_html_entities(&href)));
        if let Some(url) = url {
            // Only the first `base` element applies.
            let _ = base.set(url);
        }
        // Rewritten URLs are absolute, and clients follow no others.
        element.remove();
        Ok(())
    };
    let set_place = |element: &mut Element<'_, '_>| {
        let url = element
            .get_attribute("href")
            .and_then(|href| joined(base.get().unwrap_or(page), &decode_html_entities(&href)));
        if let Some(place) = url.and_then(|url| place(&url)) {
            element.set_attribute("href", &place.replace('&', "&amp;"))?;
        }
        Ok(())
    };
    let settings = Settings::new()
        .append_element_content_handler(element!("base[href]", set_base))
        .append_element_content_handler(element!("a[href]", set_place));
    let mut rewriter = HtmlRewriter::new(settings, |piece: &[u8]| rewritten.extend_from_slice(piece));
    rewriter.write(body.as_bytes())?;
    rewriter.end()?;
    Ok(rewritten)
}

fn joined(base: &Url, url: &str) -> Option<Url> {
    base.join(url.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://index.example.com/simple/a/";

    fn rewritten(format: Format, body: &str) -> String {
        let place = |_: &str, url: &Url| format!("<{}>", url.as_str().trim_start_matches("https://"));
        let page = format.rewritten(body.into(), &Url::parse(BASE).unwrap(), place).unwrap();
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
            let found = format.place_of("a-1.0.zip", page.as_bytes(), &base).unwrap();
            assert_eq!(found, Some(Url::parse(place).unwrap()), "{page}");
            assert_eq!(format.place_of("a-1.1.zip", page.as_bytes(), &base).unwrap(), None);
        }
    }

    #[test]
    fn malformed_pages_are_refused() {
        for body in ["", "{}", "[]", r#"{"files":{}}"#, r#"{"files":[{}]}"#] {
            let rewritten = Format::Json.rewritten(body.into(), &Url::parse(BASE).unwrap(), |_, url| url.to_string());
            assert!(rewritten.is_err(), "{body}");
        }
        assert_eq!(Format::of("text/html"), Some(Format::Html));
        assert_eq!(Format::of("application/json"), None);
    }
}
