//! Every way in which an etcd is set up and reached, with real ones of each version: reading,
//! watching and writing, over the end of a token and a restart of the server; what is said when
//! it does not work; the examples, and the commands of the guide.

#![cfg(feature = "tls")]
#![allow(unreachable_pub, reason = "no one reaches into a test")]

#[macro_use]
#[path = "../lab/cluster/mod.rs"]
mod cluster;
#[path = "../lab/follower.rs"]
mod follower;
#[path = "../lab/mod.rs"]
mod lab;

mod changes;
mod errors;
mod examples;
mod gateway;
mod guide;
mod node;
mod setup;
mod table;
