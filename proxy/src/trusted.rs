//! Who is believed when it says for whom it asks: other proxies, such as a TLS terminator.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The networks of the proxies before this one, whose `X-Forwarded-*` are believed; nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Returns whether a user at `address` is one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads addresses and networks with a comma between them: `127.0.0.1,10.0.0.0/8`.
impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl FromIterator<TrustedProxies> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = TrustedProxies>>(parts: I) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }
}

/// Writes them as they are read.
impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<String> = self.0.iter().map(IpNet::to_string).collect();
        f.write_str(&networks.join(","))
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address.to_canonical())));
    network
        .map(|network: IpNet| network.trunc())
        .map_err(|_| format!("`{text}` is not an address or a network; write `127.0.0.1` or `10.0.0.0/8`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_in_either_form() {
        let trusted: TrustedProxies = "127.0.0.1, 10.1.2.3/8,fd00::/8,".parse().unwrap();
        for (address, contained) in [
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.200.0.1", true),
            ("::ffff:10.200.0.1", true),
            ("11.0.0.1", false),
            ("fd12::1", true),
            ("::1", false),
        ] {
            assert_eq!(trusted.contain(address.parse().unwrap()), contained, "{address}");
        }
        assert_eq!(trusted.to_string(), "127.0.0.1/32,10.0.0.0/8,fd00::/8");
        assert!(TrustedProxies::default().is_empty() && "".parse::<TrustedProxies>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["localhost", "10.0.0.0/33", "10.0.0.1:80", "10.0.0"] {
            let error = text.parse::<TrustedProxies>().unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
