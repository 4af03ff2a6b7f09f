//! What the deployment decides. The environment is read here and nowhere else.

/// The settings of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the table that holds everything but the installation log: `TOKENS_TABLE`.
    pub tokens_table: String,
}

/// A setting that the deployment must give is missing.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {0} is not set")]
pub struct MissingSetting(&'static str);

impl Config {
    /// Reads the settings from the environment.
    pub fn from_env() -> Result<Self, MissingSetting> {
        Ok(Self { tokens_table: required("TOKENS_TABLE")? })
    }
}

#[allow(clippy::disallowed_methods)] // The one place that reads the environment.
fn required(name: &'static str) -> Result<String, MissingSetting> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(MissingSetting(name))
}
