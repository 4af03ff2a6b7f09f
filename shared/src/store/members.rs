//! Members: people in an organization, with roles, and the invitations by which they join.
//!
//! ```text
//!             invite              accept
//!   (nothing) ─────▶ invited ─────────────▶ active
//!                       │ 7 days, remove      │ remove
//!                       ▼                     ▼
//!                    (nothing)            (nothing)
//! ```
//!
//! An invitation that SCIM makes does not lapse; see [`super::scim_users`].
//!
//! A membership is one item under the person and the organization, read with a strongly consistent
//! read on every request and at each use of the person's own tokens: deleting it ends both. The
//! organization's list holds pointers. A counter of owners keeps the last one from being removed or
//! demoted, however many owners try at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, Key};
use super::tokens::BotToken;
use super::{Committed, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::domain::{Held, OrUnknown};
use crate::email::{AddressHash, EmailAddress};
use crate::ids::{BotId, MemberId, OrgId};
use crate::permissions::Role;
use crate::person::{Binding, Person, PersonId};
use crate::secret::TokenHash;

/// How long an invitation can be accepted.
pub const INVITATION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The attribute of the counter of owners.
pub(super) const COUNT: &str = "count";

/// Memberships and invitations of one person that are read.
const MAX_OF_PERSON: usize = 100;

/// A person in an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its ID.
    pub id: MemberId,
    /// The organization.
    pub org_id: OrgId,
    /// The person.
    pub person: PersonId,
    /// The verified address by which the person joined.
    pub email: EmailAddress,
    /// The person's roles.
    pub roles: Held<Role>,
    /// When the person was invited.
    pub created_at: Moment,
    /// When the person joined.
    pub joined_at: Moment,
    /// Who invited the person.
    pub invited_by: Subject,
    /// Incremented by each change.
    pub revision: u64,
}

impl Member {
    /// The name of this kind in audit entries.
    pub const SUBJECT: &str = "member";

    /// The member as an actor or target in the audit log.
    pub fn subject(&self) -> Subject {
        Subject::new(Self::SUBJECT, &self.id)
    }

    /// What binds a token to this membership.
    pub fn binding(&self) -> Binding {
        Binding { member: self.id.clone(), person: self.person }
    }

    pub(super) fn is_owner(&self) -> bool {
        self.roles.contains(Role::Owner)
    }

    pub(super) fn key(&self) -> Key {
        keys::membership(self.person, &self.org_id)
    }

    /// The condition that the membership is as it was read.
    pub(super) fn unchanged(&self) -> (&'static str, [(&'static str, serde_json::Value); 2]) {
        ("#id = :id AND #revision = :old", [(":id", self.id.as_str().into()), (":old", self.revision.into())])
    }

    /// The pointer to the membership, in the organization's list and at the address.
    pub(super) fn pointer(&self) -> Pointer {
        Pointer { person: Some(self.person), invited: None, ttl: None }
    }
}

/// An invitation of an address to an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The ID that the member will have.
    pub id: MemberId,
    /// The organization.
    pub org_id: OrgId,
    /// The invited address.
    pub email: EmailAddress,
    /// The roles that the member will have.
    pub roles: Held<Role>,
    /// When it was made.
    pub created_at: Moment,
    /// When it lapses. `None` if it does not: those of SCIM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Who made it.
    pub invited_by: Subject,
    /// The address of the member who made it; `None` for the operator and for bots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inviter: Option<EmailAddress>,
}

impl Invitation {
    /// Whether it can be accepted at this time.
    pub fn is_open(&self, now: Moment) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    fn ttl(&self) -> Option<i64> {
        self.expires_at.map(Moment::epoch_seconds)
    }

    /// The item as it is stored.
    pub(super) fn stored(&self) -> StoredInvitation<'_> {
        StoredInvitation { invitation: self, ttl: self.ttl() }
    }

    /// The pointer to it in the organization's list.
    pub(super) fn pointer(&self) -> Pointer {
        Pointer { person: None, invited: Some(self.email.hash()), ttl: self.ttl() }
    }
}

/// An invitation with its time to live.
#[derive(Serialize)]
pub(super) struct StoredInvitation<'a> {
    #[serde(flatten)]
    invitation: &'a Invitation,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
}

