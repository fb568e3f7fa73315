//! Lists of faults drawn from seeds, each played in a world of its own, every step of it held
//! against the invariants. What fails is made smaller by leaving faults out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use havip::node::Instant;
use havip::sim::{Rng, World};

use super::coverage::Coverage;
use super::faults::{Fault, kinds, peace};
use super::invariants::{Found, Watch, every_router_has_one_owner};
use super::site::{Site, Way};

/// Schedules of a usual run.
const SCHEDULES: u64 = 600;
/// Seeds that found something once.
const SEEDS: &str = include_str!("seeds");

/// Longest `listen_first`, and the longest `preempt_delay` after it, with a margin.
const SETTLED: Duration = Duration::from_secs(7);
/// Streams of random numbers of one seed: the faults do not depend on the site's, nor on the
/// world's.
const SITE: u64 = 0x51_7e;
const FAULTS: u64 = 0xfa_17;

/// Which schedule: a number, and the way to draw one from it. In words `7`, or `1:190` for one of
/// an older way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    way: Way,
    number: u64,
}

impl Seed {
    /// As schedules are drawn now.
    pub(crate) const fn new(number: u64) -> Self {
        Self { way: Way::Third, number }
    }

    fn parse(text: &str) -> Option<Self> {
        let (way, number) = match text.split_once(':') {
            Some(("1", number)) => (Way::First, number),
            Some(("2", number)) => (Way::Second, number),
            Some(("3", number)) => (Way::Third, number),
            Some(_) => return None,
            None => (Way::Third, text),
        };
        Some(Self { way, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.way {
            Way::First => write!(f, "1:{}", self.number),
            Way::Second => write!(f, "2:{}", self.number),
            Way::Third => write!(f, "3:{}", self.number),
        }
    }
}

/// What came of one schedule.
struct Played {
    found: Found,
    coverage: Coverage,
    trace: u64,
}

/// The site and the faults of a seed.
pub(crate) fn draw(seed: Seed) -> (World, Site, Vec<Fault>) {
    let Seed { way, number } = seed;
    let mut world = World::new(number);
    let site = Site::new(&mut world, &mut Rng::new(number ^ (SITE << 32)), way);
    let mut rng = Rng::new(number ^ (FAULTS << 32));
    let kinds = kinds(way);
    let machines = u64::try_from(site.machines()).unwrap();
    let unit = u64::try_from(site.unit().as_millis()).unwrap();
    // The unit is longer where intervals differ.
    let span = if way == Way::First { 20 } else { 12 } * unit + 2_000;
    let count = 6 + rng.below(8);
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let longest = if rng.chance(500) { 4 * unit } else { 2_000 };
            let machine = rng.below(machines);
            let other = (machine + 1 + rng.below(machines - 1)) % machines;
            Fault {
                kind: kinds[usize::try_from(rng.below(kinds.len() as u64)).unwrap()],
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
fn play(seed: Seed, faults: &[Fault]) -> Played {
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
    watch.coverage.schedules = 1;
    watch.coverage.frames = world.frames;
    watch.coverage.time = world.now().since(Instant::ZERO);
    for feature in site.features() {
        *watch.coverage.features.entry(feature).or_default() += 1;
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
    let end = world.now() + SETTLED + site.unit() * 8;
    pass(world, site, watch, end)?;
    if watch.may_hold_a_restored_store() {
        // What was put back may take away what is held: an operator looks, and says that it is meant.
        watch.disturb_all(world);
        (0..world.machines()).for_each(|machine| world.confirm(machine));
        let end = world.now() + SETTLED + site.unit() * 4;
        pass(world, site, watch, end)?;
    }
    every_router_has_one_owner(world, site, &mut watch.coverage)?;
    let end = world.now() + site.unit() * 2;
    let (site, watch) = (&*site, watch);
    world.try_run(end.since(world.now()), |world| {
        watch.check(world, site)?;
        every_router_has_one_owner(world, site, &mut watch.coverage)
    })
}

fn pass(world: &mut World, site: &Site, watch: &mut Watch, end: Instant) -> Found {
    world.try_run(end.since(world.now()), |world| watch.check(world, site))
}

/// Leaves out one fault after the other for as long as what is left fails.
fn shrink(seed: Seed, mut faults: Vec<Fault>) -> Vec<Fault> {
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
fn schedule(seed: Seed) -> Result<Coverage, String> {
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

/// What a run has done, in words.
fn figures(first: Seed, elapsed: Duration, coverage: &Coverage) -> String {
    let (schedules, seconds) = (coverage.schedules, elapsed.as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "to be read")]
    let rates = (schedules as f64 / seconds, coverage.time.as_secs_f64() / seconds);
    format!(
        "{schedules} schedules from seed {first} in {seconds:.1} s: {:.1} a second, time {:.0} \
         times as fast\n{coverage}",
        rates.0, rates.1
    )
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
    let seed = std::env::var("HAVIP_SEED").ok();
    let seed = seed.map(|text| Seed::parse(&text).expect("HAVIP_SEED=NUMBER or WAY:NUMBER"));
    if let Some(seed) = seed.filter(|_| number("HAVIP_SECONDS").is_none()) {
        schedule(seed).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let elapsed = stopwatch();
    let first = seed.unwrap_or(Seed::new(0));
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
        match schedule(Seed { number: first.number.wrapping_add(played), ..first }) {
            Ok(seen) => coverage.add(&seen),
            Err(why) => failures.push(why),
        }
        played += 1;
    }
    let figures = figures(first, elapsed(), &coverage);
    println!("{figures}");
    if let Some(path) = std::env::var_os("HAVIP_FIGURES") {
        std::fs::write(path, figures).unwrap();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if played >= SCHEDULES {
        assert_eq!(coverage.missing(), [] as [String; 0], "never injected or never seen");
    }
}

#[test]
fn seeds_that_once_failed_do_not_any_more() {
    let seeds = SEEDS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds = seeds.filter(|text| !text.is_empty());
    let seeds = seeds.map(|text| Seed::parse(text).unwrap_or_else(|| panic!("{text} is no seed")));
    let failures: Vec<String> = seeds.filter_map(|seed| schedule(seed).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |number| play(Seed::new(number), &draw(Seed::new(number)).2).trace;
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2));
}
