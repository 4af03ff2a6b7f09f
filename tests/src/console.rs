//! A person in the console, as tests play them: a browser with a session cookie.

use std::collections::BTreeMap;

use reqwest::{Method, RequestBuilder};
use shared::email::EmailAddress;
use shared::ids::OrgId;
use shared::permissions::Role;
use shared::person::Person;
use shared::secret::{FormToken, Token};
use shared::store::members::{Accepted, Authority, Member};
use shared::store::sessions::Session;

use crate::email::code_in;
use crate::{Answer, Org, Service, operator};

/// A person who is signed in.
#[derive(Debug)]
pub struct Visitor<'a> {
    service: &'a Service,
    /// The person.
    pub person: Person,
    /// The session.
    pub session: Session,
    /// The session's secret.
    pub secret: Token,
}

/// A person who signs in by mail with this address.
pub fn person(email: &str) -> Person {
    Person::by_mail(EmailAddress::try_from(email.to_owned()).unwrap())
}

impl Service {
    /// Makes this person a member with these roles.
    pub async fn join(&self, org: &OrgId, person: &Person, roles: &[Role]) -> Member {
        let invited = self.store.invite_member(org, &person.email, roles, Authority::Operator, &operator()).await;
        let invitation = invited.unwrap().unwrap();
        match self.store.accept_invitation(org, &invitation.id, person, &operator()).await.unwrap() {
            Accepted::Joined(member) => *member,
            other => panic!("{other:?}"),
        }
    }

    /// Starts a session of this person.
    pub async fn sign_in(&self, person: &Person) -> Visitor<'_> {
        let (session, secret) = self.store.start_session(person, Some("Test/1.0"), &operator()).await.unwrap();
        Visitor { service: self, person: person.clone(), session, secret }
    }

    /// A new member with these roles, who is signed in.
    pub async fn member(&self, org: &Org, roles: &[Role]) -> Visitor<'_> {
        let number = shared::lambda::new_request_id().to_lowercase();
        let person = person(&format!("member-{number}@example.com"));
        self.join(&org.id, &person, roles).await;
        self.sign_in(&person).await
    }
}

impl Visitor<'_> {
    /// The session's cookie.
    pub fn cookie(&self) -> String {
        let port = self.service.base_url.rsplit_once(':').unwrap().1;
        format!("guard_session_{port}={}", self.secret.expose())
    }

    /// A request with the session's cookie, as the browser sends it from a page of the console.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.service.request(method, path).header("cookie", self.cookie()).header("sec-fetch-site", "same-origin")
    }

    /// Opens a page.
    pub async fn get(&self, path: &str) -> Answer {
        self.service.send(self.request(Method::GET, path)).await
    }

    /// A new form token of the session.
    pub fn form_token(&self) -> FormToken {
        FormToken::generate(&self.secret).unwrap()
    }

    /// Sends a form with a new token.
    pub async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.submit_with(&self.form_token(), path, fields).await
    }

    /// Sends a form with this token.
    pub async fn submit_with(&self, token: &FormToken, path: &str, fields: &[(&str, &str)]) -> Answer {
        let fields: Vec<_> = [("form_token", token.as_str())].into_iter().chain(fields.iter().copied()).collect();
        self.service.send(with_form(self.request(Method::POST, path), &fields)).await
    }
}

/// A request of a page: method, path, and the fields of its form.
pub type Submission = (Method, String, Vec<(&'static str, &'static str)>);

/// The request with these fields as its body, as browsers send forms.
pub fn with_form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

/// A browser: it keeps cookies, and sends forms from a page of the console.
#[derive(Debug, Clone)]
pub struct Browser<'a> {
    service: &'a Service,
    /// Its cookies by name.
    pub cookies: BTreeMap<String, String>,
    /// Its `Accept-Language`.
    pub languages: &'static str,
}

impl Service {
    /// A new browser without cookies.
    pub fn browser(&self) -> Browser<'_> {
        Browser { service: self, cookies: BTreeMap::new(), languages: "en" }
    }

    /// The name of a cookie of the service, such as `session`.
    pub fn cookie_name(&self, cookie: &str) -> String {
        format!("guard_{cookie}_{}", self.base_url.rsplit_once(':').unwrap().1)
    }
}

impl Browser<'_> {
    /// A cookie of the service by its name without prefix and port, such as `session`.
    pub fn cookie(&self, cookie: &str) -> Option<&str> {
        self.cookies.get(&self.service.cookie_name(cookie)).map(String::as_str)
    }

    /// A request with all cookies.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = self.service.request(method, path).header("accept-language", self.languages);
        if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) }
    }

    /// Opens a page.
    pub async fn get(&mut self, path: &str) -> Answer {
        let request = self.request(Method::GET, path);
        self.keep(self.service.send(request).await)
    }

    /// Sends a form.
    pub async fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = self.request(Method::POST, path).header("sec-fetch-site", "same-origin");
        let request = with_form(request, fields);
        self.keep(self.service.send(request).await)
    }

    /// Keeps the cookies of a response.
    fn keep(&mut self, answer: Answer) -> Answer {
        for header in answer.headers.get_all("set-cookie") {
            let (name, rest) = header.to_str().unwrap().split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Asks for a sign-in code.
    pub async fn ask_for_code(&mut self, email: &str) -> Answer {
        self.submit("/console/sign-in/code", &[("email", email)]).await
    }

    /// Sends a sign-in code.
    pub async fn send_code(&mut self, email: &str, code: &str) -> Answer {
        self.submit("/console/sign-in/code/check", &[("email", email), ("code", code)]).await
    }

    /// Signs in with a code that is mailed to this address.
    pub async fn sign_in(&mut self, email: &str) -> Answer {
        self.ask_for_code(email).await;
        let code = code_in(&self.service.person(email).newest_mail());
        self.send_code(email, &code).await
    }
}

/// The value of a hidden field on a page.
#[track_caller]
pub fn hidden(page: &str, name: &str) -> String {
    let field = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.split_once(&field).unwrap_or_else(|| panic!("there is no {name}: {page}"));
    unescaped(rest.split_once('"').unwrap().0)
}

/// The text of a page, without escapes.
pub fn unescaped(page: &str) -> String {
    let escapes = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&"), ("&amp;", "&")];
    escapes.into_iter().fold(page.to_owned(), |page, (escape, character)| page.replace(escape, character))
}

/// The org user token that a page shows once.
#[track_caller]
pub fn issued_token(answer: &Answer) -> String {
    let at = answer.text.find("tg_org_").unwrap_or_else(|| panic!("{} {}", answer.status, answer.text));
    answer.text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

impl Org {
    /// The path of a page of this organization, such as `api-keys`.
    pub fn page(&self, page: &str) -> String {
        format!("/console/o/{}/{page}", self.id).trim_end_matches('/').to_owned()
    }
}
