//! Members that are frozen, killed, cut off, moved, or not there.

use std::process::Command;
use std::time::Duration;

use havip::linux::clock;

use crate::cluster::Setup;
use crate::lab::wait;
use crate::site::{ROUTERS, Site, ms, quick};

scenarios! {
    a_member_that_is_frozen_is_left_for_another
    a_leader_that_is_frozen_is_left_for_another
    a_majority_that_is_frozen_and_returns
    all_members_killed_and_back
    a_dead_and_a_black_endpoint_beside_a_good_one
    a_leader_that_moves_again_and_again
    a_member_cut_off_from_the_others
}

/// Freezes the member that gateway 0 speaks with, which leads or not.
fn frozen(test: &'static str, version: &'static str, leads: bool) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let member = site.member(0);
    let other = (member + 1) % 3;
    let wanted = if leads { member } else { other };
    if site.cluster.leader() != wanted {
        site.cluster.move_leader(wanted);
    }
    site.change();
    let begin = clock::now();
    site.cluster.stop(member);
    wait("another member is spoken with", || site.is_connected(0) && site.member(0) != member);
    let moved = clock::now().since(begin);
    // A new leader is there before the old one's silence was noticed.
    site.cluster.leader();
    let changed = site.change();
    site.cluster.cont(member);
    site.change();
    site.is_calm();
    Some(format!("on another member after {}, next change {}", ms(moved), ms(changed)))
}

fn a_member_that_is_frozen_is_left_for_another(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    frozen(test, version, false)
}

fn a_leader_that_is_frozen_is_left_for_another(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    frozen(test, version, true)
}

fn a_majority_that_is_frozen_and_returns(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let begin = clock::now();
    site.cluster.stop(0);
    site.cluster.stop(1);
    wait("both notice", || !site.is_connected(0) && !site.is_connected(1));
    let noticed = clock::now().since(begin);
    let (code, said) = site.check(0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("not connected for"), "{said}");
    site.listener.forget();
    wait("adverts go on", || site.listener.heard(1) >= 10);
    let begin = clock::now();
    site.cluster.cont(0);
    site.cluster.cont(1);
    wait("both are back", || site.is_connected(0) && site.is_connected(1));
    let back = clock::now().since(begin);
    site.cluster.leader();
    site.change();
    site.is_calm();
    Some(format!("noticed by both after {}, back after {}", ms(noticed), ms(back)))
}

fn all_members_killed_and_back(test: &'static str, version: &'static str) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    site.change();
    (0..3).for_each(|index| site.cluster.kill(index));
    wait("both notice", || !site.is_connected(0) && !site.is_connected(1));
    // The backup starts anew meanwhile, from what it has on disk.
    let backup = 1 - site.active();
    let begin = site.restart(backup, &site.cluster.endpoints());
    wait("it runs from the snapshot", || {
        let status = site.gateways[backup].1.status();
        status["config"]["store"]["source"] == "snapshot"
            && status["vrrp"]["routers"]
                .as_array()
                .is_some_and(|all| all.len() == usize::from(ROUTERS))
    });
    let started = clock::now().since(begin);
    let (code, said) = site.check(backup);
    assert_eq!(code, Some(4), "{said}");
    site.listener.forget();
    wait("adverts go on", || site.listener.heard(1) >= 10);
    (0..3).for_each(|index| site.cluster.spawn(index));
    site.cluster.wait_healthy();
    let begin = clock::now();
    wait("both are back", || site.is_connected(0) && site.is_connected(1));
    let back = clock::now().since(begin);
    site.change();
    site.is_calm();
    Some(format!("from the snapshot after {}, back after {}", ms(started), ms(back)))
}

fn a_dead_and_a_black_endpoint_beside_a_good_one(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let backup = 1 - site.active();
    let good = site.cluster.address(0).to_string();
    site.gateways[backup].0.within(|| {
        for arguments in [
            "add table ip fault",
            "add chain ip fault out { type filter hook output priority 0 ; }",
            "add rule ip fault out tcp dport 9 drop",
        ] {
            assert!(Command::new("nft").args(arguments.split(' ')).status().unwrap().success());
        }
    });
    let endpoints = ["192.0.2.254:1", "192.0.2.254:9", &good].map(str::to_owned);
    let mut worst = Duration::ZERO;
    // The first one is chosen by chance.
    for _ in 0..4 {
        let begin = site.restart(backup, &endpoints);
        wait("it speaks with the good one", || site.store(backup)["source"] == "etcd");
        worst = worst.max(clock::now().since(begin));
    }
    site.change();
    site.is_calm();
    Some(format!("ready after {} at most of 4 starts", ms(worst)))
}

fn a_leader_that_moves_again_and_again(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let mut worst = Duration::ZERO;
    for _ in 0..8 {
        let leader = site.cluster.leader();
        site.cluster.move_leader((leader + 1) % 3);
        worst = worst.max(site.change());
    }
    site.is_calm();
    Some(format!("8 moves, slowest change {}", ms(worst)))
}

fn a_member_cut_off_from_the_others(test: &'static str, version: &'static str) -> Option<String> {
    let setup = Setup { partitions: true, ..quick(version) };
    let mut site = Site::start(test, setup, None)?;
    let member = site.member(0);
    let begin = clock::now();
    site.cluster.partition(member);
    wait("it is left for another", || site.is_connected(0) && site.member(0) != member);
    let moved = clock::now().since(begin);
    wait("by both", || site.is_connected(1) && site.member(1) != member);
    site.cluster.leader();
    let changed = site.change();
    site.cluster.join(member);
    site.change();
    site.is_calm();
    Some(format!("on another member after {}, next change {}", ms(moved), ms(changed)))
}
