//! How often notices of one kind about one thing are told, so that what happens again and again
//! does not fill a log.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Notice;
use crate::config::{IfName, RouterName};
use crate::node::Instant;

/// Notices of one kind about one thing: at most one in this time.
const NOTICE_PAUSE: Duration = Duration::from_secs(1);
/// Kinds and things that are remembered.
const LIMITS_MAX: usize = 4096;

/// A kind of notice, and the thing that it is about.
type Key = (u8, String);

/// When each kind of notice was last told of each thing.
#[derive(Debug, Default)]
pub(in crate::node) struct Limits {
    told: BTreeMap<Key, Instant>,
}

impl Limits {
    /// Whether this notice is to be told.
    pub(in crate::node) fn tells(&mut self, now: Instant, notice: &Notice) -> bool {
        let Some(key) = key(notice) else { return true };
        if self.told.get(&key).is_some_and(|at| now.since(*at) < NOTICE_PAUSE) {
            return false;
        }
        if self.told.len() >= LIMITS_MAX {
            self.told.clear();
        }
        self.told.insert(key, now);
        true
    }

    /// How much it remembers.
    pub(in crate::node) fn len(&self) -> usize {
        self.told.len()
    }
}

/// Notices with the same key come at most once a second; `None` is never held back.
fn key(notice: &Notice) -> Option<Key> {
    let of_router = |kind: u8, router: &RouterName| Some((kind, router.as_str().to_owned()));
    let of_interface = |kind, interface: &IfName| Some((kind, interface.as_str().to_owned()));
    match notice {
        Notice::Misconfigured { router, .. } => of_router(1, router),
        Notice::ForeignCluster { router, .. } => of_router(2, router),
        Notice::Differs { router, .. } => of_router(3, router),
        Notice::ChecksumForms { router } => of_router(4, router),
        Notice::Reannounced { router, .. } => of_router(5, router),
        Notice::Restoring { router, .. } => of_router(6, router),
        Notice::Overslept { router, .. } => of_router(7, router),
        Notice::SendFailed { interface, .. } => of_interface(8, interface),
        Notice::AddressConflict { router, .. } => of_router(12, router),
        Notice::DoesNotYield { router, .. } => of_router(13, router),
        Notice::UnfitVip { address, .. } => Some((61, address.to_string())),
        Notice::HeldByOther { other, .. } => Some((62, other.prefix.ip.to_string())),
        Notice::Vacated { address, .. } => Some((63, address.to_string())),
        Notice::Rejoined { interface, .. } => of_interface(15, interface),
        Notice::OwnAddress { interface, .. } => of_interface(14, interface),
        Notice::Stray { router, address, interface, .. } => {
            Some((16, format!("{router} {address} {interface}")))
        }
        Notice::AddressFailed { .. } => Some((9, String::new())),
        Notice::Overrun => Some((10, String::new())),
        Notice::DumpFailed { .. } => Some((11, String::new())),
        Notice::Discarded { interface, reason, .. } => {
            of_interface(20_u8.saturating_add(*reason as u8), interface)
        }
        Notice::Leftovers { .. }
        | Notice::NotAdvertised { .. }
        | Notice::NotReady { .. }
        | Notice::Flapping { .. }
        | Notice::SourceChanged { .. }
        | Notice::Stopping
        | Notice::Transition { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RouterName;

    fn of(router: &str) -> Notice {
        Notice::ChecksumForms { router: RouterName::new(router).unwrap() }
    }

    #[test]
    fn a_notice_of_one_kind_about_one_thing_is_told_once_a_second() {
        let mut limits = Limits::default();
        let start = Instant::ZERO;
        assert!(limits.tells(start, &of("51")));
        assert!(!limits.tells(start, &of("51")));
        assert!(limits.tells(start, &of("52")), "another thing");
        assert!(limits.tells(start, &Notice::Overrun), "another kind");
        let last = start + (NOTICE_PAUSE - Duration::from_nanos(1));
        assert!(!limits.tells(last, &of("51")));
        assert!(limits.tells(start + NOTICE_PAUSE, &of("51")));
    }

    #[test]
    fn what_is_remembered_of_very_many_things_stays_below_its_bound() {
        let mut limits = Limits::default();
        for n in 0..=LIMITS_MAX {
            assert!(limits.tells(Instant::ZERO, &of(&format!("r{n}"))));
            assert!(limits.len() <= LIMITS_MAX);
        }
    }
}
