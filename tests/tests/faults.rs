//! What callers see while DynamoDB throttles, conflicts, loses answers or hangs, at any call of a request: what the
//! contract says, never 500; and what lies in the table afterwards is sound, whatever happened.

use std::collections::BTreeSet;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::UserIdentifier;
use tests::coverage::{Stage, routed};
use tests::faults::{Fault, Faults};
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

/// A request whose calls of DynamoDB fail.
struct Request {
    method: Method,
    /// The path behind that of the organization's tokens.
    path: fn(&Scene<'_>) -> String,
    body: Option<fn(&Scene<'_>) -> Value>,
    /// The status of its success.
    success: u16,
    /// Checks what a success must have done, however often its calls failed before.
    done: fn(&Scene<'_>, &Answer, &Found),
}

/// What a request is made on: a person with two tokens, and a third that has expired but is listed as active.
struct Scene<'a> {
    stand: &'a Stand,
    person: String,
    tokens: Vec<(String, String)>,
    expired: String,
}

/// What the service says of the person afterwards, with nothing failing any more: the ids of tokens in each state.
#[derive(Default)]
struct Found {
    active: BTreeSet<String>,
    expired: BTreeSet<String>,
    revoked: BTreeSet<String>,
}

/// A service whose table fails in one way.
struct Stand {
    service: Service,
    faults: Faults,
    org: Org,
    owner: Bot,
}

impl Stand {
    async fn start() -> Self {
        let (service, faults) = Service::start_with_faults().await;
        let (org, owner) = service.org_with_owner().await;
        Self { service, faults, org, owner }
    }

    /// Brings in a person that nobody has heard of.
    async fn scene(&self) -> Scene<'_> {
        let (mut tokens, operator) = (Vec::new(), operator());
        let person = format!("person-{}", shared::ids::TokenId::new(&shared::Clock::System).unwrap());
        let identifier = UserIdentifier::try_from(person.clone()).unwrap();
        // Past the service: only the request in question is to fail. The store takes an expiry that is over.
        for expires_at in [None, None, Some(self.service.clock.now())] {
            let (org, owner) = (&self.org.id, &self.owner.id);
            let issued = self.service.store.issue_org_user_token(org, owner, identifier.clone(), expires_at, &operator);
            let (token, plain) = issued.await.unwrap();
            tokens.push((token.id.to_string(), plain.expose().to_owned()));
        }
        let (expired, _) = tokens.pop().unwrap();
        Scene { stand: self, person, tokens, expired }
    }
}

impl Scene<'_> {
    async fn make(&self, request: &Request) -> Answer {
        let Stand { service, org, owner, .. } = self.stand;
        let path = org.org_user_tokens(&(request.path)(self));
        match request.body {
            Some(body) => service.post(&path, &owner.credential, &body(self)).await,
            None => service.call(request.method.clone(), &path, &owner.credential).await,
        }
    }

    async fn look(&self) -> Found {
        let Stand { service, org, owner, .. } = self.stand;
        let list = service.list(org, owner, &format!("?status=all&user_identifier={}", self.person)).await;
        let mut found = Found::default();
        for token in list["tokens"].as_array().unwrap() {
            let state = match text(token, "status") {
                "active" => &mut found.active,
                "expired" => &mut found.expired,
                _ => &mut found.revoked,
            };
            assert!(state.insert(text(token, "id").to_owned()));
        }
        found
    }

    fn ids(&self) -> BTreeSet<String> {
        self.tokens.iter().map(|(id, _)| id.clone()).collect()
    }
}

/// Makes the calls that a request makes of DynamoDB fail in each of these ways where it matters: each of them once, and
/// all from one on until the request is repeated.
async fn strike_each_call(request: Request, faults: impl Iterator<Item = Fault>) {
    let stand = Stand::start().await;
    let scene = stand.scene().await;
    stand.faults.arm(0, &[], None);
    let answer = scene.make(&request).await;
    let calls = stand.faults.disarm();
    assert_eq!(answer.status, request.success, "{}", answer.text);
    (request.done)(&scene, &answer, &scene.look().await);
    // Side by side, since most of the time goes by waiting for answers that do not come.
    let places = |fault: Fault| {
        let places: Vec<usize> = (0..calls.len()).filter(|place| fault.matters_to(&calls[*place])).collect();
        if fault == Fault::Hang { places.into_iter().map(|place| vec![place]).collect() } else { vec![places] }
    };
    let strikes = faults.flat_map(|fault| places(fault).into_iter().map(move |at| (fault, at)));
    join_all(strikes.map(|(fault, at)| strike_in_one_way(&request, &calls, fault, at))).await;
}

/// Every fault that is answered, in one way or another.
fn failures() -> impl Iterator<Item = Fault> {
    Fault::ALL.into_iter().filter(|fault| *fault != Fault::Hang)
}