/// What SCIM ended at an address. Without members it was an invitation, or nothing yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) at: Moment,
    pub(super) members: Vec<Member>,
}

/// What an invitation took the place of.
#[derive(Debug)]
pub struct Replaced {
    earlier: Option<Invitation>,
    ended: Option<Ended>,
}

/// The pointer from an organization's list to a membership or an invitation, or from an address to a
/// membership.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pointer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) person: Option<PersonId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invited: Option<AddressHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
}

/// A member or an invitation in an organization's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A member.
    Active(Member),
    /// An invitation that was not accepted yet.
    Invited(Invitation),
}

impl Listed {
    /// The member's ID.
    pub fn id(&self) -> &MemberId {
        match self {
            Listed::Active(member) => &member.id,
            Listed::Invited(invitation) => &invitation.id,
        }
    }

    /// The address.
    pub fn email(&self) -> &EmailAddress {
        match self {
            Listed::Active(member) => &member.email,
            Listed::Invited(invitation) => &invitation.email,
        }
    }

    /// The roles.
    pub fn roles(&self) -> &[OrUnknown<Role>] {
        match self {
            Listed::Active(member) => member.roles.as_slice(),
            Listed::Invited(invitation) => invitation.roles.as_slice(),
        }
    }

    /// `active` or `invited`.
    pub fn status(&self) -> &'static str {
        match self {
            Listed::Active(_) => "active",
            Listed::Invited(_) => "invited",
        }
    }

    /// When the person was invited.
    pub fn created_at(&self) -> Moment {
        match self {
            Listed::Active(member) => member.created_at,
            Listed::Invited(invitation) => invitation.created_at,
        }
    }
}

/// A page of an organization's members, oldest first.
#[derive(Debug)]
pub struct Page {
    /// The members and invitations.
    pub members: Vec<Listed>,
    /// The ID after which the next page starts; `None` on the last page.
    pub next: Option<MemberId>,
}

/// The result of accepting an invitation.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The person is now a member.
    Joined(Box<Member>),
    /// The person was a member already and keeps the roles.
    AlreadyMember,
    /// There is no such invitation any more.
    Gone,
}

/// The result of changing or removing a member.
#[derive(Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// It was done.
    Done,
    /// There is no such member.
    NotFound,
    /// It would leave the organization without an owner.
    LastOwner,
    /// The caller may no longer do this.
    CallerChanged,
}

