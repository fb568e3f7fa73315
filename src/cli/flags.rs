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

/// What the one word may be that a command takes beside its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// There is none.
    None,
    /// The local file: the same as `--config FILE`.
    Config,
    /// Something else, called this.
    Other(&'static str),
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
    /// Its one positional argument.
    pub(super) argument: Word,
    /// Its flags.
    pub(super) flags: &'static [Flag],
    /// Does it; gives the exit code.
    pub(super) run: fn(&Given) -> super::Exit,
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, String>,
    /// The positional argument, unless it is the local file.
    pub(super) argument: Option<String>,
}

impl Given {
    /// Whether a flag was given.
    #[must_use]
    pub(super) fn has(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }

    /// Takes a flag's value, which must not be another one than it was given before.
    fn set(&mut self, flag: &'static str, value: String) -> Result<(), String> {
        match self.values.get(flag) {
            Some(before) if *before != value => {
                Err(format!("two values for --{flag}: \"{before}\" and \"{value}\""))
            }
            Some(_) => Ok(()),
            None => {
                self.values.insert(flag, value);
                Ok(())
            }
        }
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
        let flag = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long(name) => command.flags.iter().find(|flag| flag.long == name),
            Arg::Short(letter) => command.flags.iter().find(|flag| flag.short == Some(letter)),
            Arg::Value(value) => {
                match command.argument {
                    Word::Config => given.set("config", value.string()?)?,
                    Word::Other(_) if given.argument.is_none() => {
                        given.argument = Some(value.string()?);
                    }
                    Word::Other(_) | Word::None => return Err(Arg::Value(value).unexpected()),
                }
                continue;
            }
        };
        let Some(flag) = flag else { return Err(argument.unexpected()) };
        let value = match flag.value {
            Some(_) => parser.value()?.string()?,
            None => String::new(),
        };
        given.set(flag.long, value)?;
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
    let argument = match command.argument {
        Word::None => String::new(),
        Word::Config => " [FILE]".to_owned(),
        Word::Other(name) => format!(" [{name}]"),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn command(name: &'static str, argument: Word) -> Command {
        Command {
            name,
            summary: "x",
            about: "x",
            argument,
            flags: &[super::super::CONFIG_FLAG],
            run: |_| super::super::Exit::Done,
        }
    }

    static COMMANDS: &[Command] = &[
        command("ask", Word::Config),
        command("put", Word::Other("OUT")),
        command("show", Word::None),
    ];

    fn typed(line: &str) -> Result<(Option<String>, Option<String>), String> {
        let words = line.split(' ').map(Into::into).collect();
        match parse(COMMANDS, words) {
            Line::Run(_, given) => Ok((given.value("config").map(str::to_owned), given.argument)),
            Line::Help(_) => Err("help".into()),
            Line::Wrong(why) => Err(why),
        }
    }

    #[test]
    fn the_local_file_is_named_in_either_way_and_never_two_of_them() {
        let named = |file: &str| Ok((Some(file.to_owned()), None));
        for line in ["ask a", "ask -c a", "ask --config a", "ask --config=a", "ask a -c a"] {
            assert_eq!(typed(line), named("a"), "{line}");
        }
        for line in ["ask a -c b", "ask -c a b", "ask a b", "ask -c a -c b"] {
            let why = typed(line).unwrap_err();
            assert!(why.starts_with("two values for --config: \"a\" and \"b\""), "{line}: {why}");
        }
        assert_eq!(typed("put a -c b"), Ok((Some("b".into()), Some("a".into()))));
        assert!(typed("put a b").is_err() && typed("show a").is_err());
    }
}
