//! The `member` commands. The first owner of an organization comes from here.

use std::fmt;

use serde::Serialize;
use shared::Moment;
use shared::ids::{MemberId, OrgId};
use shared::store::StoreError;
use shared::store::members::{Authority, Listed, MemberChange};

use crate::bot::distinct;
use crate::cli::{MemberCommand, OneMember};
use crate::failure::Failure;
use crate::operator::Operator;
use crate::output;

/// Members per read. All pages are read.
const PAGE: usize = 100;

/// Runs a `member` command.
pub async fn run(command: MemberCommand, operator: &Operator) -> Result<(), Failure> {
    let (store, caller) = (operator.store(), &operator.caller);
    match command {
        MemberCommand::Invite { org, email, roles } => {
            operator.require_org(&org).await?;
            let invited = store.invite_member(&org, &email, &distinct(roles), Authority::Operator, caller).await?;
            // The operator's own rights never change in the meantime.
            let invitation = invited.ok_or(Failure::Store(StoreError::Defect))?;
            let expires_at = invitation.expires_at;
            operator.answer(&InvitedView { member: MemberView::new(&Listed::Invited(invitation)), expires_at })
        }
        MemberCommand::List { org } => {
            operator.require_org(&org).await?;
            let mut members: Vec<MemberView> = Vec::new();
            let mut after = None;
            loop {
                let page = store.members(&org, after.as_ref(), PAGE).await?;
                members.extend(page.members.iter().map(MemberView::new));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            operator.answer(&MembersView { members })
        }
        MemberCommand::SetRoles { member, roles } => {
            let OneMember { org, id } = &member;
            if let Listed::Invited(_) = found(operator, org, id).await? {
                return Err(Failure::OnlyInvited(org.clone(), id.clone()));
            }
            let changed = store.set_member_roles(org, id, &distinct(roles), Authority::Operator, caller).await?;
            done(changed, &member)?;
            operator.answer(&MemberView::new(&found(operator, org, id).await?))
        }
        MemberCommand::Remove { member } => {
            let OneMember { org, id } = &member;
            let removed = MemberView::new(&found(operator, org, id).await?);
            done(store.remove_member(org, id, Authority::Operator, caller).await?, &member)?;
            operator.answer(&Removed { removed })
        }
        MemberCommand::SignOut { member } => {
            let OneMember { org, id } = &member;
            match found(operator, org, id).await? {
                Listed::Active(member) => {
                    store.sign_out_member(&member, caller).await?;
                    operator.answer(&SignedOut { signed_out: MemberView::new(&Listed::Active(member)) })
                }
                Listed::Invited(_) => Err(Failure::OnlyInvited(org.clone(), id.clone())),
            }
        }
    }
}

/// Reads a member or an invitation, or fails if there is none.
async fn found(operator: &Operator, org: &OrgId, id: &MemberId) -> Result<Listed, Failure> {
    operator.require_org(org).await?;
    operator.store().member(org, id).await?.ok_or_else(|| Failure::NoSuchMember(org.clone(), id.clone()))
}

fn done(change: MemberChange, member: &OneMember) -> Result<(), Failure> {
    match change {
        MemberChange::Done => Ok(()),
        MemberChange::LastOwner => Err(Failure::LastOwner(member.org.clone(), member.id.clone())),
        MemberChange::NotFound | MemberChange::CallerChanged => {
            Err(Failure::NoSuchMember(member.org.clone(), member.id.clone()))
        }
    }
}

#[derive(Serialize)]
struct MemberView {
    id: MemberId,
    email: String,
    roles: Vec<String>,
    status: &'static str,
    created_at: Moment,
}

impl MemberView {
    fn new(listed: &Listed) -> Self {
        Self {
            id: listed.id().clone(),
            email: listed.email().expose().to_owned(),
            roles: listed.roles().iter().map(|role| role.as_str().to_owned()).collect(),
            status: listed.status(),
            created_at: listed.created_at(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        let lines = [
            ("email", self.email.clone()),
            ("roles", self.roles.join(", ")),
            ("status", self.status.to_owned()),
            ("created", self.created_at.to_string()),
        ];
        output::card(f, &format!("{title} {}", self.id), &lines)
    }
}

impl fmt::Display for MemberView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "Member")
    }
}

/// A new invitation.
#[derive(Serialize)]
struct InvitedView {
    #[serde(flatten)]
    member: MemberView,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
}

impl fmt::Display for InvitedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.member.write(f, "Invited")?;
        let Self { member, expires_at } = self;
        writeln!(f, "\nNo mail is sent. Tell the person to open /console/ at the service's public URL, to sign in")?;
        let by = expires_at.map(|expires_at| format!(" by {expires_at}")).unwrap_or_default();
        writeln!(f, "as {}{by}, and to accept the invitation.", member.email)
    }
}

#[derive(Serialize)]
struct MembersView {
    members: Vec<MemberView>,
}

impl fmt::Display for MembersView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |member: &MemberView| {
            let MemberView { id, email, roles, status, created_at } = member;
            [id.to_string(), created_at.to_string(), (*status).to_owned(), email.clone(), roles.join(", ")]
        };
        let rows: Vec<_> = self.members.iter().map(row).collect();
        output::table(f, "members", ["ID", "CREATED", "STATUS", "EMAIL", "ROLES"], &rows)
    }
}

/// A member who was just removed, or an invitation that was withdrawn.
#[derive(Serialize)]
struct Removed {
    removed: MemberView,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.removed.write(f, "Removed")
    }
}

/// A member whose sessions were just ended.
#[derive(Serialize)]
struct SignedOut {
    signed_out: MemberView,
}

impl fmt::Display for SignedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.signed_out.write(f, "Signed out")
    }
}
