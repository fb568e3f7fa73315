//! What the environment allows a daemon: memory that may be locked, tasks. None of it ends one.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use havip::config::Prefix;
use havip::linux::netlink::Requests;
use lab::{Daemon, Lan, skip, wait};

/// What Debian 12 lets an ordinary user lock, in bytes.
const MEMLOCK: &str = "8388608";

/// A program that executes havip with what `setpriv` and `prlimit` say.
fn limited(arguments: &[&str]) -> Command {
    let mut program = Command::new("setpriv");
    program.args(["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]);
    program.arg("prlimit").args(arguments).arg(env!("CARGO_BIN_EXE_havip"));
    program
}

/// KiB of a process that are locked.
fn locked(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn routers(host: u8, count: u8) -> String {
    let names: Vec<u8> = (1..=count).collect();
    let mut text = format!("[node.gw{host}]\nvrids = {names:?}\n");
    for name in names {
        text += &format!(
            "[virtual_router.{name}]\ninterface = \"eth0\"\nvips = [\"198.51.100.{name}\"]\n"
        );
    }
    text
}

isolated! {
    fn memory_is_locked_only_where_all_of_it_may_be_and_else_there_is_a_warning() {
        let mut lan = Lan::new();
        let host = lan.host();
        let memlock = format!("--memlock={MEMLOCK}:{MEMLOCK}");
        let text = host.config(&routers(host.number(), 1));
        let mut daemon = host.daemon_by(limited(&[&memlock]), &[], &text);
        daemon.wait_for("active");
        assert_eq!(locked(&daemon), 0);
        let warnings = daemon.status()["warnings"].to_string();
        assert!(warnings.contains("RLIMIT_MEMLOCK is 8192 KiB"), "{warnings}");
        // What it needs later is there.
        daemon.reload(&host.config(&routers(host.number(), 250)));
        wait("all are active", || {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().unwrap();
            routers.len() == 250 && routers.iter().all(|router| router["state"] == "active")
        });
        assert!(daemon.stop().success());
    }
}

isolated! {
    fn a_capability_of_a_user_namespace_locks_no_memory_and_the_boxs_own_locks_all() {
        let mut lan = Lan::new();
        let host = lan.host();
        let daemon = host.daemon(&routers(host.number(), 1));
        daemon.wait_for("active");
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let limit = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
        // The whole range of numbers, and not a user namespace's.
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        let is_exempt = map.contains("4294967295") || limit.contains("unlimited");
        assert_eq!(locked(&daemon) > 0, is_exempt, "{limit}");
        let warnings = daemon.status()["warnings"].to_string();
        assert_ne!(warnings.contains("memory is not locked"), is_exempt, "{warnings}");
    }
}

/// A cgroup that limits tasks, by either version of the interface.
struct Tasks(PathBuf);

impl Tasks {
    fn new() -> Option<Self> {
        let name = format!("havip-test-{}", std::process::id());
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find_map(|root| {
            let path = Path::new(root).join(&name);
            fs::create_dir(&path).ok()?;
            let tasks = Self(path);
            fs::exists(tasks.0.join("pids.max")).unwrap().then_some(tasks)
        })
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn limit(&self, max: &str) {
        fs::write(self.0.join("pids.max"), max).unwrap();
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // Whoever was in it has ended, and the kernel may still be at that.
        lab::holds_within(lab::LIMIT, || fs::remove_dir(&self.0).is_ok());
    }
}

isolated! {
    fn a_daemon_that_can_have_no_more_tasks_works_on_and_says_that_its_guard_cannot_be_started() {
        let mut lan = Lan::new();
        let host = lan.host();
        let Some(tasks) = Tasks::new() else {
            return skip("a_daemon_that_can_have_no_more_tasks", "needs a cgroup for tasks");
        };
        let text = host.config(&routers(host.number(), 1));
        let mut daemon = host.daemon_of(&text);
        daemon.wait_for("active");
        let guard = daemon.guard().to_string();
        tasks.take(daemon.pid());
        tasks.limit("1");
        assert!(Command::new("kill").args(["-KILL", &guard]).status().unwrap().success());
        wait("the shortage is told", || {
            let why = daemon.status()["guard"]["why"].to_string();
            why.contains("no new thread or process can be had") && why.contains("pids.max")
        });
        assert!(!fs::exists(format!("/proc/{guard}")).unwrap(), "it is a zombie");
        daemon.wait_for_log("no new thread or process can be had");
        // What is done off the control thread needs no new one.
        daemon.reload(&host.config(&routers(host.number(), 2)));
        wait("the file is read", || {
            daemon.status()["vrrp"]["routers"].as_array().unwrap().len() == 2
        });
        tasks.limit("max");
        daemon.guard();
        assert!(daemon.stop().success());
        drop(daemon);
    }
}

/// The soft limit of descriptors of a process.
fn descriptors(daemon: &Daemon) -> String {
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().to_owned()
}

isolated! {
    fn the_limit_of_descriptors_is_raised_as_far_as_it_may_be() {
        let mut lan = Lan::new();
        let host = lan.host();
        let text = host.config(&routers(host.number(), 1));
        let daemon = host.daemon_by(limited(&["--nofile=64:900"]), &[], &text);
        daemon.wait_for("active");
        assert_eq!(descriptors(&daemon), "900");
    }
}

isolated! {
    fn a_limit_of_descriptors_that_is_too_low_is_named_once_and_leaves_room_for_answers() {
        const LINKS: usize = 40;
        let mut lan = Lan::new();
        let host = lan.host();
        host.within(|| {
            let mut requests = Requests::open().unwrap();
            for number in 0..LINKS / 2 {
                let names = [2 * number, 2 * number + 1].map(|n| lab::name(&format!("e{n}")));
                requests.add_veth(&names[0], &names[1], None).unwrap();
            }
            for number in 0..LINKS {
                let index = lab::index_of(&mut requests, &format!("e{number}"));
                let ip = [10, 0, u8::try_from(number).unwrap(), 1].into();
                requests.add_address(index, Prefix { ip, len: 24 }).unwrap();
                requests.set_up(index, true).unwrap();
            }
        });
        let names: Vec<usize> = (1..=LINKS).collect();
        let mut text = format!("[node.gw{}]\nvrids = {names:?}\n", host.number());
        for number in 0..LINKS {
            text += &format!(
                "[virtual_router.{}]\ninterface = \"e{number}\"\nvips = [\"10.0.{number}.9\"]\n",
                number + 1
            );
        }
        let text = host.config(&text);
        let mut daemon = host.daemon_by(limited(&["--nofile=96:96"]), &[], &text);
        let states = || {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().unwrap().clone();
            routers.iter().map(|router| router["state"].to_string()).collect::<Vec<_>>()
        };
        let count = |state: &str| states().iter().filter(|known| known.contains(state)).count();
        wait("some are active, and some cannot be", || {
            count("active") > 0 && count("active") + count("initialize") == LINKS
        });
        assert!(count("initialize") > 0);
        wait("it has tried again for a while", || {
            daemon.status()["uptime_ms"].as_u64().unwrap() > 8000
        });
        let log = daemon.log();
        assert_eq!(log.matches("RLIMIT_NOFILE").count(), 1, "{log}");
        let warnings = daemon.status()["warnings"].to_string();
        assert!(warnings.contains("RLIMIT_NOFILE) is 96"), "{warnings}");
        let told = log.lines().filter(|line| line.contains("the limit of open files (EMFILE)"));
        assert!(told.count() <= LINKS, "{log}");
        assert!(daemon.stop().success());
    }
}
