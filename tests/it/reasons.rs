//! The pages of the reasons: there for every reason, and true as far as the source tells.

use kms_secret_operator::sync::{Reason, Retry};

use crate::docs::{files, read, root};

#[test]
fn every_reason_has_its_remedy() {
    let text = read("docs/reasons.md");
    for reason in Reason::ALL.map(Reason::as_str) {
        let row = if HAVE_NO_PAGE.contains(&reason) {
            format!("| `{reason}` |")
        } else {
            format!("| [`{reason}`](reasons/{reason}.md) |")
        };
        assert!(text.contains(&row), "docs/reasons.md has no row {row}");
    }
}

/// Nothing is wrong, or nobody ever sees it in a status.
const HAVE_NO_PAGE: [&str; 3] = ["Synced", "Suspended", "Conflict"];

#[test]
fn every_page_is_about_a_reason() {
    let reasons = Reason::ALL.map(Reason::as_str);
    for page in files("docs/reasons") {
        let name = page.file_stem().unwrap().to_string_lossy().into_owned();
        let is_reason = reasons.contains(&name.as_str()) && !HAVE_NO_PAGE.contains(&name.as_str());
        assert!(is_reason, "{} is about no reason", page.display());
    }
}

#[test]
fn every_reason_has_a_page_that_is_true() {
    let templates = templates();
    let wrongs: Vec<String> = Reason::ALL
        .iter()
        .filter(|reason| !HAVE_NO_PAGE.contains(&reason.as_str()))
        .flat_map(|reason| wrongs(*reason, &templates))
        .collect();
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

/// The parts of a page, in their order; each begins with a line of this text.
const PARTS: [&str; 4] = [
    "## What you see",
    "## What it means",
    "## What to do",
    "## Meanwhile",
];

/// What is wrong with the page of a reason.
fn wrongs(reason: Reason, templates: &Templates) -> Vec<String> {
    let name = reason.as_str();
    let file = format!("docs/reasons/{name}.md");
    if !root().join(&file).exists() {
        return vec![format!("{file} is not there: {} needs a page", name)];
    }
    let page = read(&file);
    let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
    if headings != [&[format!("# {name}").as_str()], &PARTS[..]].concat() {
        return vec![format!("{file}: the headings are {headings:?}")];
    }
    let parts: Vec<&str> = page.split("\n## ").collect();
    let (see, meanwhile) = (parts[1], parts[4].split_whitespace().collect::<Vec<_>>());
    let mut wrongs = Vec::new();
    if !see.contains(&format!("\nReason:   {name}\n")) {
        wrongs.push(format!("{file}: the condition is of another reason"));
    }
    let again = match reason {
        Reason::TargetOwnedByOther | Reason::TargetNotFound => "every 30 seconds",
        Reason::TargetContested => "wait 30 seconds, and twice as long each time, up to 32 minutes",
        _ => bounds_in_words(reason.retry()),
    };
    if !meanwhile.join(" ").contains(again) {
        wrongs.push(format!("{file}: Meanwhile lacks {again:?}"));
    }
    // The conditions, and after them what else is said in a sentence.
    let (_, others) = see.rsplit_once("```\n").unwrap_or_default();
    let shown: Vec<&str> = see
        .lines()
        .filter_map(|line| line.strip_prefix("Message:  "))
        .collect();
    if shown.is_empty() {
        wrongs.push(format!("{file}: no message is shown"));
    }
    let others = others.split_whitespace().collect::<Vec<_>>().join(" ");
    let others = others.split('`').skip(1).step_by(2);
    for message in shown
        .into_iter()
        .chain(others.filter(|text| text.ends_with('.')))
    {
        if !templates.can_say(message) {
            wrongs.push(format!("{file}: no source says (any more) {message:?}"));
        }
    }
    wrongs
}

fn bounds_in_words(retry: Retry) -> &'static str {
    let (least, most) = retry.bounds();
    match (least.as_secs(), most.as_secs()) {
        (1, 300) => "after 1 second to 5 minutes",
        (5, 300) => "after 5 seconds to 5 minutes",
        (60, 600) => "after 1 to 10 minutes",
        (300, 1800) => "after 5 to 30 minutes",
        other => panic!("the pages of the reasons tell of other bounds: {other:?}"),
    }
}

/// The text literals of `src/`, each as the pieces between its placeholders.
struct Templates(Vec<Vec<String>>);

fn templates() -> Templates {
    let mut found = Vec::new();
    for file in files("src") {
        let code = read(&file);
        let code = code.split("#[cfg(test)]").next().unwrap();
        let code = code.replace("\\\n", "\u{0}");
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            // A literal that goes on in the next line continues after the blanks there.
            let mut parts = line.split('\u{0}').map(str::trim_start);
            let line: String = parts.next().into_iter().chain(parts).collect();
            let line = line.replace("\\\"", "\u{1}").replace("'\"'", "");
            for literal in line.split('"').skip(1).step_by(2) {
                let literal = literal.replace('\u{1}', "\"");
                let pieces = literal.split('{').enumerate().map(|(i, piece)| match i {
                    0 => piece.to_owned(),
                    _ => piece
                        .split_once('}')
                        .map_or(piece, |(_, after)| after)
                        .to_owned(),
                });
                found.push(pieces.collect());
            }
        }
    }
    Templates(found)
}

impl Templates {
    /// Whether `message` is what happened and what to do, both out of the source.
    fn can_say(&self, message: &str) -> bool {
        let Some(message) = message.strip_suffix('.') else {
            return false;
        };
        let mut halves = message.match_indices(". ");
        halves.any(|(i, _)| self.have(&message[..i]) && self.have(&message[i + 2..]))
    }

    /// Whether `text` is made by one of the literals, or by one after the name of an object.
    fn have(&self, text: &str) -> bool {
        let after_name = text.split_once("\": ").map_or(text, |(_, after)| after);
        let mut made = self.0.iter().filter(|pieces| letters(pieces) >= 5);
        made.any(|pieces| makes(pieces, text) || makes(pieces, after_name))
    }
}

fn letters(pieces: &[String]) -> usize {
    let letters = |piece: &String| piece.chars().filter(|c| c.is_alphabetic()).count();
    pieces.iter().map(letters).sum()
}

/// Whether `text` begins with the first piece, in whatever case, ends with the last, and holds the others in between.
fn makes(pieces: &[String], text: &str) -> bool {
    let (first, rest) = pieces.split_first().unwrap();
    let head = text.get(..first.len()).unwrap_or_default();
    if !head.eq_ignore_ascii_case(first) {
        return false;
    }
    let mut text = &text[first.len()..];
    let Some((last, between)) = rest.split_last() else {
        return text.is_empty();
    };
    for piece in between {
        match text.split_once(piece.as_str()) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(last.as_str())
}
