//! The havip command: arguments, command, exit code; nothing else.

fn main() {}
