//! The threads and loops that join the rooms.
//!
//! - *engine*: sends adverts; does nothing that can block.
//! - *kernel*: asks the kernel for things, and may wait for it.
//! - *control*: everything else: configuration, store, log, control socket.

mod channel;
mod engine;
mod kernel;