async fn strike_in_one_way(request: &Request, calls: &[String], fault: Fault, places: Vec<usize>) {
    let stand = Stand::start().await;
    for place in places {
        let operation = &calls[place];
        let what = format!("{fault:?} at call {place}, {operation}");
        let is_first_of_its_kind = !calls[..place].contains(operation);
        // Elsewhere it is enough that a call fails, and that one is done and not answered.
        if is_first_of_its_kind || matches!(fault, Fault::Conflict | Fault::LostAfter) {
            strike_once(&stand, request, place, fault, &what).await;
        }
        // DynamoDB that never gets done is the same as DynamoDB that is never free.
        if is_first_of_its_kind && fault != Fault::InProgress {
            strike_for_good(&stand, request, place, fault, &what).await;
        }
    }
    stand.service.table.assert_sound().await;
}

async fn strike_once(stand: &Stand, request: &Request, place: usize, fault: Fault, what: &str) {
    let scene = stand.scene().await;
    stand.faults.arm(place, &[fault], None);
    let answer = scene.make(request).await;
    let calls = stand.faults.disarm();
    assert_eq!(answer.status, request.success, "{what}: {}", answer.text);
    assert!(calls.len() > place, "{what}: {calls:?}");
    (request.done)(&scene, &answer, &scene.look().await);
}

async fn strike_for_good(stand: &Stand, request: &Request, place: usize, fault: Fault, what: &str) {
    let scene = stand.scene().await;
    stand.faults.arm(place, &[], Some(fault));
    let answer = scene.make(request).await;
    stand.faults.disarm();
    if fault == Fault::HalfRead {
        // Half of what is left is read each time: it only takes longer.
        assert_eq!(answer.status, request.success, "{what}: {}", answer.text);
    } else {
        assert_eq!(answer.status, 503, "{what}: {}", answer.text);
        answer.assert_error(503, "SERVICE_UNAVAILABLE");
    }
    // Repeating it is safe, and does what was asked.
    let answer = scene.make(request).await;
    assert_eq!(answer.status, request.success, "{what}, then repeated: {}", answer.text);
    (request.done)(&scene, &answer, &scene.look().await);
}

