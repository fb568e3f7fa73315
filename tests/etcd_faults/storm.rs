//! Faults by chance, one after the other.

use std::time::Duration;

use havip::config::NodeName;
use havip::linux::clock;
use havip::store::{Entry, snapshot};

use crate::cluster::Setup;
use crate::lab::{Daemon, Host, wait};
use crate::site::{ROUTERS, Site, quick};

scenarios! {
    a_storm_of_faults_by_chance
}

/// Faults by chance for `HAVIP_SOAK_SECONDS` (10), from `HAVIP_SEED`: at the end the store, what is
/// on disk and what runs are the same, and the gateways are no larger.
fn a_storm_of_faults_by_chance(test: &'static str, version: &'static str) -> Option<String> {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number("HAVIP_SEED", 1);
    let length = Duration::from_secs(number("HAVIP_SOAK_SECONDS", 10));
    let setup = Setup { partitions: true, ..quick(version) };
    let mut site = Site::start(test, setup, None)?;
    site.change();
    let sizes = |site: &Site| -> Vec<(usize, f64)> {
        let of = |(_, daemon): &(Host, Daemon)| size_of_process(daemon.pid());
        site.gateways.iter().map(of).collect()
    };
    let before = sizes(&site);
    let mut random = Random(seed);
    let mut faults = [0_u32; 8];
    let mut broken: Option<(usize, usize)> = None;
    let end = clock::now() + length;
    while clock::now() < end {
        let what = random.below(8);
        let member = random.below(3);
        // One at a time is out of order, most often: without a majority nothing can be changed.
        if let Some((kind, member)) = broken.take() {
            match kind {
                0 => site.cluster.cont(member),
                1 => site.cluster.restart(member),
                _ => site.cluster.join(member),
            }
            site.cluster.wait_healthy();
        }
        match what {
            0 => site.cluster.stop(member),
            1 => site.cluster.kill(member),
            2 => site.cluster.partition(member),
            3 => {
                let leader = site.cluster.leader();
                site.cluster.move_leader((leader + 1) % 3);
            }
            // A request that was done and is asked for once more, as etcdctl does, is refused.
            4 => {
                let revision = site.cluster.revision().to_string();
                let _ = site.cluster.ctl(&["compact", "--physical", &revision]);
            }
            5 => _ = site.cluster.ctl(&["defrag"]),
            6 => site.gateways[random.below(2)].1.signal("-HUP"),
            _ => {}
        }
        faults[what] += 1;
        if what < 3 {
            broken = Some((what, member));
            site.cluster.leader();
        }
        for _ in 0..=random.below(4) {
            let router = random.below(usize::from(ROUTERS)) + 1;
            let key = format!("/havip/virtual_router/{router}/vips_excluded");
            let value = format!("203.0.113.{}", router * 40 + random.below(40));
            // What is in doubt after a fault is not lost, only not known.
            let _ = match random.below(4) {
                0 => site.cluster.ctl(&["del", "--", &key]),
                1 => site.cluster.ctl(&["put", "--", &key, "garbage"]),
                _ => site.cluster.ctl(&["put", "--", &key, &value]),
            };
        }
    }
    if let Some((kind, member)) = broken {
        match kind {
            0 => site.cluster.cont(member),
            1 => site.cluster.restart(member),
            _ => site.cluster.join(member),
        }
    }
    site.cluster.wait_healthy();
    site.cluster.leader();
    for router in 1..=ROUTERS {
        site.cluster.del(&format!("/havip/virtual_router/{router}/vips_excluded"));
    }
    site.change();
    site.is_calm();
    wait("what is on disk is what the store has", || site.is_on_disk());
    let after = sizes(&site);
    for (before, after) in before.iter().zip(&after) {
        assert!(after.0 <= before.0 + 4, "descriptors: {before:?}, then {after:?}");
        assert!(after.1 <= before.1 + 4.0, "MiB: {before:?}, then {after:?}");
    }
    Some(format!(
        "seed {seed}, {length:?}: stop, kill, cut, move, compact, defrag, reload, none {faults:?}; \
         {} changes; descriptors and MiB before {before:.1?}, after {after:.1?}",
        site.cluster.revision()
    ))
}

/// Open descriptors and private memory in MiB.
fn size_of_process(pid: u32) -> (usize, f64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    (descriptors, kib / 1024.0)
}

/// Numbers by chance, the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

impl Site {
    /// Whether the snapshots hold what the store has for each node.
    fn is_on_disk(&self) -> bool {
        self.gateways.iter().all(|(host, _)| {
            let node = NodeName::new(&format!("gw{}", host.number())).unwrap();
            let mut keys = self.cluster.dump("/havip/virtual_router/");
            keys.extend(self.cluster.dump(&format!("/havip/node/{node}/")));
            let entries: Vec<Entry> = keys
                .into_iter()
                .map(|(key, value)| Entry {
                    key: key.into_bytes(),
                    value: value.into_bytes(),
                    mod_revision: 1,
                })
                .collect();
            let wanted = snapshot::body(&snapshot::kept("/havip/", &entries));
            let (found, refused) = snapshot::load(&host.folder().join("state"), &node);
            refused.is_empty() && found.is_some_and(|found| snapshot::body(&found.tree) == wanted)
        })
    }
}
