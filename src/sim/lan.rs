//! The wires: what is lost on them, delayed, doubled and changed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rng::Rng;

/// Time from the wire of one node to the socket of another.
const LATENCY_NS: (u64, u64) = (20_000, 200_000);
/// Thousandths of packets with which a burst of loss ends (Gilbert-Elliott): ten packets long.
const BURST_ENDS: u64 = 100;

/// What can be wrong with the LAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Packets lost, in thousandths.
    pub loss: u64,
    /// Packets with which a burst of loss begins, in thousandths; in one, most are lost.
    pub bursts: u64,
    /// Packets that arrive twice, in thousandths.
    pub duplicate: u64,
    /// Packets with one bit flipped, in thousandths.
    pub corrupt: u64,
    /// Largest extra delay of a packet in nanoseconds: more than the pace of packets reorders.
    pub jitter_ns: u64,
}

/// The wires of all machines.
#[derive(Debug, Default)]
pub(super) struct Lan {
    pub(super) faults: Faults,
    /// Pairs (from, to) between which nothing passes.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Pairs in a burst of loss.
    bursts: BTreeSet<(usize, usize)>,
}

impl Lan {
    /// What arrives of one packet, and after which time each copy does.
    pub(super) fn pass(
        &mut self,
        rng: &mut Rng,
        pair: (usize, usize),
        payload: &[u8],
    ) -> Vec<(Duration, Vec<u8>)> {
        let Faults { duplicate, corrupt, jitter_ns, .. } = self.faults;
        if self.cut.contains(&pair) || self.is_lost(rng, pair) {
            return Vec::new();
        }
        let copies = if rng.chance(duplicate) { 2 } else { 1 };
        let copy = |_| {
            let mut bytes = payload.to_vec();
            if rng.chance(corrupt) && !bytes.is_empty() {
                let bits = u64::try_from(bytes.len() * 8).unwrap_or(1);
                let bit = usize::try_from(rng.below(bits)).unwrap_or(0);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let (least, most) = LATENCY_NS;
            let nanos = least + rng.below(most - least) + rng.below(jitter_ns + 1);
            (Duration::from_nanos(nanos), bytes)
        };
        (0..copies).map(copy).collect()
    }

    fn is_lost(&mut self, rng: &mut Rng, pair: (usize, usize)) -> bool {
        if self.faults.bursts == 0 {
            self.bursts.clear();
        } else if self.bursts.contains(&pair) {
            if rng.chance(BURST_ENDS) {
                self.bursts.remove(&pair);
            }
            return rng.chance(900);
        } else if rng.chance(self.faults.bursts) {
            self.bursts.insert(pair);
        }
        rng.chance(self.faults.loss)
    }
}
