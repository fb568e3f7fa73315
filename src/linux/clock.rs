//! The clock that deadlines are measured with, and the one on the wall.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::node::Instant;

/// CLOCK_BOOTTIME: monotonic, and runs on in suspend, so that a box that wakes up sees how long it
/// was away.
#[must_use]
pub fn now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    // Fails only for an unknown clock (kernels before 2.6.39) or a bad pointer.
    debug_assert_eq!(result, 0, "CLOCK_BOOTTIME is there since Linux 2.6.39");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Seconds since 1970, as far as the box knows: to be shown, never to be waited for.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_run_backwards() {
        let first = now();
        assert!(first > Instant::ZERO);
        assert!(now() >= first);
    }
}
