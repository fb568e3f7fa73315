//! What a node needs to know, all at one revision.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{GetOptions, GetResponse, KvClient, ResponseHeader, Txn, TxnOp, TxnOpResponse};

use super::Entry;
use super::channel::within;
use super::endpoint::Endpoint;
use super::error::{Error, ErrorKind};
use super::ranges::{Kind, Range, Scope};
use super::writes::Seen;

/// Ranges of one transaction: below the servers' default of 128 operations.
const RANGES_MAX: usize = 100;
/// Keys of one range in one answer, unless their values are too large for that.
const PAGE: i64 = 1000;
/// Bytes of one answer.
pub(super) const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Keys and bytes of everything that is read.
const KEYS_MAX: usize = 500_000;
const BYTES_MAX: usize = 64 * 1024 * 1024;

const LISTING: &str = "reading the configuration";

/// Everything that concerns the node, at one revision.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) revision: i64,
    pub(super) cluster_id: u64,
    /// What was read: the routers are known now.
    pub(super) scope: Scope,
    /// Sorted by key.
    pub(super) config: Vec<Entry>,
    /// The keys that this node writes, as they stand.
    pub(super) outputs: BTreeMap<String, Seen>,
}

/// Reads it: first the node's own keys, then, at the same revision, those of its routers.
pub(super) async fn list(reader: &mut Reader<'_>, mut scope: Scope) -> Result<Listing, Error> {
    let mut found = Found::default();
    let at = reader.read(&scope.fixed(), None, &mut found).await?;
    if let Some(entry) = found.entries.get(scope.list_key().as_bytes()) {
        scope.add_listed(&entry.value);
    }
    reader.read(&scope.of_routers(), Some(at.revision), &mut found).await?;
    let mut config = Vec::new();
    let mut outputs = BTreeMap::new();
    for (key, FoundKey { value, mod_revision, lease }) in found.entries {
        match scope.kind(&key) {
            Some(Kind::Config) => config.push(Entry { key, value, mod_revision }),
            Some(Kind::Output) => {
                // Every output's key is text.
                let key = String::from_utf8_lossy(&key).into_owned();
                outputs.insert(key, Seen { value: Some(value), lease, mod_revision });
            }
            None => {}
        }
    }
    Ok(Listing { revision: at.revision, cluster_id: at.cluster_id, scope, config, outputs })
}

/// What was found, by key; bounded. Values may be secrets.
#[derive(Default)]
pub(super) struct Found {
    pub(super) entries: BTreeMap<Vec<u8>, FoundKey>,
    bytes: usize,
}

/// What stood at a key.
pub(super) struct FoundKey {
    pub(super) value: Vec<u8>,
    pub(super) mod_revision: i64,
    pub(super) lease: i64,
}

/// Where a reading stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) revision: i64,
    pub(super) cluster_id: u64,
}

/// Reads ranges from one endpoint.
pub(super) struct Reader<'a> {
    pub(super) kv: KvClient,
    pub(super) endpoint: &'a Endpoint,
    pub(super) timeout: Duration,
    /// Keys of one range in one answer.
    page: i64,
}

impl<'a> Reader<'a> {
    /// Over a connection whose answers have at most [`ANSWER_MAX`] bytes.
    pub(super) const fn new(kv: KvClient, endpoint: &'a Endpoint, timeout: Duration) -> Self {
        Self { kv, endpoint, timeout, page: PAGE }
    }

    /// Reads all ranges at `revision`, or at the present one, in transactions and pages of bounded
    /// size.
    pub(super) async fn read(
        &mut self,
        ranges: &[Range],
        revision: Option<i64>,
        found: &mut Found,
    ) -> Result<At, Error> {
        let mut at = At { revision: revision.unwrap_or(0), cluster_id: 0 };
        for ranges in ranges.chunks(RANGES_MAX) {
            let (header, answers) = self.ask(ranges, at.revision).await?;
            at.cluster_id = header.cluster_id();
            if at.revision == 0 {
                at.revision = header.revision();
            }
            for (range, answer) in ranges.iter().zip(answers) {
                self.rest(range, answer, at.revision, found).await?;
            }
        }
        Ok(at)
    }

    /// Takes an answer, and reads the pages that follow it.
    async fn rest(
        &mut self,
        range: &Range,
        mut answer: GetResponse,
        revision: i64,
        found: &mut Found,
    ) -> Result<(), Error> {
        let mut rest = range.clone();
        loop {
            let more = answer.more();
            let mut last = None;
            for kv in answer.take_kvs() {
                let (mod_revision, lease) = (kv.mod_revision(), kv.lease());
                let (key, value) = kv.into_key_value();
                found.bytes = found.bytes.saturating_add(key.len() + value.len());
                if found.entries.len() >= KEYS_MAX || found.bytes > BYTES_MAX {
                    let detail = "more than 500000 keys or 64 MiB under the prefix";
                    return Err(Error::new(self.endpoint, LISTING, ErrorKind::TooLarge, detail));
                }
                if more {
                    last = Some(key.clone());
                }
                found.entries.insert(key, FoundKey { value, mod_revision, lease });
            }
            if !more {
                return Ok(());
            }
            // A page without a key would be read for ever.
            let Some(mut from) = last else {
                return Err(self.odd("an empty page that says that there is more"));
            };
            from.push(0);
            if from <= rest.key {
                return Err(self.odd("a page that goes backwards"));
            }
            rest.key = from;
            let (_, mut answers) = self.ask(std::slice::from_ref(&rest), revision).await?;
            answer = answers.remove(0);
        }
    }

    /// Asks for the first page of each of these ranges: of as many keys as an answer can hold.
    /// There are as many answers as ranges.
    async fn ask(
        &mut self,
        ranges: &[Range],
        revision: i64,
    ) -> Result<(ResponseHeader, Vec<GetResponse>), Error> {
        let answer = loop {
            let get = |range: &Range| {
                let options = GetOptions::new().with_limit(self.page).with_revision(revision);
                let whole = !range.end.is_empty();
                let options = if whole { options.with_range(range.end.clone()) } else { options };
                TxnOp::get(range.key.clone(), Some(options))
            };
            let txn = Txn::new().and_then(ranges.iter().map(get).collect::<Vec<_>>());
            match within(self.endpoint, LISTING, self.timeout, self.kv.txn(txn)).await {
                Err(error) if error.kind() == ErrorKind::TooLarge && self.page > 1 => {
                    self.page = (self.page / 8).max(1);
                }
                answer => break answer?,
            }
        };
        let header = answer.header().ok_or_else(|| self.odd("an answer without a header"))?;
        let is_get = |answer| match answer {
            TxnOpResponse::Get(answer) => Some(answer),
            _ => None,
        };
        let answers: Vec<_> = answer.op_responses().into_iter().filter_map(is_get).collect();
        if answers.len() != ranges.len() {
            return Err(self.odd("an answer with more or less parts than the question"));
        }
        Ok((header.clone(), answers))
    }

    fn odd(&self, detail: &str) -> Error {
        Error::new(self.endpoint, LISTING, ErrorKind::Protocol, detail)
    }
}
