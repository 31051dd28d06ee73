//! Specs that their authors did not mean well: they end in words, soon, and take nothing else with them.

use kms_secret_operator::alibaba::secret_value::{Facts, SecretValue};
use kms_secret_operator::api::kms_secret::{DataItem, Extract, Rename};
use kms_secret_operator::sync::Failure;
use kms_secret_operator::sync::shape::{Data, Sourced, Wanted, shape};
use proptest::prelude::*;
use secrecy::{ExposeSecret as _, SecretSlice};

/// In every value here, and in no failure.
const PLANTED: &str = "planted-Value";

fn make(data: &[DataItem], extract: &[Extract], value: &str) -> Result<Data, Failure> {
    let value = SecretValue {
        secret_name: "a".into(),
        facts: Facts::default(),
        data: value.into(),
        extended_config: None,
    };
    let wanted = Wanted {
        data,
        extract,
        target_type: "Opaque",
        uid: "uid-1",
    };
    let only = Sourced {
        name: "source",
        value: Some(&value),
    };
    shape(&wanted, &[only])
}

fn template(template: &str) -> DataItem {
    DataItem {
        key: "t".into(),
        template: Some(template.into()),
        ..DataItem::default()
    }
}

fn path(path: &str) -> DataItem {
    DataItem {
        key: "p".into(),
        path: Some(path.into()),
        ..DataItem::default()
    }
}

/// Templates as long as the schema lets them be, each of which would take the stack, the memory or minutes.
fn hostile_templates() -> Vec<String> {
    let nest = |open: &str, close: &str, times: usize| {
        format!("{{{{ {}1{} }}}}", open.repeat(times), close.repeat(times))
    };
    let chain = |step: &str, times: usize| format!("{{{{ json{} }}}}", step.repeat(times));
    let grow = |step: &str, times: usize| {
        format!("{{% set x = json.list %}}{}{{{{ x }}}}", step.repeat(times))
    };
    vec![
        "{% for a in json.list %}{% for b in json.list %}{% for c in json.list %}{% endfor %}{% endfor %}{% endfor %}".into(),
        "{% for i in range(10 ** 9) %}x{% endfor %}".into(),
        "{{ 'x' * 10 ** 9 }}".into(),
        "{{ [1] * 100000000 }}".into(),
        "{{ value | indent(1000000000) }}".into(),
        "{{ json.list | join(value) }}".into(),
        "{{ value | replace('', value) }}".into(),
        "{% for a in json.list %}{{ value }}{% endfor %}".into(),
        "{% for a in json.list %}{% for b in json.list %}{% set y = value | upper %}{% endfor %}{% endfor %}".into(),
        "{% for a in json.list %}{% for b in json.list %}{% set y = json == json %}{% endfor %}{% endfor %}".into(),
        "{% for a in json.list %}{% for b in json.list %}{% set y = json | tojson %}{% endfor %}{% endfor %}".into(),
        "{% for a in json.list %}{% for b in json.list %}{% set y = json ~ json %}{% endfor %}{% endfor %}".into(),
        "{% for a in json.list %}{% for b in json.list %}{% set y = value | split('') | join(a) %}{% endfor %}{% endfor %}".into(),
        grow("{%set x=[x,x]%}", 1000),
        grow("{%set x=x+x%}", 1200),
        grow("{%set x=x~x%}", 1200),
        grow("{%set x%}{{x}}{{x}}{%endset%}", 500),
        grow("{%set x={1:x,2:x}%}", 800),
        grow("{%set x=x|zip(x)%}", 900),
        grow("{%set x=x|items%}", 900),
        "{% for x in json.list recursive %}{{ loop(json.list) }}{% endfor %}".into(),
        nest("(", ")", 8000),
        nest("[", "]", 8000),
        nest("{1:", "}", 4000),
        nest("-", "", 16000),
        nest("not ", "", 4000),
        nest("1+", "", 8000),
        nest("1~", "", 8000),
        nest("1**", "", 5000),
        nest("1 if 1 else ", "", 1300),
        nest("1 and ", "", 2500),
        nest("1 in ", "", 3000),
        chain(".a", 8000),
        chain("[0]", 5000),
        chain("()", 8000),
        chain("[:]", 5000),
        chain("|trim", 3000),
        chain("|first", 2500),
        chain(" is defined", 1400),
        chain("|join(json", 1400) + &")".repeat(1400),
        format!("{{{{ json['{}'] }}}}", "x".repeat(16000)),
        format!("{{{{ json | {} }}}}", "x".repeat(16000)),
        "{%if 1%}".repeat(900) + &"{%endif%}".repeat(900),
        "{%if 0%}".to_owned() + &"{%elif 0%}".repeat(1500) + "{%endif%}",
        "{%for x in json.list%}".repeat(400) + &"{%endfor%}".repeat(400),
        "{%set x%}".repeat(800) + &"{%endset%}".repeat(800),
    ]
}

