//! A datastore as nodes see it: keys with revisions, and a past that can be restored.

use std::collections::BTreeMap;

/// Keys, their values, and the revision of the last change of each.
type Keys = BTreeMap<String, (String, i64)>;

/// One cluster of etcd, seen as a whole.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// Whether it answers.
    pub is_up: bool,
    cluster_id: u64,
    revision: i64,
    keys: Keys,
    past: BTreeMap<i64, Keys>,
}

impl Default for Etcd {
    fn default() -> Self {
        Self { is_up: true, cluster_id: 1, revision: 1, keys: Keys::new(), past: BTreeMap::new() }
    }
}

impl Etcd {
    /// Puts or, with `None`, deletes keys in one transaction.
    pub fn write<'a>(&mut self, keys: impl IntoIterator<Item = (String, Option<&'a str>)>) {
        self.past.insert(self.revision, self.keys.clone());
        self.revision += 1;
        for (key, value) in keys {
            match value {
                Some(value) => {
                    self.keys.insert(key, (value.to_owned(), self.revision));
                }
                None => _ = self.keys.remove(&key),
            }
        }
    }

    /// A value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(|(value, _)| value.as_str())
    }

    /// Every key.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    /// Revisions to which it can be restored.
    #[must_use]
    pub fn past(&self) -> Vec<i64> {
        self.past.keys().copied().collect()
    }

    /// Becomes what it was, as a backup that is restored: in a new cluster, or under the old
    /// one's name (`etcdctl snapshot restore` with the same token and member names).
    pub fn restore(&mut self, revision: i64, new_cluster: bool) {
        let Some(keys) = self.past.get(&revision).cloned() else { return };
        self.keys = keys;
        self.past.split_off(&revision);
        self.revision = revision;
        self.cluster_id += u64::from(new_cluster);
    }

    /// Which cluster, and its revision.
    #[must_use]
    pub const fn at(&self) -> (u64, i64) {
        (self.cluster_id, self.revision)
    }

    /// All keys with values and the revisions of their last changes.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8], i64)> {
        self.keys.iter().map(|(key, (value, at))| (key.as_bytes(), value.as_bytes(), *at))
    }
}
