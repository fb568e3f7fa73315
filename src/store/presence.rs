//! The lease under which this node says that it lives, and whether another box says so under the
//! same name.

use std::time::Duration;

use etcd_client::LeaseClient;

use super::channel::within;
use super::endpoint::Endpoint;
use super::error::{Error, ErrorKind};
use super::report::{Report, another_box};
use super::writes::{Seen, Want, refused_wait};
use crate::linux::clock;
use crate::node::Instant;

/// Seconds after which a node that is not heard of is gone.
const TTL: i64 = 15;
/// Between two renewals: two may be lost.
const RENEWAL: Duration = Duration::from_secs(5);

const LEASING: &str = "taking a lease";
const RENEWING: &str = "renewing a lease";
const GIVING_UP: &str = "giving a lease back";

/// This node's word that it lives; outlives sessions.
#[derive(Debug)]
pub(super) struct Presence {
    /// What shall stand there, and the MACs in it; `None`: nothing.
    report: Option<(String, Vec<String>)>,
    lease: Option<i64>,
    /// When the lease is taken or renewed.
    due_at: Instant,
    /// How often in a row it was refused.
    refused: u32,
}

/// Where leases are asked for.
pub(super) struct Leases<'a> {
    pub(super) client: &'a mut LeaseClient,
    pub(super) endpoint: &'a Endpoint,
    pub(super) timeout: Duration,
}

impl Presence {
    pub(super) const fn new() -> Self {
        Self { report: None, lease: None, due_at: Instant::ZERO, refused: 0 }
    }

    /// Takes what shall be said from now on; `None`: this node goes.
    pub(super) fn want(&mut self, report: Option<Report>) {
        let text = |report: Report| Some((serde_json::to_string(&report).ok()?, report.macs));
        self.report = report.and_then(text);
    }

    /// Whether nothing is said, and nothing is left that was.
    pub(super) const fn is_gone(&self) -> bool {
        self.report.is_none() && self.lease.is_none()
    }

    /// Whether the server does not give a lease.
    pub(super) const fn is_refused(&self) -> bool {
        self.refused > 0
    }

    /// The lease, while there is one.
    pub(super) const fn lease(&self) -> Option<i64> {
        self.lease
    }

    /// What shall stand at this node's key, once there is a lease for it.
    pub(super) fn wanted(&self, seen: Option<&Seen>) -> Option<Want> {
        if self.rival(seen).is_some() {
            return None;
        }
        let (value, _) = self.report.as_ref()?;
        Some(Want { value: value.clone(), lease: self.lease? })
    }

    /// In words, the box that lives under this node's name and is another one.
    pub(super) fn rival(&self, seen: Option<&Seen>) -> Option<String> {
        let seen = seen?;
        // Without a lease it says nothing about now.
        if seen.lease == 0 || Some(seen.lease) == self.lease {
            return None;
        }
        let (_, macs) = self.report.as_ref()?;
        another_box(seen.value.as_deref()?, macs)
    }

    /// The server knows the lease no more.
    pub(super) fn lost(&mut self) {
        self.lease = None;
        self.due_at = Instant::ZERO;
    }

    /// When [`attend`](Self::attend) next has something to do.
    pub(super) fn next_deadline(&self, seen: Option<&Seen>) -> Option<Instant> {
        match (&self.report, self.lease) {
            (None, None) => None,
            (None, Some(_)) => Some(Instant::ZERO),
            (Some(_), Some(_)) => Some(self.due_at),
            // Its lease ends with it, and that is an event.
            (Some(_), None) if self.rival(seen).is_some() => None,
            (Some(_), None) => Some(self.due_at),
        }
    }

    /// Takes, renews or gives back the lease, if it is time. Gives what the server refused.
    ///
    /// # Errors
    /// What ends the session.
    pub(super) async fn attend(
        &mut self,
        leases: Leases<'_>,
        seen: Option<&Seen>,
    ) -> Result<Option<Error>, Error> {
        let Leases { client, endpoint, timeout } = leases;
        if self.next_deadline(seen).is_none_or(|at| at > clock::now()) {
            return Ok(None);
        }
        let result = match (&self.report, self.lease) {
            (None, Some(id)) => {
                // What could not be given back ends by itself.
                self.lease = None;
                within(endpoint, GIVING_UP, timeout, client.revoke(id)).await.map(drop)
            }
            (None, None) => Ok(()),
            (Some(_), Some(id)) => {
                // Asked for once: what is on the stream later belongs to nobody.
                match within(endpoint, RENEWING, timeout, client.keep_alive(id)).await {
                    Err(error) if error.kind() == ErrorKind::LeaseGone => {
                        self.lost();
                        return Ok(None);
                    }
                    renewed => renewed.map(drop),
                }
            }
            (Some(_), None) => within(endpoint, LEASING, timeout, client.grant(TTL, None))
                .await
                .map(|granted| self.lease = Some(granted.id())),
        };
        match result {
            Ok(()) => {
                self.refused = 0;
                self.due_at = clock::now() + RENEWAL;
                Ok(None)
            }
            Err(error) if error.kind().ends_session() => Err(error),
            Err(error) => {
                self.refused = self.refused.saturating_add(1);
                self.due_at = clock::now() + refused_wait(self.refused);
                Ok(Some(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report(mac: &str) -> Report {
        Report {
            schema: 1,
            node: "gw1".to_owned(),
            version: "0",
            started: 1,
            macs: vec![mac.to_owned()],
            node_ip: None,
            source: "etcd",
            revision: 3,
            routers: BTreeMap::new(),
        }
    }

    fn seen(mac: &str, lease: i64) -> Seen {
        let value = serde_json::to_vec(&report(mac)).unwrap();
        Seen { value: Some(value), lease, mod_revision: 9 }
    }

    #[test]
    fn a_name_is_taken_only_by_another_box_that_lives() {
        let mut presence = Presence::new();
        presence.want(Some(report("a")));
        presence.lease = Some(7);
        for (seen, taken) in [
            (None, false),
            (Some(Seen::default()), false),
            (Some(seen("a", 7)), false),
            // This box before it was started anew.
            (Some(seen("a", 8)), false),
            (Some(seen("b", 0)), false),
            (Some(seen("b", 7)), false),
            (Some(seen("b", 8)), true),
        ] {
            assert_eq!(presence.rival(seen.as_ref()).is_some(), taken, "{seen:?}");
            assert_eq!(presence.wanted(seen.as_ref()).is_none(), taken, "{seen:?}");
        }
    }

    #[test]
    fn a_node_without_a_lease_says_nothing_and_one_that_goes_gives_it_back() {
        let mut presence = Presence::new();
        assert!(presence.is_gone() && presence.next_deadline(None).is_none());
        presence.want(Some(report("a")));
        assert!(presence.wanted(None).is_none());
        assert!(presence.next_deadline(None).is_some());
        // Nothing to be taken as long as another has the name.
        assert_eq!(presence.next_deadline(Some(&seen("b", 8))), None);
        presence.lease = Some(7);
        assert_eq!(presence.wanted(None).unwrap().lease, 7);
        presence.want(None);
        assert!(!presence.is_gone());
        assert_eq!(presence.next_deadline(None), Some(Instant::ZERO));
    }
}
