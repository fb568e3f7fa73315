//! The sources of the configuration as a daemon has them now, and what comes of them. Reading
//! them from disk or network is others' work.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::snapshot::Snapshot;
use super::{
    Config, Facts, Input, NodeName, Origin, Outcome, Problem, RouterName, Settings, Severity,
    Shadow, Shown, TomlFile, Tree, Vanished, build, effective, settings, utf8,
};

/// The local file, read and found right.
#[derive(Clone, Debug)]
pub struct Local {
    /// Where it is.
    pub path: PathBuf,
    /// Everything in it.
    pub tree: Tree,
    /// The daemon's own settings in it.
    pub settings: Settings,
    /// What is odd in it without being wrong.
    pub problems: Vec<Problem>,
    /// Whether there is such a file.
    pub is_there: bool,
}

impl Local {
    /// From its text.
    ///
    /// # Errors
    /// What in it is wrong by itself, whatever node it is for.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Vec<Problem>> {
        let file = TomlFile::Local(path.display().to_string().into());
        let read = utf8(text, &file).and_then(|text| Tree::from_toml(text, &file));
        let (tree, mut problems) = read.map_err(|problem| vec![problem])?;
        let (settings, found) = settings(&tree);
        problems.extend(found);
        if problems.iter().any(Problem::is_error) {
            return Err(problems);
        }
        Ok(Self { path: path.to_owned(), tree, settings, problems, is_there: true })
    }

    /// What there is without a file: nothing but built-in settings.
    #[must_use]
    pub fn absent(path: &Path) -> Self {
        let tree = Tree::default();
        let (settings, problems) = settings(&tree);
        Self { path: path.to_owned(), tree, settings, problems, is_there: false }
    }
}

/// Everything that the configuration comes from.
#[derive(Debug)]
pub struct Sources {
    /// The local file.
    pub local: Local,
    /// Whether there is a store, heard of or not: what is missing here may stand there.
    pub beside_store: bool,
    /// What the store has, live or from the snapshot.
    pub store: Option<Tree>,
    /// What was odd in the store by itself.
    pub store_problems: Vec<Problem>,
    /// This node.
    pub node: NodeName,
    /// The configuration that runs.
    pub running: Option<Arc<Config>>,
    /// What was wrong when it was made.
    pub problems: Vec<Problem>,
    /// Values of the store that the local file hides.
    pub shadows: Vec<Shadow>,
    /// What becomes of routers that vanish, where the local file does not say that they go.
    pub vanished: Vanished,
    /// Routers that go on only because nobody said that they shall not.
    pub held: BTreeSet<RouterName>,
    /// Those, and all others that go on in the form they had.
    pub kept: BTreeSet<RouterName>,
    /// Routers that this node lists and that do not run, and why.
    pub idle: BTreeMap<RouterName, String>,
    /// Routers that the node listed since the store was restored.
    listed_since: BTreeSet<RouterName>,
}

impl Sources {
    /// With the local file alone.
    #[must_use]
    pub const fn new(local: Local, node: NodeName) -> Self {
        Self {
            local,
            beside_store: false,
            store: None,
            store_problems: Vec::new(),
            node,
            running: None,
            problems: Vec::new(),
            shadows: Vec::new(),
            vanished: Vanished::Hold,
            held: BTreeSet::new(),
            kept: BTreeSet::new(),
            idle: BTreeMap::new(),
            listed_since: BTreeSet::new(),
        }
    }

    fn merged(&self, local: &Local) -> (Tree, Vec<Shadow>) {
        match &self.store {
            Some(store) => Tree::overlay(&local.tree, store),
            None => (local.tree.clone(), Vec::new()),
        }
    }

    fn outcome(&self, local: &Local, facts: &Facts) -> (Outcome, Vec<Shadow>) {
        let (tree, shadows) = self.merged(local);
        let outcome = build(&Input {
            tree: &tree,
            node: &self.node,
            previous: self.running.as_deref(),
            policy: &local.settings.policy,
            facts,
            vanished: match local.settings.vanished {
                Vanished::Release => Vanished::Release,
                Vanished::Hold | Vanished::HoldSince(_) => self.vanished,
            },
            listed_since: Some(&self.listed_since),
        });
        (outcome, shadows)
    }

