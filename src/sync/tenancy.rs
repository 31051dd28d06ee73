//! Who may use a `ClusterKmsStore`, and for which secrets. Compared byte by byte; nothing is decoded.

use std::collections::BTreeMap;

use crate::api::kms_store::Namespaces;

/// What stands for the `KmsSecret`'s namespace, as a whole segment of a pattern.
const NAMESPACE: &str = "${namespace}";
/// Names that KMS generates for RAM keys begin so; a pattern must say so literally to match them.
const GENERATED: &str = "acs/";

/// The patterns of a store that names none.
#[must_use]
pub fn default_patterns() -> Vec<String> {
    vec![format!("{NAMESPACE}/*")]
}

/// Whether a namespace with these labels may use a store.
#[must_use]
pub fn admits(namespaces: &Namespaces, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
    let is_named = namespaces.names.iter().any(|name| name == namespace);
    let is_selected = namespaces.selector.as_ref().is_some_and(|selector| {
        // An empty selector means everything to Kubernetes, and nothing here.
        !selector.match_labels.is_empty()
            && selector
                .match_labels
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    });
    is_named || is_selected
}

/// Whether a `KmsSecret` of `namespace` may read `secret_name` through a store of `region`.
#[must_use]
pub fn allows(patterns: &[String], namespace: &str, region: &str, secret_name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| matches(pattern, namespace, region, secret_name))
}

fn matches(pattern: &str, namespace: &str, region: &str, secret_name: &str) -> bool {
    match (split_arn(pattern), split_arn(secret_name)) {
        (None, None) => matches_name(pattern, namespace, secret_name),
        (Some(pattern), Some(arn)) => {
            let literal = |pattern: &str, part: &str| pattern == "*" || pattern == part;
            arn.region == region
                && literal(pattern.region, arn.region)
                && literal(pattern.account, arn.account)
                && matches_name(pattern.name, namespace, arn.name)
        }
        _ => false,
    }
}

struct Arn<'a> {
    region: &'a str,
    account: &'a str,
    name: &'a str,
}

/// `acs:kms:<region>:<account>:secret/<name>`. What begins so and is none matches nothing.
fn split_arn(text: &str) -> Option<Arn<'_>> {
    let rest = text.strip_prefix("acs:")?;
    let mut parts = rest.splitn(4, ':');
    let _service = parts.next();
    let (region, account) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let name = parts
        .next()
        .and_then(|resource| resource.strip_prefix("secret/"))
        .unwrap_or_default();
    Some(Arn {
        region,
        account,
        name,
    })
}

fn matches_name(pattern: &str, namespace: &str, name: &str) -> bool {
    if name.is_empty() || (name.starts_with(GENERATED) && !pattern.starts_with(GENERATED)) {
        return false;
    }
    let pattern: Vec<&str> = pattern
        .split('/')
        .map(|segment| {
            if segment == NAMESPACE {
                namespace
            } else {
                segment
            }
        })
        .collect();
    let name: Vec<&str> = name.split('/').collect();
    matches_segments(&pattern, &name)
}

/// `**` is any number of segments, at least one; anything else is one segment.
fn matches_segments(pattern: &[&str], name: &[&str]) -> bool {
    // Rows of the usual table: reach[j] tells whether the pattern so far matches the first j segments.
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for segment in pattern {
        let mut next = vec![false; name.len() + 1];
        for j in 1..=name.len() {
            next[j] = if *segment == "**" {
                reach[j - 1] || next[j - 1]
            } else {
                reach[j - 1] && matches_segment(segment, name[j - 1])
            };
        }
        reach = next;
    }
    reach[name.len()]
}

