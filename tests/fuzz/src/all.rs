//! What takes bytes from outside, each as one function: the fuzzer calls it with what it makes up,
//! and `tests/corpora.rs` with what is kept.

mod bench;
pub(crate) mod keys;
pub(crate) mod netlink;
pub(crate) mod packet;
pub(crate) mod socket;
pub(crate) mod toml;
