//! Paging through any list endpoint: reading all pages, and the rules that hold for every cursor.

use reqwest::Method;
use serde_json::Value;

use crate::coverage::mistyped;
use crate::{Answer, Service};

/// A list endpoint as one caller sees it.
#[derive(Debug)]
pub struct List<'a> {
    service: &'a Service,
    path: String,
    credential: &'a str,
    /// The field of the response that holds the entries.
    field: &'static str,
}

impl<'a> List<'a> {
    /// The list at this path, called with this credential.
    pub fn new(service: &'a Service, path: impl Into<String>, credential: &'a str, field: &'static str) -> Self {
        Self { service, path: path.into(), credential, field }
    }

    /// Calls the list; `query` is empty or starts with `?`.
    pub async fn get(&self, query: &str) -> Answer {
        self.service.call(Method::GET, &format!("{}{query}", self.path), self.credential).await
    }

    /// Calls the list and asserts 200.
    pub async fn page(&self, query: &str) -> Value {
        let answer = self.get(query).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// The entries of each page, up to the last one; `filter` follows `?limit=…`.
    pub async fn pages(&self, limit: usize, filter: &str) -> Vec<Vec<Value>> {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.page(&format!("?limit={limit}{filter}{cursor}")).await;
            let entries = page[self.field].as_array().unwrap().clone();
            assert!(entries.len() <= limit, "{} entries on a page", entries.len());
            pages.push(entries);
            match &page["next_cursor"] {
                Value::Null => return pages,
                next => cursor = format!("&cursor={}", next.as_str().unwrap()),
            }
        }
    }

    /// The entries of all pages; `filter` follows `?limit=…`.
    pub async fn all(&self, limit: usize, filter: &str) -> Vec<Value> {
        self.pages(limit, filter).await.concat()
    }

    /// Asserts that a cursor of the query `filter` continues the queries `same`, and is refused
    /// when altered, for the queries `others`, and in the list `foreign`. Returns the cursor.
    pub async fn assert_cursor_is_bound(
        &self,
        foreign: &List<'_>,
        filter: &str,
        same: &[&str],
        others: &[&str],
    ) -> String {
        let first = self.page(&format!("?limit=1{filter}")).await;
        let cursor = first["next_cursor"].as_str().unwrap().to_owned();
        assert!(cursor.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)), "not URL-safe: {cursor}");
        for same in same {
            let answer = self.get(&format!("?cursor={cursor}{same}")).await;
            assert_eq!(answer.status, 200, "{same}: {}", answer.text);
        }
        for other in others {
            self.get(&format!("?cursor={cursor}{other}")).await.assert_invalid("cursor");
        }
        foreign.get(&format!("?cursor={cursor}{filter}")).await.assert_invalid("cursor");
        let last = cursor.len() - 1;
        let altered = [
            String::new(),
            "x".to_owned(),
            "null".to_owned(),
            "%00".to_owned(),
            mistyped(&cursor),
            cursor[1..].to_owned(),
            cursor[..last].to_owned(),
            cursor[..cursor.len() / 2].to_owned(),
            format!("{cursor}A"),
            format!("{cursor}="),
            format!("{cursor}%3D"),
            format!("{cursor}%00"),
        ];
        for altered in altered {
            self.get(&format!("?cursor={altered}{filter}")).await.assert_invalid("cursor");
        }
        cursor
    }
}
