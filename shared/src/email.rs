//! E-mail addresses: validated by the standards, compared case-insensitively, shown masked.

use std::fmt;

use email_address::{EmailAddress as Syntax, Options};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::domain::OrUnknown;
use crate::secret::TokenHash;

/// An address that mail can be sent to. `Debug` masks it, and there is no `Display`.
///
/// The domain is in lower case and IDNA-encoded (`xn--`). The local part stays as typed, since some
/// servers are case-sensitive; addresses are compared by [`EmailAddress::hash`], which is not.
/// Quoted and non-ASCII local parts are refused, because SES cannot send to them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EmailAddress(String);

/// The longest address that SMTP can carry, in bytes: RFC 5321, section 4.5.3.1.3, without the
/// angle brackets.
const LONGEST: usize = 254;

impl EmailAddress {
    /// The address in full: for the mail's envelope and text only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The hash that addresses are stored and compared by. It ignores case.
    pub fn hash(&self) -> AddressHash {
        AddressHash(TokenHash::of_text(&self.0.to_ascii_lowercase()))
    }

    /// The domain, in lower case and IDNA-encoded.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// The hash of the mailbox that this address probably leads to, by which mails are counted: in
    /// lower case, without sub-address (`+tag`) and dots before the @. A local part that begins with
    /// `+` has no mailbox before it and keeps it.
    pub fn mailbox(&self) -> AddressHash {
        let lower = self.0.to_ascii_lowercase();
        let (local, domain) = lower.rsplit_once('@').unwrap_or((&lower, ""));
        let user = local.split('+').next().filter(|user| !user.is_empty()).unwrap_or(local);
        AddressHash(TokenHash::of_text(&format!("{}@{domain}", user.replace('.', ""))))
    }

    /// The address with all but the first character of the local part hidden: `a***@example.com`.
    pub fn masked(&self) -> String {
        let (local, domain) = self.0.split_once('@').unwrap_or((&self.0, ""));
        let first = local.chars().next().filter(|_| local.len() > 1).map(String::from).unwrap_or_default();
        format!("{first}***@{domain}")
    }
}

impl TryFrom<String> for EmailAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = text.trim();
        // First, since a line break in an address could inject a mail header.
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters");
        }
        let (local, domain) = text.rsplit_once('@').ok_or("must be an e-mail address with a user and a domain")?;
        if !local.is_ascii() || local.contains('"') {
            return Err("must have only unquoted ASCII characters before the @");
        }
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| "must have a valid domain after the @")?;
        // A top-level domain is never all digits (RFC 3696, section 2): this is an IPv4 address.
        if domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit())) {
            return Err("must have a valid domain after the @");
        }
        let address = format!("{local}@{domain}");
        if address.len() > LONGEST {
            return Err("must have at most 254 characters");
        }
        let options = Options::default().with_required_tld().without_domain_literal().without_display_text();
        Syntax::parse_with_options(&address, options)
            .map_err(|_| "must be an e-mail address with a user and a domain")?;
        Ok(Self(address))
    }
}

impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> Self {
        address.0
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmailAddress({})", self.masked())
    }
}

impl utoipa::PartialSchema for EmailAddress {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, Object, SchemaFormat, Type};
        Object::builder()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
            .max_length(Some(LONGEST))
            .examples(["you@example.com"])
            .into()
    }
}

impl ToSchema for EmailAddress {}

impl Language {
    /// Reads a stored language. One that this version has no mails in becomes the default.
    pub(crate) fn stored<'de, D: Deserializer<'de>>(stored: D) -> Result<Self, D::Error> {
        Ok(OrUnknown::deserialize(stored)?.known().unwrap_or_default())
    }
}

/// SHA-256 of an address: its key in the table and its identifier in the operator's logs.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressHash(TokenHash);

impl AddressHash {
    /// 64 lower-case hex digits.
    pub fn to_hex(self) -> String {
        self.0.to_hex()
    }
}

impl fmt::Debug for AddressHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressHash([redacted])")
    }
}

/// The language of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Japanese.
    Ja,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EmailAddress, &'static str> {
        EmailAddress::try_from(text.to_owned())
    }

    #[test]
    fn hash_ignores_case_and_surrounding_whitespace() {
        let hash = parse("you@example.com").unwrap().hash();
        for spelling in ["YOU@EXAMPLE.COM", " you@example.com\n", "You@Example.Com"] {
            assert_eq!(parse(spelling).unwrap().hash(), hash, "{spelling}");
        }
        for other in ["you+x@example.com", "y.ou@example.com", "you@example.org", "you@xn--example-.com"] {
            assert!(parse(other).is_err() || parse(other).unwrap().hash() != hash, "{other}");
        }
    }

    #[test]
    fn mailbox_ignores_sub_addresses_case_and_dots() {
        let mailbox = |text: &str| parse(text).unwrap().mailbox();
        for same in ["victim+1@example.com", "Victim+a+b@EXAMPLE.com", "v.ic.tim@example.com", "v.i+x.y@example.com"] {
            let expected = if same.starts_with("v.i+") { "vi@example.com" } else { "victim@example.com" };
            assert_eq!(mailbox(same), mailbox(expected), "{same}");
        }
        for other in ["victim2@example.com", "victim@mail.example.com", "+victim@example.com", "+@example.com"] {
            assert_ne!(mailbox(other), mailbox("victim@example.com"), "{other}");
        }
        assert_ne!(mailbox("+a@example.com"), mailbox("+b@example.com"));
    }

    #[test]
    fn unicode_and_punycode_domains_are_the_same_address() {
        let address = parse("you@例え.テスト").unwrap();
        assert_eq!(address.expose(), "you@xn--r8jz45g.xn--zckzah");
        assert_eq!(parse("you@xn--r8jz45g.xn--zckzah").unwrap().hash(), address.hash());
        assert_eq!(parse("you@BÜCHER.example").unwrap().hash(), parse("you@bücher.example").unwrap().hash());
    }

    #[test]
    fn local_part_is_kept_as_typed() {
        assert_eq!(parse("O'Brien+npm@Example.COM").unwrap().expose(), "O'Brien+npm@example.com");
    }

    #[test]
    fn invalid_and_unsendable_addresses_are_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("you@{}.com", "a.".repeat(130));
        for text in [
            "",
            "you",
            "@example.com",
            "you@",
            "you@example",
            "you@@example.com",
            "a b@example.com",
            "you@exa mple.com",
            "You <you@example.com>",
            "you@[127.0.0.1]",
            "you@127.0.0.1",
            "you@example.1",
            "\"a b\"@example.com",
            "ｙｏｕ@example.com",
            "ı@example.com",
            "you@example.com\r\nBcc: all@example.com",
            "you\r\n@example.com",
            "you@example.com\0",
            "you@-example.com",
            "you@example..com",
            ".you@example.com",
            "you.@example.com",
            "you@example.com,me@example.com",
            &long_local,
            &long,
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn address_is_masked_in_text_and_debug() {
        assert_eq!(parse("alice@example.com").unwrap().masked(), "a***@example.com");
        assert_eq!(parse("a@example.com").unwrap().masked(), "***@example.com");
        assert_eq!(format!("{:?}", parse("alice@example.com").unwrap()), "EmailAddress(a***@example.com)");
    }
}
