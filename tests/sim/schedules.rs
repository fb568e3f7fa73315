//! Lists of faults drawn from seeds, each played in a world of its own, every step of it held
//! against the invariants. What fails is made smaller by leaving faults out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use havip::node::Instant;
use havip::sim::{Rng, World};

use super::coverage::Coverage;
use super::faults::{Fault, KINDS, peace};
use super::invariants::{Found, Watch, every_router_has_one_owner};
use super::site::Site;

/// Schedules of a usual run.
const SCHEDULES: u64 = 1_200;
/// Seeds that found something once.
const SEEDS: &str = include_str!("seeds");

/// Streams of random numbers of one seed: the faults do not depend on the site's, nor on the
/// world's.
const SITE: u64 = 0x51_7e;
const FAULTS: u64 = 0xfa_17;

/// What came of one schedule.
struct Played {
    found: Found,
    coverage: Coverage,
    trace: u64,
}

/// The site and the faults of a seed.
pub(crate) fn draw(seed: u64) -> (World, Site, Vec<Fault>) {
    let mut world = World::new(seed);
    let site = Site::new(&mut world, &mut Rng::new(seed ^ (SITE << 32)));
    let mut rng = Rng::new(seed ^ (FAULTS << 32));
    let machines = u64::try_from(site.machines()).unwrap();
    let unit = u64::try_from(site.unit().as_millis()).unwrap();
    let span = 20 * unit + 2_000;
    let count = 6 + rng.below(8);
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let longest = if rng.chance(500) { 4 * unit } else { 2_000 };
            let machine = rng.below(machines);
            let other = (machine + 1 + rng.below(machines - 1)) % machines;
            Fault {
                kind: KINDS[usize::try_from(rng.below(KINDS.len() as u64)).unwrap()],
                machine: usize::try_from(machine).unwrap(),
                other: usize::try_from(other).unwrap(),
                at_ms: rng.below(span),
                for_ms: 1 + rng.below(longest),
                roll: rng.below(1 << 30),
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    (world, site, faults)
}

/// Plays a list of faults in the world of a seed.
fn play(seed: u64, faults: &[Fault]) -> Played {
    let (mut world, mut site, _) = draw(seed);
    let mut watch = Watch::default();
    let played = catch_unwind(AssertUnwindSafe(|| run(&mut world, &mut site, &mut watch, faults)));
    let found = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a word")))
    });
    let found = found.map_err(|why| format!("at {:?}: {why}", world.now()));
    for fault in faults {
        *watch.coverage.faults.entry(fault.kind).or_default() += 1;
    }
    Played { found, coverage: watch.coverage, trace: world.trace() }
}

pub(crate) fn run(
    world: &mut World,
    site: &mut Site,
    watch: &mut Watch,
    faults: &[Fault],
) -> Found {
    let begins = faults.iter().map(|fault| (fault.at_ms, true, fault));
    let ends = faults.iter().map(|fault| (fault.at_ms + fault.for_ms, false, fault));
    let mut moments: Vec<(u64, bool, &Fault)> = begins.chain(ends).collect();
    moments.sort_by_key(|(at, ..)| *at);
    let unit_ms = u64::try_from(site.unit().as_millis()).unwrap();
    for (at_ms, is_begin, fault) in moments {
        pass(world, site, watch, Instant::ZERO + Duration::from_millis(at_ms))?;
        watch.disturb(fault, world);
        if is_begin {
            fault.begin(world, site, unit_ms);
            watch.present.push(*fault);
        } else {
            fault.end(world, site);
            watch.present.retain(|present| present != fault);
        }
        for machine in 0..world.machines() {
            let (refused, held) = world.gateway(machine);
            if refused > 0 {
                watch.coverage.saw("snapshot refused");
            }
            if held > 0 {
                watch.coverage.saw("held by the node's last form");
            }
        }
    }
    watch.disturb_all(world);
    peace(world, site);
    let end = world.now() + Duration::from_secs(4) + site.unit() * 8;
    pass(world, site, watch, end)?;
    every_router_has_one_owner(world, site)?;
    let end = world.now() + site.unit() * 2;
    let (site, watch) = (&*site, watch);
    world.try_run(end.since(world.now()), |world| {
        watch.check(world, site)?;
        every_router_has_one_owner(world, site)
    })
}

fn pass(world: &mut World, site: &Site, watch: &mut Watch, end: Instant) -> Found {
    world.try_run(end.since(world.now()), |world| watch.check(world, site))
}

/// Leaves out one fault after the other for as long as what is left fails.
fn shrink(seed: u64, mut faults: Vec<Fault>) -> Vec<Fault> {
    let mut at = 0;
    while at < faults.len() {
        let mut fewer = faults.clone();
        fewer.remove(at);
        if play(seed, &fewer).found.is_err() {
            faults = fewer;
            at = 0;
        } else {
            at += 1;
        }
    }
    faults
}

/// Plays the schedule of a seed; says how to see a failure again, and the least that leads to it.
fn schedule(seed: u64) -> Result<Coverage, String> {
    let (_, _, faults) = draw(seed);
    let played = play(seed, &faults);
    let Err(why) = played.found else { return Ok(played.coverage) };
    let least = shrink(seed, faults);
    let mut text = format!("seed {seed}: {why}\n");
    for fault in &least {
        text += &format!("  {fault:?}\n");
    }
    if let Err(why) = play(seed, &least).found {
        text += &format!("  these alone: {why}\n");
    }
    Err(text + &format!("  HAVIP_SEED={seed} cargo test --test sim -- schedules::a_run"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Real time since then: a long run has an end, and its pace is told.
fn stopwatch() -> impl Fn() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "no node sees it")]
    let begun = std::time::Instant::now();
    move || begun.elapsed()
}

#[test]
fn a_run_of_schedules_breaks_no_rule_and_leaves_nothing_out() {
    if let Some(seed) = number("HAVIP_SEED").filter(|_| number("HAVIP_SECONDS").is_none()) {
        schedule(seed).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let elapsed = stopwatch();
    let first = number("HAVIP_SEED").unwrap_or(0);
    let seconds = number("HAVIP_SECONDS").map(Duration::from_secs);
    let count = number("HAVIP_SCHEDULES").unwrap_or(SCHEDULES);
    let failures_max = number("HAVIP_FAILURES").unwrap_or(1);
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    let mut played = 0;
    while match seconds {
        Some(seconds) => elapsed() < seconds,
        None => played < count,
    } && (failures.len() as u64) < failures_max
    {
        match schedule(first + played) {
            Ok(seen) => coverage.add(&seen),
            Err(why) => failures.push(why),
        }
        played += 1;
    }
    println!("{played} schedules from seed {first} in {:?}", elapsed());
    println!("faults: {:?}\nevents: {:?}", coverage.faults, coverage.events);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if played >= SCHEDULES {
        assert_eq!(coverage.missing(), [] as [String; 0], "never injected or never seen");
    }
}

#[test]
fn seeds_that_once_failed_do_not_any_more() {
    let seeds = SEEDS.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    let failures: Vec<String> = seeds.filter_map(|seed| schedule(seed).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| play(seed, &draw(seed).2).trace;
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2));
}
