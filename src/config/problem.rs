//! What is wrong with a configuration: where, why, and what to do.

use std::fmt::{self, Write as _};

use super::keepalived;
use super::model::RouterName;
use super::shown::Line;
use super::tree::Origin;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something that was asked for does not happen.
    Error,
    /// It works, but not as its writer may believe.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// The router it concerns, if it is about one.
    pub router: Option<RouterName>,
    /// The path, as in `virtual_router/100/vips`; empty if it is about a whole source.
    pub path: String,
    /// Where it stands; `None` if it is missing.
    pub origin: Option<Origin>,
    /// What is wrong, and the way out.
    pub message: String,
}

impl Problem {
    /// A problem with something that stands somewhere.
    #[must_use]
    pub fn at(severity: Severity, path: &str, origin: &Origin, message: String) -> Self {
        Self {
            severity,
            router: None,
            path: path.to_owned(),
            origin: Some(origin.clone()),
            message,
        }
    }

    /// A problem with something that is missing.
    #[must_use]
    pub fn missing(severity: Severity, path: &str, message: String) -> Self {
        Self { severity, router: None, path: path.to_owned(), origin: None, message }
    }

    /// The same, about a router.
    #[must_use]
    pub fn of(mut self, router: &RouterName) -> Self {
        self.router = Some(router.clone());
        self
    }

    /// Whether it keeps something from happening.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    /// `FILE:LINE: error: PATH: what is wrong`, or `KEY (revision N): error: what is wrong`; with
    /// `{:#}` without the severity, where a log says it already.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = !f.alternate();
        // A file, a key or a parser's words may hold anything.
        let mut line = Line(f);
        if let Some(origin) = &self.origin {
            write!(line, "{origin}: ")?;
        }
        if severity {
            write!(line, "{}: ", self.severity)?;
        }
        let key_says_it = matches!(self.origin, Some(Origin::Etcd { .. }));
        if !self.path.is_empty() && !key_says_it {
            write!(line, "{}: ", self.path)?;
        }
        line.write_str(&self.message)
    }
}

/// Problems that are told one by one; of those beyond the bound, how many there are. A store
/// with ten thousand slips in it costs neither the box's memory nor its log.
#[derive(Debug)]
pub(super) struct Report {
    told: Vec<Problem>,
    most: usize,
    untold: Option<(Severity, usize)>,
}

impl Default for Report {
    fn default() -> Self {
        Self::of_at_most(100)
    }
}

impl Report {
    pub(super) const fn of_at_most(most: usize) -> Self {
        Self { told: Vec::new(), most, untold: None }
    }

    pub(super) fn push(&mut self, problem: Problem) {
        if self.told.len() < self.most {
            self.told.push(problem);
        } else {
            let (worst, count) = self.untold.unwrap_or((problem.severity, 0));
            self.untold = Some((worst.min(problem.severity), count + 1));
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.told.len()
    }

    /// Says of all problems after the first `before` which router they are about.
    pub(super) fn about(&mut self, before: usize, router: &RouterName) {
        for problem in self.told.iter_mut().skip(before) {
            problem.router = Some(router.clone());
        }
    }

    pub(super) fn into_vec(mut self) -> Vec<Problem> {
        if let Some((worst, count)) = self.untold {
            let message = format!("{count} more problems like these; correct these first");
            self.told.push(Problem::missing(worst, "", message));
        }
        self.told
    }
}

/// The known name nearest to `name`, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// What to do about a name that nobody knows, where `known` are the ones that may stand there.
pub(super) fn way_out<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if name.is_empty() {
        return "a table, not a value, belongs here".to_owned();
    }
    match (nearest(name, known.clone()), keepalived::instead_of(name)) {
        (Some(near), instead) if instead.is_none() || distance(name, near) == 1 => {
            format!("did you mean \"{near}\"?")
        }
        (_, Some(instead)) => format!("it is keepalived's: {instead}"),
        (_, None) => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Edit distance (Levenshtein) of two names; names here have a few dozen bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.bytes().zip(row.iter_mut().skip(1)) {
            let cost = diagonal + usize::from(from != to);
            diagonal = *above;
            left = cost.min(diagonal + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["priority", "preempt", "preempt_delay", "vips", "vrid"];
        assert_eq!(nearest("prioritty", known), Some("priority"));
        assert_eq!(nearest("vip", known), Some("vips"));
        assert_eq!(nearest("preemt", known), Some("preempt"));
        assert_eq!(nearest("frobnicate", known), None);
    }
}
