//! Others who have what a gateway has, or say so: whoever asks is told who, and what to do.

use super::*;

isolated! {
    fn a_hand_over_to_a_gateway_that_stood_still_is_no_conflict_on_either_side() {
        let mut lan = Lan::new();
        let Pair { a, b, first, second, .. } = Pair::start(&mut lan, "");
        for round in 1..=5 {
            first.signal("-STOP");
            second.wait_for("active");
            wait("the second has it", || b.has(VIP));
            first.signal("-CONT");
            second.wait_for("backup");
            wait("the first has it alone", || a.has(VIP) && !b.has(VIP));
            for daemon in [&first, &second] {
                assert_eq!(check(daemon), (Some(0), String::new()), "round {round}");
                assert!(!daemon.log().contains("two hosts have it"), "{}", daemon.log());
            }
        }
    }
}
