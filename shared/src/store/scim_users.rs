//! SCIM users: people of an organization as its identity provider knows them.
//!
//! ```text
//!              create                deactivate
//!   (nothing) ───────▶ active user ─────────────▶ inactive user
//!                      member or  ◀─────────────  nobody at the address;
//!                      invited      reactivate    what SCIM ended is kept
//! ```
//!
//! A user stands for an address, which is its name: for every membership and the invitation there,
//! by whichever way of signing in. Nothing says that it is active but these. Deactivating deletes
//! them, as removing a member does, so that sessions and tokens see it with the reads that they make
//! anyway. Bringing somebody back makes another membership, which revives no token.
//!
//! What SCIM ended is an item of its own, at the address. Whoever invites or removes somebody there
//! deletes it in the same transaction: SCIM never brings back what an owner removed. An identity
//! provider's account may have several addresses, so the person has an item too, which names the
//! membership that ended last. It goes when the person joins again, with whatever address.
//!
//! The invitation is read before the memberships: whoever accepts it in between is not missed, and
//! is seen as a member. Each write is conditional on what was read, or starts over.

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, Key};
use super::members::{Authority, COUNT, Ended, Invitation, Member, Pointer};
use super::{Backoff, Committed, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::domain::{Held, OrUnknown};
use crate::email::{AddressHash, EmailAddress};
use crate::ids::{MemberId, OrgId};
use crate::permissions::Role;

/// Memberships at one address that end in one transaction, five items each. If there are more, others
/// follow.
const MAX_AT_ONCE: usize = 16;

/// Addresses of a list that are looked at concurrently.
const CONCURRENCY: usize = 16;

/// A person as the identity provider knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScimUser {
    /// Its ID, which never changes: that of the member or invitation that it was created for.
    pub id: MemberId,
    /// The organization.
    pub org_id: OrgId,
    /// Its name, as the identity provider spells it.
    pub email: EmailAddress,
    /// The identity provider's own ID of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// When it was created.
    pub created_at: Moment,
    /// When SCIM changed it last.
    pub modified_at: Moment,
    /// Incremented by each change.
    pub revision: u64,
}

impl ScimUser {
    /// The name of this kind in audit entries.
    pub const SUBJECT: &str = "scim_user";

    fn subject(&self) -> Subject {
        Subject::new(Self::SUBJECT, &self.id)
    }

    fn key(&self) -> Key {
        keys::scim_user(&self.org_id, &self.id)
    }
}

/// The pointer from an address to its user.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    id: MemberId,
}

/// The membership of a person that SCIM ended last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EndedMembership {
    id: MemberId,
}

/// The number of an organization's users.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    count: usize,
}

/// A user, and whether somebody is a member or invited at its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioned {
    /// The user.
    pub user: ScimUser,
    /// Whether it is active.
    pub active: bool,
}

/// A page of an organization's users, oldest first.
#[derive(Debug)]
pub struct Page {
    /// The users.
    pub users: Vec<Provisioned>,
    /// How many users the organization has.
    pub total: usize,
}

/// A user to create.
#[derive(Debug, Clone)]
pub struct NewScimUser {
    /// Its name.
    pub email: EmailAddress,
    /// The identity provider's own ID of it.
    pub external_id: Option<String>,
    /// Whether it is active.
    pub active: bool,
}

/// A change of a user. `None` leaves what is there.
#[derive(Debug, Clone, Default)]
pub struct ScimUpdate {
    /// Whether it is to be active.
    pub active: Option<bool>,
    /// The name that it is said to have: the hash of an address, or `Some(None)` for anything else.
    pub name: Option<Option<AddressHash>>,
    /// The identity provider's own ID of it.
    pub external_id: Option<Option<String>>,
}

impl ScimUpdate {
    /// Whether it gives the user another name. Somebody who leaves does so whatever the name.
    fn renames(&self, user: &ScimUser) -> bool {
        self.active != Some(false) && self.name.is_some_and(|name| name != Some(user.email.hash()))
    }
}