#[test]
fn hostile_templates_end_in_words() {
    let list: Vec<u32> = (0..4000).collect();
    let json = serde_json::json!({"list": list, "secret": PLANTED}).to_string();
    for text in hostile_templates() {
        assert!(text.len() <= 16384, "{text:.80}");
        let failure = make(&[template(&text)], &[], &json).expect_err(&text);
        assert!(!format!("{failure:?}").contains(PLANTED), "{failure:?}");
        assert!(failure.message().len() < 2000, "{failure:?}");
    }
}

#[test]
fn paths_of_any_depth_leave_the_stack_whole() {
    for text in [
        "!".repeat(1020) + "@",
        "(".repeat(500) + "@" + &")".repeat(500),
        "[".repeat(500) + "@" + &"]".repeat(500),
        "a".to_owned() + &".a".repeat(500),
        "@".to_owned() + &"==@".repeat(330),
        "[?".repeat(300) + "@" + &"]".repeat(300),
        "&".repeat(1000) + "@",
        "@".to_owned() + &"|[@,@][]".repeat(120),
    ] {
        assert!(text.len() <= 1024, "{text:.80}");
        let made = make(&[path(&text)], &[], &format!(r#"{{"a":"{PLANTED}"}}"#));
        assert!(made.is_ok() || !format!("{made:?}").contains(PLANTED));
    }
}

#[test]
fn hostile_renames_end_in_words() {
    let fields = (0..2000).map(|n| (format!("{n:04}{}", "a".repeat(9)), PLANTED.into()));
    let json = serde_json::Value::Object(fields.collect()).to_string();
    for (pattern, replacement) in [
        ("a*", "y".repeat(256)),
        ("(a|a?)+$", "b".into()),
        (r"(\w?){250}", "b".into()),
        (r"\p{L}{250}", "b".into()),
        ("(a*)*b", "b".into()),
    ] {
        let rename = Rename {
            pattern: pattern.into(),
            replacement,
        };
        let extract = Extract {
            rename: vec![rename; 8],
            ..Extract::default()
        };
        let failure = make(&[], &vec![extract; 32], &json).expect_err(pattern);
        assert!(!format!("{failure:?}").contains(PLANTED), "{failure:?}");
    }
}

/// The words of templates, in any order.
fn a_template() -> impl Strategy<Value = String> {
    let words = "{{| }}|{% |%}|{% if |{% endif %}|{% for x in |{% endfor %}|{#|json|value|.a|['b']|sources.source|b64encode\
        |b64decode|quote|tojson|join(|)|default('d')| ~ | == | is defined|items|x|[1]|'t'|-|\n|é|urlencode|loop.index";
    let mut words: Vec<_> = words.split('|').collect();
    words.push(" | ");
    prop::collection::vec(prop::sample::select(words), 0..14).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn whatever_is_asked_for_is_made_whole_and_again_or_told_without_the_value(
        text in prop_oneof![a_template(), ".{0,60}"],
        expression in "[a-b.@\\[\\]|*' ]{0,12}",
        prefix in "[-._a-zA-Z0-9]{0,4}",
        pattern in "[a-b.*+()$^|]{0,6}",
        replacement in "[a-c$1{}]{0,6}",
        name in "[a-c/ é]{0,3}",
        kind in 0..4,
    ) {
        let value = match kind {
            0 => PLANTED.to_owned(),
            1 => serde_json::json!({"a": {"b": PLANTED}, "b": [PLANTED, 1, null]}).to_string(),
            2 => serde_json::json!({"a": PLANTED, "b": PLANTED}).to_string(),
            _ => serde_json::json!({name: PLANTED, "a": 1}).to_string(),
        };
        let rename = vec![Rename { pattern, replacement }];
        let extract = [Extract { prefix: Some(prefix), rename, ..Extract::default() }];
        let items = [template(&text), path(&expression)];
        for (data, extract) in [(&items[..1], &[][..]), (&items[1..], &[]), (&[], &extract), (&items, &extract)] {
            let made = make(data, extract, &value);
            match (&made, make(data, extract, &value)) {
                (Ok(made), Ok(again)) => {
                    prop_assert!(made.iter().map(shown).eq(again.iter().map(shown)));
                    prop_assert!(!made.is_empty() && made.keys().all(|key| is_key(key)), "{:?}", made);
                }
                (Err(failure), Err(again)) => {
                    prop_assert_eq!(failure, &again);
                    let said = format!("{failure:?}");
                    prop_assert!(!said.contains(PLANTED), "{}", said);
                }
                _ => prop_assert!(false, "not the same twice"),
            }
        }
    }
}

fn shown<'a>((key, bytes): (&'a String, &'a SecretSlice<u8>)) -> (&'a str, &'a [u8]) {
    (key, bytes.expose_secret())
}

/// The API server's own rule.
fn is_key(key: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=253).contains(&key.len())
        && key.chars().all(is_legal)
        && key != "."
        && !key.starts_with("..")
}
