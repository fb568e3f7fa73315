//! What operators are told is true: they get up for it.

use havip::node::notice::{Level, Notice};
use havip::sim::Turn;

use super::super::faults::Kind;
use super::{Found, Watch};

impl Watch {
    /// An operator is woken by errors: each must come from something that is wrong.
    pub(super) fn no_error_without_a_fault(&self, turn: &Turn) -> Found {
        for notice in turn.notices.iter().filter(|notice| notice.level() == Level::Error) {
            let causes: &[Kind] = match notice {
                // Told neither in notifications nor in a dump, it adds what is there.
                Notice::AddressFailed { .. } => {
                    &[Kind::DumpsFail, Kind::LinkGone, Kind::Operations]
                }
                // What this machine says does not arrive at the other, or not in time.
                Notice::DoesNotYield { .. } => &[
                    // Over IPv6 nothing leaves without one, and it may not hear that it has none.
                    Kind::AddressGone,
                    Kind::Bursts,
                    Kind::Corrupt,
                    Kind::Cut,
                    Kind::Late,
                    Kind::Loss,
                    Kind::Reorder,
                    Kind::SendsFail,
                ],
                // Somebody puts a VIP there.
                Notice::Stray { .. } => &[Kind::Others, Kind::Squat],
                Notice::DumpFailed { .. } => &[Kind::DumpsFail],
                Notice::SendFailed { .. } => &[Kind::SendsFail],
                Notice::Misconfigured { .. } => &[
                    Kind::Interval,
                    Kind::Restored,
                    Kind::EtcdGone,
                    Kind::Emptied,
                    Kind::BadEntry,
                    Kind::Forbidden,
                    Kind::Password,
                    Kind::Torn,
                ],
                _ => &[],
            };
            // What another machine suffers, or is told.
            let others =
                matches!(notice, Notice::DoesNotYield { .. } | Notice::Misconfigured { .. });
            let excused = self.ever(causes, turn.machine)
                || (others && self.began.iter().any(|(kind, _)| causes.contains(kind)));
            if !excused {
                return Err(format!(
                    "machine {}: an error without a fault: {notice}",
                    turn.machine
                ));
            }
        }
        Ok(())
    }

    /// Whoever is told that someone removes addresses looks for him.
    pub(super) fn nobody_is_said_to_remove_what_nobody_removed(&self, turn: &Turn) -> Found {
        const CAUSES: [Kind; 12] = [
            Kind::Deaf,
            Kind::DumpsFail,
            Kind::Freeze,
            Kind::Kill,
            Kind::Late,
            Kind::LateNotes,
            Kind::LinkGone,
            // Its lifetime ends.
            Kind::Operations,
            Kind::Slow,
            Kind::Squat,
            Kind::Stranger,
            Kind::Others,
        ];
        let said = turn.notices.iter().find(|said| matches!(said, Notice::Restored { .. }));
        match said.filter(|_| !self.ever(&CAUSES, turn.machine)) {
            Some(said) => Err(format!("machine {}: nobody did: {said}", turn.machine)),
            None => Ok(()),
        }
    }
}
