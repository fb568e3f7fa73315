//! Every way in which an etcd is set up and reached, with real ones of each version: reading,
//! watching and writing, over the end of a token and a restart of the server; what is said when
//! it does not work; the examples, and the commands of the guide.

#![cfg(feature = "tls")]
#![allow(unreachable_pub, reason = "no one reaches into a test")]

#[path = "../lab/cluster/mod.rs"]
mod cluster;
#[path = "../lab/follower.rs"]
mod follower;

mod gateway;
mod node;
mod setup;

/// A test that runs with each version.
macro_rules! with_each_version {
    ($(fn $name:ident($version:ident: &'static str) $body:block)*) => {
        $(mod $name {
            use super::*;

            fn with($version: &'static str) $body

            #[test]
            fn etcd_3_4() {
                with("3.4");
            }

            #[test]
            fn etcd_3_5() {
                with("3.5");
            }
        })*
    };
}

mod changes;
mod errors;
mod examples;
mod guide;
mod table;
