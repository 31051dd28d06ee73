//! Templates of Go, as far as they only put keys into text.

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text.
    Text(String),
    /// The value of a key, and the filters after it, in the words of our templates.
    Key(String, &'static str),
}

/// Reads a template.
///
/// # Errors
/// Why it has no equal.
pub(super) fn parts(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, more)) = rest.split_once("{{") {
        parts.push(Part::Text(text.to_owned()));
        let (action, more) = more
            .split_once("}}")
            .ok_or("an action has no end, so it is no template of Go")?;
        parts.push(action_part(action)?);
        rest = more;
    }
    parts.push(Part::Text(rest.to_owned()));
    parts.retain(|part| *part != Part::Text(String::new()));
    for part in &parts {
        if let Part::Text(text) = part
            && (text.contains("{%") || text.contains("{#") || text.ends_with('{'))
        {
            return Err(
                "its text would mean something to the templates of KmsSecrets ({% or {#)"
                    .to_owned(),
            );
        }
    }
    Ok(parts)
}

fn action_part(action: &str) -> Result<Part, String> {
    let refusal = || {
        format!(
            "{{{{{action}}}}} is more than a key: write data[].template by hand (docs/shaping.md)"
        )
    };
    let mut words = action.split('|').map(str::trim);
    let key = words.next().and_then(|word| word.strip_prefix('.'));
    // A number follows a point in numbers only.
    let is_name = |key: &&str| {
        !key.is_empty()
            && !key.starts_with(|c: char| c.is_ascii_digit())
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let key = key.filter(is_name).ok_or_else(refusal)?;
    let filter = match words.collect::<Vec<_>>()[..] {
        [] | ["toString"] => "",
        ["b64enc"] => " | b64encode",
        ["b64dec"] => " | b64decode",
        ["upper"] => " | upper",
        ["lower"] => " | lower",
        ["trim"] => " | trim",
        _ => return Err(refusal()),
    };
    Ok(Part::Key(key.to_owned(), filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_text_are_read_and_all_else_is_refused() {
        let key = |name: &str, filter| Part::Key(name.to_owned(), filter);
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(
            parts("postgres://{{ .user }}:{{.password|toString}}@db\n"),
            Ok(vec![
                text("postgres://"),
                key("user", ""),
                text(":"),
                key("password", ""),
                text("@db\n"),
            ])
        );
        assert_eq!(
            parts("{{ .a | b64enc }}"),
            Ok(vec![key("a", " | b64encode")])
        );
        assert_eq!(parts(""), Ok(vec![]));
        for template in [
            "{{- .a }}",
            "{{ if .a }}x{{ end }}",
            "{{ .a.b }}",
            "{{ .5 }}",
            "{{ index . \"a-b\" }}",
            "{{ .a | quote }}",
            "{{ .a | b64enc | upper }}",
            "{{ printf \"%s\" .a }}",
            "{{ .a",
            "{% {{ .a }} %}",
            "{{{ .a }}",
            "${{{ .a }}}",
        ] {
            assert!(parts(template).is_err(), "{template}");
        }
    }
}
