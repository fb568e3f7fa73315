//! One turn of the loop: what the daemon and the simulator share.

use super::{Actions, Event, Inbox, Instant, Node};

/// Sockets, kernel and clock, real or simulated.
pub trait Host {
    /// Puts everything that has arrived into `inbox`, up to a bound of its own; returns whether
    /// every source was read empty.
    fn drain(&mut self, inbox: &mut Inbox) -> bool;

    /// The time; read once a turn, after `drain`.
    fn now(&mut self) -> Instant;

    /// Does what `actions` say.
    fn flush(&mut self, node: &Node, actions: &Actions);
}

/// Drain, clock, handle, flush. Nothing is sent before everything that has arrived was taken
/// into account, so that a process that was stopped does not speak before it has listened.
pub fn turn(node: &mut Node, host: &mut impl Host, inbox: &mut Inbox, actions: &mut Actions) {
    let heard_all = host.drain(inbox);
    let now = host.now();
    actions.clear();
    inbox.drain(|event| node.handle(now, event, actions));
    node.handle(now, Event::Timeout { heard_all }, actions);
    host.flush(node, actions);
}
