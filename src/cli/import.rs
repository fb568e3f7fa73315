//! `havip import`: TOML to etcd, validated, in one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::etcd::{ENDPOINTS_FLAG, dump, failed, find};
use super::flags::{Command, Flag, Given};
use super::{CONFIG_FLAG, Exit, complain, exit_of, print};
use crate::config::{Facts, Problem, TomlFile, Tree, check_all, to_flat, utf8};
use crate::store::{Guard, import};

pub(super) const COMMAND: Command = Command {
    name: "import",
    summary: "put TOML into etcd, checked, in one revision",
    about: "\
Checks FILE as `havip check` does, and puts what differs from etcd there in one transaction: all of
it or nothing, and nothing if another changed one of these keys meanwhile. Keys that FILE does not
have stay as they are. With an error in FILE nothing is written, and it ends with 3.",
    argument: Some("FILE"),
    flags: &[
        CONFIG_FLAG,
        ENDPOINTS_FLAG,
        Flag {
            long: "dry-run",
            short: Some('n'),
            value: None,
            help: "Say what would be written, and write nothing.",
        },
    ],
    run,
};

fn run(given: &Given) -> Exit {
    let Some(path) = &given.argument else {
        complain("import needs a FILE (havip import --help)");
        return Exit::Usage;
    };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            complain(&format!("{path}: {error}"));
            return match error.kind() {
                std::io::ErrorKind::NotFound => Exit::NoConfig,
                _ => exit_of(&error),
            };
        }
    };
    let file = TomlFile::Local(path.as_str().into());
    let read = utf8(&text, &file).and_then(|text| Tree::from_toml(text, &file));
    let (tree, mut problems) = match read {
        Ok(read) => read,
        Err(problem) => {
            complain(&problem.to_string());
            return Exit::Config;
        }
    };
    let store = match find(given) {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    problems.extend(check_all(&tree, &store.policy, &Facts::default()));
    for problem in &problems {
        complain(&problem.to_string());
    }
    if problems.iter().any(Problem::is_error) {
        complain("nothing is written");
        return Exit::Config;
    }
    let there = match dump(&store) {
        Ok((there, ..)) => there,
        Err(exit) => return exit,
    };
    let prefix = &store.options.prefix;
    let known: BTreeMap<String, (&[u8], i64)> = there
        .entries
        .iter()
        .map(|entry| {
            let key = String::from_utf8_lossy(&entry.key).into_owned();
            (key, (entry.value.as_slice(), entry.mod_revision))
        })
        .collect();
    let spelling = Spelling::of(prefix, known.keys());
    let mut puts = Vec::new();
    let mut guards = Vec::new();
    for (key, value) in to_flat(&tree, prefix) {
        let key = spelling.respell(prefix, key);
        match known.get(&key) {
            Some((old, _)) if *old == value.as_bytes() => continue,
            Some((_, mod_revision)) => {
                guards.push(Guard::Unchanged { key: key.clone(), mod_revision: *mod_revision });
            }
            None => guards.push(Guard::Absent { key: key.clone() }),
        }
        puts.push((key, value));
    }
    if puts.is_empty() {
        print(&format!("etcd has all of it already, at revision {}\n", there.revision));
        return Exit::Done;
    }
    if given.has("dry-run") {
        // Keys only: a value may be a password.
        let keys: Vec<&str> = puts.iter().map(|(key, _)| key.as_str()).collect();
        print(&format!("would put {} key(s):\n  {}\n", keys.len(), keys.join("\n  ")));
        return Exit::Done;
    }
    match smol::block_on(import(&store.options, &puts, &guards)) {
        Ok(revision) => {
            print(&format!("put {} key(s) at revision {revision}\n", puts.len()));
            Exit::Done
        }
        Err(error) => failed(&error),
    }
}

/// Which routers etcd has in the deployed code's spelling alone: they keep it.
struct Spelling {
    plural: BTreeSet<String>,
}

impl Spelling {
    fn of<'a>(prefix: &str, keys: impl Iterator<Item = &'a String> + Clone) -> Self {
        let routers = |branch: &'static str| {
            let start = format!("{prefix}{branch}/");
            keys.clone()
                .filter_map(|key| key.strip_prefix(&start)?.split('/').next())
                .map(str::to_owned)
                .collect::<BTreeSet<String>>()
        };
        let singular = routers("virtual_router");
        let plural = routers("virtual_routers");
        Self { plural: plural.difference(&singular).cloned().collect() }
    }

    fn respell(&self, prefix: &str, key: String) -> String {
        let rest = key.strip_prefix(prefix).and_then(|path| path.strip_prefix("virtual_router/"));
        match rest {
            Some(rest) if rest.split('/').next().is_some_and(|name| self.plural.contains(name)) => {
                format!("{prefix}virtual_routers/{rest}")
            }
            Some(_) | None => key,
        }
    }
}
