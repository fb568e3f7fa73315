//! Two gateways on a cluster of three members that is stopped, killed, cut, filled, restored,
//! compacted and guarded: what the gateways do with that, which is nothing on the network.
//!
//! Each scenario prints a line with its figures; `--nocapture` shows them.

#![cfg(feature = "etcd")]

#[macro_use]
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../lab/cluster/mod.rs"]
mod cluster;

use std::time::Duration;

/// Each scenario with each version.
macro_rules! scenarios {
    ($($name:ident)*) => {
        $(mod $name {
            isolated! {
                fn etcd_3_4() {
                    $crate::run(super::$name, stringify!($name), "3.4");
                }
            }
            isolated! {
                fn etcd_3_5() {
                    $crate::run(super::$name, stringify!($name), "3.5");
                }
            }
        })*
    };
}

mod content;
mod members;
mod rights;
mod site;
mod storm;

fn run(
    scenario: fn(&'static str, &'static str) -> Option<String>,
    name: &'static str,
    version: &'static str,
) {
    let Some(figures) = scenario(name, version) else { return };
    println!("{name} | {version} | {figures}");
}

#[test]
fn a_condition_that_never_holds_is_noticed() {
    assert!(!lab::holds_within(Duration::from_millis(10), || false));
}
