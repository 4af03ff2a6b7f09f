//! The process environment, read here and nowhere else. Each part of the service names its settings
//! beside the type that holds them.

use std::str::FromStr;

/// A setting that the deployment must give is missing or malformed.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {0} is missing or malformed")]
pub struct MissingSetting(pub &'static str);

/// The value of a setting that the deployment must give.
///
/// # Errors
///
/// If the variable is not set or empty.
pub fn required(name: &'static str) -> Result<String, MissingSetting> {
    optional(name).ok_or(MissingSetting(name))
}

/// The value of a setting; `None` if the variable is not set or empty, since CloudFormation cannot
/// leave a variable out.
#[allow(clippy::disallowed_methods)] // The one place that reads the environment.
pub fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The parsed value of a setting; `None` if the variable is not set or empty.
///
/// # Errors
///
/// If the value cannot be parsed.
pub fn parsed<T: FromStr>(name: &'static str) -> Result<Option<T>, MissingSetting> {
    optional(name).map(|text| text.parse().map_err(|_| MissingSetting(name))).transpose()
}