/// The result of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum ScimChange {
    /// It was done, or nothing was to be done.
    Done(Box<Provisioned>),
    /// There is no such user.
    NotFound,
    /// Another user has this name.
    Taken,
    /// The name of a user does not change.
    Renamed,
    /// SCIM did not end the membership, and so does not bring it back.
    NotEnded,
    /// It would leave the organization without an owner.
    LastOwner,
    /// The caller may no longer do this.
    CallerChanged,
}

/// Who is at an address of an organization.
struct AtAddress {
    /// The invitation, lapsed or not.
    invitation: Option<Invitation>,
    /// The memberships, oldest first.
    members: Vec<Member>,
}

impl AtAddress {
    fn open_invitation(&self, now: Moment) -> Option<&Invitation> {
        self.invitation.as_ref().filter(|invitation| invitation.is_open(now))
    }

    fn is_active(&self, now: Moment) -> bool {
        !self.members.is_empty() || self.open_invitation(now).is_some()
    }

    /// The ID of the oldest membership, else of the invitation.
    fn id(&self, now: Moment) -> Option<&MemberId> {
        let member = self.members.first().map(|member| &member.id);
        member.or_else(|| self.open_invitation(now).map(|invitation| &invitation.id))
    }

    /// Whether there may be more memberships.
    fn is_full(&self) -> bool {
        self.members.len() >= MAX_AT_ONCE
    }

    fn owners(&self) -> usize {
        self.members.iter().filter(|member| member.is_owner()).count()
    }

    /// What is kept when all of these end, with what ended before.
    fn ended(&self, at: Moment, before: Option<Ended>) -> Ended {
        let mut members = self.members.clone();
        for member in before.into_iter().flat_map(|before| before.members) {
            if members.iter().all(|kept| kept.person != member.person) {
                members.push(member);
            }
        }
        members.truncate(MAX_AT_ONCE);
        Ended { at, members }
    }
}