    /// Makes the configuration anew.
    pub fn rebuild(&mut self, facts: &Facts) -> Arc<Config> {
        let (outcome, shadows) = self.outcome(&self.local, facts);
        self.take(outcome, shadows)
    }

    /// Takes a state of the store, at `revision`; `last` is the snapshot that was on disk at the
    /// start, with the first state only. `is_other`: it cannot have come from what is known
    /// ([`is_other_store`]); `is_first`: since the connection, so that the store may have been
    /// another's meanwhile.
    pub fn take_state(
        &mut self,
        (tree, problems): (Tree, Vec<Problem>),
        revision: i64,
        (is_other, is_first): (bool, bool),
        last: Option<Snapshot>,
        facts: &Facts,
    ) -> Arc<Config> {
        let mut since = self.vanished;
        if let Some(last) = last {
            // What ran before this daemon counts, as if it had never ended: what vanished or was
            // spoiled meanwhile is no more of an order than it would have been then.
            if self.store.is_none() {
                self.store = Some(last.tree);
                self.rebuild(facts);
            }
            if let Some(at @ 1..) = last.header.held {
                since = Vanished::HoldSince(at);
            }
        }
        // Nor is it known who restored what while nobody looked.
        if is_other || (is_first && matches!(since, Vanished::HoldSince(_))) {
            self.restored(revision);
        }
        self.store = Some(tree);
        self.store_problems = problems;
        self.rebuild(facts)
    }

    /// Takes note that the store was restored or replaced: what it had at this revision is
    /// nobody's word of now.
    fn restored(&mut self, revision: i64) {
        self.vanished = Vanished::HoldSince(revision);
        self.listed_since.clear();
    }

    /// Lets go what is held, and returns what that was.
    pub fn confirm(&mut self, facts: &Facts) -> (Arc<Config>, BTreeSet<RouterName>) {
        let held = self.held.clone();
        self.vanished = Vanished::Release;
        let config = self.rebuild(facts);
        self.vanished = Vanished::Hold;
        (config, held)
    }

    fn take(&mut self, outcome: Outcome, shadows: Vec<Shadow>) -> Arc<Config> {
        let config = Arc::new(outcome.config);
        self.problems = outcome.problems;
        self.problems.extend(self.local.problems.iter().cloned());
        self.problems.extend(self.store_problems.iter().cloned());
        self.shadows = shadows;
        self.held = outcome.held;
        self.kept = outcome.kept;
        self.idle = outcome.idle;
        self.listed_since.extend(outcome.listed);
        // Who runs no more is asked about no more, and names may come and go for ever.
        self.listed_since.retain(|name| config.routers.contains_key(name));
        if self.held.is_empty() {
            // Nothing was lost, or all of it was put back or ordered: from here on as ever.
            self.vanished = Vanished::Hold;
        }
        self.running = Some(Arc::clone(&config));
        config
    }

    /// Takes another local file, unless something in it is wrong: then nothing of it is used.
    ///
    /// # Errors
    /// What is wrong with the values of the file.
    pub fn replace_local(
        &mut self,
        local: Local,
        facts: &Facts,
    ) -> Result<Arc<Config>, Vec<Problem>> {
        let (outcome, shadows) = self.outcome(&local, facts);
        let wrong: Vec<Problem> = outcome
            .problems
            .iter()
            .filter(|problem| self.is_local_fault(problem))
            .cloned()
            .collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        self.local = local;
        Ok(self.take(outcome, shadows))
    }

    /// Whether a problem is the local file's: it stands there, or nothing else could have what
    /// is missing.
    #[must_use]
    pub fn is_local_fault(&self, problem: &Problem) -> bool {
        let local = match &problem.origin {
            Some(origin) => matches!(origin, Origin::Local { .. }),
            None => !self.beside_store,
        };
        local && problem.severity == Severity::Error
    }

