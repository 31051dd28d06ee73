//! Templates, paths and the documents that they are for: what could have been meant, and what could have been typed.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::alibaba::fuzz::{
    NUMBER, PLANTED, Text, any_json, damaged, list, object, odd_text, string, words,
};

/// One of these.
pub(super) fn one_of(words: &'static [&'static str]) -> Text {
    select(words).prop_map(str::to_owned).boxed()
}

/// Puts what is made into the gaps of one of these forms, each a `#`.
fn forms(forms: &'static [&'static str], inner: &Text) -> Text {
    (select(forms), vec(inner.clone(), 3))
        .prop_map(|(form, parts)| {
            let mut parts = parts.iter().cycle();
            let fill = |c| match c {
                '#' => parts.next().cloned().unwrap_or_default(),
                c => c.to_string(),
            };
            form.chars().map(fill).collect()
        })
        .boxed()
}

/// An expression of a template.
fn expression() -> Text {
    let plain = words(
        "json.a · json.b · json.n · json.o · json.list · value · 't' · 1 · json.o.x · sources.source.value",
    );
    let odd = words(
        "json.a · json.b · json['b c'] · json.list · json.o · json.o.x · json.n · json.huge · json.gone · \
        json[json.a] · json.list[0] · json.missing · json · value · extended · extended.x · sources · \
        sources.source.json.a · sources['source'].value · sources.previous.value · x · y · loop.index · loop.last · \
        loop.previtem · 't' · '' · '%s é\\n' · 0 · 1 · -1 · 2.5 · 9223372036854775808 · \
        340282366920938463463374607431768211455 · 1e400 · true · none · ['a', 1] · ('a',) · [] · self · super",
    );
    prop_oneof![3 => plain, 1 => odd].prop_recursive(3, 12, 3, |inner| {
        let inner = inner.boxed();
        prop_oneof![
            12 => forms(&["# | b64encode", "# | b64decode", "# | urlencode", "# | quote", "# | tojson", "# | upper", "# | lower",
                "# | trim", "# | trim(#)", "# | length", "# | first", "# | last", "# | items", "# | join(#)", "# | join",
                "# | split(#)", "# | split('', 2)", "# | split", "# | replace(#, #)", "# | default(#)", "# | default(#, true)",
                "# | indent(2)", "# | indent(#)", "# | indent(4, true, true)", "# | htpasswd('a:b')", "# | bcrypt(#)",
                "# | tojson(#)"], &inner),
            9 => forms(&["# ~ #", "# == #", "# != #", "# < #", "# <= # < #", "# >= #", "# and #", "# or #", "not #", "# in #",
                "# not in #", "(#)", "# if # else #", "# if #", "-#"], &inner),
            6 => forms(&["# is defined", "# is not defined", "# is none", "# is string", "# is number", "# is mapping",
                "# is sequence", "# is boolean", "# is undefined", "# is startingwith(#)", "# is endingwith #"], &inner),
            2 => forms(&["#.a", "#[#]", "#['a']", "#.a.b", "#[0]"], &inner),
            1 => forms(&["# + #", "# * #", "# // #", "# % #", "# ** #", "#[#:#]", "#()", "{'a': #}", "[#, #]", "# | map('upper')",
                "# | bcrypt", "# is odd", "range(#)"], &inner),
        ]
    })
    .boxed()
}

