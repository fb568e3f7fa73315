//! Decisions, pure: what is to be sent, and which addresses the kernel should have.
//!
//! Nothing here does IO, reads a clock, blocks or fails. Time enters as `now`; everything that
//! happens enters as an event; everything to do leaves as an action.

#![forbid(unsafe_code)]

pub mod kernel;
mod time;

pub use time::Instant;
