//! Injects every fault of DynamoDB at every call of two forms that make something with a secret, of one
//! that makes something without, and of a page. The answer is a page that says so, without a secret and with nothing half done; the
//! same form again makes one thing in all.

use futures::future::join_all;
use shared::permissions::Role;
use shared::secret::Token;
use tests::console::Visitor;
use tests::faults::{Fault, Faults};
use tests::{Answer, Org, Service};

/// A page or a form.
#[derive(Debug, Clone, Copy)]
struct Page {
    path: &'static str,
    /// The fields of the form; `None` for a page.
    form: Option<&'static [(&'static str, &'static str)]>,
    /// Whether the form makes a secret, which a repeat does not show.
    is_secret: bool,
}

const PAGES: [Page; 4] = [
    Page { path: "tokens/issue", form: Some(&[("user_identifier", "alice"), ("expiry", "30")]), is_secret: true },
    Page { path: "bots/add", form: Some(&[("name", "ci"), ("role", "organization/takumi_manager")]), is_secret: true },
    Page {
        path: "bots/{bot}/trusts/add",
        form: Some(&[("audience", "guard.example.com"), ("repository_owner_id", "1")]),
        is_secret: false,
    },
    Page { path: "tokens", form: None, is_secret: false },
];

impl Page {
    /// What the page answers, and the form once more after it made something.
    fn answers(self) -> (u16, u16) {
        match (self.form, self.is_secret) {
            (None, _) => (200, 200),
            (Some(_), true) => (200, 409),
            (Some(_), false) => (303, 303),
        }
    }

    /// How many things its form has made.
    async fn made(self, service: &Service, org: &Org) -> usize {
        let partition = match self.path {
            "bots/add" => return service.store.bots(&org.id).await.unwrap().len(),
            "bots/{bot}/trusts/add" => {
                let bots = service.store.bots(&org.id).await.unwrap();
                return service.store.trusts(&bots[0].id).await.unwrap().len();
            }
            _ => format!("ORG#{}#USER_TOKEN", org.id),
        };
        let items = service.table.items().await;
        items.iter().filter(|item| item["pk"] == partition.as_str()).count()
    }
}

/// A service and what opens its pages.
struct Setup<'a> {
    service: &'a Service,
    faults: &'a Faults,
    page: Page,
}

impl<'a> Setup<'a> {
    /// An owner, and the path of the page.
    async fn owner(&self) -> (Org, Visitor<'a>, String) {
        let org = self.service.org().await;
        let owner = self.service.member(&org, &[Role::Owner]).await;
        let path = match self.page.path.contains("{bot}") {
            true => self.page.path.replace("{bot}", self.service.bot(&org, &[Role::Owner]).await.id.as_str()),
            false => self.page.path.to_owned(),
        };
        let path = org.page(&path);
        (org, owner, path)
    }

    /// The calls that the page makes without faults.
    async fn calls(&self) -> Vec<String> {
        let (_, owner, path) = self.owner().await;
        self.faults.arm(0, &[], None);
        let answer = match self.page.form {
            Some(fields) => owner.submit(&path, fields).await,
            None => owner.get(&path).await,
        };
        assert_eq!(answer.status, self.page.answers().0, "{}", answer.text);
        self.faults.disarm()
    }

    /// Injects a fault: once, or into all calls from there on.
    async fn inject(&self, place: usize, fault: Fault, permanent: bool) {
        let what = format!("{} {place} {fault:?} permanent: {permanent}", self.page.path);
        let (org, owner, path) = self.owner().await;
        let ((first, repeated), token) = (self.page.answers(), owner.form_token());
        let send = async || match self.page.form {
            Some(fields) => owner.submit_with(&token, &path, fields).await,
            None => owner.get(&path).await,
        };
        match permanent {
            true => self.faults.arm(place, &[], Some(fault)),
            false => self.faults.arm(place, &[fault], None),
        }
        let answer = send().await;
        let calls = self.faults.disarm();
        assert!(calls.len() > place, "{what}: the fault was never reached");
        let status = answer.status.as_u16();
        let is_page = status == 303 || answer.header("content-type").starts_with("text/html");
        assert!(is_page, "{what}: {}", answer.text);
        assert!(status == first || permanent && status == 503, "{what}: {status} {}", answer.text);
        assert_eq!(self.service.table.findings(), Vec::<String>::new(), "{what}");
        if self.page.form.is_none() {
            assert_eq!(send().await.status, 200, "{what}, then repeated");
            return;
        }
        let made = self.page.made(self.service, &org).await;
        if status == first {
            assert!(secret_on(&answer) == self.page.is_secret && made == 1, "{what}: {made} {}", answer.text);
        } else {
            let committed = calls[..place].iter().any(|call| call == "TransactWriteItems");
            let is_made = committed || fault.takes_effect() && calls[place] == "TransactWriteItems";
            assert!(!secret_on(&answer) && made == usize::from(is_made), "{what}: {made} {}", answer.text);
        }
        // Repeated, it makes what was not made, and says what was.
        let again = send().await;
        assert_eq!(again.status, if made == 1 { repeated } else { first }, "{what}, then repeated: {}", again.text);
        assert_eq!(secret_on(&again), self.page.is_secret && made == 0, "{what}, then repeated: {}", again.text);
        assert_eq!(self.page.made(self.service, &org).await, 1, "{what}, then repeated");
        assert_eq!(self.service.table.findings(), Vec::<String>::new(), "{what}, then repeated");
    }
}

fn secret_on(answer: &Answer) -> bool {
    Token::found_in(&answer.text).is_some()
}

/// All faults at one call of a page.
async fn inject_all(page: Page, place: usize) {
    let (service, faults) = Service::start_with_faults().await;
    let setup = Setup { service: &service, faults: &faults, page };
    let calls = setup.calls().await;
    for fault in Fault::ALL.into_iter().filter(|fault| fault.applies_to(&calls[place])) {
        for permanent in [false, true] {
            setup.inject(place, fault, permanent).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_that_fails_says_so_and_its_form_makes_one_thing() {
    let (service, faults) = Service::start_with_faults().await;
    let mut injections = Vec::new();
    for page in PAGES {
        let calls = Setup { service: &service, faults: &faults, page }.calls().await;
        assert!(calls.len() > 4, "{calls:?}");
        injections.extend((0..calls.len()).map(|place| inject_all(page, place)));
    }
    join_all(injections).await;
}