impl Store {
    /// Creates a user for an address: for who is there, else with an invitation. If it is to be
    /// inactive, who is there ends.
    pub async fn create_scim_user(
        &self,
        org: &OrgId,
        new: &NewScimUser,
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<ScimChange, StoreError> {
        let name = || keys::scim_user_name(org, new.email.hash());
        let mut backoff = Backoff::new();
        loop {
            if self.get::<Named>(name()).await?.is_some() {
                return Ok(ScimChange::Taken);
            }
            let found = self.at_address(org, &new.email).await?;
            let now = self.clock.now();
            let id = found.id(now).cloned().map_or_else(|| MemberId::new(&self.clock), Ok)?;
            let user = ScimUser {
                id,
                org_id: org.clone(),
                email: new.email.clone(),
                external_id: new.external_id.clone(),
                created_at: now,
                modified_at: now,
                revision: 0,
            };
            let mut transaction = self.transaction();
            // First, so that somebody who was cut off learns nothing from the other conditions.
            let own_checks = transaction.require_authority(authority);
            transaction.put_new(name(), &Named { id: user.id.clone() }).put_new(user.key(), &user);
            transaction.add(keys::scim_user_count(org), COUNT, 1);
            let mut last_owner = None;
            if !new.active {
                transaction.keep(&user, &found, now, None);
                last_owner = transaction.end_all(&user, &found, now, caller)?;
            } else if !found.is_active(now) {
                transaction.invite(&user, user.id.clone(), &found, caller)?;
            }
            let entry = Entry::done(&self.clock, caller, "scim_user.create", user.subject())?;
            match transaction.audit(org, &entry.with_detail(state(new.active))).commit().await? {
                Committed::Yes if new.active => return Ok(done(user, true)),
                Committed::Yes => {
                    self.sign_out_all(&found.members, now, caller).await?;
                    if !found.is_full() {
                        return Ok(done(user, false));
                    }
                    let update = ScimUpdate { active: Some(false), ..ScimUpdate::default() };
                    return Box::pin(self.update_scim_user(org, &user.id, &update, authority, caller)).await;
                }
                Committed::No(index) if index < own_checks => return Ok(ScimChange::CallerChanged),
                Committed::No(index) if Some(index) == last_owner => return Ok(ScimChange::LastOwner),
                // Somebody was invited, joined, changed or was provisioned first: read it again.
                Committed::No(_) => backoff.pause().await?,
            }
        }
    }

    /// The user with this ID.
    pub async fn scim_user(&self, org: &OrgId, id: &MemberId) -> Result<Option<Provisioned>, StoreError> {
        match self.get::<ScimUser>(keys::scim_user(org, id)).await? {
            Some(user) => self.provisioned(user).await.map(Some),
            None => Ok(None),
        }
    }

    /// The user with this name, whatever its case.
    pub async fn scim_user_named(&self, org: &OrgId, name: &EmailAddress) -> Result<Option<Provisioned>, StoreError> {
        match self.get::<Named>(keys::scim_user_name(org, name.hash())).await? {
            Some(Named { id }) => self.scim_user(org, &id).await,
            None => Ok(None),
        }
    }

    /// A page of the organization's users, after this many others.
    pub async fn scim_users(&self, org: &OrgId, skipped: usize, limit: usize) -> Result<Page, StoreError> {
        let total = self.get::<Counter>(keys::scim_user_count(org)).await?.unwrap_or_default().count;
        let pk = keys::scim_users(org);
        let users: Vec<(String, ScimUser)> = if limit == 0 || skipped >= total {
            Vec::new()
        } else {
            self.query(Range::new(&pk, SortKeys::All), skipped.saturating_add(limit)).await?
        };
        let users = users.into_iter().skip(skipped).map(|(_, user)| self.provisioned(user));
        // In the order of the list.
        let users = stream::iter(users).buffered(CONCURRENCY).try_collect().await?;
        Ok(Page { users, total })
    }

    /// Changes a user: ends everybody at its address, or brings back what SCIM ended there.
    pub async fn update_scim_user(
        &self,
        org: &OrgId,
        id: &MemberId,
        update: &ScimUpdate,
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<ScimChange, StoreError> {
        let mut backoff = Backoff::persistent();
        loop {
            let Some(user) = self.get::<ScimUser>(keys::scim_user(org, id)).await? else {
                return Ok(ScimChange::NotFound);
            };
            if update.renames(&user) {
                return Ok(ScimChange::Renamed);
            }
            let address = user.email.hash();
            let ended: Option<Ended> = self.get(keys::scim_ended(org, address)).await?;
            let found = self.at_address(org, &user.email).await?;
            let now = self.clock.now();
            let is_active = found.is_active(now);
            let (ends, restores) = match update.active {
                Some(active) => (!active && is_active, active && !is_active),
                None => (false, false),
            };
            let external_id = update.external_id.clone().unwrap_or_else(|| user.external_id.clone());
            if !ends && !restores && external_id == user.external_id {
                // A call before this one may have ended the membership alone.
                if let Some(ended) = ended.filter(|_| update.active == Some(false)) {
                    self.sign_out_all(&ended.members, ended.at, caller).await?;
                }
                return Ok(done(user, is_active));
            }
            // An address may be given to somebody else, who gets no membership of whoever had it.
            let is_another = matches!((&user.external_id, &external_id), (Some(old), Some(new)) if old != new);
            let changed = ScimUser { external_id, modified_at: now, revision: user.revision + 1, ..user.clone() };
            let mut transaction = self.transaction().persistent();
            let own_checks = transaction.require_authority(authority);
            transaction.put_where(user.key(), &changed, "#revision = :old", &[(":old", user.revision)]);
            let (mut last_owner, active) = (None, if ends || restores { restores } else { is_active });
            if ends {
                transaction.keep(&user, &found, now, ended);
                last_owner = transaction.end_all(&user, &found, now, caller)?;
            } else if restores {
                let Some(ended) = ended else { return Ok(ScimChange::NotEnded) };
                let mut members = self.not_joined_since(org, &ended.members).await?;
                if is_another {
                    // They join by an invitation.
                    members.clear();
                } else if members.is_empty() && !ended.members.is_empty() {
                    return Ok(ScimChange::NotEnded);
                }
                transaction.delete_existing(keys::scim_ended(org, address));
                transaction.restore(&user, &members, &found, caller)?;
            } else if let Some(ended) = ended.filter(|_| is_another && !is_active) {
                transaction.put(keys::scim_ended(org, address), &Ended { members: Vec::new(), ..ended });
            }
            let entry = Entry::done(&self.clock, caller, "scim_user.update", user.subject())?;
            match transaction.audit(org, &entry.with_detail(state(active))).commit().await? {
                Committed::Yes => {
                    if ends {
                        self.sign_out_all(&found.members, now, caller).await?;
                    }
                    if !ends || !found.is_full() {
                        return Ok(done(changed, active));
                    }
                }
                Committed::No(index) if index < own_checks => return Ok(ScimChange::CallerChanged),
                Committed::No(index) if Some(index) == last_owner => return Ok(ScimChange::LastOwner),
                // User, membership or invitation has changed: read it again.
                Committed::No(_) => backoff.pause().await?,
            }
        }
    }

    /// Deletes a user, and ends everybody at its address. The user is deleted with the last of them.
    pub async fn delete_scim_user(
        &self,
        org: &OrgId,
        id: &MemberId,
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<ScimChange, StoreError> {
        let mut backoff = Backoff::persistent();
        loop {
            let Some(user) = self.get::<ScimUser>(keys::scim_user(org, id)).await? else {
                return Ok(ScimChange::NotFound);
            };
            let address = user.email.hash();
            let found = self.at_address(org, &user.email).await?;
            let now = self.clock.now();
            let (condition, unchanged) = ("#revision = :old", [(":old", user.revision)]);
            let mut transaction = self.transaction().persistent();
            let own_checks = transaction.require_authority(authority);
            if found.is_full() {
                transaction.require_where(user.key(), condition, &unchanged);
            } else {
                transaction.delete_where(user.key(), condition, &unchanged);
                transaction.delete(keys::scim_user_name(org, address)).delete(keys::scim_ended(org, address));
                transaction.add(keys::scim_user_count(org), COUNT, -1);
            }
            let last_owner = transaction.end_all(&user, &found, now, caller)?;
            if !found.is_full() {
                let entry = Entry::done(&self.clock, caller, "scim_user.delete", user.subject())?;
                transaction.audit(org, &entry);
            }
            match transaction.commit().await? {
                Committed::Yes => {
                    self.sign_out_all(&found.members, now, caller).await?;
                    if !found.is_full() {
                        return Ok(done(user, false));
                    }
                }
                Committed::No(index) if index < own_checks => return Ok(ScimChange::CallerChanged),
                Committed::No(index) if Some(index) == last_owner => return Ok(ScimChange::LastOwner),
                Committed::No(_) => backoff.pause().await?,
            }
        }
    }

    async fn provisioned(&self, user: ScimUser) -> Result<Provisioned, StoreError> {
        let (org, address) = (&user.org_id, user.email.hash());
        let invitation: Option<Invitation> = self.get(keys::invitation(address, org)).await?;
        let is_invited = invitation.is_some_and(|invitation| invitation.is_open(self.clock.now()));
        let active = is_invited || {
            let pk = keys::members_at(org, address);
            let members: Vec<(String, Pointer)> = self.query(Range::new(&pk, SortKeys::All), 1).await?;
            !members.is_empty()
        };
        Ok(Provisioned { user, active })
    }

    async fn at_address(&self, org: &OrgId, email: &EmailAddress) -> Result<AtAddress, StoreError> {
        let invitation: Option<Invitation> = self.get(keys::invitation(email.hash(), org)).await?;
        let pk = keys::members_at(org, email.hash());
        let pointers: Vec<(String, Pointer)> = self.query(Range::new(&pk, SortKeys::All), MAX_AT_ONCE).await?;
        let keys = pointers.iter().filter_map(|(_, pointer)| Some(keys::membership(pointer.person?, org)));
        let mut members: Vec<Member> = self.get_all(keys.collect()).await?;
        members.retain(|member| pointers.iter().any(|(id, _)| id == member.id.as_str()));
        members.sort_by(|a, b| a.id.cmp(&b.id));
        // Whoever accepted it in between has its ID, and DynamoDB refuses to write an item twice.
        let invitation = invitation.filter(|invitation| members.iter().all(|member| member.id != invitation.id));
        Ok(AtAddress { invitation, members })
    }

    /// Those of these memberships, which SCIM ended, after which the person has not joined again.
    async fn not_joined_since<'a>(&self, org: &OrgId, members: &'a [Member]) -> Result<Vec<&'a Member>, StoreError> {
        let keys = members.iter().map(|member| keys::ended_membership(member.person, org)).collect();
        let last: Vec<EndedMembership> = self.get_all(keys).await?;
        Ok(members.iter().filter(|member| last.iter().any(|last| last.id == member.id)).collect())
    }

    async fn sign_out_all(&self, members: &[Member], ended_at: Moment, caller: &Caller) -> Result<(), StoreError> {
        for member in members {
            self.sign_out_leaver(member, ended_at, caller).await?;
        }
        Ok(())
    }
}

impl Transaction<'_> {
    /// Keeps whoever ends at the address of a user, and what ended there before, to be brought back.
    fn keep(&mut self, user: &ScimUser, found: &AtAddress, now: Moment, before: Option<Ended>) {
        let org = &user.org_id;
        self.put(keys::scim_ended(org, user.email.hash()), &found.ended(now, before));
        for member in &found.members {
            self.put(keys::ended_membership(member.person, org), &EndedMembership { id: member.id.clone() });
        }
    }

