//! Two daemons in one network namespace, and a run_dir that is gone or cannot be used.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::fs;
use std::process::Command;

use havip::daemon::socket;
use lab::{Daemon, Host, Lan, skip, wait};

const VIP: &str = "192.0.2.51";

fn text(host: &Host) -> String {
    let keys = format!("vips = [\"{VIP}\"]\nadvert_interval = 0.2");
    host.config(&host.router("51", &keys))
}

/// A second daemon of the same host, with a run_dir of its own.
fn second(host: &Host) -> Daemon {
    let run_dir = host.folder().join("run");
    let (mine, other) = (run_dir.display().to_string(), host.folder().join("other"));
    let mut daemon = host.daemon_of(&text(host).replace(&mine, &other.display().to_string()));
    daemon.socket = other.join("havip.sock");
    daemon
}

isolated! {
    fn a_second_daemon_in_a_network_namespace_is_refused_by_name_whatever_its_run_dir_is() {
        let mut lan = Lan::new();
        let (host, neighbour) = (lan.host(), lan.host());
        let mut first = host.daemon_of(&text(&host));
        first.wait_for("active");
        let mut other = second(&host);
        assert_eq!(other.ended().code(), Some(1));
        let why = format!("process {} is a havip daemon in this network namespace", first.pid());
        other.wait_for_log(&why);
        assert!(host.has(VIP) && first.state() == "active");
        // Neither does a run_dir that is gone let one in.
        fs::remove_dir_all(first.socket.parent().unwrap()).unwrap();
        let mut again = host.daemon_of(&text(&host));
        assert_eq!(again.ended().code(), Some(1));
        // It serves another network, as soon as the first one has ended this one.
        let elsewhere = neighbour.daemon(&neighbour.router("52", "vips = [\"192.0.2.52\"]"));
        elsewhere.wait_for("active");
        assert!(first.stop().success());
        let successor = second(&host);
        successor.wait_for("active");
    }
}

isolated! {
    fn who_dies_leaves_its_network_namespace_to_the_next_at_once() {
        let mut lan = Lan::new();
        let host = lan.host();
        let mut first = host.daemon_of(&text(&host));
        first.wait_for("active");
        first.kill();
        let mut next = second(&host);
        next.wait_for("active");
        assert!(next.stop().success());
    }
}

isolated! {
    fn the_name_that_some_user_squats_is_told_and_keeps_no_daemon_out() {
        let mut lan = Lan::new();
        let host = lan.host();
        let log = host.folder().join("squatter");
        let mut program = Command::new("setpriv");
        program.args(["--reuid", "64123", "--clear-groups", "perl", "-MSocket", "-e"]).arg(
            "socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, pack('S a*', AF_UNIX, \"\\0havip/network\"))
             && listen(S, 5) || die; $| = 1; print 'listens'; sleep",
        );
        let mut squatter = host.start(&mut program, &log);
        let mut listens = false;
        wait("it listens or cannot", || {
            listens = fs::read_to_string(&log).unwrap().contains("listens");
            listens || squatter.try_wait().unwrap().is_some()
        });
        if !listens {
            return skip("the_name_that_some_user_squats", "needs a second user, and perl");
        }
        let mut daemon = host.daemon_of(&text(&host));
        daemon.wait_for("active");
        let warnings = daemon.status()["warnings"].to_string();
        assert!(warnings.contains("user 64123 has the abstract socket"), "{warnings}");
        assert!(daemon.stop().success());
        squatter.kill().unwrap();
        squatter.wait().unwrap();
    }
}

isolated! {
    fn a_run_dir_that_cannot_be_written_to_costs_the_control_socket_alone() {
        let mut lan = Lan::new();
        let host = lan.host();
        // A file in place of the folder: nothing can be made in it, by root neither.
        let run_dir = host.folder().join("run");
        fs::write(&run_dir, "").unwrap();
        let mut daemon = host.daemon_of(&text(&host));
        wait("it is active", || host.has(VIP));
        wait("it is told", || daemon.log().contains("run_dir"));
        assert!(socket::get(&daemon.socket, "/v1/status").is_err());
        fs::remove_file(&run_dir).unwrap();
        wait("it is made after all", || socket::get(&daemon.socket, "/v1/status").is_ok());
        assert!(daemon.stop().success());
        assert!(!host.has(VIP));
    }
}

isolated! {
    fn a_run_dir_that_is_full_or_read_only_keeps_no_vip_away() {
        let mut lan = Lan::new();
        // One page, which a file fills; one inode, which the folder has; nothing can be written.
        for mount in ["size=4096", "nr_inodes=1", "ro"] {
            let host = lan.host();
            let run_dir = host.folder().join("run");
            fs::create_dir(&run_dir).unwrap();
            let mut program = Command::new("unshare");
            program.args(["--mount", "sh", "-c"]).arg(
                "mount -t tmpfs -o \"$0\" none \"$1\" || exit 9
                 ! head -c 8192 /dev/zero >\"$1/filled\" || exit 9
                 shift; exec \"$@\"",
            );
            program.args([mount, run_dir.to_str().unwrap(), env!("CARGO_BIN_EXE_havip")]);
            let text = text(&host).replace("[havip]\n", "[havip]\nfence = true\n");
            let mut daemon = host.daemon_by(program, &[], &text);
            wait("it is active", || host.has(VIP));
            assert!(daemon.stop().success(), "{mount}: {}", daemon.log());
            assert!(!host.has(VIP), "{mount}");
        }
    }
}

isolated! {
    fn a_control_socket_that_somebody_deletes_is_made_again() {
        let mut lan = Lan::new();
        let host = lan.host();
        let mut daemon = host.daemon_of(&text(&host));
        daemon.wait_for("active");
        fs::remove_file(&daemon.socket).unwrap();
        wait("it answers again", || socket::get(&daemon.socket, "/v1/status").is_ok());
        fs::remove_dir_all(daemon.socket.parent().unwrap()).unwrap();
        wait("it answers again", || socket::get(&daemon.socket, "/v1/status").is_ok());
        assert_eq!(daemon.state(), "active");
        assert!(daemon.stop().success());
        assert!(!daemon.socket.exists());
    }
}
