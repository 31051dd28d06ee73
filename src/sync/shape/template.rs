//! Text made of values by a template, in the part of Jinja that `grammar.rs` allows.

use std::collections::BTreeMap;

use jmespath::Variable;
use minijinja::machinery;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use secrecy::{ExposeSecret as _, SecretString};

use super::document::{Capped, Documents, Sources};
use super::explain::{explain, unreadable};
use super::{filters, grammar};
use crate::api::kms_secret::Document;
use crate::sync::{Failure, Reason};

/// What all templates of one `KmsSecret` may do together: a step costs 1, and so do 64 bytes that are made. It is more
/// than a full Secret needs, and some hundredths of a second.
const FUEL: u64 = 100_000;
/// Loops within loops that minijinja may nest; `grammar.rs` allows fewer.
const RECURSION_MAX: usize = 100;

/// What templates are evaluated with.
pub(super) struct Templates<'a> {
    env: Environment<'a>,
    sources: BTreeMap<&'a str, Option<Value>>,
}

impl<'a> Templates<'a> {
    /// Templates over these sources. `uid` is the object's; the salts of hashes are made of it.
    pub(super) fn new(sources: &Sources<'a>, uid: &str) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_syntax(syntax());
        env.set_recursion_limit(RECURSION_MAX);
        env.set_fuel(Some(FUEL));
        // What is printed is what a path would take.
        env.set_formatter(|out, state, value| {
            if let Some(text) = value.as_str() {
                out.write_str(text)?;
            } else if !value.is_undefined() {
                let text = filters::written(value)?;
                filters::pay(state, text.expose_secret())?;
                out.write_str(text.expose_secret())?;
            }
            Ok(())
        });
        filters::add(&mut env, uid);
        let sources = sources.iter();
        Self {
            env,
            sources: sources
                .map(|(name, documents)| (*name, documents.as_ref().map(context)))
                .collect(),
        }
    }

    /// Evaluates the template of a key; `bound` is the source that the key names, or the only one.
    pub(super) fn render(
        &mut self,
        key: &'a str,
        template: &'a str,
        bound: Option<&Documents<'a>>,
    ) -> Result<SecretString, Failure> {
        let parsed = machinery::parse(template, key, syntax()).map_err(|err| unreadable(&err))?;
        let names = grammar::check(&parsed).map_err(|refused| {
            Failure::new(
                Reason::SpecInvalid,
                format!(
                    "the template has {} (line {}), which is not for templates here",
                    refused.what, refused.line
                ),
                "see what they have in docs/shaping.md",
            )
        })?;
        let context = self.context(bound);
        let mut output = Capped::default();
        let rendered = self
            .env
            .template_from_named_str(key, template)
            .and_then(|template| template.render_captured_to(context.clone(), &mut output))
            .map(|rendered| rendered.state().fuel_levels());
        match rendered {
            Ok(fuel) => {
                self.env.set_fuel(Some(fuel.map_or(0, |(_, left)| left)));
                Ok(output.into_text().into())
            }
            Err(err) => Err(explain(&err, &names, &context, bound)),
        }
    }

    fn context(&self, bound: Option<&Documents<'a>>) -> Value {
        let own = bound.and_then(|documents| self.sources.get(documents.name)?.as_ref());
        let names = ["value", "json", "extended"].into_iter();
        let mut all: BTreeMap<String, Value> = names
            .filter_map(|name| Some((name.to_owned(), own?.get_attr(name).ok()?)))
            .filter(|(_, value)| !value.is_undefined())
            .collect();
        let there = self.sources.iter();
        let sources: BTreeMap<String, Value> = there
            .filter_map(|(name, documents)| Some(((*name).to_owned(), documents.clone()?)))
            .collect();
        all.insert("sources".into(), Value::from_object(sources));
        Value::from_object(all)
    }
}

fn syntax() -> SyntaxConfig {
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    syntax.build().unwrap_or_default()
}

/// What a template sees of one source; what is no text, no JSON or not there is left out.
fn context(documents: &Documents<'_>) -> Value {
    let json = |document| documents.json(document).ok().map(|json| to_value(json));
    let text = documents.text().ok();
    let parts = [
        ("value", text.map(|text| Value::from(text.expose_secret()))),
        ("json", json(Document::Value)),
        ("extended", json(Document::ExtendedConfig)),
    ];
    let there: BTreeMap<String, Value> = parts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    Value::from_object(there)
}