    /// Ends everybody at the address of a user. Returns the index of the write whose condition fails
    /// if no owner would be left.
    fn end_all(
        &mut self,
        user: &ScimUser,
        found: &AtAddress,
        now: Moment,
        caller: &Caller,
    ) -> Result<Option<usize>, StoreError> {
        let (org, address, store) = (&user.org_id, user.email.hash(), self.store);
        let removed =
            |id: &MemberId| Entry::done(&store.clock, caller, "member.remove", Subject::new(Member::SUBJECT, id));
        match &found.invitation {
            Some(invitation) => {
                self.delete_where(keys::invitation(address, org), "#id = :id", &[(":id", &invitation.id)]);
                self.delete(keys::org_member(org, &invitation.id));
                if invitation.is_open(now) {
                    self.audit(org, &removed(&invitation.id)?);
                }
            }
            // Nobody joins by an invitation that was made meanwhile.
            None => {
                self.require_absent(keys::invitation(address, org));
            }
        }
        for member in &found.members {
            let (condition, values) = member.unchanged();
            self.delete_where(member.key(), condition, &values);
            self.delete(keys::org_member(org, &member.id)).delete(keys::member_at(org, address, &member.id));
            self.audit(org, &removed(&member.id)?);
        }
        let owners = i64::try_from(found.owners()).map_err(|_| StoreError::Defect)?;
        if owners == 0 {
            return Ok(None);
        }
        let values = [(":less", -owners), (":owners", owners)];
        self.update(keys::owner_count(org), "ADD #count :less", "#count > :owners", &values);
        Ok(Some(self.writes.len() - 1))
    }