/// `*` is any number of characters of one segment, none included; where it is the whole segment, at least one.
fn matches_segment(pattern: &str, segment: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = segment.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last) && !segment.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kms_store::NamespaceSelector;
    use proptest::prelude::*;

    fn allowed(pattern: &str, name: &str) -> bool {
        allows(&[pattern.to_owned()], "shop", "cn-hangzhou", name)
    }

    #[test]
    fn a_star_stays_in_its_segment_and_two_cross() {
        for (pattern, name, expected) in [
            ("${namespace}/*", "shop/db", true),
            ("${namespace}/*", "shop/db/replica", false),
            ("${namespace}/*", "shop", false),
            ("${namespace}/*", "shop/", false),
            ("${namespace}/*", "shopping/db", false),
            ("${namespace}/*", "other/db", false),
            ("${namespace}/**", "shop/db/replica", true),
            ("${namespace}/**", "shop", false),
            ("**", "any/thing", true),
            ("*", "one", true),
            ("*", "one/two", false),
            ("shared/db-*-ro", "shared/db-orders-ro", true),
            ("shared/db-*-ro", "shared/db-orders-rw", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "ac", false),
            ("a**/x", "ab/x", true),
            ("x${namespace}", "xshop", false),
            ("shop/%64b", "shop/db", false),
            ("shop/db", "shop/db", true),
            ("shop/db", "shop/DB", false),
        ] {
            assert_eq!(allowed(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_arn_is_matched_by_patterns_for_arns_only() {
        let arn = "acs:kms:cn-hangzhou:123:secret/shop/db";
        for (pattern, name, expected) in [
            ("**", arn, false),
            ("${namespace}/*", arn, false),
            ("acs:kms:*:123:secret/${namespace}/*", arn, true),
            ("acs:kms:cn-hangzhou:*:secret/**", arn, true),
            ("acs:kms:cn-hangzhou:1*:secret/**", arn, false),
            ("acs:kms:cn-hangzhou:124:secret/**", arn, false),
            (
                "acs:kms:*:*:secret/**",
                "acs:kms:cn-beijing:123:secret/shop/db",
                false,
            ),
            ("acs:kms:*:*:secret/**", "shop/db", false),
            (
                "acs:kms:*:*:secret/**",
                "acs:kms:cn-hangzhou:123:key/shop",
                false,
            ),
            ("acs:**", arn, false),
        ] {
            assert_eq!(allowed(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn generated_names_need_a_pattern_that_says_so() {
        assert!(!allowed("**", "acs/ram/user/app"));
        assert!(!allowed("*/ram/user/*", "acs/ram/user/app"));
        assert!(allowed("acs/ram/user/*", "acs/ram/user/app"));
        assert!(!allowed(
            "acs:kms:*:*:secret/**",
            "acs:kms:cn-hangzhou:1:secret/acs/ram/user/app"
        ));
    }

    #[test]
    fn namespaces_are_named_or_selected_by_labels() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let by_name = Namespaces {
            names: vec!["shop".into()],
            selector: None,
        };
        assert!(admits(&by_name, "shop", &labels(&[])));
        assert!(!admits(&by_name, "shopping", &labels(&[])));
        let select = |pairs: &[(&str, &str)]| Namespaces {
            names: vec![],
            selector: Some(NamespaceSelector {
                match_labels: labels(pairs),
            }),
        };
        let both = select(&[("team", "a"), ("env", "prod")]);
        assert!(admits(
            &both,
            "x",
            &labels(&[("team", "a"), ("env", "prod"), ("more", "")])
        ));
        assert!(!admits(&both, "x", &labels(&[("team", "a")])));
        assert!(
            !admits(&select(&[]), "x", &labels(&[("team", "a")])),
            "an empty selector selects nothing"
        );
    }

    proptest! {
        #[test]
        fn nobody_reaches_into_another_namespace(name in "[a-z/*.${}:]{0,20}") {
            if allows(&default_patterns(), "shop", "cn-hangzhou", &name) {
                prop_assert!(name.starts_with("shop/"));
                prop_assert_eq!(name.matches('/').count(), 1);
            }
        }

        #[test]
        fn a_name_is_allowed_by_itself(name in "[a-z0-9_+=.@-]{1,8}(/[a-z0-9_+=.@-]{1,8}){0,3}") {
            prop_assert!(allowed(&name, &name) || name.starts_with("acs:"));
        }
    }
}
