//! rtnetlink: neli's types and serialisation on sockets of our own.
//!
//! neli's own sockets start a thread and wait inside; here each socket belongs to one thread that
//! knows when it may wait. [`Requests`] waits (for the thread that may), [`Notifications`] never.

mod encode;
mod fence;
mod links;
mod notifications;
mod onlink;
mod parse;
mod remover;
mod requests;
mod routes;
mod socket;

pub use fence::Fence;
pub use notifications::Notifications;
pub use onlink::remove_routes;
pub use parse::{Malformed, changes};
pub use remover::Remover;
pub use requests::Requests;
pub use routes::DefaultRoutes;