    /// Makes these members again, without the role of owner and their tokens. If there are none, makes
    /// an invitation.
    fn restore(
        &mut self,
        user: &ScimUser,
        members: &[&Member],
        found: &AtAddress,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let (org, store) = (&user.org_id, self.store);
        let clock = &store.clock;
        if members.is_empty() {
            return self.invite(user, MemberId::new(clock)?, found, caller);
        }
        for &member in members {
            self.delete_where(keys::ended_membership(member.person, org), "#id = :id", &[(":id", &member.id)]);
            // Tokens are bound to the ID.
            let member = Member {
                id: MemberId::new(clock)?,
                roles: without_owner(&member.roles),
                joined_at: clock.now(),
                revision: 0,
                ..member.clone()
            };
            self.put_new(member.key(), &member).put(keys::org_member(org, &member.id), &member.pointer());
            self.put(keys::member_at(org, member.email.hash(), &member.id), &member.pointer());
            self.audit(org, &Entry::done(clock, caller, "member.restore", member.subject())?);
        }
        Ok(())
    }

    /// Makes an invitation with the role of member, which does not lapse.
    fn invite(&mut self, user: &ScimUser, id: MemberId, found: &AtAddress, caller: &Caller) -> Result<(), StoreError> {
        let (org, store) = (&user.org_id, self.store);
        let clock = &store.clock;
        let invitation = Invitation {
            id,
            org_id: org.clone(),
            email: user.email.clone(),
            roles: [OrUnknown::Known(Role::Member)].into_iter().collect(),
            created_at: clock.now(),
            expires_at: None,
            invited_by: caller.actor.clone(),
            inviter: None,
        };
        let key = keys::invitation(user.email.hash(), org);
        match &found.invitation {
            None => self.put_new(key, &invitation.stored()),
            Some(lapsed) => self
                .put_where(key, &invitation.stored(), "#id = :id", &[(":id", &lapsed.id)])
                .delete(keys::org_member(org, &lapsed.id)),
        };
        self.put(keys::org_member(org, &invitation.id), &invitation.pointer());
        let subject = Subject::new(Member::SUBJECT, &invitation.id);
        self.audit(org, &Entry::done(clock, caller, "member.invite", subject)?);
        Ok(())
    }
}