/// JSON as minijinja holds it. A field that is null is as if it were not there, as it is for a path.
fn to_value(json: &Variable) -> Value {
    match json {
        Variable::Null | Variable::Expref(_) => Value::from(()),
        Variable::Bool(truth) => Value::from(*truth),
        Variable::String(text) => Value::from(text.as_str()),
        Variable::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (_, Some(whole)) => Value::from(whole),
            _ => Value::from(number.as_f64().unwrap_or_default()),
        },
        Variable::Array(items) => items.iter().map(|item| to_value(item)).collect(),
        Variable::Object(fields) => {
            let there = fields.iter().filter(|(_, field)| !field.is_null());
            let fields: BTreeMap<String, Value> = there
                .map(|(name, field)| (name.clone(), to_value(field)))
                .collect();
            Value::from_object(fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::secret_value::{Facts, SecretValue};
    use crate::sync::shape::document::{Sourced, choose, sources};

    const JSON: &str = r#"{"user":"or ders","password":"p@ss/w:rd\"","port":5432,"tls":true,"gone":null,
        "hosts":["a","b"],"db":{"name":"x"},"html":"<&'>","huge":12345678901234567890123,"pem":"-\nA\n"}"#;

    fn value(data: &str, kind: &str) -> SecretValue {
        SecretValue {
            secret_name: "a".into(),
            facts: Facts {
                secret_data_type: Some(kind.into()),
                ..Facts::default()
            },
            data: data.into(),
            extended_config: Some(r#"{"SecretSubType":"SingleUser"}"#.into()),
        }
    }

    fn render_of(template: &str, value: &SecretValue) -> Result<String, Failure> {
        let only = Sourced {
            name: "current",
            value: Some(value),
        };
        let none = Sourced {
            name: "previous",
            value: None,
        };
        let sources = sources(&[only, none]);
        let bound = choose(&sources, Some("current")).unwrap();
        let text = Templates::new(&sources, "uid-1").render("k.html", template, bound)?;
        Ok(text.expose_secret().to_owned())
    }

    fn render(template: &str) -> Result<String, Failure> {
        render_of(template, &value(JSON, "text"))
    }

    /// A template and what it gives, on each line.
    const GIVES: &str = r#"
plain {text} => plain {text}
{{ json.user }}:{{ json['port'] }} => or ders:5432
{{ sources.current.json.db.name }}{{ sources['current'].json.tls }} => xtrue
{{ extended.SecretSubType }} => SingleUser
{{ json.hosts }}{{ json.db }} => ["a","b"]{"name":"x"}
{% if sources.previous is defined %}x{% endif %}{{ json.gone | default('d') }} => d
{% for host in json.hosts %}{{ host }}{% if not loop.last %},{% endif %}{% endfor %} => a,b
{% for key, field in json.db | items %}{{ key }}={{ field }}{% endfor %} => name=x
{% for key in ['user', 'port'] %}{{ json[key] }};{% endfor %} => or ders;5432;
{% set u %}{{ json.user }}!{% endset %}{{ u | upper }} => OR DERS!
{{ 'a' if json.port == 5432 else 'b' }}{{ 'c' if json.port in [1, 2] }} => a
{{ json.html }}{{ json.html | quote }} => <&'>"<&'>"
{{ json.password | urlencode }} => p%40ss%2Fw%3Ard%22
{{ json.port | urlencode }} => 5432
{{ (json.user ~ ':' ~ json.port) | b64encode }} => b3IgZGVyczo1NDMy
{{ 'b3IgZGVycw==' | b64decode }} => or ders
{{ json.password | quote }} => "p@ss/w:rd\""
{{ json.port | quote }} => "5432"
{{ json.port | tojson }}{{ json.user | tojson }} => 5432"or ders"
{{ json.db | tojson }} => {"name":"x"}
{{ json.hosts | join(',') }}{{ json.hosts | length }} => a,b2
{{ json.hosts | first }}{{ json.hosts | last }} => ab
{{ json.user | split(' ') | join('-') | upper | lower | trim('o') }} => r-ders
{{ json.user | replace(' ', '') }} => orders
{{ json.pem | replace('\n', '|') }} => -|A|
{% if json.user is startingwith 'or' and json.user is endingwith 's' %}y{% endif %} => y
{% if json.user is string and json.db is mapping and json.hosts is sequence %}y{% endif %} => y
"#;

    #[test]
    fn a_template_is_made_of_its_source_by_filters() {
        for line in GIVES.trim().lines() {
            let (template, expected) = line.split_once(" => ").unwrap();
            assert_eq!(render(template).unwrap(), expected, "{template}");
        }
        let text = |template| render_of(template, &value(" a\n", "text")).unwrap();
        assert_eq!(text("{{ value }}\n"), " a\n\n");
        assert_eq!(
            text("{{ ('b\nc' ~ value) | trim | indent(2) }}"),
            "b\n  c a"
        );
        let binary = render_of("{{ value }}{{ json }}", &value("e30=", "binary"));
        assert_eq!(binary.unwrap(), "{}{}");
    }

    #[test]
    fn hashes_are_salted_by_object_and_key_and_are_the_same_each_time() {
        let both = "{{ json.user | htpasswd('ann') }}\n{{ json.user | bcrypt }}";
        let made = render(both).unwrap();
        assert_eq!(made, render(both).unwrap());
        let (line, plain) = made.split_once('\n').unwrap();
        let (user, hash) = line.split_once(':').unwrap();
        assert!(user == "ann" && hash.starts_with("$2y$10$"), "{line}");
        assert!(
            bcrypt::verify("or ders", hash).unwrap() && bcrypt::verify("or ders", plain).unwrap()
        );
        assert_ne!(hash[7..29], plain[7..29], "a salt of its own");
        let other = value(r#"{"user":"other"}"#, "text");
        let other = render_of("{{ json.user | htpasswd('ann') }}", &other).unwrap();
        assert_eq!(
            other["ann:".len()..][..29],
            hash[..29],
            "a salt tells nothing of the value"
        );
        assert_ne!(other, line);
    }

    /// A template, the reason for which it fails, and words of the failure, on each line.
    const FAILS: &str = r#"
{{ json.pass }} => ValueInvalid => json.pass, => "password" => line 1
{{ json.db.nam }} => ValueInvalid => json.db.nam => "name"
{{ json.user.x }} => ValueInvalid => json.user.x => no fields
{{ json.gone }} => ValueInvalid => json.gone
{{ jsn.user }} => ValueInvalid => jsn.user => "json"
{{ json.pass | urlencode }} => ValueInvalid => json.pass
{{ json.pass | tojson }} => ValueInvalid => json.pass
{{ json.pass ~ 'x' }} => ValueInvalid => json.pass
{{ json.pass | upper }} => ValueInvalid => json.pass
{% if json.pass %}{% endif %} => ValueInvalid => json.pass
{% for x in json.pass %}{% endfor %} => ValueInvalid => json.pass
{{ sources.previous.value }} => ValueInvalid => sources.previous.value => "current"
{{ json[json.user] }} => ValueInvalid => line 1
{{ json.user => SpecInvalid => cannot be read
{% include 'x' %} => SpecInvalid => cannot be read
{% macro f() %}{% endmacro %} => SpecInvalid => cannot be read
{{ json.user | md5 }} => SpecInvalid => "md5" => line 1
{{ json.user | b64decode }} => ValueInvalid => no Base64
{{ 'AAEC/w==' | b64decode }} => ValueInvalid => decode: Base64
{{ json.huge }} => ValueInvalid => larger
{{ none }} => ValueInvalid => null
{{ json.user | items }} => ValueInvalid => does not fit
{{ json.user | indent('x') }} => ValueInvalid => does not fit
{% for x in json.port %}{% endfor %} => ValueInvalid => does not fit
{{ json.user | bcrypt(13) }} => SpecInvalid => 10 to 12
{{ json.user | bcrypt(4) }} => SpecInvalid => 10 to 12
{{ '' | bcrypt }} => ValueInvalid => 71 bytes
{{ json.user | htpasswd('a:b') }} => ValueInvalid => colon
{{ 'p' | bcrypt(11) }}{{ 'p' | bcrypt(12) }} => SpecInvalid => at most four
"#;

    #[test]
    fn a_failure_tells_the_line_and_what_is_there_but_no_value() {
        for line in FAILS.trim().lines() {
            let mut parts = line.split(" => ");
            let template = parts.next().unwrap();
            let failure = render(template).expect_err(template);
            assert_eq!(Some(failure.reason.as_str()), parts.next(), "{failure:?}");
            for word in parts {
                assert!(failure.what.contains(word), "{template}: {failure:?}");
            }
            let said = format!("{failure:?}");
            for secret in ["or ders", "p@ss", "1234567890"] {
                assert!(!said.contains(secret), "{said}");
            }
        }
        for (template, line) in [("\n{{ json.pass }}", "line 2"), ("\n\n{% if %}", "line 3")] {
            let failure = render(template).unwrap_err();
            assert!(failure.what.contains(line), "{failure:?}");
        }
    }

    #[test]
    fn what_a_source_is_not_is_said() {
        let text = render_of("{{ json.a }}", &value("secret-value", "text")).unwrap_err();
        assert!(text.what.contains("no JSON (line 1 column 1)"), "{text:?}");
        let binary = render_of("{{ value }}", &value("AAEC/w==", "binary")).unwrap_err();
        assert!(binary.what.contains("binary, and no text"), "{binary:?}");
        let plain = value("secret-value", "text");
        let plain = SecretValue {
            extended_config: None,
            ..plain
        };
        let extended = render_of("{{ extended.a }}", &plain).unwrap_err();
        assert!(
            extended.what.contains("no extended configuration"),
            "{extended:?}"
        );
        assert_eq!(
            render_of("{% if json is defined %}x{% endif %}", &plain).unwrap(),
            ""
        );
    }
}
