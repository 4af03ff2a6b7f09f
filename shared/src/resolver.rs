//! Resolves host names for requests to upstream registries and OpenID issuers, and drops internal
//! addresses.
//!
//! A name says nothing about its address: one that an upstream redirects to, or an issuer names in
//! its metadata, may lead to this function's own runtime or to the private network behind it. So
//! the addresses are checked where they are used, between resolving and connecting.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::config;

/// The variables that name a proxy. reqwest resolves its name, too.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// The resolver of a client.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    /// The names that the operator configured: they may resolve to internal addresses.
    configured: Arc<BTreeSet<String>>,
}

impl Resolver {
    /// The resolver for a client of these URLs, which the operator configured. Their names and
    /// those of proxies may resolve to internal addresses.
    pub fn new(configured: &[Url]) -> Self {
        let proxies = PROXIES.into_iter().filter_map(config::optional).filter_map(|url| {
            // A proxy may be given without a scheme.
            Url::parse(&url).ok().filter(Url::has_host).or_else(|| Url::parse(&format!("http://{url}")).ok())
        });
        let names = configured.iter().cloned().chain(proxies).filter_map(|url| Some(plain(url.host_str()?)));
        Self { configured: Arc::new(names.collect()) }
    }

    /// Whether this name may lead to this address.
    fn allows(&self, name: &str, address: IpAddr) -> bool {
        !is_link_local(address) && (!is_internal(address) || self.configured.contains(&plain(name)))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            // The port is the URL's; 0 stands for it.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = found.filter(|address| resolver.allows(name.as_str(), address.ip()));
            let allowed: Vec<SocketAddr> = allowed.collect();
            if allowed.is_empty() {
                return Err("the host has no address that may be reached".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// A host name in lower case, without the dot of the root.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a URL's host is, without resolving it, this machine or an address of a private network.
pub(crate) fn has_internal_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = plain(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_internal(address.into()),
        Some(Host::Ipv6(address)) => is_internal(address.into()),
        None => true,
    }
}

/// Whether a URL's host is an address that nothing may reach, whatever is configured.
#[cfg(feature = "registry")]
pub(crate) fn has_link_local_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_link_local(address.into()),
        Some(Host::Ipv6(address)) => is_link_local(address.into()),
        Some(Host::Domain(_)) | None => false,
    }
}

/// Whether an address is link-local, or AWS's metadata service, whose IPv6 address is a private one.
/// No registry is there, but credentials are.
fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || matches!(address.segments(), [0xfd00, 0xec2, ..])
                || embedded(address).is_some_and(|address| address.is_link_local())
        }
    }
}

/// Whether an address is this machine's, one of a private network, or reserved.
fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.is_unique_local()
                // Site-local, the predecessor of unique local: fec0::/10.
                || address.segments()[0] & 0xffc0 == 0xfec0
                // NAT64 of a network's own: 64:ff9b:1::/48.
                || matches!(address.segments(), [0x64, 0xff9b, 1, ..])
                || embedded(address).is_some_and(is_internal_v4)
        }
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    first == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        // Shared by carriers and used inside clouds: 100.64.0.0/10.
        || first == 100 && (64..128).contains(&second)
        // Protocol assignments: 192.0.0.0/24.
        || (first, second, third) == (192, 0, 0)
        // Benchmarks: 198.18.0.0/15.
        || first == 198 && second & 0xfe == 18
        // Multicast and reserved: 224.0.0.0/3.
        || first >= 224
}

/// The IPv4 address that an IPv6 address leads to: by NAT64, 6to4, or as a compatible address.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., c, d] = address.segments();
    let last = Ipv4Addr::from_bits(u32::from(c) << 16 | u32::from(d));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => Some(last),
        [0x2002, a, b, ..] => Some(Ipv4Addr::from_bits(u32::from(a) << 16 | u32::from(b))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_private_and_shared_addresses_are_internal() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:100.64.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "64:ff9b:1::1",
            "64:ff9b:1:ffff::cb00:7107",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "192.0.0.170",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::ffff:198.18.0.1",
        ] {
            assert!(is_internal(address.parse().unwrap()), "{address}");
        }
        for address in [
            "203.0.113.7",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "169.253.0.1",
            "2001:db8::1",
            "::ffff:203.0.113.7",
            "64:ff9b::cb00:7107",
            "64:ff9b:2::1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
        ] {
            assert!(!is_internal(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn every_spelling_of_localhost_is_internal() {
        for host in ["localhost", "LOCALHOST", "localhost.", "a.localhost", "a.localhost.", "2130706433", "0x7f.1"] {
            assert!(has_internal_host(&Url::parse(&format!("http://{host}:1/")).unwrap()), "{host}");
        }
        for host in ["packages.example.com", "localhost.example.com", "notlocalhost"] {
            assert!(!has_internal_host(&Url::parse(&format!("http://{host}:1/")).unwrap()), "{host}");
        }
    }

    #[test]
    fn no_name_leads_to_link_local_addresses() {
        let resolver = Resolver::new(&[Url::parse("http://packages.internal/").unwrap()]);
        for address in ["169.254.169.254", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254"] {
            assert!(!resolver.allows("packages.internal", address.parse().unwrap()), "{address}");
        }
        assert!(resolver.allows("packages.internal", "10.0.0.1".parse().unwrap()));
        assert!(!resolver.allows("other.internal", "10.0.0.1".parse().unwrap()));
    }
}
