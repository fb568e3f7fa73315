//! A record of a daemon, real or simulated, comes out as it was when it is played again.
//! `HAVIP_RECORD=FILE` plays that file and prints what was logged.

use havip::node::record::{Broken, MAGIC, replay};

use super::invariants::Watch;
use super::schedules::{Seed, draw, run};

/// The record of the first daemon of a schedule.
fn recorded(number: u64) -> Vec<u8> {
    let (mut world, mut site, faults) = draw(Seed::new(number));
    world.record(0);
    let played = run(&mut world, &mut site, &mut Watch::default(), &faults);
    assert_eq!(played, Ok(()), "seed {number}");
    world.recorded().to_vec()
}

#[test]
fn what_was_recorded_happens_again() {
    if let Ok(path) = std::env::var("HAVIP_RECORD") {
        let record = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let replayed = replay(&record, |now, _, actions| {
            for notice in &actions.notices {
                println!("{now:?} {notice}");
            }
        });
        println!("{path}: {:?}", replayed.unwrap_or_else(|broken| panic!("{path}: {broken}")));
        return;
    }
    let replayed = (0..10).map(|seed| replay(&recorded(seed), |_, _, _| {}).unwrap().turns);
    assert!(replayed.sum::<u64>() > 1_000);
}

#[test]
fn a_node_that_does_otherwise_is_noticed_and_no_record_is_believed() {
    let record = recorded(1);
    let whole = replay(&record, |_, _, _| {}).unwrap();
    assert_eq!(replay(&record[1..], |_, _, _| {}), Err(Broken::Magic));
    // Cut off anywhere it is good up to there.
    let half = replay(&record[..record.len() / 2], |_, _, _| {}).unwrap();
    assert!(half.turns < whole.turns && half.end.is_none());
    // The last byte is the last turn's hash.
    let mut other = record.clone();
    *other.last_mut().unwrap() ^= 1;
    let broken = replay(&other, |_, _, _| {});
    assert!(matches!(broken, Err(Broken::Differs { turn, .. }) if turn == whole.turns));
    // One flipped bit anywhere is a record that says otherwise, or none: never a panic.
    for at in MAGIC.len()..record.len().min(MAGIC.len() + 2_000) {
        let mut other = record[..record.len().min(4_000)].to_vec();
        other[at % 4_000] ^= 1 << (at % 8);
        let _ = replay(&other, |_, _, _| {});
    }
}
