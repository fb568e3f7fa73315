//! The keys of the datastore: one table for reading, checking, showing and completing.

/// A key of a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The last path segment.
    pub name: &'static str,
    /// Whether it may stand in `default`.
    pub in_default: bool,
    /// Whether its value must not be shown.
    pub secret: bool,
    /// What it says, with values and default.
    pub doc: &'static str,
}

const fn key(name: &'static str, doc: &'static str) -> Key {
    Key { name, in_default: true, secret: false, doc }
}

/// Every key of a virtual router, in the order in which they are shown. Each may stand under
/// `virtual_router/NAME/`, `virtual_router/default/` and, for one node, below `node/NODE/`.
pub const ROUTER_KEYS: &[Key] = &[
    Key {
        in_default: false,
        ..key("vips", "virtual IPs: IP, IP/LEN or a range (192.0.2.10-20); comma list or TOML list")
    },
    Key {
        in_default: false,
        ..key("vips_excluded", "VIPs that follow without being advertised, of either family")
    },
    Key { in_default: false, ..key("vrid", "1 to 255; a router named by its number needs none") },
    key("interface", "network interface for adverts and VIPs"),
    key("enabled", "true or false; false releases the router (default true)"),
    key("profile", "original: VRRPv2, priority 50, nopreempt and password of the original havip"),
    key("version", "2 or 3 (default 3)"),
    key("priority", "1 to 255; 255 owns the addresses (default 100)"),
    key("preempt", "true or false: take over from a lower priority (default true)"),
    key("preempt_delay", "seconds from its first advert to that, 0 to 1000 (default 0)"),
    key(
        "listen_first",
        "seconds to listen after a start or link-up before taking over, 0 to 600 (default 1.2)",
    ),
    key("carrier_delay", "seconds that an active router bears a lost link, 0 to 60 (default 0)"),
    key(
        "probe_interval",
        "seconds after which an active router asks who else has a VIP, 0 (never) to 3600 (default 60)",
    ),
    key(
        "yield_on_send_errors",
        "true or false: give up when adverts cannot be sent (default true)",
    ),
    key("accept", "true: the active node answers on its VIPs (the only value so far)"),
    key("advert_interval", "seconds: 0.01 to 40.95, version 2 whole ones to 255 (default 1)"),
    Key { secret: true, ..key("auth_pass", "1 to 8 bytes, version 2 only") },
    key("checksum", "auto, rfc9568, pseudo_header or both; version 3 over IPv4 (default auto)"),
    key("address_lifetime", "auto, forever, or seconds that a VIP outlives the daemon (auto)"),
    key("check", "name of a check program (read, not acted on yet)"),
    key("check_interval", "seconds (read, not acted on yet)"),
    key("check_timeout", "seconds (read, not acted on yet)"),
    key("check_rise", "count (read, not acted on yet)"),
    key("check_fall", "count (read, not acted on yet)"),
];

/// The keys of a node, beside its `virtual_router/` tables.
pub const NODE_KEYS: &[&str] = &["node_ip", "vrids"];

/// The keys of a binding: a ledger of the platform above, which no node acts on.
pub const BINDING_KEYS: &[&str] = &["namespace", "services", "shared", "vrid"];

/// The branches of the tree.
pub const BRANCHES: &[&str] =
    &["binding", "node", "status", "vRouterGateway", "virtual_router", "virtual_routers"];

/// Those of them that nodes write.
pub(super) const OUTPUTS: [&str; 2] = ["status", "vRouterGateway"];

/// The key of this name.
#[must_use]
pub fn router_key(name: &str) -> Option<&'static Key> {
    ROUTER_KEYS.iter().find(|key| key.name == name)
}

/// Whether what stands at a path must not be shown.
#[must_use]
pub fn is_secret(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    router_key(name).is_some_and(|key| key.secret)
}
