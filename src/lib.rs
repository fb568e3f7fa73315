//! havip keeps virtual IPs reachable: it reads what should be, speaks VRRP, puts addresses on
//! interfaces and says what happened.
//!
//! The crate in one line a module; `ARCHITECTURE.md` has the map and the rules between them.
//!
//! - [`wire`]: packet formats, pure: VRRP v2 and v3, ARP, NDP, checksums.
//! - [`config`]: what is wanted: flat keys and TOML become one validated, immutable configuration.
//! - [`node`]: decisions, pure: the VRRP machine, address claims, the plan for the kernel.
//! - `store`: where the configuration comes from: etcd, snapshot, local file.
//! - `linux`: the kernel: netlink, sockets, clock, signals; the only `unsafe`.
//! - `offload`: threads for what may wait.
//! - `daemon`: the threads and loops that join them; the control socket.
//! - `cli`: one file a sub-command.
//! - `sim`: a virtual LAN, kernel, store and clock for the same node code.
//!
//! [`wire`], [`config`] and [`node`] do no IO and read no clock.

pub mod config;
pub mod node;
pub mod wire;

#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod linux;
#[cfg(feature = "daemon")]
pub mod offload;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "daemon")]
pub mod store;
