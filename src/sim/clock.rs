//! A machine's own clock: began at another time than the world's, and runs at its own rate.

use crate::node::Instant;

/// Most that a clock may be off, in millionths: cheap crystals are within 100.
pub const DRIFT_MAX_PPM: i64 = 200;
const MILLION: i128 = 1_000_000;

/// How one machine's clock stands to the world's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What it shows when the world begins, in nanoseconds.
    pub offset_ns: u64,
    /// How much faster than the world's it runs, in millionths; ±[`DRIFT_MAX_PPM`].
    pub ppm: i64,
}

impl Clock {
    /// What it shows at a time of the world.
    #[must_use]
    pub fn shows(self, world: Instant) -> Instant {
        let nanos = i128::from(world.nanos());
        let own = i128::from(self.offset_ns) + nanos + nanos * i128::from(self.ppm) / MILLION;
        Instant::from_nanos(u64::try_from(own.max(0)).unwrap_or(u64::MAX))
    }

    /// The first time of the world at which it shows `own` or more.
    #[must_use]
    pub fn reaches(self, own: Instant) -> Instant {
        let elapsed = i128::from(own.nanos().saturating_sub(self.offset_ns));
        let world = elapsed * MILLION / (MILLION + i128::from(self.ppm));
        let mut world = Instant::from_nanos(u64::try_from(world).unwrap_or(u64::MAX));
        // Division rounds, either way.
        while self.shows(world) < own {
            world = Instant::from_nanos(world.nanos() + 1);
        }
        world
    }
}
