//! Paths of gjson, which External Secrets reads properties by, as names of fields.

/// The names that a path goes along.
///
/// # Errors
/// Why it has no certain equal.
pub(super) fn names(path: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        let Some(name) = names.last_mut() else {
            continue;
        };
        match c {
            '.' => names.push(String::new()),
            '\\' => name.extend(chars.next()),
            '*' | '?' | '#' | '|' | '@' | '!' | '{' | '}' | '[' | ']' | '(' | ')' | ':' | '"' => {
                return Err(format!(
                    "the path {path:?} holds {c:?}, which means more to gjson than a name: write data[].path by hand, in JMESPath"
                ));
            }
            _ => name.push(c),
        }
    }
    if names.iter().any(String::is_empty) {
        return Err(format!("the path {path:?} has a part without a name"));
    }
    let is_number = |name: &&String| name.chars().all(|c| c.is_ascii_digit());
    match names.iter().find(is_number) {
        None => Ok(names),
        Some(number) => Err(format!(
            "{number} in the path {path:?} is an item of a list ([{number}] in JMESPath) or a field of that name (\"{number}\"), and only the value tells which: write data[].path by hand"
        )),
    }
}

/// The JMESPath that goes along the same names.
pub(super) fn jmespath(names: &[String]) -> String {
    let quoted = names.iter().map(|name| {
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_plain = name.starts_with(is_first)
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_plain {
            name.clone()
        } else {
            serde_json::Value::from(name.as_str()).to_string()
        }
    });
    quoted.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_jmespath_and_what_is_more_is_refused() {
        for (path, jmes) in [
            ("password", Some("password")),
            ("db.user_1", Some("db.user_1")),
            (r"a\.b.c", Some(r#""a.b".c"#)),
            ("tls.crt-chain", Some(r#"tls."crt-chain""#)),
            ("1st", Some(r#""1st""#)),
            (r"a\*", Some(r#""a*""#)),
            ("hosts.0", None),
            ("hosts.#", None),
            ("a*", None),
            ("@this", None),
            ("a..b", None),
            ("a|b", None),
        ] {
            let names = names(path);
            assert_eq!(
                names.ok().map(|names| jmespath(&names)).as_deref(),
                jmes,
                "{path}"
            );
        }
    }
}
