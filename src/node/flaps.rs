//! How often a router's changes of state are told one by one: what flaps for hours must not fill a
//! disk, and its log has to say so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Instant;
use crate::config::RouterName;

/// Changes of one router that are told one by one in each window.
const TOLD_MAX: u32 = 20;
/// How long a window is.
pub(super) const FLAPS_WINDOW: Duration = Duration::from_secs(10);

/// What was told, and what was not, of each router that changed.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    routers: BTreeMap<RouterName, Window>,
    /// Those of which something was not told, by the end of their window.
    due: BTreeSet<(Instant, RouterName)>,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    told: u32,
    untold: u32,
}

impl Flaps {
    /// Whether a change of this router is to be told.
    pub(super) fn tells(&mut self, now: Instant, router: &RouterName) -> bool {
        let fresh = Window { ends: now + FLAPS_WINDOW, told: 0, untold: 0 };
        if !self.routers.contains_key(router) {
            self.routers.insert(router.clone(), fresh);
        } else if let Some(window) = self.routers.get_mut(router)
            && window.untold == 0
            && now >= window.ends
        {
            *window = fresh;
        }
        let Some(window) = self.routers.get_mut(router) else { return true };
        if window.told < TOLD_MAX {
            window.told += 1;
            return true;
        }
        if window.untold == 0 {
            self.due.insert((window.ends, router.clone()));
        }
        window.untold = window.untold.saturating_add(1);
        false
    }

    /// A router of which not everything was told, and how much that is, once its window is over.
    pub(super) fn untold(&mut self, now: Instant) -> Option<(RouterName, u32)> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, router) = self.due.pop_first()?;
        let window = self.routers.remove(&router)?;
        Some((router, window.untold))
    }

    /// When the next window is over of which something is to be told.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// This router is no more.
    pub(super) fn forget(&mut self, router: &RouterName) {
        if let Some(window) = self.routers.remove(router) {
            self.due.remove(&(window.ends, router.clone()));
        }
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        [("routers that changed", self.routers.len()), ("untold changes", self.due.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::{Change, Link};
    use super::super::testing::{Bench, ETH0, link, router};
    use super::super::{Event, Notice};
    use super::*;

    #[test]
    fn a_link_that_flaps_five_thousand_times_leaves_a_few_lines_and_a_count() {
        let mut bench = Bench::new(vec![router(51)]);
        bench.pass(Duration::from_secs(60));
        let mut lines = 0;
        let flap = |bench: &mut Bench, running: bool| {
            let link = Link { running, ..link(ETH0) };
            bench.event(Event::Kernel(Change::Link(link)));
            let lines = bench.actions.notices.len();
            bench.settle();
            lines
        };
        for _ in 0..5_000 {
            lines += flap(&mut bench, false);
            lines += flap(&mut bench, true);
            bench.now = bench.now + Duration::from_micros(260);
        }
        assert!(lines <= 2 * TOLD_MAX as usize, "{lines}");
        let mut counted = 0;
        let end = bench.now + FLAPS_WINDOW * 2;
        while let Some(at) = bench.node.next_deadline().filter(|at| *at <= end) {
            bench.now = bench.now.max(at);
            bench.timeout();
            counted += bench.actions.notices.iter().fold(0, |sum, notice| match notice {
                Notice::Flapping { count, state: "backup" | "active", .. } => sum + count,
                _ => sum,
            });
            bench.settle();
        }
        assert!(counted > 14_000, "{counted}");
        // A calm router's changes are told one by one again.
        bench.event(Event::Kernel(Change::Link(Link { running: false, ..link(ETH0) })));
        let told = |notice: &Notice| matches!(notice, Notice::Transition { .. });
        assert!(bench.actions.notices.iter().any(told));
    }
}