    /// The interface that routers are on where they do not say.
    #[must_use]
    pub fn default_interface(&self) -> Option<String> {
        const PATH: &str = "virtual_router/default/interface";
        let store = self.store.as_ref();
        let entry = self.local.tree.get(PATH).or_else(|| store?.get(PATH))?;
        entry.value.items().next().map(str::to_owned)
    }

    /// Addresses of the routers that run.
    #[must_use]
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        let routers = self.running.iter().flat_map(|config| config.routers.values());
        routers.flat_map(|r| r.vips.iter().chain(&r.vips_excluded)).map(|vip| vip.ip).collect()
    }

    /// Every effective value.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        effective(&self.merged(&self.local).0, &self.node)
    }
}

/// Whether the state of a store, of this cluster and revision and with these keys, values and
/// revisions of their last changes, cannot have come from the one that is `known` (by cluster and
/// revision) and has its own values and revisions of keys: a store that was set up anew, or
/// restored from a backup, perhaps with newer changes on top.
///
/// What was known at a revision stands for all changes up to it, so that one of that time which
/// was not known then is another history's. A key that was new, and is not there in a history that
/// has become as long, looks like one that was deleted.
pub fn is_other_store<'a, 'b>(
    known: Option<(u64, i64)>,
    known_key: impl Fn(&[u8]) -> Option<(&'b [u8], i64)>,
    (cluster_id, revision): (u64, i64),
    keys: impl IntoIterator<Item = (&'a [u8], &'a [u8], i64)>,
) -> bool {
    let is_older = |(known_id, known): (u64, i64)| known_id != cluster_id || revision < known;
    let contradicts = |(key, value, at): (&[u8], &[u8], i64)| {
        known_key(key).is_some_and(|(known_value, known_at)| match at.cmp(&known_at) {
            Ordering::Less => true,
            Ordering::Equal => value != known_value,
            Ordering::Greater => known.is_some_and(|(_, known)| at <= known),
        })
    };
    known.is_some_and(is_older) || keys.into_iter().any(contradicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_come_and_go_for_ever_are_not_remembered_for_ever() {
        let node = NodeName::new("gw1").unwrap();
        let mut sources = Sources::new(Local::absent(Path::new("havip.toml")), node);
        for round in 1..=100 {
            let name = format!("r{round}");
            let keys = [
                ("/havip/node/gw1/vrids".to_owned(), name.as_str()),
                (format!("/havip/virtual_router/{name}/vrid"), "51"),
                (format!("/havip/virtual_router/{name}/interface"), "eth0"),
                (format!("/havip/virtual_router/{name}/vips"), "10.0.0.51"),
            ];
            let keys = keys.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes(), round));
            let found = Tree::from_flat("/havip/", keys);
            let config = sources.take_state(found, round, (false, false), None, &Facts::default());
            assert!(config.routers.contains_key(&RouterName::new(&name).unwrap()));
            assert_eq!(sources.listed_since.len(), 1);
        }
    }

    #[test]
    fn a_change_that_should_have_been_known_is_another_store_s() {
        let known = [(b"a".as_slice(), (b"1".as_slice(), 3)), (b"b", (b"2", 7))];
        let is_other = |revision, keys: &[(&'static [u8], &'static [u8], i64)]| {
            let known_key = |key: &[u8]| {
                let found = known.iter().find(|(known, _)| *known == key);
                found.map(|(_, value)| *value)
            };
            is_other_store(Some((1, 9)), known_key, (1, revision), keys.iter().copied())
        };
        for (revision, keys, expected) in [
            (9, [(b"a".as_slice(), b"1".as_slice(), 3), (b"b", b"2", 7)], false),
            (10, [(b"a", b"1", 3), (b"b", b"3", 10)], false),
            (10, [(b"a", b"1", 3), (b"c", b"3", 9)], false),
            (8, [(b"a", b"1", 3), (b"b", b"2", 7)], true),
            (10, [(b"a", b"1", 3), (b"b", b"2", 6)], true),
            (9, [(b"a", b"1", 3), (b"b", b"3", 7)], true),
            (9, [(b"a", b"1", 3), (b"b", b"2", 9)], true),
        ] {
            assert_eq!(is_other(revision, &keys), expected, "{revision} {keys:?}");
        }
    }
}
