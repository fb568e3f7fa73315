use super::*;
use crate::node::testing::{priority, router};

const LOCAL: &str = "192.0.2.10";
const LOWER: &str = "192.0.2.9";
const HIGHER: &str = "192.0.2.11";

fn at_ms(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn heard(src: &str, priority: u8) -> Heard {
    Heard { src: ip(src), priority, interval: Centis(100) }
}

fn make(change: impl FnOnce(&mut config::Router)) -> Router {
    let mut config = router(51);
    change(&mut config);
    Router::new(Arc::new(config))
}

fn feed(router: &mut Router, now: Instant, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    router.handle(now, ip(LOCAL), input, &mut out);
    out
}

/// A router that is backup since time 0.
fn backup(change: impl FnOnce(&mut config::Router)) -> Router {
    let mut router = make(change);
    feed(&mut router, Instant::ZERO, Input::Startup);
    assert!(matches!(router.state(), State::Backup { .. }));
    router
}

/// A router that became active after its Active_Down_Interval.
fn active(change: impl FnOnce(&mut config::Router)) -> (Router, Instant) {
    let mut router = backup(change);
    let now = router.next_deadline().unwrap();
    feed(&mut router, now, Input::Timeout);
    assert!(router.is_active());
    (router, now)
}

fn down_at(router: &Router) -> Instant {
    match router.state() {
        State::Backup { active_down_at, .. } => active_down_at,
        other => panic!("not a backup: {other:?}"),
    }
}

// RFC 9568 §6.4.1

#[test]
fn at_startup_the_owner_advertises_at_once_and_becomes_active() {
    let mut router = make(|c| c.priority = Priority::OWNER);
    let out = feed(&mut router, at_ms(5), Input::Startup);
    assert_eq!(out, [Effect::Advertise(255), Effect::Activated(Reason::Owner)]);
    assert_eq!(router.state(), State::Active { adver_at: at_ms(1005) });
}

#[test]
fn at_startup_others_become_backup_and_wait_active_down_interval() {
    let mut router = make(|_| {});
    let out = feed(&mut router, at_ms(5), Input::Startup);
    assert_eq!(out, [Effect::Moved(Reason::Startup)]);
    assert_eq!(down_at(&router), Instant::from_nanos(5_000_000 + 3_609_375_000));
}

#[test]
fn a_router_listens_before_it_takes_over_out_of_silence() {
    // Active_Down_Interval: 3 × 0.1 s + 156 / 256 × 0.1 s.
    let listening = || {
        backup(|router| {
            router.advert_interval = Centis(10);
            router.listen_first = Duration::from_millis(1_200);
        })
    };
    let quiet = listening();
    assert_eq!(down_at(&quiet), at_ms(1_200));
    // Whoever is heard ends it: from then on the protocol's own timer counts.
    let mut hears = listening();
    let mut other = heard("192.0.2.9", 200);
    other.interval = Centis(10);
    feed(&mut hears, at_ms(50), Input::Advert(other));
    assert!(down_at(&hears) < at_ms(420));
    let mut told = listening();
    other.priority = 0;
    feed(&mut told, at_ms(50), Input::Advert(other));
    assert!(down_at(&told) < at_ms(120), "the active router gave up");
    let mut preempts = listening();
    other.priority = 50;
    feed(&mut preempts, at_ms(50), Input::Advert(other));
    let first = down_at(&preempts);
    assert!(first < at_ms(420), "who is heard with less is preempted no later");
    feed(&mut preempts, at_ms(150), Input::Advert(other));
    assert_eq!(down_at(&preempts), first, "and not put off by each advert");
    // A new configuration is no reason to know more.
    let mut changed = listening();
    let mut config = config::Router::clone(changed.config());
    config.priority = priority(50);
    changed.reconfigure(at_ms(100), None, Arc::new(config), &mut Vec::new());
    assert_eq!(down_at(&changed), at_ms(1_200));
}

#[test]
fn in_initialize_nothing_but_startup_has_an_effect() {
    for input in [
        Input::Shutdown,
        Input::Timeout,
        Input::Advert(heard(HIGHER, 200)),
        Input::Advert(heard(HIGHER, 0)),
        Input::Misconfigured(heard(HIGHER, 200)),
    ] {
        let mut router = make(|_| {});
        assert_eq!(feed(&mut router, at_ms(1), input), []);
        assert_eq!((router.state(), router.next_deadline()), (State::Initialize, None));
    }
}

// RFC 9568 §6.4.2

#[test]
fn a_backup_shuts_down_without_a_word() {
    let mut router = backup(|_| {});
    assert_eq!(feed(&mut router, at_ms(1), Input::Shutdown), [Effect::Moved(Reason::Shutdown)]);
    assert_eq!(router.state(), State::Initialize);
}

#[test]
fn when_active_down_timer_fires_the_advert_comes_before_the_addresses() {
    let mut router = backup(|_| {});
    let now = router.next_deadline().unwrap();
    let out = feed(&mut router, now, Input::Timeout);
    assert_eq!(out, [Effect::Advertise(100), Effect::Activated(Reason::NoResponse)]);
    assert_eq!(router.state(), State::Active { adver_at: now + Duration::from_secs(1) });
}

#[test]
fn a_timeout_before_the_deadline_changes_nothing() {
    let mut router = backup(|_| {});
    let before = router.state();
    let early = router.next_deadline().unwrap().before(Duration::from_nanos(1));
    assert_eq!(feed(&mut router, early, Input::Timeout), []);
    assert_eq!(router.state(), before);
    let (mut router, now) = active(|_| {});
    assert_eq!(feed(&mut router, now, Input::Timeout), []);
}

#[test]
fn priority_zero_sets_the_timer_to_skew_time_and_no_less() {
    let mut router = backup(|_| {});
    assert_eq!(feed(&mut router, at_ms(1000), Input::Advert(heard(HIGHER, 0))), []);
    assert_eq!(down_at(&router), at_ms(1000) + Duration::from_nanos(609_375_000));
    let now = router.next_deadline().unwrap();
    let out = feed(&mut router, now, Input::Timeout);
    assert_eq!(out, [Effect::Advertise(100), Effect::Activated(Reason::Resigned)]);
}

#[test]
fn an_advert_of_equal_or_higher_priority_teaches_the_interval_and_resets_the_timer() {
    for theirs in [100, 101, 255] {
        let mut router = backup(|_| {});
        let advert = Heard { interval: Centis(10), ..heard(LOWER, theirs) };
        assert_eq!(feed(&mut router, at_ms(1000), Input::Advert(advert)), []);
        assert_eq!(router.active_adver_interval(), Centis(10));
        // 3 × 100 ms + 156/256 × 100 ms.
        assert_eq!(down_at(&router), at_ms(1000) + Duration::from_nanos(360_937_500));
    }
}

#[test]
fn without_preemption_a_lower_priority_resets_the_timer_as_well() {
    let mut router = backup(|c| c.preempt = false);
    feed(&mut router, at_ms(1000), Input::Advert(heard(LOWER, 1)));
    assert_eq!(down_at(&router), at_ms(1000) + Duration::from_nanos(3_609_375_000));
}

#[test]
fn with_preemption_a_lower_priority_leaves_the_timer_alone() {
    let mut router = backup(|_| {});
    let before = down_at(&router);
    let advert = Heard { interval: Centis(10), ..heard(HIGHER, 99) };
    assert_eq!(feed(&mut router, at_ms(1000), Input::Advert(advert)), []);
    assert_eq!(down_at(&router), before);
    assert_eq!(router.active_adver_interval(), Centis(100));
    let out = feed(&mut router, before, Input::Timeout);
    assert_eq!(out, [Effect::Advertise(100), Effect::Activated(Reason::Preempted)]);
}

#[test]
fn preempt_delay_counts_from_the_first_lower_advert_and_ends_in_preemption_after_every_start() {
    let mut router = backup(|c| c.preempt_delay = Duration::from_secs(10));
    for round in 0..2 {
        let first = router.next_deadline().unwrap().before(Duration::from_secs(3));
        let preempt_at = first + Duration::from_secs(10);
        let mut now = first;
        while now < preempt_at {
            assert_eq!(feed(&mut router, now, Input::Advert(heard(LOWER, 50))), [], "{round}");
            // Whichever is first: its silence, or the end of the delay.
            let silent_at = now + Duration::from_nanos(3_609_375_000);
            assert_eq!(down_at(&router), silent_at.min(preempt_at));
            assert_eq!(feed(&mut router, now, Input::Timeout), []);
            now = now + Duration::from_secs(1);
        }
        let out = feed(&mut router, preempt_at, Input::Timeout);
        assert_eq!(out, [Effect::Advertise(100), Effect::Activated(Reason::Preempted)]);
        feed(&mut router, preempt_at, Input::Shutdown);
        feed(&mut router, preempt_at, Input::Startup);
    }
}

#[test]
fn a_preempt_delay_shorter_than_active_down_interval_is_as_none() {
    let without = backup(|_| {});
    let mut router = backup(|c| c.preempt_delay = Duration::from_millis(10));
    for ms in [1000, 2000, 3000] {
        feed(&mut router, at_ms(ms), Input::Advert(heard(LOWER, 50)));
        assert_eq!(down_at(&router), down_at(&without));
    }
    let out = feed(&mut router, down_at(&without), Input::Timeout);
    assert_eq!(out, [Effect::Advertise(100), Effect::Activated(Reason::Preempted)]);
}

#[test]
fn a_higher_router_in_between_has_preempt_delay_begin_anew() {
    let mut router = backup(|c| c.preempt_delay = Duration::from_secs(4));
    feed(&mut router, at_ms(1000), Input::Advert(heard(LOWER, 50)));
    feed(&mut router, at_ms(4000), Input::Advert(heard(HIGHER, 200)));
    for ms in [5000, 6000, 7000, 8000] {
        feed(&mut router, at_ms(ms), Input::Advert(heard(LOWER, 50)));
    }
    assert_eq!(down_at(&router), at_ms(9000));
}

#[test]
fn preempt_delay_does_not_hold_up_a_takeover_from_a_router_that_died() {
    let mut router = backup(|c| c.preempt_delay = Duration::from_secs(1000));
    feed(&mut router, at_ms(1000), Input::Advert(heard(LOWER, 50)));
    let now = at_ms(1000) + Duration::from_nanos(3_609_375_000);
    feed(&mut router, now, Input::Timeout);
    assert!(router.is_active());
}

#[test]
fn a_misconfigured_peer_that_holds_our_addresses_is_not_taken_over() {
    let mut router = backup(|_| {});
    let mut now = at_ms(1000);
    for _ in 0..20 {
        let out = feed(&mut router, now, Input::Misconfigured(heard(HIGHER, 50)));
        assert_eq!(out, [Effect::Guarding]);
        now = now + Duration::from_secs(1);
        assert_eq!(feed(&mut router, now, Input::Timeout), []);
    }
    let now = router.next_deadline().unwrap();
    feed(&mut router, now, Input::Timeout);
    assert!(router.is_active(), "it went, and nobody else is there");
}

#[test]
fn a_misconfigured_peer_is_waited_for_in_its_own_interval() {
    let mut router = backup(|c| c.advert_interval = Centis(10));
    let peer = Heard { interval: Centis(200), ..heard(HIGHER, 50) };
    feed(&mut router, at_ms(100), Input::Misconfigured(peer));
    assert!(down_at(&router) > at_ms(100 + 3 * 2000));
}

#[test]
fn a_backup_that_stood_still_listens_for_one_advert_more_but_only_once() {
    let mut router = backup(|_| {});
    let late = router.next_deadline().unwrap() + Duration::from_secs(5);
    let out = feed(&mut router, late, Input::Timeout);
    assert_eq!(out, [Effect::Overslept(Duration::from_secs(5))]);
    assert_eq!(down_at(&router), late + Duration::from_nanos(1_609_375_000));
    let late = down_at(&router) + Duration::from_secs(5);
    feed(&mut router, late, Input::Timeout);
    assert!(router.is_active());
}

#[test]
fn a_startup_while_running_changes_nothing() {
    let mut router = backup(|_| {});
    let before = router.state();
    assert_eq!(feed(&mut router, at_ms(7), Input::Startup), []);
    assert_eq!(router.state(), before);
    let (mut router, now) = active(|_| {});
    let before = router.state();
    assert_eq!(feed(&mut router, now, Input::Startup), []);
    assert_eq!(router.state(), before);
}

// RFC 9568 §6.4.3

#[test]
fn an_active_router_shuts_down_with_priority_zero() {
    let (mut router, now) = active(|_| {});
    let out = feed(&mut router, now, Input::Shutdown);
    assert_eq!(out, [Effect::Advertise(0), Effect::Deactivated(Reason::Shutdown)]);
    assert_eq!(router.state(), State::Initialize);
}

#[test]
fn adverts_keep_their_cadence_when_the_timer_is_served_a_little_late() {
    let (mut router, start) = active(|_| {});
    let mut due = start + Duration::from_secs(1);
    for late_ms in [0, 3, 40, 0, 499] {
        assert_eq!(router.next_deadline(), Some(due));
        let out = feed(&mut router, due + Duration::from_millis(late_ms), Input::Timeout);
        assert_eq!(out, [Effect::Advertise(100)]);
        due = due + Duration::from_secs(1);
    }
}

#[test]
fn an_active_router_that_stood_still_announces_its_addresses_again() {
    let (mut router, start) = active(|_| {});
    let late = start + Duration::from_secs(6);
    let out = feed(&mut router, late, Input::Timeout);
    let announced = Effect::Reannounce(Reason::Overslept);
    assert_eq!(out, [Effect::Advertise(100), Effect::Late, announced]);
    assert_eq!(router.next_deadline(), Some(late + Duration::from_secs(1)));
}

#[test]
fn priority_zero_heard_while_active_is_answered_and_resets_the_timer() {
    let (mut router, start) = active(|_| {});
    let now = start + Duration::from_millis(300);
    let out = feed(&mut router, now, Input::Advert(heard(HIGHER, 0)));
    assert_eq!(out, [Effect::Advertise(100)]);
    assert_eq!(router.next_deadline(), Some(now + Duration::from_secs(1)));
}

#[test]
fn an_active_router_yields_to_a_higher_priority_and_to_a_higher_address() {
    for winner in [heard(LOWER, 101), heard(HIGHER, 100)] {
        let (mut router, now) = active(|_| {});
        let advert = Heard { interval: Centis(20), ..winner };
        let out = feed(&mut router, now, Input::Advert(advert));
        assert_eq!(out, [Effect::Deactivated(Reason::Outranked(winner.src))]);
        assert_eq!(router.active_adver_interval(), Centis(20));
        assert_eq!(down_at(&router), now + Duration::from_nanos(721_875_000));
    }
}

#[test]
fn addresses_compare_as_unsigned_numbers_in_network_byte_order() {
    for (ours, theirs, yields) in [
        ("10.0.0.2", "192.0.0.1", true),
        ("192.0.0.1", "10.0.0.2", false),
        ("10.0.1.0", "10.0.0.255", false),
        ("fe80::2", "fe80::1:0:0", true),
        ("fe80::ff", "fe80::1", false),
    ] {
        let (mut router, now) = active(|_| {});
        router.handle(now, ip(ours), Input::Advert(heard(theirs, 100)), &mut Vec::new());
        assert_eq!(!router.is_active(), yields, "{ours} against {theirs}");
    }
}

#[test]
fn a_losing_advert_is_answered_at_once_and_the_addresses_announced_again() {
    for loser in [heard(HIGHER, 99), heard(LOWER, 100)] {
        let (mut router, now) = active(|_| {});
        let deadline = router.next_deadline();
        let out = feed(&mut router, now, Input::Advert(loser));
        let won = Effect::Reannounce(Reason::ConflictWon(loser.src));
        assert_eq!(out, [Effect::Advertise(100), won, Effect::Won(loser)]);
        assert!(router.is_active());
        assert_eq!(router.next_deadline(), deadline);
    }
}

#[test]
fn a_flood_of_adverts_that_lose_or_give_up_does_not_make_a_flood_of_answers() {
    for prio in [0, 1] {
        let (mut router, start) = active(|_| {});
        let answers: usize = (0..10_000)
            .map(|n| {
                let now = start + Duration::from_micros(100 * n);
                let out = feed(&mut router, now, Input::Advert(heard(LOWER, prio)));
                out.iter().filter(|effect| matches!(effect, Effect::Advertise(_))).count()
            })
            .sum();
        assert_eq!(answers, 8, "one each eighth of the interval");
    }
}

#[test]
fn an_active_router_never_yields_to_a_misconfigured_one() {
    let (mut router, now) = active(|_| {});
    let out = feed(&mut router, now, Input::Misconfigured(heard(HIGHER, 255)));
    assert_eq!(out, [Effect::Guarding]);
    assert!(router.is_active());
}

#[test]
fn two_owners_resolve_by_address() {
    let (mut router, now) = {
        let mut router = make(|c| c.priority = Priority::OWNER);
        feed(&mut router, at_ms(0), Input::Startup);
        (router, at_ms(1))
    };
    feed(&mut router, now, Input::Advert(heard(LOWER, 255)));
    assert!(router.is_active());
    feed(&mut router, now, Input::Advert(heard(HIGHER, 255)));
    assert!(!router.is_active());
}

// RFC 3768 §6.1: version 2

#[test]
fn version_2_skews_by_seconds_whatever_the_interval() {
    let mut router = make(|c| {
        c.version = Version::V2;
        c.advert_interval = Centis(500);
    });
    feed(&mut router, Instant::ZERO, Input::Startup);
    assert_eq!(down_at(&router), Instant::ZERO + Duration::from_nanos(15_609_375_000));
}

// Changes while running

#[test]
fn an_active_router_takes_a_new_priority_without_losing_its_state() {
    let (mut router, now) = active(|_| {});
    let mut out = Vec::new();
    let mut new = (**router.config()).clone();
    new.priority = priority(150);
    router.reconfigure(now, Some(ip(LOCAL)), Arc::new(new), &mut out);
    assert_eq!(out, [Effect::Advertise(150)]);
    assert!(router.is_active());
}

#[test]
fn a_change_that_no_advert_shows_sends_none() {
    let (mut router, now) = active(|_| {});
    let deadline = router.next_deadline();
    let mut out = Vec::new();
    let mut new = (**router.config()).clone();
    new.preempt = false;
    router.reconfigure(now, Some(ip(LOCAL)), Arc::new(new), &mut out);
    assert_eq!((out, router.next_deadline()), (vec![], deadline));
}

#[test]
fn a_backup_whose_vips_change_keeps_its_timer() {
    let mut router = backup(|_| {});
    let before = router.state();
    let mut new = (**router.config()).clone();
    new.vips.push(config::Prefix::host(ip("10.9.9.9")));
    router.reconfigure(at_ms(500), Some(ip(LOCAL)), Arc::new(new), &mut Vec::new());
    assert_eq!(router.state(), before);
}

// Shared wake-ups

#[test]
fn a_slot_moves_adverts_early_by_little_steps_and_never_late() {
    let (mut router, start) = active(|_| {});
    router.set_slot(Some(Duration::from_millis(250)));
    let mut last = start + Duration::from_secs(1);
    feed(&mut router, last, Input::Timeout);
    for _ in 0..600 {
        let next = router.next_deadline().unwrap();
        let gap = next.since(last);
        assert!(gap <= Duration::from_secs(1) && gap >= Duration::from_millis(998), "{gap:?}");
        feed(&mut router, next, Input::Timeout);
        last = next;
    }
    assert_eq!(last.nanos() % 1_000_000_000, 250_000_000);
}

proptest::proptest! {
    /// However inputs come: no deadline lies in the past, only active routers send, and every
    /// change of state says so.
    #[test]
    fn any_run_of_inputs_keeps_the_invariants(
        steps in proptest::collection::vec((0_u8..6, 0_u8..=255, 0_u8..3, 0_u64..2_000), 0..200),
        own in 1_u8..=255,
        preempt: bool,
    ) {
        let mut router = make(|c| {
            c.priority = priority(own);
            c.preempt = preempt;
        });
        let mut now = Instant::ZERO;
        let mut was_active = false;
        for (kind, prio, src, wait_ms) in steps {
            now = now + Duration::from_millis(wait_ms);
            let heard = heard([LOWER, HIGHER, LOCAL][usize::from(src)], prio);
            let input = match kind {
                0 => Input::Startup,
                1 => Input::Shutdown,
                2 | 3 => Input::Advert(heard),
                4 => Input::Misconfigured(heard),
                _ => Input::Timeout,
            };
            let out = feed(&mut router, now, input);
            let activated = out.iter().any(|e| matches!(e, Effect::Activated(_)));
            let deactivated = out.iter().any(|e| matches!(e, Effect::Deactivated(_)));
            proptest::prop_assert_eq!(activated, !was_active && router.is_active());
            proptest::prop_assert_eq!(deactivated, was_active && !router.is_active());
            let sends = out.iter().any(|e| matches!(e, Effect::Advertise(_)));
            proptest::prop_assert!(!sends || was_active || router.is_active());
            if input == Input::Timeout {
                proptest::prop_assert!(router.next_deadline().is_none_or(|at| at > now));
            }
            was_active = router.is_active();
        }
    }
}
