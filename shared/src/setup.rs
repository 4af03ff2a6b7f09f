//! What the set-up commands of package managers are made of, for the mails and the console.
//!
//! The commands are in `shared/templates/partials/commands.html`.

use std::fmt;

/// The variables of the commands. `Debug` is redacted: two of them contain the token.
pub struct Setup {
    /// The token, or a placeholder for it.
    pub key: String,
    /// The public URL of the service without a trailing slash.
    pub api: String,
    /// Its host, and its port unless it is the scheme's own.
    pub authority: String,
    /// The URL of the npm registry.
    pub npm_registry: String,
    /// The same without the scheme, as `.npmrc` names it.
    pub npm_registry_host_path: String,
    /// The URL of the PyPI index.
    pub pypi_index: String,
    /// The same with the token as password.
    pub pypi_index_with_key: String,
}

impl Setup {
    /// The set-up of a service at this public URL, with this token.
    pub fn new(public_url: &str, key: &str) -> Self {
        let (scheme, authority) = public_url.split_once("://").unwrap_or(("https", public_url));
        Self {
            key: key.to_owned(),
            api: public_url.to_owned(),
            authority: authority.to_owned(),
            npm_registry: format!("{public_url}/npm/"),
            npm_registry_host_path: format!("//{authority}/npm/"),
            pypi_index: format!("{public_url}/pypi/simple/"),
            pypi_index_with_key: format!("{scheme}://token:{key}@{authority}/pypi/simple/"),
        }
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("api", &self.api).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_redacts_the_token() {
        let shown = format!("{:?}", Setup::new("https://guard.example.com", "tg_org_secret"));
        assert!(shown.contains("guard.example.com") && !shown.contains("secret"), "{shown}");
    }
}
