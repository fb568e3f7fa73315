//! `havip export`: etcd to TOML.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::etcd::{ENDPOINTS_FLAG, dump, find};
use super::flags::{Command, Flag, Given, Word};
use super::{CONFIG_FLAG, Exit, complain, exit_of, print};
use crate::config::{Tree, key, to_toml};

pub(super) const COMMAND: Command = Command {
    name: "export",
    summary: "write what etcd has as TOML",
    about: "\
Reads everything below the prefix at one revision and writes it as TOML, sorted: what the platform
and the operators set, not what nodes report. A FILE is made readable by its owner alone and holds
passwords too; on standard output they are left out unless --secrets is given.
`havip import` reads such a file. Ends with 4 if a key could not be read, and is left out.",
    argument: Word::Other("FILE"),
    flags: &[
        CONFIG_FLAG,
        ENDPOINTS_FLAG,
        Flag {
            long: "secrets",
            short: None,
            value: None,
            help: "Passwords too, on standard output.",
        },
    ],
    run,
};

fn run(given: &Given) -> Exit {
    let (dump, mut tree, problems) = match find(given).and_then(|store| dump(&store)) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    for problem in &problems {
        complain(&problem.to_string());
    }
    // What could not be read is missing in what is written.
    let done = if problems.is_empty() { Exit::Done } else { Exit::Warnings };
    tree.remove_below("vRouterGateway/");
    tree.remove_below("status/");
    let head = |left_out: usize| {
        let secrets = match left_out {
            0 => String::new(),
            count => format!("# {count} password(s) are left out; --secrets writes them.\n"),
        };
        format!("# From etcd, revision {}.\n{secrets}\n", dump.revision)
    };
    let Some(path) = &given.argument else {
        let left_out = if given.has("secrets") { 0 } else { remove_secrets(&mut tree) };
        print(&format!("{}{}", head(left_out), to_toml(&tree)));
        return done;
    };
    let text = format!("{}{}", head(0), to_toml(&tree));
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    match file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())) {
        Ok(()) => {
            complain(&format!("{path}: written, from revision {}", dump.revision));
            done
        }
        Err(error) => {
            complain(&format!("{path}: {error}"));
            exit_of(&error)
        }
    }
}

/// Takes the passwords out; gives their number.
fn remove_secrets(tree: &mut Tree) -> usize {
    let secrets: Vec<String> = tree
        .below("")
        .map(|(path, _)| path)
        .filter(|path| key::is_secret(path))
        .map(str::to_owned)
        .collect();
    for path in &secrets {
        tree.remove(path);
    }
    secrets.len()
}
