//! Tells people about their leaked tokens: from the notices of [`crate::store::leaks`], one mail an
//! hour and recipient.
//!
//! For each recipient in this order: claim the hour, count the mails, send them, delete the notices.
//! What each failure leaves:
//!
//! | failure | the notices | told again |
//! |---|---|---|
//! | the deployment's limit of mails is reached | stay, and the claim is given back | by the next run below the limit |
//! | SES certainly accepted none of the mails | stay, and the claim is given back | by the next run |
//! | unknown whether SES accepted one, and none certainly | stay | after an hour, perhaps twice |
//! | SES accepted one, and refused those to other contacts | are deleted | never: the refusals are logged |
//! | the process dies before the notices are deleted | stay | after an hour, perhaps twice |
//! | the table fails before a mail is sent | stay, and the claim is given back | by the next run |
//!
//! So nothing is lost, and a contact whose address does not work neither keeps the others from being
//! told nor makes them hear everything again. The notices of an organization without security
//! contacts are deleted: its audit log has the entries.

use std::time::Duration;

use futures::{StreamExt, stream};

use crate::app::App;
use crate::contacts::{Delivered, Readers};
use crate::error::ApiError;
use crate::mail::{Leak, Mail, MailApp};
use crate::store::StoreError;
use crate::store::audit::Caller;
use crate::store::leak_reports::{Report, Reported};
use crate::store::leaks::{PendingNotice, Recipient};
use crate::store::mail_limits::CountedMail;

/// Notices in one mail, of which it lists only some. What is left is in the next hour's.
const NOTICES: usize = 1_000;

/// How long telling people may delay the response to a report.
const TELLING_TIMEOUT: Duration = Duration::from_secs(8);

/// Recipients that are told at the same time.
const CONCURRENCY: usize = 8;

/// Carries out a report and tells those whom it concerns. Returns whether each token is known.
///
/// # Errors
///
/// If a token could not be decided. What was done is done and told, and repeating does the rest.
pub async fn report(app: &MailApp, reported: &[Reported], caller: &Caller) -> Result<Vec<bool>, ApiError> {
    let Report { known, recipients, result } = app.app.store().report_leaks(reported, caller).await;
    // Whatever this leaves is told on the next schedule.
    if !matches!(tokio::time::timeout(TELLING_TIMEOUT, tell_pending(app, recipients)).await, Ok(Ok(()))) {
        tracing::error!("not everybody was told about leaked tokens yet");
    }
    result?;
    Ok(known)
}

/// Tells these recipients what they have not been told, except those that got a mail within the
/// last hour.
///
/// # Errors
///
/// If the table fails or a notice cannot be read. Every other recipient is told.
pub async fn tell_pending(app: &MailApp, recipients: impl IntoIterator<Item = Recipient>) -> Result<(), ApiError> {
    let telling = stream::iter(recipients).map(|recipient| async move {
        tell(app, &recipient).await.inspect_err(|_| tracing::error!("a recipient of leaked tokens was not told"))
    });
    let results: Vec<Result<(), StoreError>> = telling.buffer_unordered(CONCURRENCY).collect().await;
    Ok(results.into_iter().collect::<Result<(), StoreError>>()?)
}

/// Tells one recipient.
async fn tell(MailApp { app, mailer }: &MailApp, recipient: &Recipient) -> Result<(), StoreError> {
    let store = app.store();
    let Some(claim) = store.claim_leak_mail(recipient).await? else { return Ok(()) };
    let Letter { pending, readers, counted } = match prepare(app, recipient).await {
        Ok(Some(letter)) => letter,
        nothing => {
            store.release_leak_mail(claim).await?;
            return nothing.map(|_| ());
        }
    };
    let leaks: Vec<Leak> = pending.iter().map(leak).collect();
    let mail = match &readers.organization {
        Some(organization) => Mail::TokensLeaked { organization, leaks: &leaks },
        None => Mail::OwnTokensLeaked { leaks: &leaks },
    };
    let sent = readers.send(mailer, &mail, counted).await;
    let (failed, of) = sent.failed();
    if failed > 0 {
        tracing::error!(failed, of, "mails about leaked tokens were not sent");
    }
    match sent.outcome() {
        Delivered::Told => store.leaks_told(&pending).await?,
        Delivered::NotSent => store.release_leak_mail(claim).await?,
        Delivered::Unknown => {}
    }
    sent.uncount(store).await
}

/// A mail that may be sent.
struct Letter {
    pending: Vec<PendingNotice>,
    readers: Readers,
    /// One for each reader.
    counted: Vec<CountedMail>,
}

/// The mail that a recipient is to get now; `None` if there is nothing to tell, nobody to tell, or
/// the deployment's limit of mails is reached.
async fn prepare(app: &App, recipient: &Recipient) -> Result<Option<Letter>, StoreError> {
    let store = app.store();
    let pending = store.leak_notices(recipient, NOTICES).await?;
    let readers = readers(app, recipient, &pending).await?;
    let Some((first, _)) = readers.addresses.first() else {
        if !pending.is_empty() {
            tracing::info!("nobody is to be told about leaked tokens of an organization");
        }
        store.leaks_told(&pending).await?;
        return Ok(None);
    };
    if pending.is_empty() {
        return Ok(None);
    }
    // For all contacts or none: at the limit the notices wait, and everybody is told later.
    match store.count_leak_mails(readers.addresses.len(), &app.limits().mails).await? {
        Ok(counted) => {
            if counted.iter().any(|mail| mail.reaches_80_percent(&app.limits().mails)) {
                tracing::error!("80 percent of the hourly mail limit of the deployment is used");
            }
            Ok(Some(Letter { pending, readers, counted }))
        }
        Err(limit) => {
            limit.log(first);
            Ok(None)
        }
    }
}

async fn readers(app: &App, recipient: &Recipient, pending: &[PendingNotice]) -> Result<Readers, StoreError> {
    let Recipient::Org(id) = recipient else {
        // The newest notice has the language that was chosen last.
        let contact = pending.iter().filter_map(|pending| pending.notice.contact.as_ref()).next_back();
        let addresses = contact.map(|contact| (contact.email.clone(), contact.language)).into_iter().collect();
        return Ok(Readers { organization: None, addresses });
    };
    let Some(org) = app.store().org(id).await? else {
        return Ok(Readers { organization: None, addresses: Vec::new() });
    };
    Readers::of(app, org).await
}

fn leak(PendingNotice { notice, .. }: &PendingNotice) -> Leak {
    Leak {
        kind: notice.kind.clone(),
        id: notice.id.clone(),
        place: notice.place.clone(),
        at: notice.at,
        ended: notice.ended,
    }
}
