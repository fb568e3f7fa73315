//! What is wanted: flat keys and TOML become one validated, immutable [`Config`].
//!
//! Nothing here does IO or reads a clock. The way in is: sources (etcd, snapshot, local file) as
//! trees of path → value with origin → laid over each other → [`Config`].

#![forbid(unsafe_code)]

pub mod key;
mod model;
mod problem;
mod tree;
mod value;

pub use model::{
    Check, ChecksumMode, Config, IfName, Lifetime, NodeName, Prefix, Router, RouterName, Secret,
};
pub use problem::{Problem, Severity, nearest};
pub use tree::{Entry, Origin, Shadow, TomlFile, Tree, Value};
