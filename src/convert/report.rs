//! What became of everything that was read, line by line.

use std::fmt;

/// What a line asks of its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The object was not converted.
    Refused,
    /// The object was converted without this: it has no equal here.
    Lost,
    /// Something that somebody has to do.
    Do,
    /// Something to know.
    Note,
}

/// One thing that became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it asks of its reader.
    pub level: Level,
    /// Kind, namespace and name of the object.
    pub object: String,
    /// Path of the field; empty if it is about the object.
    pub field: String,
    /// What happened, and what to do.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Refused => "refused",
            Level::Lost => "lost   ",
            Level::Do => "do     ",
            Level::Note => "note   ",
        };
        let field = if self.field.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.field)
        };
        // What a manifest says in other lines, or to the terminal, is not ours.
        let line = format!("{level} {}: {field}{}", self.object, self.text);
        f.write_str(&line.replace(char::is_control, " "))
    }
}

/// The lines about one object.
#[derive(Debug)]
pub(super) struct Report {
    object: String,
    lines: Vec<Line>,
}

impl Report {
    pub(super) fn of(object: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            lines: Vec::new(),
        }
    }

    fn push(&mut self, level: Level, field: &str, text: impl Into<String>) {
        self.lines.push(Line {
            level,
            object: self.object.clone(),
            field: field.to_owned(),
            text: text.into(),
        });
    }

    pub(super) fn refuse(&mut self, field: &str, text: impl Into<String>) {
        self.push(Level::Refused, field, text);
    }

    pub(super) fn lose(&mut self, field: &str, text: impl Into<String>) {
        self.push(Level::Lost, field, text);
    }

    pub(super) fn ask(&mut self, text: impl Into<String>) {
        self.push(Level::Do, "", text);
    }

    pub(super) fn note(&mut self, field: &str, text: impl Into<String>) {
        self.push(Level::Note, field, text);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.lines.iter().any(|line| line.level == Level::Refused)
    }

    /// All of it; of what was refused only why: there is nothing to be done for it yet.
    pub(super) fn into_lines(self) -> Vec<Line> {
        let is_refused = self.is_refused();
        let mut lines = self.lines;
        lines.retain(|line| !is_refused || line.level == Level::Refused);
        lines
    }
}