fn issue() -> Request {
    Request {
        method: Method::POST,
        path: |_| String::new(),
        body: Some(|scene| json!({"user_identifier": scene.person, "expires_at": "2027-01-01T00:00:00Z"})),
        success: 201,
        done: |scene, answer, found| {
            assert!(found.active.is_superset(&scene.ids()) && found.active.contains(text(&answer.json(), "id")));
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuing() {
    strike_each_call(issue(), failures()).await;
}

fn list() -> Request {
    Request {
        method: Method::GET,
        path: |scene| format!("?user_identifier={}", scene.person),
        body: None,
        success: 200,
        done: |scene, answer, found| {
            let listed = tests::ids(&answer.json()["tokens"]).into_iter().collect::<BTreeSet<_>>();
            assert_eq!((listed, &found.active), (scene.ids(), &scene.ids()));
            assert_eq!(found.expired, BTreeSet::from([scene.expired.clone()]));
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing() {
    strike_each_call(list(), failures()).await;
}

fn probe() -> Request {
    Request {
        method: Method::POST,
        path: |_| "/probe".to_owned(),
        body: Some(|scene| json!({"token": scene.tokens[0].1})),
        success: 200,
        done: |scene, answer, _| assert_eq!(answer.json()["id"], scene.tokens[0].0),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probing() {
    strike_each_call(probe(), failures()).await;
}

fn revoke() -> Request {
    Request {
        method: Method::DELETE,
        path: |scene| format!("/by-id/{}", scene.tokens[0].0),
        body: None,
        success: 204,
        done: |scene, _, found| {
            assert_eq!(found.revoked, BTreeSet::from([scene.tokens[0].0.clone()]));
            assert_eq!(found.active, BTreeSet::from([scene.tokens[1].0.clone()]));
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking() {
    strike_each_call(revoke(), failures()).await;
}

fn revoke_by_user() -> Request {
    Request {
        method: Method::POST,
        path: |_| "/revoke-by-user".to_owned(),
        body: Some(|scene| json!({"user_identifier": scene.person})),
        success: 200,
        done: |scene, answer, found| {
            assert_eq!(answer.json()["remaining"], 0);
            assert_eq!((&found.active, &found.revoked), (&BTreeSet::new(), &scene.ids()));
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_by_user() {
    strike_each_call(revoke_by_user(), failures()).await;
}

/// Apart from the others, and all at once: each waits out the client's patience again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_answers_that_never_come() {
    let requests = [issue(), list(), probe(), revoke(), revoke_by_user()];
    join_all(requests.map(|request| strike_each_call(request, std::iter::once(Fault::Hang)))).await;
}

#[tokio::test]
async fn an_issue_whose_answer_was_lost_mints_one_token() {
    let (service, faults) = Service::start_with_faults().await;
    // The transaction is the third call. In the second case DynamoDB is still at it when it is asked again.
    let still_at_it = [Fault::LostAfter, Fault::InProgress, Fault::InProgress, Fault::InProgress, Fault::InProgress];
    let throttled = [Fault::LostAfter, Fault::Throttled, Fault::ServerError];
    for lost in [&[Fault::LostAfter][..], &[Fault::LostAfter; 3], &still_at_it, &throttled] {
        let (org, owner) = service.org_with_owner().await;
        faults.arm(2, lost, None);
        let answer =
            service.post(&org.org_user_tokens(""), &owner.credential, &json!({"user_identifier": "alice"})).await;
        let calls = faults.disarm();
        assert_eq!(answer.status, 201, "{lost:?}: {}", answer.text);
        assert_eq!(calls[2..], vec!["TransactWriteItems"; lost.len() + 1]);
        let id = text(&answer.json(), "id").to_owned();
        assert_eq!(service.listed_ids(&org, &owner, "?status=all").await, [id]);
        // The token that is answered is the one that counts.
        assert_eq!(service.probe(&org, &owner, text(&answer.json(), "token")).await["active"], true);
        assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    }
    service.table.assert_sound().await;
}

#[tokio::test]
async fn an_issue_that_was_done_and_never_answered_is_503_and_leaves_one_token() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    faults.arm(2, &[], Some(Fault::LostAfter));
    let path = org.org_user_tokens("");
    let answer = service.post(&path, &owner.credential, &json!({"user_identifier": "alice"})).await;
    faults.disarm();
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    // Nobody has it, but it is there to be seen and revoked; and it is one, however often it was tried.
    assert_eq!(service.listed_ids(&org, &owner, "").await.len(), 1);
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    service.table.assert_sound().await;
}

#[tokio::test]
async fn a_refusal_that_cannot_be_recorded_is_no_refusal() {
    let (service, faults) = Service::start_with_faults().await;
    let org = service.org().await;
    let bot = service.bot(&org, &[]).await;
    let issue = async || {
        let body = json!({"user_identifier": "alice"});
        let answer = service.post(&org.org_user_tokens(""), &bot.credential, &body).await;
        faults.disarm();
        answer
    };
    faults.arm(2, &[Fault::LostAfter, Fault::Throttled], None);
    issue().await.assert_error(403, "FORBIDDEN");
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    faults.arm(2, &[], Some(Fault::LostBefore));
    issue().await.assert_error(503, "SERVICE_UNAVAILABLE");
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
}

#[tokio::test]
async fn revoking_by_user_that_broke_off_is_finished_by_the_next_call() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    let original = service.issue(&org, &owner, "alice").await;
    for _ in 0..39 {
        service.issue(&org, &owner, "alice").await;
    }
    let call = async || {
        let body = json!({"user_identifier": "alice"});
        service.post(&org.org_user_tokens("/revoke-by-user"), &owner.credential, &body).await
    };
    // Bot, organization, query; then half of the revocations.
    faults.arm(3 + 20, &[], Some(Fault::NoCapacity));
    let answer = call().await;
    faults.disarm();
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    service.table.assert_sound().await;
    let left = service.listed_ids(&org, &owner, "?limit=100").await.len();
    // Those that were under way when the first failed may have been given up.
    assert!((20..40).contains(&left), "{left} are left");
    let answer = call().await.json();
    assert_eq!((&answer["matched"], &answer["remaining"]), (&json!(left), &json!(0)));
    assert_eq!(service.probe(&org, &owner, &original.token).await["active"], false);
    service.table.assert_sound().await;
}

/// For every operation there is: wherever DynamoDB stays away, the answer is 503, or what was asked where the call was
/// for nothing but notes.
#[tokio::test]
async fn no_operation_takes_an_absent_table_for_a_defect() {
    let (service, faults) = Service::start_with_faults().await;
    let mut stage = Stage::set(&service).await;
    for covered in routed() {
        faults.arm(0, &[], None);
        let answer = covered.call(&service, &stage).await;
        let calls = faults.disarm().len();
        assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
        if covered.uses_up_its_stage() {
            stage = Stage::set(&service).await;
        }
        for place in 0..calls {
            faults.arm(place, &[], Some(if place % 2 == 0 { Fault::ServerError } else { Fault::NoCapacity }));
            let answer = covered.call(&service, &stage).await;
            faults.disarm();
            let (status, name) = (answer.status.as_u16(), covered.operation.name());
            assert!(status == 503 || status == covered.success, "{name}, from call {place}: {}", answer.text);
            if status != 503 && covered.uses_up_its_stage() {
                stage = Stage::set(&service).await;
            }
        }
    }
}
