//! What a daemon reads and writes hangs or is something else than a file: it answers all the same,
//! and ends when it is told to.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Daemon, Host, Lan, skip, wait};

/// Two routers, the second one with this priority.
fn text(host: &Host, priority: u8) -> String {
    host.config(&format!(
        "[node.gw{}]\nvrids = [51, 52]\n\
         [virtual_router.default]\ninterface = \"eth0\"\nadvert_interval = 0.2\n\
         [virtual_router.51]\nvips = [\"192.0.2.51\"]\n\
         [virtual_router.52]\nvips = [\"192.0.2.52\"]\npriority = {priority}\n",
        host.number()
    ))
}

/// Puts something else in the place of a file.
fn put(config: &Path, make: impl FnOnce(&Path)) {
    let new = config.with_extension("other");
    make(&new);
    if new.is_dir() {
        fs::remove_file(config).unwrap();
    }
    fs::rename(&new, config).unwrap();
}

fn refused(daemon: &Daemon) -> String {
    daemon.status()["config"]["refused"].to_string()
}

#[track_caller]
fn priority_of_52(daemon: &Daemon) -> u64 {
    daemon.status()["vrrp"]["routers"][1]["priority"].as_u64().unwrap()
}

isolated! {
    fn a_local_file_that_is_no_file_any_more_is_refused_by_its_kind_and_the_next_one_is_read() {
        let mut lan = Lan::new();
        let host = lan.host();
        let mut daemon = host.daemon_of(&text(&host, 100));
        daemon.wait_for("active");
        let fifo = |path: &Path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        };
        let to = |target: &'static str| move |path: &Path| symlink(target, path).unwrap();
        let config = daemon.config.clone();
        put(&config, fifo);
        daemon.signal("-HUP");
        wait("the FIFO is refused", || refused(&daemon).contains("it is a FIFO"));
        put(&config, to("/dev/zero"));
        daemon.signal("-HUP");
        wait("the device is refused", || refused(&daemon).contains("it is a device"));
        put(&config, |path| fs::create_dir(path).unwrap());
        daemon.signal("-HUP");
        wait("the folder is refused", || refused(&daemon).contains("it is a directory"));
        fs::remove_dir(&config).unwrap();
        daemon.reload(&text(&host, 120));
        wait("the file is read", || priority_of_52(&daemon) == 120);
        assert!(daemon.stop().success());
    }
}

/// A program that mounts a file system which never answers at a folder that only it sees, and
/// executes havip there. The file descriptor behind it ends with that process.
fn beside_a_mount_that_hangs(at: &Path) -> Command {
    let mut program = Command::new("unshare");
    program.args(["--mount", "sh", "-c"]);
    program.arg(
        "exec 9<>/dev/fuse && mount -i -t fuse \
         -o fd=9,rootmode=040000,user_id=0,group_id=0 none \"$0\" && exec \"$@\"",
    );
    program.arg(at).arg(env!("CARGO_BIN_EXE_havip"));
    program
}

/// Whether there can be such a mount.
fn can_hang(host: &Host) -> bool {
    let at = folder(host, "probe");
    let mut program = Command::new("unshare");
    program.args(["--mount", "sh", "-c"]).arg(
        "exec 9<>/dev/fuse && mount -i -t fuse \
         -o fd=9,rootmode=040000,user_id=0,group_id=0 none \"$0\"",
    );
    program.arg(at).output().is_ok_and(|output| output.status.success())
}

fn folder(host: &Host, name: &str) -> PathBuf {
    let path = host.folder().join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// It ends at SIGTERM, and no VIP is left.
fn ends(host: &Host, daemon: &mut Daemon) {
    assert!(daemon.stop().success());
    assert!(!host.has("192.0.2.51") && !host.has("192.0.2.52"));
}

isolated! {
    fn a_local_file_on_a_mount_that_hangs_keeps_neither_status_nor_stop_waiting() {
        let mut lan = Lan::new();
        let host = lan.host();
        if !can_hang(&host) {
            return skip("a_local_file_on_a_mount_that_hangs", "needs FUSE in the kernel, as root");
        }
        let at = folder(&host, "hangs");
        let program = beside_a_mount_that_hangs(&at);
        let mut daemon = host.daemon_by(program, &[], &text(&host, 100));
        daemon.wait_for("active");
        put(&daemon.config, |path| symlink(at.join("havip.toml"), path).unwrap());
        daemon.signal("-HUP");
        daemon.signal("-HUP");
        wait("it is told that reading hangs", || {
            let warnings = daemon.status()["warnings"].to_string();
            warnings.contains("havip.toml: not finished after")
        });
        wait("and logged", || daemon.log().contains("havip.toml: not finished yet"));
        assert_eq!(daemon.state(), "active");
        ends(&host, &mut daemon);
    }
}

isolated! {
    fn who_reads_the_log_and_stops_doing_so_keeps_neither_status_nor_stop_waiting() {
        let mut lan = Lan::new();
        let host = lan.host();
        // A shell that passes standard error on, and stops.
        let mut program = Command::new("sh");
        let pipe = host.folder().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut reader = fs::File::options().read(true).write(true).open(&pipe).unwrap();
        program.args(["-c", "exec 2<>\"$0\"; exec \"$@\""]).arg(&pipe);
        program.arg(env!("CARGO_BIN_EXE_havip"));
        let mut daemon = host.daemon_by(program, &[], &text(&host, 100));
        daemon.wait_for("active");
        let keys = (0..200).map(|number| format!("unknown_{number}_{} = 1\n", "x".repeat(100)));
        let keys: String = keys.collect();
        let wrong = text(&host, 100).replace("priority = 100", &keys);
        for _ in 0..10 {
            daemon.reload(&wrong);
            wait("it is refused", || refused(&daemon) != "[]");
            daemon.reload(&text(&host, 100));
            wait("it is taken", || refused(&daemon) == "[]");
        }
        ends(&host, &mut daemon);
        let mut first = [0; 16];
        reader.read_exact(&mut first).unwrap();
        assert!(first.starts_with(b"info: "));
    }
}
