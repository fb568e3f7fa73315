//! Skew_Time and Active_Down_Interval (RFC 9568 §6.1, RFC 3768 §6.1), in whole nanoseconds
//! rounded down.

use std::time::Duration;

use super::{Centis, Priority, Version};

const NANOS_PER_CENTI: u64 = 10_000_000;

/// Skew_Time: by how much a backup of this priority waits longer than one of a higher priority.
///
/// Version 3: (256 - priority) / 256 of Active_Adver_Interval. Version 2: that part of a second,
/// whatever the interval. Never zero: an interval of 0 counts as 1.
#[must_use]
pub const fn skew_time(
    version: Version,
    priority: Priority,
    active_adver_interval: Centis,
) -> Duration {
    let unit = match version {
        Version::V2 => 100 * NANOS_PER_CENTI,
        Version::V3 => interval_nanos(active_adver_interval),
    };
    Duration::from_nanos((256 - priority.number() as u64) * unit / 256)
}

/// Active_Down_Interval (Master_Down_Interval in version 2): 3 × Active_Adver_Interval +
/// Skew_Time without an advertisement make a backup take over.
#[must_use]
pub const fn active_down_interval(
    version: Version,
    priority: Priority,
    active_adver_interval: Centis,
) -> Duration {
    let skew = skew_time(version, priority, active_adver_interval);
    Duration::from_nanos(3 * interval_nanos(active_adver_interval)).saturating_add(skew)
}

const fn interval_nanos(interval: Centis) -> u64 {
    match interval.0 {
        0 => NANOS_PER_CENTI,
        centis => centis as u64 * NANOS_PER_CENTI,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(version: Version, centis: u16, priority: u8) -> (u128, u128) {
        let priority = Priority::new(priority).unwrap();
        let skew = skew_time(version, priority, Centis(centis));
        let down = active_down_interval(version, priority, Centis(centis));
        (skew.as_nanos(), down.as_nanos())
    }

    #[test]
    fn version_3_timers_are_exact_to_the_nanosecond() {
        let exact = [
            (1, 254, 78_125, 30_078_125),
            (1, 100, 6_093_750, 36_093_750),
            (100, 100, 609_375_000, 3_609_375_000),
            (100, 200, 218_750_000, 3_218_750_000),
            (100, 255, 3_906_250, 3_003_906_250),
            (4095, 1, 40_790_039_062, 163_640_039_062),
        ];
        for (centis, priority, skew, down) in exact {
            let timers = nanos(Version::V3, centis, priority);
            assert_eq!(timers, (skew, down), "{centis} cs, priority {priority}");
        }
    }

    #[test]
    fn version_2_skew_is_a_part_of_a_second_whatever_the_interval() {
        assert_eq!(nanos(Version::V2, 100, 100), (609_375_000, 3_609_375_000));
        assert_eq!(nanos(Version::V2, 1000, 100), (609_375_000, 30_609_375_000));
        assert_eq!(nanos(Version::V2, 25_500, 255), (3_906_250, 765_003_906_250));
    }

    #[test]
    fn skew_is_positive_and_falls_with_priority_at_every_interval() {
        for version in [Version::V2, Version::V3] {
            for centis in 1..=4095 {
                let skews: Vec<u128> =
                    (1..=255).map(|priority| nanos(version, centis, priority).0).collect();
                assert!(skews.is_sorted_by(|a, b| a > b), "{version}, {centis} cs");
                assert!(*skews.last().unwrap() > 0, "{version}, {centis} cs");
            }
        }
    }

    proptest! {
        #[test]
        fn no_interval_makes_a_timer_zero_or_shorter_than_three_intervals(
            centis in any::<u16>(),
            priority in 1u8..,
        ) {
            for version in [Version::V2, Version::V3] {
                let (skew, down) = nanos(version, centis, priority);
                prop_assert!(skew > 0);
                prop_assert_eq!(down - skew, 3 * Centis(centis.max(1)).duration().as_nanos());
            }
        }
    }
}
