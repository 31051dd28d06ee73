//! Which patterns allow which names, held against the same rules written down a second time, slowly.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::alibaba::fuzz::{Text, odd_text};
use crate::sync::tenancy::{allows, default_patterns};

/// `*` is any number of characters.
fn is_like(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|n| is_like(rest, &text[n..])),
        Some((c, rest)) => text.first() == Some(c) && is_like(rest, &text[1..]),
    }
}

fn is_segment(pattern: &str, segment: &str) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    // A star alone in its segment stands for a segment that is there.
    let is_there = !pattern.contains('*') || !segment.is_empty();
    is_there && is_like(&chars(pattern), &chars(segment))
}

fn are_segments(pattern: &[&str], name: &[&str]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((&"**", rest)) => (1..=name.len()).any(|n| are_segments(rest, &name[n..])),
        Some((one, rest)) => name
            .split_first()
            .is_some_and(|(segment, more)| is_segment(one, segment) && are_segments(rest, more)),
    }
}

fn is_name(pattern: &str, namespace: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let is_generated = name.starts_with("acs/") && pattern.first() != Some(&"acs");
    let pattern: Vec<&str> = pattern
        .into_iter()
        .map(|segment| {
            if segment == "${namespace}" {
                namespace
            } else {
                segment
            }
        })
        .collect();
    let name: Vec<&str> = name.split('/').collect();
    name != [""] && !is_generated && are_segments(&pattern, &name)
}

fn slashed(segments: &'static [&'static str]) -> Text {
    let known = vec(select(segments), 1..5).prop_map(|segments| segments.join("/"));
    prop_oneof![9 => known, 1 => odd_text(12)].boxed()
}

fn pattern() -> Text {
    slashed(&[
        "${namespace}",
        "*",
        "**",
        "shop",
        "a",
        "ab",
        "a*",
        "*b",
        "a*b",
        "*a*",
        "a**b",
        "acs",
        "ram",
        "",
        "x${namespace}",
    ])
}

fn name() -> Text {
    slashed(&[
        "shop",
        "other",
        "a",
        "ab",
        "aab",
        "b",
        "ba",
        "acs",
        "ram",
        "",
        "*",
        "**",
        "${namespace}",
    ])
}

/// A pattern, and a name: any, or what the pattern is with something in the place of its stars.
fn pattern_and_name() -> impl Strategy<Value = (String, String)> {
    let fillers = select(vec!["", "a", "b", "ab", "a/b", "/"]);
    let filled = (pattern(), fillers).prop_map(|(pattern, filler)| {
        let name = pattern.replace("${namespace}", "shop");
        let name = name.replace("**", filler).replace('*', filler);
        (pattern, name)
    });
    prop_oneof![(pattern(), name()), filled]
}

proptest! {
    #[test]
    fn a_pattern_allows_what_the_rules_say((pattern, name) in pattern_and_name()) {
        let is_allowed = allows(std::slice::from_ref(&pattern), "shop", "cn-hangzhou", &name);
        if !pattern.starts_with("acs:") && !name.starts_with("acs:") {
            prop_assert_eq!(is_allowed, is_name(&pattern, "shop", &name), "{:?} {:?}", pattern, name);
        }
    }

    #[test]
    fn an_arn_is_allowed_field_by_field_in_the_region_of_the_store(
        (pattern, name) in pattern_and_name(),
        regions in [select(vec!["*", "cn-hangzhou", "cn-beijing", "cn-*", ""]), select(vec!["cn-hangzhou", "cn-beijing", "*", ""])],
        accounts in [select(vec!["*", "1", "2", "1*", ""]), select(vec!["1", "2", "11", "*", ""])],
    ) {
        let pattern_of_arns = format!("acs:kms:{}:{}:secret/{pattern}", regions[0], accounts[0]);
        let arn = format!("acs:kms:{}:{}:secret/{name}", regions[1], accounts[1]);
        let allowed = |pattern: &str, name: &str| allows(&[pattern.to_owned()], "shop", "cn-hangzhou", name);
        let fits = |pattern: &str, part: &str| pattern == "*" || pattern == part;
        let expected = regions[1] == "cn-hangzhou" && fits(regions[0], regions[1]) && fits(accounts[0], accounts[1])
            && is_name(&pattern, "shop", &name);
        prop_assert_eq!(allowed(&pattern_of_arns, &arn), expected, "{} {}", pattern_of_arns, arn);
        let is_plain = |text: &str| !text.starts_with("acs:");
        prop_assert!(!is_plain(&pattern) || !allowed(&pattern, &arn), "{} {}", pattern, arn);
        prop_assert!(!is_plain(&name) || !allowed(&pattern_of_arns, &name), "{} {}", pattern_of_arns, name);
    }

    #[test]
    fn a_store_without_patterns_keeps_each_namespace_to_itself(name in name(), namespace in "[a-z]{1,4}") {
        if allows(&default_patterns(), &namespace, "cn-hangzhou", &name) {
            let (first, rest) = name.split_once('/').unwrap();
            prop_assert!(first == namespace && !rest.is_empty() && !rest.contains('/'), "{}", name);
        }
    }
}