fn done(user: ScimUser, active: bool) -> ScimChange {
    ScimChange::Done(Box::new(Provisioned { user, active }))
}

/// What an audit entry says about a user.
fn state(active: bool) -> String {
    if active { "active" } else { "inactive" }.to_owned()
}

/// These roles without that of owner; that of member if no other is left.
fn without_owner(roles: &Held<Role>) -> Held<Role> {
    let others = roles.as_slice().iter().filter(|role| role.known() != Some(Role::Owner));
    let others: Vec<OrUnknown<Role>> = others.cloned().collect();
    if others.is_empty() {
        [OrUnknown::Known(Role::Member)].into_iter().collect()
    } else {
        others.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::person::Person;

    fn user() -> ScimUser {
        let moment = |text| Moment::parse(text).unwrap();
        ScimUser {
            id: MemberId::parse("MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            email: EmailAddress::try_from("you@example.com".to_owned()).unwrap(),
            external_id: Some("00u1a2b3c4".to_owned()),
            created_at: moment("2026-11-21T10:00:00Z"),
            modified_at: moment("2026-11-21T11:00:00Z"),
            revision: 1,
        }
    }

    fn member(role: Role) -> Member {
        let user = user();
        Member {
            id: user.id,
            org_id: user.org_id,
            person: Person::by_mail(user.email.clone()).id,
            email: user.email,
            roles: [OrUnknown::Known(role)].into_iter().collect(),
            created_at: user.created_at,
            joined_at: user.created_at,
            invited_by: Subject::new("operator", "guardctl"),
            revision: 0,
        }
    }

    #[test]
    fn stored_items_match_their_snapshots() {
        insta::assert_json_snapshot!("user", user());
        let ended = Ended { at: user().modified_at, members: vec![member(Role::Owner)] };
        insta::assert_json_snapshot!("ended", ended);
        insta::assert_json_snapshot!("ended_membership", EndedMembership { id: user().id });
    }

    #[test]
    fn owners_come_back_with_their_other_roles_or_as_members() {
        let roles = |roles: &[Role]| roles.iter().copied().map(OrUnknown::Known).collect::<Held<Role>>();
        assert_eq!(without_owner(&roles(&[Role::Owner])), roles(&[Role::Member]));
        assert_eq!(without_owner(&roles(&[Role::Manager, Role::Owner])), roles(&[Role::Manager]));
        assert_eq!(without_owner(&roles(&[Role::ApiKeyManager])), roles(&[Role::ApiKeyManager]));
    }

    #[test]
    fn name_changes_only_for_who_stays() {
        let renames = |active, name: &str| {
            let name = EmailAddress::try_from(name.to_owned()).ok().map(|name| name.hash());
            ScimUpdate { active, name: Some(name), external_id: None }.renames(&user())
        };
        assert!(!renames(None, "YOU@example.com"));
        for other in ["me@example.com", "you"] {
            assert!(renames(None, other) && renames(Some(true), other));
            assert!(!renames(Some(false), other));
        }
        assert!(!ScimUpdate::default().renames(&user()));
    }

    #[test]
    fn what_ended_before_is_kept_once_per_person() {
        let found = AtAddress { invitation: None, members: vec![member(Role::Manager)] };
        let before = Ended { at: user().created_at, members: vec![member(Role::Owner)] };
        let ended = found.ended(user().modified_at, Some(before));
        assert_eq!((ended.at, ended.members), (user().modified_at, vec![member(Role::Manager)]));
    }
}
