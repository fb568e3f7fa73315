//! The validated configuration: values that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::wire::Family;
use crate::wire::vrrp::{Centis, Priority, Version, Vrid};

/// Everything that one node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// `node/NODE/node_ip`; the daemon falls back to an address of the box where it is absent.
    pub node_ip: Option<IpAddr>,
    /// The routers that this node runs, in the order of their names. Disabled ones are not here.
    pub routers: BTreeMap<RouterName, Arc<Router>>,
}

/// One virtual router as this node runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Last path segment of its keys.
    pub name: RouterName,
    /// On the wire.
    pub vrid: Vrid,
    /// 2 or 3; 2 only with IPv4.
    pub version: Version,
    /// Family of all `vips`.
    pub family: Family,
    /// Where it advertises and where its VIPs are.
    pub interface: IfName,
    /// 1 to 255; 255 says that the VIPs are the box's own addresses.
    pub priority: Priority,
    /// Whether a healthy active router of lower priority is taken over.
    pub preempt: bool,
    /// How long after a lower-priority active router was first heard it is taken over from.
    pub preempt_delay: Duration,
    /// How long after its start, or its link's, it listens before it takes over out of silence.
    pub listen_first: Duration,
    /// How long an active router bears the loss of its link.
    pub carrier_delay: Duration,
    /// How often an active router asks who else has one of its VIPs; zero: never.
    pub probe_interval: Duration,
    /// Whether an active router whose adverts cannot be sent gives its addresses up.
    pub yield_on_send_errors: bool,
    /// Version 2: whole seconds. Version 3: 1 to 4095.
    pub advert_interval: Centis,
    /// Simple text password, version 2 only.
    pub auth_pass: Option<Secret>,
    /// Advertised VIPs in their configured order, at least one.
    pub vips: Vec<Prefix>,
    /// VIPs that follow this router without being advertised, of either family.
    pub vips_excluded: Vec<Prefix>,
    /// Which checksum forms are sent.
    pub checksum: ChecksumMode,
    /// How long an address outlives the daemon.
    pub address_lifetime: Lifetime,
    /// Read and shown; nothing acts on it yet.
    pub check: Option<Check>,
}

/// The check program of a router, as its keys say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Name of the program in the local directory of checks.
    pub name: Option<String>,
    /// `check_interval`.
    pub interval: Option<Duration>,
    /// `check_timeout`.
    pub timeout: Option<Duration>,
    /// `check_rise`.
    pub rise: Option<u32>,
    /// `check_fall`.
    pub fall: Option<u32>,
}

/// An address with its prefix length; host bits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address.
    pub ip: IpAddr,
    /// 1 to 32 or 128.
    pub len: u8,
}

impl Prefix {
    /// A host address: /32 or /128.
    #[must_use]
    pub const fn host(ip: IpAddr) -> Self {
        Self { ip, len: Family::of(&ip).bits() }
    }

    /// Whether all of `inner` lies within.
    #[must_use]
    pub fn covers(&self, inner: &Self) -> bool {
        inner.len >= self.len && self.contains(&inner.ip)
    }

    /// Whether `ip` shares the prefix.
    #[must_use]
    pub fn contains(&self, ip: &IpAddr) -> bool {
        let bits = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let rest = 128 - u32::from(self.len);
        Family::of(ip) == Family::of(&self.ip)
            && (bits(ip) ^ bits(&self.ip)).checked_shr(rest).unwrap_or(0) == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == Family::of(&self.ip).bits() {
            self.ip.fmt(f)
        } else {
            write!(f, "{}/{}", self.ip, self.len)
        }
    }
}

/// What an advertisement of version 3 over IPv4 is summed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumMode {
    /// The form last heard from another node of this router, else with a pseudo-header.
    Auto,
    /// Two advertisements, one of each form.
    Both,
    /// With a pseudo-header: RFC 5798 as keepalived and FRR send it.
    PseudoHeader,
    /// The message alone.
    Rfc9568,
}

/// How long the kernel keeps a VIP that nobody renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// max(4 s, 1.5 × Active_Down_Interval rounded up to seconds).
    Auto,
    /// Until the daemon takes it away.
    Forever,
    /// Whole seconds, at least 2.
    Seconds(u32),
}

/// A password or key. It has no `Display`, and its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `secret` from being shown.
    #[must_use]
    pub const fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The text itself, for the wire and for the snapshot alone.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A router's name, the last path segment of its keys: its VRID, or letters, digits, `-` and
    /// `_` with a key `vrid` beside them. `default` is reserved.
    RouterName
}
name! {
    /// A node's name: one path segment, as in `node/NODE/vrids`.
    NodeName
}
name! {
    /// A network interface's name, 1 to 15 bytes as the kernel has it.
    IfName
}

/// Why a text cannot be a name of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName(pub &'static str);

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl RouterName {
    /// # Errors
    /// Empty, over 64 bytes, `default`, a character other than letters, digits, `-` and `_`, or
    /// what looks like a range of numbers.
    pub fn new(name: &str) -> Result<Self, BadName> {
        if name.is_empty() || name.len() > 64 {
            return Err(BadName("a router's name has 1 to 64 characters"));
        }
        if name == "default" {
            return Err(BadName("the name \"default\" is reserved for the defaults"));
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(BadName("a router's name has letters, digits, \"-\" and \"_\" only"));
        }
        if name.contains('-') && name.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return Err(BadName("a router's name must not look like a range of VRIDs"));
        }
        Ok(Self(name.into()))
    }
}

impl NodeName {
    /// # Errors
    /// Empty, over 253 bytes, or a slash, white space or control character in it.
    pub fn new(name: &str) -> Result<Self, BadName> {
        if name.is_empty() || name.len() > 253 {
            return Err(BadName("a node's name has 1 to 253 characters"));
        }
        if name.chars().any(|c| c == '/' || c.is_whitespace() || c.is_control()) {
            return Err(BadName("a node's name has no slash and no white space"));
        }
        Ok(Self(name.into()))
    }
}

impl IfName {
    /// The tunnel interface of the original havip's gateways.
    #[must_use]
    pub fn tun0() -> Self {
        Self("tun0".into())
    }

    /// # Errors
    /// What the kernel refuses as an interface's name (`dev_valid_name`).
    pub fn new(name: &str) -> Result<Self, BadName> {
        if name.is_empty() || name.len() > 15 {
            return Err(BadName("an interface's name has 1 to 15 characters"));
        }
        if name == "." || name == ".." {
            return Err(BadName("an interface cannot be named \".\" or \"..\""));
        }
        if name.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace() || b < 0x20) {
            return Err(BadName("an interface's name has no \"/\", no \":\" and no white space"));
        }
        Ok(Self(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_what_shares_its_prefix_and_family() {
        let network = |ip: &str, len| Prefix { ip: ip.parse().unwrap(), len };
        for (ip, len, other, expected) in [
            ("10.0.0.0", 8, "10.255.0.1", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("10.0.0.1", 32, "10.0.0.1", true),
            ("10.0.0.1", 32, "10.0.0.2", false),
            ("0.0.0.0", 0, "192.0.2.1", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("2001:db8::", 32, "2001:db8:ffff::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("::", 0, "2001:db9::1", true),
            ("10.0.0.0", 8, "fe80::1", false),
            ("fe80::1", 128, "fe80::1", true),
        ] {
            assert_eq!(network(ip, len).contains(&other.parse().unwrap()), expected, "{ip}");
        }
        assert!(network("10.0.0.0", 8).covers(&network("10.9.0.0", 16)));
        assert!(!network("10.0.0.0", 8).covers(&network("10.9.0.0", 7)));
    }
}
