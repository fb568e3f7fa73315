//! One read or one transaction, for the command line.

use std::cell::Cell;

use etcd_client::{Compare, CompareOp, GetOptions, KvClient, Txn, TxnOp, TxnOpResponse};
use smol::future::or;

use super::Entry;
use super::channel::{Connection, connect, within};
use super::endpoint::Endpoint;
use super::error::{Error, ErrorKind};
use super::letters::Options;
use super::list::{ANSWER_MAX, Found, Reader};
use super::ranges::Range;
use super::session::probe;

/// Everything below a prefix, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Of the whole store.
    pub revision: i64,
    /// Which store.
    pub cluster_id: u64,
    /// Sorted by key.
    pub entries: Vec<Entry>,
}

/// A condition of an import. If one does not hold, nothing is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key is not there.
    Absent {
        /// Which one.
        key: String,
    },
    /// The key was not changed since this revision.
    Unchanged {
        /// Which one.
        key: String,
        /// Of its last change.
        mod_revision: i64,
    },
}

impl Guard {
    fn key(&self) -> &str {
        match self {
            Self::Absent { key } | Self::Unchanged { key, .. } => key,
        }
    }

    fn mod_revision(&self) -> i64 {
        match self {
            // What etcd compares for a key that is not there.
            Self::Absent { .. } => 0,
            Self::Unchanged { mod_revision, .. } => *mod_revision,
        }
    }
}

/// Reads everything below `prefix` from the first endpoint that answers.
///
/// # Errors
/// What the last endpoint failed with, or what the one that answered refused.
pub async fn dump_prefix(options: &Options, prefix: &str) -> Result<Dump, Error> {
    at_any(options, async |kv, endpoint| {
        let mut found = Found::default();
        let mut reader = Reader::new(kv, endpoint, options.call_timeout);
        let at = reader.read(&[Range::below(prefix)], None, &mut found).await?;
        let entries = found
            .entries
            .into_iter()
            .map(|(key, found)| Entry { key, value: found.value, mod_revision: found.mod_revision })
            .collect();
        Ok(Dump { revision: at.revision, cluster_id: at.cluster_id, entries })
    })
    .await
}

/// Writes all pairs in one transaction, so that no node sees a part of them, and returns its
/// revision. Keys must not repeat: etcd refuses that.
///
/// # Errors
/// What the last endpoint failed with; or what the one that answered refused, then nothing was
/// written. After [`ErrorKind::TimedOut`] and [`ErrorKind::Closed`] it may have been.
pub async fn import(
    options: &Options,
    pairs: &[(String, String)],
    guards: &[Guard],
) -> Result<i64, Error> {
    const IMPORTING: &str = "writing in one transaction";
    at_any(options, async |mut kv, endpoint| {
        let compares: Vec<Compare> = guards
            .iter()
            .map(|guard| Compare::mod_revision(guard.key(), CompareOp::Equal, guard.mod_revision()))
            .collect();
        let puts: Vec<TxnOp> = pairs
            .iter()
            .map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None))
            .collect();
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let looks: Vec<TxnOp> =
            guards.iter().map(|guard| TxnOp::get(guard.key(), keys_only())).collect();
        let txn = Txn::new().when(compares).and_then(puts).or_else(looks);
        let answer = within(endpoint, IMPORTING, options.call_timeout, kv.txn(txn)).await.map_err(
            |error| match error.kind() {
                ErrorKind::TooManyOperations => {
                    let detail = format!("{} keys", pairs.len().max(guards.len()));
                    Error::new(endpoint, IMPORTING, error.kind(), &detail)
                }
                _ => error,
            },
        )?;
        if !answer.succeeded() {
            let detail = refused(guards, &answer.op_responses());
            return Err(Error::new(endpoint, IMPORTING, ErrorKind::GuardFailed, &detail));
        }
        Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
    })
    .await
}

/// Which guards did not hold.
fn refused(guards: &[Guard], looks: &[TxnOpResponse]) -> String {
    let mut changed = Vec::new();
    for (guard, look) in guards.iter().zip(looks) {
        let TxnOpResponse::Get(look) = look else { continue };
        let now = look.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
        if now != guard.mod_revision() {
            let why = match (guard, now) {
                (Guard::Absent { .. }, _) => "is there already",
                (Guard::Unchanged { .. }, 0) => "is gone",
                (Guard::Unchanged { .. }, _) => "was changed",
            };
            changed.push(format!("{} {why}", guard.key()));
        }
    }
    changed.join(", ")
}

/// Does something at the first endpoint that answers a small question. What fails after that is
/// not tried elsewhere: it may have been done.
async fn at_any<T>(
    options: &Options,
    work: impl AsyncFn(KvClient, &Endpoint) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut failed = None;
    for endpoint in &options.endpoints {
        let Connection { client, mut drive, .. } = match connect(endpoint, options).await {
            Ok(connection) => connection,
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        let kv = client.kv_client().max_decoding_message_size(ANSWER_MAX);
        let answers = Cell::new(false);
        let doing = async {
            match probe(&mut kv.clone(), endpoint, options).await {
                // Somebody is there; what it refuses shows at the work itself.
                Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
                _ => {
                    answers.set(true);
                    work(kv, endpoint).await
                }
            }
        };
        match or(async { Err(drive.run().await) }, doing).await {
            Err(error) if !answers.get() => failed = Some(error.unheard()),
            done => return done,
        }
    }
    Err(failed.unwrap_or_else(Error::nowhere))
}
