//! One table of commands and flags: parsing, `--help` and error messages all come from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lexopt::{Arg, Parser, ValueExt};

/// A flag of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// Without the dashes.
    pub(super) long: &'static str,
    /// A letter for the same.
    pub(super) short: Option<char>,
    /// What its value is called; `None`: it has none.
    pub(super) value: Option<&'static str>,
    /// One sentence.
    pub(super) help: &'static str,
}

/// A sub-command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// Its name.
    pub(super) name: &'static str,
    /// One line for the overview; empty: it is not for people, and not listed there.
    pub(super) summary: &'static str,
    /// What it does, and how it ends.
    pub(super) about: &'static str,
    /// Name of its one positional argument, if it takes one.
    pub(super) argument: Option<&'static str>,
    /// Its flags.
    pub(super) flags: &'static [Flag],
    /// Does it; gives the exit code.
    pub(super) run: fn(&Given) -> super::Exit,
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, String>,
    /// The positional argument.
    pub(super) argument: Option<String>,
}

impl Given {
    /// Whether a flag was given.
    #[must_use]
    pub(super) fn has(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }

    /// A flag's value.
    #[must_use]
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        self.values.get(flag).map(String::as_str)
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Line {
    /// Run this command.
    Run(&'static Command, Given),
    /// Print this help and end well.
    Help(String),
    /// Print this error and end with the code for usage.
    Wrong(String),
}

/// Reads a command line.
#[must_use]
pub(super) fn parse(commands: &'static [Command], arguments: Vec<std::ffi::OsString>) -> Line {
    let mut parser = Parser::from_args(arguments);
    let command = match parser.next() {
        Ok(None) | Ok(Some(Arg::Long("help") | Arg::Short('h'))) => {
            return Line::Help(overview(commands));
        }
        Ok(Some(Arg::Long("version") | Arg::Short('V'))) => {
            return match find(commands, "version") {
                Some(command) => Line::Run(command, Given::default()),
                None => Line::Help(overview(commands)),
            };
        }
        Ok(Some(Arg::Value(name))) => {
            let name = name.to_string_lossy().into_owned();
            if name == "help" {
                return Line::Help(overview(commands));
            }
            match find(commands, &name) {
                Some(command) => command,
                None => {
                    let listed = commands.iter().filter(|command| !command.summary.is_empty());
                    let known = listed.map(|command| command.name);
                    let hint = crate::config::nearest(&name, known)
                        .map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
                    return Line::Wrong(format!(
                        "unknown command \"{name}\"{hint} (havip --help lists them)"
                    ));
                }
            }
        }
        Ok(Some(argument)) => {
            return Line::Wrong(format!("{} (havip --help)", argument.unexpected()));
        }
        Err(error) => return Line::Wrong(error.to_string()),
    };
    match parse_command(command, &mut parser) {
        Ok(Some(given)) => Line::Run(command, given),
        Ok(None) => Line::Help(help(command)),
        Err(error) => Line::Wrong(format!("{error} (havip {} --help)", command.name)),
    }
}

fn parse_command(command: &Command, parser: &mut Parser) -> Result<Option<Given>, lexopt::Error> {
    let mut given = Given::default();
    while let Some(argument) = parser.next()? {
        let flag = match &argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long(name) => command.flags.iter().find(|flag| flag.long == *name),
            Arg::Short(letter) => command.flags.iter().find(|flag| flag.short == Some(*letter)),
            Arg::Value(_) if command.argument.is_some() && given.argument.is_none() => {
                if let Arg::Value(value) = argument {
                    given.argument = Some(value.string()?);
                }
                continue;
            }
            Arg::Value(_) => None,
        };
        let Some(flag) = flag else { return Err(argument.unexpected()) };
        let value = match flag.value {
            Some(_) => parser.value()?.string()?,
            None => String::new(),
        };
        given.values.insert(flag.long, value);
    }
    Ok(Some(given))
}

fn find(commands: &'static [Command], name: &str) -> Option<&'static Command> {
    commands.iter().find(|command| command.name == name)
}

/// `havip --help`.
#[must_use]
pub(super) fn overview(commands: &[Command]) -> String {
    let mut text = String::from(
        "havip keeps virtual IPs reachable: VRRP, driven by etcd or TOML.\n\n\
         Usage: havip COMMAND [FLAGS]\n\nCommands:\n",
    );
    for command in commands.iter().filter(|command| !command.summary.is_empty()) {
        let _ = writeln!(text, "  {:<10} {}", command.name, command.summary);
    }
    text.push_str("\nhavip COMMAND --help tells more.\n\n");
    text.push_str(super::EXIT_CODES);
    text
}

/// `havip COMMAND --help`.
#[must_use]
pub(super) fn help(command: &Command) -> String {
    let argument = command.argument.map_or_else(String::new, |name| format!(" [{name}]"));
    let mut text = format!(
        "havip {}: {}\n\nUsage: havip {} [FLAGS]{argument}\n\n{}\n\nFlags:\n",
        command.name, command.summary, command.name, command.about
    );
    let own = Flag { long: "help", short: Some('h'), value: None, help: "Print this help." };
    for flag in command.flags.iter().chain([&own]) {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let value = flag.value.map_or_else(String::new, |name| format!(" {name}"));
        let _ = writeln!(text, "  {short}--{:<20} {}", format!("{}{value}", flag.long), flag.help);
    }
    text
}