/// Who makes a change that gives rights to somebody. Committed only while the caller's own rights
/// are as they were read.
#[derive(Debug, Clone, Copy)]
pub enum Authority<'a> {
    /// A bot: its ID, its revision when it was read, and the successor of its API key, if the first use
    /// of that ends the key.
    Bot(&'a BotId, u64, Option<TokenHash>),
    /// A CI job that acts as a bot: the token and its hash, and the bot's revision when it was read.
    Job(&'a BotToken, TokenHash, u64),
    /// A member.
    Member(&'a Member),
    /// The operator.
    Operator,
}

impl Transaction<'_> {
    /// Requires that the caller's rights have not changed since they were read. Returns how many
    /// writes of the transaction that takes.
    pub(super) fn require_authority(&mut self, authority: Authority<'_>) -> usize {
        let before = self.writes.len();
        let (key, id, revision) = match authority {
            Authority::Bot(id, revision, successor) => {
                if let Some(successor) = successor {
                    self.require_unused(keys::token(successor));
                }
                (keys::bot(id), id.as_str(), revision)
            }
            Authority::Job(token, hash, revision) => {
                self.require_unrevoked(keys::token(hash)).require(keys::trust(&token.bot_id, &token.trust_id));
                (keys::bot(&token.bot_id), token.bot_id.as_str(), revision)
            }
            Authority::Member(member) => (member.key(), member.id.as_str(), member.revision),
            Authority::Operator => return 0,
        };
        // Somebody who was removed and joined again is another member.
        let values = [(":id", id.into()), (":revision", serde_json::Value::from(revision))];
        self.require_where(key, "#id = :id AND #revision = :revision", &values);
        self.writes.len() - before
    }
}

impl Store {
    /// Invites an address. An earlier invitation of the address to this organization ends. `None` if
    /// the caller's own rights changed in the meantime: then nobody was invited.
    pub async fn invite_member(
        &self,
        org: &OrgId,
        email: &EmailAddress,
        roles: &[Role],
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<Option<Invitation>, StoreError> {
        let invited = self.invite_in_place(org, email, roles, authority, caller).await?;
        Ok(invited.map(|(invitation, _)| invitation))
    }

    /// [`Self::invite_member`], which also returns what the invitation took the place of.
    pub async fn invite_in_place(
        &self,
        org: &OrgId,
        email: &EmailAddress,
        roles: &[Role],
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<Option<(Invitation, Replaced)>, StoreError> {
        let now = self.clock.now();
        let inviter = match authority {
            Authority::Member(member) => Some(member.email.clone()),
            Authority::Bot(..) | Authority::Job(..) | Authority::Operator => None,
        };
        let invitation = Invitation {
            id: MemberId::new(&self.clock)?,
            org_id: org.clone(),
            email: email.clone(),
            roles: roles.iter().copied().map(OrUnknown::Known).collect(),
            created_at: now,
            expires_at: Some(now.plus(INVITATION_LIFETIME)),
            invited_by: caller.actor.clone(),
            inviter,
        };
        let subject = Subject::new(Member::SUBJECT, &invitation.id);
        let entry = Entry::done(&self.clock, caller, "member.invite", subject)?;
        let key = || keys::invitation(email.hash(), org);
        loop {
            let earlier: Option<Invitation> = self.get(key()).await?;
            let ended: Option<Ended> = self.get(keys::scim_ended(org, email.hash())).await?;
            let stored = invitation.stored();
            let mut transaction = self.transaction();
            // First, so that somebody who was cut off learns nothing from the other conditions.
            let own_checks = transaction.require_authority(authority);
            match &earlier {
                None => transaction.put_new(key(), &stored),
                Some(earlier) => transaction
                    .put_where(key(), &stored, "#id = :id", &[(":id", &earlier.id)])
                    .delete(keys::org_member(org, &earlier.id)),
            };
            transaction.put_new(keys::org_member(org, &invitation.id), &invitation.pointer());
            // What SCIM ended before is not brought back over this decision.
            match &ended {
                None => transaction.require_absent(keys::scim_ended(org, email.hash())),
                Some(ended) => {
                    transaction.delete_where(keys::scim_ended(org, email.hash()), "#at = :at", &[(":at", ended.at)])
                }
            };
            match transaction.audit(org, &entry).commit().await? {
                Committed::Yes => return Ok(Some((invitation, Replaced { earlier, ended }))),
                Committed::No(index) if index < own_checks => return Ok(None),
                // Another invitation came first, or was accepted, or SCIM ended something: read it again.
                Committed::No(_) => {}
            }
        }
    }

    /// Takes back an invitation of which nobody may have been told. What SCIM had made or ended at the
    /// address is as before.
    pub async fn take_back_invitation(
        &self,
        invitation: &Invitation,
        replaced: &Replaced,
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<MemberChange, StoreError> {
        let (org, id, address) = (&invitation.org_id, &invitation.id, invitation.email.hash());
        let entry = Entry::done(&self.clock, caller, "member.remove", Subject::new(Member::SUBJECT, id))?;
        let mut transaction = self.transaction().persistent();
        let own_checks = transaction.require_authority(authority);
        let (key, condition, is_this) = (keys::invitation(address, org), "#id = :id", [(":id", id)]);
        match replaced.earlier.as_ref().filter(|earlier| earlier.expires_at.is_none()) {
            None => transaction.delete_where(key, condition, &is_this),
            Some(lasting) => transaction
                .put_where(key, &lasting.stored(), condition, &is_this)
                .put(keys::org_member(org, &lasting.id), &lasting.pointer()),
        };
        transaction.delete(keys::org_member(org, id));
        if let Some(ended) = &replaced.ended {
            transaction.put(keys::scim_ended(org, address), ended);
        }
        match transaction.audit(org, &entry).commit().await? {
            Committed::Yes => Ok(MemberChange::Done),
            Committed::No(index) if index < own_checks => Ok(MemberChange::CallerChanged),
            // It was accepted, or another one came after it.
            Committed::No(_) => self.remove_member(org, id, authority, caller).await,
        }
    }

    /// The invitations of a verified address that can be accepted, oldest first.
    pub async fn invitations_of(&self, email: &EmailAddress) -> Result<Vec<Invitation>, StoreError> {
        let pk = keys::invitations(email.hash());
        let found: Vec<(String, Invitation)> = self.query(Range::new(&pk, SortKeys::All), MAX_OF_PERSON).await?;
        let now = self.clock.now();
        Ok(found.into_iter().map(|(_, invitation)| invitation).filter(|invitation| invitation.is_open(now)).collect())
    }

    /// The invitation of a verified address to this organization, if it can be accepted.
    pub async fn invitation(&self, email: &EmailAddress, org: &OrgId) -> Result<Option<Invitation>, StoreError> {
        let invitation: Option<Invitation> = self.get(keys::invitation(email.hash(), org)).await?;
        Ok(invitation.filter(|invitation| invitation.is_open(self.clock.now())))
    }

    /// Makes an invited person a member. `invitation` is the one that the person was shown: roles
    /// that nobody saw are never accepted.
    pub async fn accept_invitation(
        &self,
        org: &OrgId,
        invitation: &MemberId,
        person: &Person,
        caller: &Caller,
    ) -> Result<Accepted, StoreError> {
        let found = self.invitation(&person.email, org).await?.filter(|found| found.id == *invitation);
        let Some(invitation) = found else { return Ok(Accepted::Gone) };
        let now = self.clock.now();
        let member = Member {
            id: invitation.id.clone(),
            org_id: org.clone(),
            person: person.id,
            email: person.email.clone(),
            roles: invitation.roles.clone(),
            created_at: invitation.created_at,
            joined_at: now,
            invited_by: invitation.invited_by.clone(),
            revision: 0,
        };
        let by = Caller { actor: member.subject(), ..caller.clone() };
        let entry = Entry::done(&self.clock, &by, "member.join", member.subject())?;
        let mut transaction = self.transaction();
        transaction
            .delete_where(keys::invitation(person.email.hash(), org), "#id = :id", &[(":id", &invitation.id)])
            .put_new(member.key(), &member)
            .put(keys::org_member(org, &member.id), &member.pointer())
            .put(keys::member_at(org, member.email.hash(), &member.id), &member.pointer())
            // From now on SCIM does not bring back the membership that it ended, at whatever address.
            .delete(keys::ended_membership(person.id, org));
        if member.is_owner() {
            transaction.add(keys::owner_count(org), COUNT, 1);
        }
        match transaction.audit(org, &entry).commit().await? {
            Committed::Yes => Ok(Accepted::Joined(Box::new(member))),
            Committed::No(1) => Ok(Accepted::AlreadyMember),
            Committed::No(_) => Ok(Accepted::Gone),
        }
    }

    /// A person's membership of this organization, with one strongly consistent read.
    pub async fn membership(&self, person: PersonId, org: &OrgId) -> Result<Option<Member>, StoreError> {
        self.get(keys::membership(person, org)).await
    }

    /// Whether this membership has not ended, with one strongly consistent read.
    pub(super) async fn is_current(&self, org: &OrgId, binding: &Binding) -> Result<bool, StoreError> {
        let member = self.membership(binding.person, org).await?;
        Ok(member.is_some_and(|member| member.id == binding.member))
    }

    /// The members among these, at most 100, whose membership has not ended.
    pub(super) async fn current_members(
        &self,
        org: &OrgId,
        bindings: impl Iterator<Item = &Binding>,
    ) -> Result<Vec<MemberId>, StoreError> {
        let keys = bindings.map(|binding| keys::membership(binding.person, org)).collect();
        let members: Vec<Member> = self.get_all(keys).await?;
        Ok(members.into_iter().map(|member| member.id).collect())
    }

    /// A person's memberships, by organization.
    pub async fn memberships(&self, person: PersonId) -> Result<Vec<Member>, StoreError> {
        let (pk, prefix) = keys::memberships(person);
        let found: Vec<(String, Member)> =
            self.query(Range::new(&pk, SortKeys::StartingWith(prefix)), MAX_OF_PERSON).await?;
        Ok(found.into_iter().map(|(_, member)| member).collect())
    }

    /// A page of an organization's members and invitations, oldest first.
    pub async fn members(&self, org: &OrgId, after: Option<&MemberId>, limit: usize) -> Result<Page, StoreError> {
        let pk = keys::org_members(org);
        let range = Range::new(&pk, SortKeys::All).start_after(after.map(MemberId::as_str));
        let mut pointers: Vec<(String, Pointer)> = self.query(range, limit + 1).await?;
        let more = pointers.len() > limit;
        pointers.truncate(limit);
        let next = pointers.last().filter(|_| more).and_then(|(id, _)| MemberId::parse(id));
        let mut members = Vec::with_capacity(pointers.len());
        for chunk in pointers.chunks(100) {
            let (mut joined, mut invited) = (Vec::new(), Vec::new());
            for (_, pointer) in chunk {
                joined.extend(pointer.person.map(|person| keys::membership(person, org)));
                invited.extend(pointer.invited.map(|address| keys::invitation(address, org)));
            }
            members.extend(self.get_all(joined).await?.into_iter().map(Listed::Active));
            members.extend(self.get_all(invited).await?.into_iter().map(Listed::Invited));
        }
        let now = self.clock.now();
        // What changed since the query: another invitation of the address, one that has lapsed.
        members.retain(|listed| match listed {
            Listed::Active(member) => pointers.iter().any(|(id, _)| id == member.id.as_str()),
            Listed::Invited(invitation) => {
                invitation.is_open(now) && pointers.iter().any(|(id, _)| id == invitation.id.as_str())
            }
        });
        members.sort_by(|a, b| a.id().cmp(b.id()));
        Ok(Page { members, next })
    }

    /// The member or invitation with this ID.
    pub async fn member(&self, org: &OrgId, id: &MemberId) -> Result<Option<Listed>, StoreError> {
        // An invitation that is accepted between the two reads is found as a member by the next two.
        for _ in 0..2 {
            let pointer: Option<Pointer> = self.get(keys::org_member(org, id)).await?;
            let found = match pointer {
                Some(Pointer { person: Some(person), .. }) => self.membership(person, org).await?.map(Listed::Active),
                Some(Pointer { invited: Some(address), .. }) => {
                    let invitation: Option<Invitation> = self.get(keys::invitation(address, org)).await?;
                    invitation.filter(|invitation| invitation.is_open(self.clock.now())).map(Listed::Invited)
                }
                _ => return Ok(None),
            };
            if let Some(found) = found.filter(|found| found.id() == id) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Replaces the roles of a member.
    pub async fn set_member_roles(
        &self,
        org: &OrgId,
        id: &MemberId,
        roles: &[Role],
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<MemberChange, StoreError> {
        loop {
            let Some(Listed::Active(member)) = self.member(org, id).await? else { return Ok(MemberChange::NotFound) };
            let held: Held<Role> = roles.iter().copied().map(OrUnknown::Known).collect();
            let values = [
                (":roles", serde_json::to_value(&held).map_err(|_| StoreError::Defect)?),
                (":id", id.as_str().into()),
                (":old", member.revision.into()),
                (":new", (member.revision + 1).into()),
            ];
            let entry = Entry::done(&self.clock, caller, "member.set_roles", member.subject())?;
            let mut transaction = self.transaction().persistent();
            transaction.update(
                member.key(),
                "SET #roles = :roles, #revision = :new",
                "#id = :id AND #revision = :old",
                &values,
            );
            let change = i64::from(roles.contains(&Role::Owner)) - i64::from(member.is_owner());
            let changed = self.commit_member_change(transaction, &member, change, authority, &entry).await?;
            if let Some(changed) = changed {
                return Ok(changed);
            }
        }
    }

    /// Removes a member, which ends the person's own tokens too, or withdraws an invitation.
    pub async fn remove_member(
        &self,
        org: &OrgId,
        id: &MemberId,
        authority: Authority<'_>,
        caller: &Caller,
    ) -> Result<MemberChange, StoreError> {
        loop {
            let Some(listed) = self.member(org, id).await? else { return Ok(MemberChange::NotFound) };
            let entry = Entry::done(&self.clock, caller, "member.remove", Subject::new(Member::SUBJECT, id))?;
            let mut transaction = self.transaction().persistent();
            match listed {
                Listed::Active(member) => {
                    let (condition, values) = member.unchanged();
                    transaction.delete_where(member.key(), condition, &values);
                    transaction.delete(keys::org_member(org, id));
                    transaction.delete(keys::member_at(org, member.email.hash(), id));
                    // SCIM does not bring back who was removed here.
                    transaction.delete(keys::scim_ended(org, member.email.hash()));
                    let change = -i64::from(member.is_owner());
                    let changed = self.commit_member_change(transaction, &member, change, authority, &entry).await?;
                    if let Some(changed) = changed {
                        return Ok(changed);
                    }
                }
                Listed::Invited(invitation) => {
                    let key = keys::invitation(invitation.email.hash(), org);
                    let own_checks = transaction.require_authority(authority);
                    transaction.delete_where(key, "#id = :id", &[(":id", id)]).delete(keys::org_member(org, id));
                    transaction.delete(keys::scim_ended(org, invitation.email.hash()));
                    match transaction.audit(org, &entry).commit().await? {
                        Committed::Yes => return Ok(MemberChange::Done),
                        Committed::No(index) if index < own_checks => return Ok(MemberChange::CallerChanged),
                        Committed::No(_) => {}
                    }
                }
            }
        }
    }

    /// Commits a change whose first write is conditional on the member's revision. `change` is that
    /// of the number of owners. `None` if the member has changed since it was read.
    async fn commit_member_change(
        &self,
        mut transaction: Transaction<'_>,
        member: &Member,
        change: i64,
        authority: Authority<'_>,
        entry: &Entry,
    ) -> Result<Option<MemberChange>, StoreError> {
        let org = &member.org_id;
        // Somebody who changes the own membership: the first write has the condition.
        let own = match authority {
            Authority::Member(own) if own.person == member.person => Some(own),
            _ => None,
        };
        if own.is_some_and(|own| (&own.id, own.revision) != (&member.id, member.revision)) {
            return Ok(Some(MemberChange::CallerChanged));
        }
        // Which write says what, if its condition fails. The caller's comes first, so that somebody
        // who was cut off learns nothing from the other one.
        let caller = transaction.writes.len();
        if own.is_none() {
            transaction.require_authority(authority);
        }
        let owners = transaction.writes.len();
        if change > 0 {
            transaction.add(keys::owner_count(org), COUNT, change);
        } else if change < 0 {
            let values = [(":less", -1), (":one", 1)];
            transaction.update(keys::owner_count(org), "ADD #count :less", "#count > :one", &values);
        }
        Ok(match transaction.audit(org, entry).commit().await? {
            Committed::Yes => Some(MemberChange::Done),
            Committed::No(index) if (caller..owners).contains(&index) => Some(MemberChange::CallerChanged),
            Committed::No(index) if change < 0 && index == owners => Some(MemberChange::LastOwner),
            Committed::No(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_items_match_their_snapshots() {
        let moment = |text| Moment::parse(text).unwrap();
        let email = EmailAddress::try_from("you@example.com".to_owned()).unwrap();
        let person = Person::by_mail(email.clone());
        let roles: Held<Role> = [OrUnknown::Known(Role::Owner)].into_iter().collect();
        let member = Member {
            id: MemberId::parse("MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            person: person.id,
            email: email.clone(),
            roles: roles.clone(),
            created_at: moment("2026-11-21T10:00:00Z"),
            joined_at: moment("2026-11-21T11:00:00Z"),
            invited_by: Subject::new("operator", "guardctl"),
            revision: 0,
        };
        insta::assert_json_snapshot!("member", member);
        let invitation = Invitation {
            id: member.id,
            org_id: member.org_id,
            email: email.clone(),
            roles,
            created_at: member.created_at,
            expires_at: Some(member.created_at.plus(INVITATION_LIFETIME)),
            invited_by: member.invited_by,
            inviter: Some(email),
        };
        insta::assert_json_snapshot!("invitation", invitation.stored());
        let lasting = Invitation { expires_at: None, inviter: None, ..invitation };
        assert!(serde_json::to_value(lasting.stored()).unwrap().get("ttl").is_none());
    }
}
