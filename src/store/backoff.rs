//! How long to wait before the next endpoint is tried.

use std::time::Duration;

/// Between two endpoints of one round.
const NEXT: Duration = Duration::from_millis(100);
/// After the first round in which none answered.
const FIRST: Duration = Duration::from_millis(250);
/// Never longer.
const CEILING: Duration = Duration::from_secs(5);
/// After a wrong password.
const SLOW: Duration = Duration::from_secs(60);

/// The wait after `failures` failed attempts in a row (1 or more) at `endpoints` endpoints: short
/// within a round, doubled from round to round. `random` spreads it over its upper half, so that
/// many nodes that lost one server together do not come back together.
pub(super) fn wait(failures: u32, endpoints: usize, random: u64) -> Duration {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
    let rounds = failures / endpoints;
    let whole = if failures.is_multiple_of(endpoints) {
        FIRST.saturating_mul(1 << rounds.saturating_sub(1).min(16))
    } else {
        NEXT
    };
    spread(whole.min(CEILING), random)
}

/// The wait after a refusal that is everywhere the same and costs the server much: each wrong
/// password is a slow hash for it.
pub(super) fn slow(random: u64) -> Duration {
    spread(SLOW, random)
}

/// The upper half of a time, or less.
fn spread(whole: Duration, random: u64) -> Duration {
    let half = whole / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(random % nanos)
}

/// A next random number (splitmix64): good enough to spread waits.
pub(super) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_tight_and_none_is_longer_than_the_ceiling() {
        let mut state = 7;
        for endpoints in [0, 1, 3, 64] {
            for failures in (1..200).chain([u32::MAX - 1, u32::MAX]) {
                let wait = wait(failures, endpoints, random(&mut state));
                assert!(wait >= NEXT / 2 && wait <= CEILING, "{failures}: {wait:?}");
            }
        }
    }

    #[test]
    fn a_round_without_an_answer_doubles_the_wait() {
        let waits: Vec<_> = (1..8).map(|failures| wait(failures, 1, 0)).collect();
        for pair in waits.windows(2) {
            assert!(pair[1] == pair[0] * 2 || pair[1] == CEILING / 2, "{waits:?}");
        }
    }

    #[test]
    fn the_other_endpoints_of_a_round_are_tried_soon() {
        assert!(wait(1, 3, u64::MAX) <= NEXT);
        assert!(wait(301, 3, u64::MAX) <= NEXT);
    }
}
