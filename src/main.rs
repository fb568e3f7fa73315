//! The havip command: arguments, command, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(havip::cli::main(std::env::args_os().skip(1).collect()) as u8)
}
