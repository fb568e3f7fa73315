//! What the fuzzer begins with, and every input that once broke something, into the code that takes
//! bytes from outside. A file's folder in `tests/fuzz/seeds` names what it goes into.

#![cfg(feature = "daemon")]

#[path = "fuzz/src/all.rs"]
mod all;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

/// Feeds every file of these folders of the repository; gives how many there were.
fn feed(folders: &[&str], run: fn(&[u8])) -> usize {
    let mut count = 0;
    for folder in folders {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                eprintln!("{}", path.display());
                let bytes = fs::read(path).unwrap();
                run(&bytes);
                // Cut short anywhere, and with a bit of each tenth byte turned.
                for at in (0..bytes.len()).step_by(10) {
                    run(&bytes[..at]);
                    let mut turned = bytes.clone();
                    turned[at] ^= 1 << (at % 8);
                    run(&turned);
                }
                count += 1;
            }
        }
    }
    count
}

#[test]
fn keys_and_values() {
    assert!(feed(&["tests/fuzz/seeds/keys"], all::keys::run) >= 3);
}

#[test]
fn packets() {
    assert!(feed(&["tests/fuzz/seeds/packet"], all::packet::run) >= 6);
}

#[test]
fn local_files() {
    assert!(feed(&["conf", "conf/examples"], all::toml::run) >= 5);
}

#[test]
fn messages_of_the_kernel_and_of_neighbours() {
    assert!(feed(&["tests/fuzz/seeds/netlink"], all::netlink::run) >= 3);
}

#[test]
fn clients_of_the_control_socket() {
    assert!(feed(&["tests/fuzz/seeds/socket"], all::socket::run) >= 3);
}

proptest! {
    #[test]
    fn any_bytes_at_all(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for run in [all::keys::run, all::netlink::run, all::packet::run, all::socket::run, all::toml::run] {
            run(&bytes);
        }
    }
}
