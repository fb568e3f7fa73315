//! `havip import`: TOML to etcd, validated, in one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::etcd::{Doing, ENDPOINTS_FLAG, dump, failed, find};
use super::flags::{Command, Flag, Given, Word};
use super::{CONFIG_FLAG, Exit, complain, exit_of, print};
use crate::config::{Facts, Policy, Problem, TomlFile, Tree, check_all, to_flat, utf8};
use crate::store::{Guard, import};

pub(super) const COMMAND: Command = Command {
    name: "import",
    summary: "put TOML into etcd, checked, in one revision",
    about: "\
Writes the keys of FILE that differ from etcd there in one transaction: all of it or nothing, and nothing if
another changed one of these keys meanwhile. Keys that FILE does not have stay as they are. First it
checks, as `havip check` does, what etcd would have then: with an error in it that etcd does not have
already, nothing is written, and it ends with 3. A key that havip does not know is written with a warning.",
    argument: Word::Other("FILE"),
    flags: &[
        CONFIG_FLAG,
        ENDPOINTS_FLAG,
        Flag {
            long: "dry-run",
            short: Some('n'),
            value: None,
            help: "Say what would be written, and write nothing.",
        },
        Flag {
            long: "force",
            short: None,
            value: None,
            help: "Write FILE although it has errors, as when a backup is restored.",
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
    let file = TomlFile::Import(path.as_str().into());
    let read = utf8(&text, &file).and_then(|text| Tree::from_toml(text, &file));
    let (tree, odd) = match read {
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
    let (there, now, _) = match dump(&store) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    if !is_right(&tree, odd, &now) && !given.has("force") {
        complain("nothing is written; --force writes it as it is");
        return Exit::Config;
    }
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
    let (keys, left_out) = to_flat(&tree, prefix);
    for path in left_out {
        complain(&format!(
            "{path}: not put into etcd: settings belong in the local file, and nodes write status \
             and vRouterGateway themselves"
        ));
    }
    for (key, value) in keys {
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
        Err(error) => failed(error, Doing::Writing, prefix),
    }
}

/// Says what would be wrong with etcd after the import, and whether anything is that was not
/// before. What this box alone refuses is no matter here: other nodes read it, too.
fn is_right(file: &Tree, odd: Vec<Problem>, there: &Tree) -> bool {
    let judge = |tree: &Tree| check_all(tree, &Policy::default(), &Facts::default(), false);
    let before = judge(there);
    let after = judge(&Tree::overlay(file, there).0);
    let fresh = odd.iter().chain(after.iter().filter(|problem| !before.contains(problem)));
    let fresh: Vec<&Problem> = fresh.collect();
    for problem in &fresh {
        complain(&problem.to_string());
    }
    let wrong = before.iter().filter(|problem| problem.is_error() && after.contains(problem));
    match wrong.count() {
        0 => {}
        count => complain(&format!("etcd has {count} error(s) already: havip check --etcd")),
    }
    !fresh.iter().any(|problem| problem.is_error())
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
