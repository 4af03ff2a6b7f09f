//! What the set-up commands of package managers are made of, for the mails and the console.
//!
//! The commands are in `shared/templates/partials/commands.html`.

use std::fmt;

use crate::domain::Ecosystem;
use crate::hosts::RegistryHosts;

/// The variables of the commands. `Debug` is redacted: two of them contain the token.
pub struct Setup {
    /// The token, or a placeholder for it.
    pub key: String,
    /// The URL with the endpoints of email-verified tokens, without a trailing slash.
    pub api: String,
    /// The URL of the npm registry.
    pub npm_registry: String,
    /// The same without the scheme, as `.npmrc` names it.
    pub npm_registry_host_path: String,
    /// The URL of the PyPI index.
    pub pypi_index: String,
    /// The same with the token as password.
    pub pypi_index_with_key: String,
    /// The host of the index, and its port unless it is the scheme's own.
    pub pypi_authority: String,
}

impl Setup {
    /// The set-up of a service at this public URL, with this token. Registries with hosts of their
    /// own are set up with these.
    pub fn new(public_url: &str, hosts: &RegistryHosts, key: &str) -> Self {
        let own_npm = hosts.url(Ecosystem::Npm);
        let npm = own_npm.clone().unwrap_or_else(|| format!("{public_url}/npm"));
        let pypi = hosts.url(Ecosystem::Pypi).unwrap_or_else(|| format!("{public_url}/pypi"));
        let (_, npm_host_path) = scheme_and_rest(&npm);
        let (scheme, pypi_host_path) = scheme_and_rest(&pypi);
        Self {
            key: key.to_owned(),
            api: own_npm.unwrap_or_else(|| public_url.to_owned()),
            npm_registry: format!("{npm}/"),
            npm_registry_host_path: format!("//{npm_host_path}/"),
            pypi_index: format!("{pypi}/simple/"),
            pypi_index_with_key: format!("{scheme}://token:{key}@{pypi_host_path}/simple/"),
            pypi_authority: pypi_host_path.split('/').next().unwrap_or_default().to_owned(),
        }
    }
}

fn scheme_and_rest(url: &str) -> (&str, &str) {
    url.split_once("://").unwrap_or(("https", url))
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
        let setup = Setup::new("https://guard.example.com", &RegistryHosts::default(), "tg_org_secret");
        let shown = format!("{setup:?}");
        assert!(shown.contains("guard.example.com") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn registries_without_hosts_of_their_own_have_paths() {
        let setup = Setup::new("https://guard.example.com", &RegistryHosts::default(), "KEY");
        assert_eq!(setup.api, "https://guard.example.com");
        assert_eq!(setup.npm_registry, "https://guard.example.com/npm/");
        assert_eq!(setup.npm_registry_host_path, "//guard.example.com/npm/");
        assert_eq!(setup.pypi_index, "https://guard.example.com/pypi/simple/");
        assert_eq!(setup.pypi_index_with_key, "https://token:KEY@guard.example.com/pypi/simple/");
        assert_eq!(setup.pypi_authority, "guard.example.com");
    }

    #[test]
    fn each_registry_is_set_up_at_its_own_host_if_it_has_one() {
        let hosts = RegistryHosts::new(Some("npm.example.com"), Some("pypi.example.com"));
        let setup = Setup::new("https://guard.example.com", &hosts, "KEY");
        assert_eq!(setup.api, "https://npm.example.com");
        assert_eq!(setup.npm_registry, "https://npm.example.com/");
        assert_eq!(setup.npm_registry_host_path, "//npm.example.com/");
        assert_eq!(setup.pypi_index, "https://pypi.example.com/simple/");
        assert_eq!(setup.pypi_index_with_key, "https://token:KEY@pypi.example.com/simple/");
        assert_eq!(setup.pypi_authority, "pypi.example.com");

        let setup = Setup::new("https://guard.example.com", &RegistryHosts::new(None, Some("pypi.example.com")), "KEY");
        assert_eq!(setup.api, "https://guard.example.com");
        assert_eq!(setup.npm_registry_host_path, "//guard.example.com/npm/");
        assert_eq!(setup.pypi_index, "https://pypi.example.com/simple/");
    }
}
