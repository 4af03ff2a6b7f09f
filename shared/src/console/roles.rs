//! The choice of roles, which several forms share: the template's macro `fields::roles`.

use super::form::Fields;
use super::messages::Messages;
use crate::domain::Held;
use crate::permissions::Role;

/// The field that an error belongs to.
pub const FIELD: &str = "roles";

/// A role that a form offers.
#[derive(Debug, Clone)]
pub struct OfferedRole {
    /// Its name in the API, which is the value of the field `role`.
    pub name: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// What it allows.
    pub hint: &'static str,
    /// Whether it is chosen.
    pub checked: bool,
}

/// The roles that bots may have.
pub fn for_bots() -> impl Iterator<Item = Role> {
    Role::ALL.iter().copied().filter(|role| role.is_for_bots())
}

/// The roles that people may have.
pub fn for_people() -> impl Iterator<Item = Role> {
    Role::ALL.iter().copied().filter(|role| role.is_for_people())
}

/// The choices of a form.
pub fn offered(m: &Messages, roles: impl Iterator<Item = Role>, is_chosen: impl Fn(Role) -> bool) -> Vec<OfferedRole> {
    let offered = roles.map(|role| {
        let (label, hint) = m.role(role);
        OfferedRole { name: role.as_str(), label, hint, checked: is_chosen(role) }
    });
    offered.collect()
}

/// The roles that were chosen, without duplicates, in the order of the form. An error is added to
/// the fields.
pub fn parse(
    chosen: &[String],
    offered: impl Iterator<Item = Role>,
    m: &Messages,
    errors: &mut Fields,
) -> Option<Vec<Role>> {
    let offered: Vec<Role> = offered.collect();
    let is_offered = |name: &String| Role::parse(name).is_some_and(|role| offered.contains(&role));
    if chosen.is_empty() || !chosen.iter().all(is_offered) {
        errors.add(FIELD, m.roles_missing);
        return None;
    }
    let is_chosen = |role: &Role| chosen.iter().any(|name| name == role.as_str());
    Some(offered.into_iter().filter(is_chosen).collect())
}

/// As [`parse`], but it may be none, and these are what somebody else has.
pub fn parse_some_of(chosen: &[String], held: &Held<Role>, m: &Messages, errors: &mut Fields) -> Option<Vec<Role>> {
    let is_held = |name: &String| Role::parse(name).is_some_and(|role| held.contains(role));
    if !chosen.iter().all(is_held) {
        errors.add(FIELD, m.role_not_held);
        return None;
    }
    let is_chosen = |role: &Role| chosen.iter().any(|name| name == role.as_str());
    Some(Role::ALL.iter().copied().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::messages::EN;
    use crate::domain::OrUnknown;

    #[test]
    fn only_held_roles_are_parsed_and_none_is_enough() {
        let held = [Role::Manager, Role::Owner].into_iter().map(OrUnknown::Known).collect();
        let parse = |chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
            let mut errors = Fields::default();
            (parse_some_of(&chosen, &held, &EN, &mut errors), errors.of(FIELD).to_owned())
        };
        assert_eq!(parse(&[]), (Some(vec![]), String::new()));
        let two = ["organization/takumi_manager", "organization/owner", "organization/owner"];
        assert_eq!(parse(&two), (Some(vec![Role::Owner, Role::Manager]), String::new()));
        for bad in [&["organization/api_key_manager"][..], &["organization/owner", "owner"], &[""]] {
            assert_eq!(parse(bad), (None, EN.role_not_held.to_owned()), "{bad:?}");
        }
    }

    #[test]
    fn only_offered_roles_are_parsed() {
        let parse = |chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
            let mut errors = Fields::default();
            (parse(&chosen, for_bots(), &EN, &mut errors), errors.of(FIELD).to_owned())
        };
        let two = ["organization/takumi_manager", "organization/owner", "organization/owner"];
        assert_eq!(parse(&two), (Some(vec![Role::Owner, Role::Manager]), String::new()));
        for bad in [&[][..], &["organization/member"], &["organization/owner", "organization/emperor"], &["owner"]] {
            assert_eq!(parse(bad), (None, EN.roles_missing.to_owned()), "{bad:?}");
        }
    }
}
