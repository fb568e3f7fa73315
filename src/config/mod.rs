//! What is wanted: flat keys and TOML become one validated, immutable [`Config`].
//!
//! Nothing here does IO or reads a clock. The way in is: sources (etcd, snapshot, local file) as
//! trees of path → value with origin → laid over each other → [`Config`].

#![forbid(unsafe_code)]

mod build;
mod check;
mod conflict;
mod diff;
mod effective;
mod keepalived;
pub mod key;
mod list;
mod model;
mod policy;
mod problem;
mod settings;
pub mod shown;
pub mod snapshot;
pub mod sources;
mod tree;
mod unknown;
mod value;
mod vanished;
mod writer;

pub use build::{Input, Outcome, build};
pub use check::check_all;
pub use diff::{Diff, diff};
pub use effective::{Shown, effective};
pub use list::all_routers;
pub use model::{
    Check, ChecksumMode, Config, IfName, Lifetime, NodeName, Prefix, Router, RouterName, Secret,
};
pub use policy::{Facts, Policy};
pub use problem::{Problem, Severity, nearest};
pub use settings::{EtcdLogin, EtcdTls, LogLevel, NodeNaming, SETTINGS, Settings, settings};
pub use tree::{Entry, Origin, Shadow, TomlFile, Tree, Value, utf8};
pub use vanished::Vanished;
pub use writer::{to_flat, to_toml};

#[cfg(test)]
mod tests;
