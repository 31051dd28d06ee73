//! One value out of a JSON document, by a JMESPath expression.

use jmespath::ast::Ast;
use jmespath::{Rcvar, Variable};
use secrecy::SecretString;

use super::document::{field_names, to_text};
use crate::sync::{Failure, Reason};

/// A path may write the document down so often: expressions as `[@,@][]` double it with each step, and nothing else
/// would end that.
const COPIES_MAX: usize = 256;

/// Evaluates a path: text stays text, anything else becomes compact JSON, and nothing is a failure.
pub(super) fn search(path: &str, json: &Rcvar) -> Result<SecretString, Failure> {
    let expression = jmespath::compile(path).map_err(|err| {
        let column = err.column + 1;
        Failure::new(
            Reason::SpecInvalid,
            format!("the path is not a JMESPath expression (column {column})"),
            "mend the path; see jmespath.org",
        )
    })?;
    if copies(expression.as_ast()).is_none_or(|copies| copies > COPIES_MAX) {
        return Err(Failure::new(
            Reason::SpecInvalid,
            "the path could copy the document too often",
            "take fewer lists and hashes of expressions into it, and join by a literal text only",
        ));
    }
    let found = expression.search(Rcvar::clone(json)).map_err(|_| {
        Failure::new(
            Reason::ValueInvalid,
            "the path does not fit the value: a function got what it cannot take",
            "mend the path, or the value in KMS",
        )
    })?;
    // A projection or a filter that selects nothing answers an empty list, where a field that is not there answers null.
    let selects_nothing =
        path.contains(['[', '*']) && matches!(&*found, Variable::Array(items) if items.is_empty());
    if selects_nothing {
        return Err(nothing(path, json));
    }
    to_text(&found)?.ok_or_else(|| nothing(path, json))
}

fn nothing(path: &str, json: &Variable) -> Failure {
    Failure::new(
        Reason::ValueInvalid,
        format!("the path {path:?} finds nothing{}", field_names(json)),
        "mend the path, or the value in KMS",
    )
}

/// How often what an expression is given can be in what it answers or makes on the way, at most. `None`: no saying.
fn copies(ast: &Ast) -> Option<usize> {
    let product = |one: &Ast, other: &Ast| copies(one)?.checked_mul(copies(other)?);
    match ast {
        Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Slice { .. } => Some(1),
        Ast::Literal { value, .. } => Some(nodes(value)),
        Ast::Expref { ast: node, .. }
        | Ast::Flatten { node, .. }
        | Ast::Not { node, .. }
        | Ast::ObjectValues { node, .. } => copies(node),
        Ast::Subexpr { lhs, rhs, .. } | Ast::Projection { lhs, rhs, .. } => product(lhs, rhs),
        Ast::Condition {
            predicate, then, ..
        } => product(predicate, then),
        Ast::And { lhs, rhs, .. } | Ast::Or { lhs, rhs, .. } | Ast::Comparison { lhs, rhs, .. } => {
            copies(lhs)?.checked_add(copies(rhs)?)
        }
        Ast::MultiList { elements, .. } => sum(elements.iter()),
        Ast::MultiHash { elements, .. } => sum(elements.iter().map(|pair| &pair.value)),
        // The glue comes as often as there are items, so it must not come out of the document.
        Ast::Function { name, args, .. } if name == "join" => match args.as_slice() {
            [Ast::Literal { value, .. }, list] => {
                let glue = value.as_string().map_or(0, String::len);
                copies(list)?.checked_mul(glue.max(1))
            }
            _ => None,
        },
        Ast::Function { name, args, .. } if name == "map" => match args.as_slice() {
            [each, list] => product(each, list),
            _ => None,
        },
        Ast::Function { args, .. } => sum(args.iter()),
    }
}

fn sum<'a>(mut parts: impl Iterator<Item = &'a Ast>) -> Option<usize> {
    let total = parts.try_fold(0_usize, |total, part| total.checked_add(copies(part)?))?;
    Some(total.max(1))
}

/// How many values a literal is made of.
fn nodes(literal: &Variable) -> usize {
    match literal {
        Variable::Array(items) => 1 + items.iter().map(|item| nodes(item)).sum::<usize>(),
        Variable::Object(fields) => 1 + fields.values().map(|field| nodes(field)).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn found(path: &str, json: &str) -> Result<String, Failure> {
        let json = Rcvar::new(serde_json::from_str(json).unwrap());
        search(path, &json).map(|text| text.expose_secret().to_owned())
    }

    #[test]
    fn a_path_takes_text_as_it_is_and_the_rest_as_json() {
        let json = r#"{"a":"x\ny","n":5432,"big":12345678901234567890,"o":{"b":[1,true,null]},"e":"","密":"码","empty":[]}"#;
        for (path, expected) in [
            ("a", "x\ny"),
            ("n", "5432"),
            ("big", "12345678901234567890"),
            ("o", r#"{"b":[1,true,null]}"#),
            ("o.b[0]", "1"),
            ("e", ""),
            ("empty", "[]"),
            ("\"密\"", "码"),
            ("join('-', ['p', a])", "p-x\ny"),
            ("nope || 'default'", "default"),
            ("keys(o)", r#"["b"]"#),
            ("{user: a, port: n}", r#"{"port":5432,"user":"x\ny"}"#),
        ] {
            assert_eq!(found(path, json).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn a_miss_names_the_fields_and_no_value() {
        let json = r#"{"AccountName":"top","AccountPassword":"secret-value"}"#;
        let failure = found("Password", json).unwrap_err();
        assert_eq!(failure.reason, Reason::ValueInvalid);
        let message = failure.message();
        for part in ["\"Password\"", "AccountName", "AccountPassword"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("secret-value"), "{message}");
    }

    #[test]
    fn what_cannot_be_found_is_a_failure_without_the_value() {
        let json =
            r#"{"a":"secret-value","list":[{"n":"x","p":1}],"huge":12345678901234567890123}"#;
        for (path, reason) in [
            ("a[", Reason::SpecInvalid),
            ("abs(a)", Reason::ValueInvalid),
            ("nope(a)", Reason::ValueInvalid),
            ("a.b", Reason::ValueInvalid),
            ("list[?n=='nobody'].p", Reason::ValueInvalid),
            ("huge", Reason::ValueInvalid),
        ] {
            let failure = found(path, json).unwrap_err();
            assert_eq!(failure.reason, reason, "{path}");
            assert!(
                !format!("{failure:?}").contains("secret-value"),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_path_that_multiplies_the_document_is_refused_before_it_is_evaluated() {
        let json = r#"{"a":"x","b":["",""]}"#;
        for path in [
            format!("@{}", "|[@,@][]".repeat(100)),
            format!("@{}|to_string(@)", "|[@,@]".repeat(100)),
            format!("@{}", "|{a: @, b: @}".repeat(50)),
            format!("@{}", "|[@, @] | map(&[@, @], @)".repeat(30)),
            format!("@{}", "|map(&`[1,2,3,4]`, @)|[]".repeat(20)),
            "join(a, b)".into(),
            format!("b[?[{0}] && [{0}]].[{0}]", ["@"; 60].join(",")),
        ] {
            let failure = found(&path, json).unwrap_err();
            assert!(failure.what.contains("too often"), "{path}: {failure:?}");
        }
    }
}
