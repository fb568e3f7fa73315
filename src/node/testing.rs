//! What tests of the node are made from.

use std::time::Duration;

use crate::config::{ChecksumMode, IfName, Lifetime, Prefix, Router, RouterName};
use crate::wire::Family;
use crate::wire::vrrp::{Centis, Priority, Version, Vrid};

/// A version 3 IPv4 router with priority 100 and an interval of 1 s, VIP 10.0.0.`vrid`.
pub(crate) fn router(vrid: u8) -> Router {
    Router {
        name: RouterName::new(&vrid.to_string()).unwrap(),
        vrid: Vrid::new(vrid).unwrap(),
        version: Version::V3,
        family: Family::V4,
        interface: IfName::new("eth0").unwrap(),
        priority: Priority::DEFAULT,
        preempt: true,
        preempt_delay: Duration::ZERO,
        advert_interval: Centis(100),
        auth_pass: None,
        vips: vec![Prefix::host([10, 0, 0, vrid].into())],
        vips_excluded: Vec::new(),
        checksum: ChecksumMode::Auto,
        address_lifetime: Lifetime::Auto,
        check: None,
    }
}

/// A priority that is one.
pub(crate) fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap()
}