/// A whole template.
pub(super) fn template() -> Text {
    let expression = expression();
    let text = prop_oneof![3 => one_of(&["a", " ", "\n", "{ }", "%", "é", "-"]), 1 => odd_text(6)];
    let printed = forms(
        &["{{ # }}", "{{- # -}}", "{{#}}", "{{ # ~ '' }}"],
        &expression,
    );
    let leaf = prop_oneof![2 => text, 4 => printed, 1 => one_of(&["{# c #}", "{% raw %}{{ x }}{% endraw %}"])];
    let block = leaf.prop_recursive(3, 12, 3, move |inner| {
        // Expressions go where # stands, and blocks where @ does.
        let with = |forms_of: &'static [&'static str], inner: BoxedStrategy<String>| {
            (forms(forms_of, &expression), vec(inner, 2))
                .prop_map(|(form, parts)| form.replacen('@', &parts[0], 1).replacen('@', &parts[1], 1))
        };
        let inner = inner.boxed();
        prop_oneof![
            6 => with(&["{% if # %}@{% endif %}", "{% if # %}@{% elif # %}@{% else %}x{% endif %}"], inner.clone()),
            4 => with(&["{% for x in # %}@{% endfor %}", "{% for x, y in # | items %}@{% else %}@{% endfor %}",
                "{%- for x in # if # -%}@{% endfor %}", "{% for x in json.list %}@{% endfor %}"], inner.clone()),
            6 => with(&["{% set x = # %}@", "{% set x %}@{% endset %}@", "{% set x | upper %}@{% endset %}{{ x }}"], inner.clone()),
            1 => with(&["{% with x = # %}@{% endwith %}", "{% filter upper %}@{% endfilter %}", "{% include # %}",
                "{% macro m(x) %}@{% endmacro %}{{ m(#) }}", "{% block b %}@{% endblock %}", "{% set json.a = # %}@"], inner.clone()),
            4 => vec(inner, 2..4).prop_map(|parts| parts.concat()),
        ]
    });
    let whole = block.boxed();
    let broken =
        damaged(whole.clone()).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    prop_oneof![9 => whole, 1 => broken].boxed()
}

/// A path.
pub(super) fn path() -> Text {
    let plain = words("a · b · n · o.x · o · list · @ · 't' · `1`");
    let odd = words(
        "a · b · \"b c\" · list · o · o.x · n · huge · gone · missing · @ · * · `1` · `\"t\"` · `[1, 2]` · 't' · [0] · \
        [-1] · [2147483647] · [-2147483648] · [9223372036854775807] · [::2] · [::-1] · [1:3] · [::0] · \
        [:-2147483648:-1] · [-2147483648:2147483647:2147483647] · list[] · list[*].n · o.* · &a",
    );
    let whole = prop_oneof![2 => plain, 1 => odd].prop_recursive(3, 12, 3, |inner| {
        let inner = inner.boxed();
        prop_oneof![
            3 => forms(&["#.#", "# | #", "#[?#]", "#[?# == #]", "# || #", "# && #", "!#", "(#)", "#[0]", "#[*]", "#[]", "#[-1:]",
                "# == #", "# < #", "[#, #]", "{a: #, b: #}"], &inner),
            3 => forms(&["keys(#)", "values(#)", "length(#)", "sort(#)", "sort_by(#, &#)", "max(#)", "min(#)", "max_by(#, &#)",
                "min_by(#, &#)", "join(',', #)", "to_string(#)", "to_number(#)", "to_array(#)", "type(#)", "reverse(#)",
                "contains(#, #)", "starts_with(#, #)", "ends_with(#, #)", "merge(#, #)", "not_null(#, #)", "map(&#, #)", "sum(#)",
                "avg(#)", "abs(#)", "ceil(#)", "floor(#)", "nope(#)", "join(#, #)"], &inner),
        ]
    });
    prop_oneof![9 => whole, 1 => odd_text(20)].boxed()
}

/// JSON with the fields that are asked for, or what is none of that.
pub(super) fn document() -> Text {
    let text = prop_oneof![4 => Just(PLANTED.to_owned()), 2 => odd_text(12), 1 => one_of(&["", "a", "UyArZQ==", "a,b", "1"])];
    let text = string(text);
    let number = one_of(&[
        NUMBER,
        NUMBER,
        "0",
        "-1",
        "7391648205.5",
        "18446744073709551615",
        "1e300",
        "-0.0",
    ]);
    let one = prop_oneof![10 => text, 3 => number, 1 => any_json()].boxed();
    let item = object(vec![("n", one.clone()), ("p", one.clone())]);
    let any_list = prop_oneof![1 => list(&one, 4), 1 => list(&item, 4)].boxed();
    let inner = object(vec![("x", one.clone()), ("b c", one.clone())]);
    let huge = prop_oneof![4 => one.clone(), 1 => one_of(&["739164820512345678901234"])];
    let whole = object(vec![
        ("a", one.clone()),
        ("b", one.clone()),
        ("b c", one.clone()),
        ("n", one.clone()),
        ("huge", huge.boxed()),
        ("list", any_list),
        ("o", inner),
        ("gone", Just("null".to_owned()).boxed()),
    ]);
    prop_oneof![30 => whole, 1 => Just(PLANTED.to_owned()), 1 => one].boxed()
}
