//! Tells the security contacts of organizations what they have asked for: new tokens, and keys of bots
//! that were rotated. One mail an hour and organization.
//!
//! A run reads the audit log of each organization that has asked, from where the last one ended
//! ([`crate::store::notices`]). Failures leave what those of [`crate::leaks`] leave: nothing is lost, a
//! mail may come twice, and one contact who was reached suffices.

use crate::app::App;
use crate::contacts::{Delivered, Readers};
use crate::domain::Notify;
use crate::error::ApiError;
use crate::ids::OrgId;
use crate::mail::{Mail, MailApp};
use crate::store::StoreError;
use crate::store::mail_limits::CountedMail;
use crate::store::notices::{News, Subscription};

/// Tells every organization what it has asked for and was not told, except those that got a mail in
/// this hour.
///
/// # Errors
///
/// If the table fails for one. Every other organization is told.
pub async fn tell(app: &MailApp) -> Result<(), ApiError> {
    let (mut result, mut after) = (Ok(()), None::<OrgId>);
    loop {
        let page = app.app.store().subscriptions(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(result?) };
        after = Some(last.org_id.clone());
        for subscription in &page {
            let told = tell_one(app, subscription).await;
            result =
                result.and(told.inspect_err(|_| tracing::error!("an organization was not told what it asked for")));
        }
    }
}

async fn tell_one(MailApp { app, mailer }: &MailApp, subscription: &Subscription) -> Result<(), StoreError> {
    let store = app.store();
    let Some(org) = store.org(&subscription.org_id).await? else { return Ok(()) };
    let of: Vec<Notify> = org.notify.iter().filter_map(|notify| notify.known()).collect();
    let Some(news) = store.news(subscription, &of).await? else { return Ok(()) };
    let readers = Readers::of(app, org).await?;
    if news.count == 0 || readers.addresses.is_empty() {
        return store.nothing_to_tell(subscription, &news).await;
    }
    let Some(claim) = store.claim_notices(subscription).await? else { return Ok(()) };
    let Some(counted) = count(app, &readers).await? else { return store.release_notices(claim).await };
    let sent = readers.send(mailer, &mail(&readers, &news), counted).await;
    let (failed, of) = sent.failed();
    if failed > 0 {
        tracing::error!(failed, of, "mails about what organizations asked for were not sent");
    }
    match sent.outcome() {
        Delivered::Told => store.notices_told(claim, &news).await?,
        Delivered::NotSent => store.release_notices(claim).await?,
        // The mail may have arrived: the next hour repeats it.
        Delivered::Unknown => {}
    }
    sent.uncount(store).await
}

/// Counts the mails, for all contacts or none.
async fn count(app: &App, readers: &Readers) -> Result<Option<Vec<CountedMail>>, StoreError> {
    let counted = app.store().count_mails_that_can_wait(readers.addresses.len(), &app.limits().mails).await?;
    if counted.is_err() {
        tracing::info!("notices wait for the next hour's mails");
    }
    Ok(counted.ok())
}

fn mail<'a>(readers: &'a Readers, news: &'a News) -> Mail<'a> {
    let organization = readers.organization.as_deref().unwrap_or_default();
    Mail::Happened { organization, happened: &news.first, more: news.count - news.first.len() }
}
