//! The kernel's edge: netlink, raw and packet sockets, clock, signals. The only `unsafe` of the
//! crate, one system call a block.
//!
//! Nothing here decides. What it speaks with the core is in [`crate::node::kernel`].

mod bpf;
mod child;
pub mod clock;
pub mod detached;
pub mod file;
pub mod lock;
mod membership;
mod memfd;
pub mod netlink;
pub mod netns;
pub mod owner;
mod packet_socket;
mod ping;
mod poll;
mod recv_batch;
pub mod rights;
pub mod rt;
pub mod signals;
mod sys;
pub mod unix;
mod vrrp_socket;
mod wait;
mod witness;

pub use child::{die_with_parent, terminate};
pub use membership::{Groups, Membership};
pub use memfd::{is_sealed, memfd};
pub use packet_socket::PacketSocket;
pub use ping::Pinger;
pub use poll::Poll;
pub use recv_batch::{Received, RecvBatch};
pub use sys::{MAX_SEND, errno, hostname};
pub use vrrp_socket::{AnySender, VrrpSocket};
pub use wait::wait_readable;
pub use witness::{Heard, Witness};
