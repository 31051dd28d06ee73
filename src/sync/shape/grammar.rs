//! What a template may say: the part of Jinja that cannot make more of a value than its author wrote down.
//!
//! Lists of lists, sums of lists and slices grow or nest with every step, and the fuel of minijinja does not pay for
//! all that they cost: twenty lines of them would take the operator's memory, or its stack. What is not named here is
//! refused before anything is evaluated.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, IfCond, Stmt};

use super::document::cut;

/// The filters of templates: `filters.rs` brings its own, minijinja the rest.
pub(super) const FILTERS: [&str; 19] = [
    "b64decode",
    "b64encode",
    "bcrypt",
    "default",
    "first",
    "htpasswd",
    "indent",
    "items",
    "join",
    "last",
    "length",
    "lower",
    "quote",
    "replace",
    "split",
    "tojson",
    "trim",
    "upper",
    "urlencode",
];
/// The tests of templates, all of minijinja.
pub(super) const TESTS: [&str; 10] = [
    "boolean",
    "defined",
    "endingwith",
    "mapping",
    "none",
    "number",
    "sequence",
    "startingwith",
    "string",
    "undefined",
];
/// Blocks and expressions within one another: more would go over the stack when the template is evaluated.
const DEPTH_MAX: usize = 64;

/// What a template says that templates cannot say here, and on which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: u16,
    pub(super) what: String,
}

/// The names that a template takes values by.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    /// As `["json", "db", "user"]` for `json.db.user`, with the line.
    pub(super) used: Vec<(u16, Vec<&'a str>)>,
    /// The names that it gives to values itself.
    pub(super) own: BTreeSet<&'a str>,
}

/// Checks a parsed template, and lists the names in it.
pub(super) fn check<'a>(template: &'a Stmt<'a>) -> Result<Names<'a>, Refused> {
    let mut names = Names {
        own: ["loop"].into(),
        ..Names::default()
    };
    names.statement(template, 0)?;
    Ok(names)
}

impl<'a> Names<'a> {
    fn statements(&mut self, all: &'a [Stmt<'a>], depth: usize) -> Result<(), Refused> {
        all.iter().try_for_each(|one| self.statement(one, depth))
    }

    fn statement(&mut self, statement: &'a Stmt<'a>, depth: usize) -> Result<(), Refused> {
        match statement {
            Stmt::Template(template) => self.statements(&template.children, depth),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr, depth),
            Stmt::IfCond(branch) => self.branch(branch, depth),
            Stmt::ForLoop(each) if !each.recursive => {
                self.target(&each.target)?;
                self.expression(&each.iter, depth)?;
                self.optional(each.filter_expr.as_ref(), depth)?;
                self.statements(&each.body, depth + 1)?;
                self.statements(&each.else_body, depth + 1)
            }
            Stmt::Set(set) => {
                self.target(&set.target)?;
                self.expression(&set.expr, depth)
            }
            Stmt::SetBlock(set) => {
                self.target(&set.target)?;
                self.optional(set.filter.as_ref(), depth)?;
                self.statements(&set.body, depth + 1)
            }
            Stmt::ForLoop(each) => refuse(each.span().start_line, "a recursive loop"),
            Stmt::WithBlock(with) => refuse(with.span().start_line, "with"),
            Stmt::AutoEscape(block) => refuse(block.span().start_line, "autoescape"),
            Stmt::FilterBlock(block) => refuse(block.span().start_line, "a filter block"),
            Stmt::Do(call) => refuse(call.span().start_line, "do"),
        }
    }

    fn branch(&mut self, branch: &'a IfCond<'a>, depth: usize) -> Result<(), Refused> {
        self.expression(&branch.expr, depth)?;
        self.statements(&branch.true_body, depth + 1)?;
        self.statements(&branch.false_body, depth + 1)
    }

    /// What `for` and `set` give names to: names, and nothing that a value could be put into.
    fn target(&mut self, target: &'a Expr<'a>) -> Result<(), Refused> {
        match target {
            Expr::Var(name) => {
                self.own.insert(name.id);
                Ok(())
            }
            Expr::Tuple(names) => names.items.iter().try_for_each(|name| self.target(name)),
            Expr::List(names) => names.items.iter().try_for_each(|name| self.target(name)),
            other => refuse(
                other.span().start_line,
                "an assignment to a part of a value",
            ),
        }
    }

    fn optional(&mut self, one: Option<&'a Expr<'a>>, depth: usize) -> Result<(), Refused> {
        one.map_or(Ok(()), |one| self.expression(one, depth))
    }

    fn expression(&mut self, expression: &'a Expr<'a>, depth: usize) -> Result<(), Refused> {
        let line = expression.span().start_line;
        if depth > DEPTH_MAX {
            return refuse(line, "too many blocks or expressions within one another");
        }
        if let Some(name) = name(expression, 0) {
            self.used.push((line, name));
            return Ok(());
        }
        let depth = depth + 1;
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::UnaryOp(unary) => self.expression(&unary.expr, depth),
            Expr::BinOp(binary) => {
                if is_arithmetic(binary.op) {
                    return refuse(line, "arithmetic (text is joined by ~)");
                }
                self.expression(&binary.left, depth)?;
                self.expression(&binary.right, depth)
            }
            Expr::Compare(chain) => {
                self.expression(&chain.expr, depth)?;
                let mut rest = chain.ops.iter();
                rest.try_for_each(|next| self.expression(&next.expr, depth))
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr, depth)?;
                self.expression(&choice.true_expr, depth)?;
                self.optional(choice.false_expr.as_ref(), depth)
            }
            Expr::Filter(filter) => {
                known("filter", filter.name, &FILTERS, line)?;
                self.optional(filter.expr.as_ref(), depth)?;
                self.arguments(&filter.args, line, depth)
            }
            Expr::Test(test) => {
                known("test", test.name, &TESTS, line)?;
                self.expression(&test.expr, depth)?;
                self.arguments(&test.args, line, depth)
            }
            Expr::GetAttr(attribute) => self.expression(&attribute.expr, depth),
            Expr::GetItem(item) => {
                self.expression(&item.expr, depth)?;
                self.expression(&item.subscript_expr, depth)
            }
            Expr::List(list) => constants(&list.items, line),
            Expr::Tuple(tuple) => constants(&tuple.items, line),
            Expr::Map(_) => refuse(line, "a map (write the JSON as text)"),
            Expr::Slice(_) => refuse(line, "a slice"),
            Expr::Call(_) => refuse(line, "a call"),
        }
    }

    fn arguments(
        &mut self,
        arguments: &'a [CallArg<'a>],
        line: u16,
        depth: usize,
    ) -> Result<(), Refused> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value, depth),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => refuse(line, "an argument with *"),
        })
    }
}

fn is_arithmetic(op: BinOpKind) -> bool {
    !matches!(
        op,
        BinOpKind::Eq
            | BinOpKind::Ne
            | BinOpKind::Lt
            | BinOpKind::Lte
            | BinOpKind::Gt
            | BinOpKind::Gte
            | BinOpKind::ScAnd
            | BinOpKind::ScOr
            | BinOpKind::In
            | BinOpKind::Concat
    )
}

fn known(kind: &str, name: &str, all: &[&str], line: u16) -> Result<(), Refused> {
    if all.contains(&name) {
        return Ok(());
    }
    refuse(line, format!("the {kind} {:?}", cut(name)))
}

/// Lists are for `in` and `for`, so they need nothing but what is written there.
fn constants(items: &[Expr<'_>], line: u16) -> Result<(), Refused> {
    if items.iter().all(|item| matches!(item, Expr::Const(_))) {
        return Ok(());
    }
    refuse(line, "a list of anything but texts and numbers")
}

/// The name that an expression is, if it is one: `json.db["user"]`.
fn name<'a>(expression: &'a Expr<'a>, depth: usize) -> Option<Vec<&'a str>> {
    if depth > DEPTH_MAX {
        return None;
    }
    let (parent, field) = match expression {
        Expr::Var(root) => return Some(vec![root.id]),
        Expr::GetAttr(attribute) => (&attribute.expr, attribute.name),
        Expr::GetItem(item) => match &item.subscript_expr {
            Expr::Const(key) => (&item.expr, key.value.as_str()?),
            _ => return None,
        },
        _ => return None,
    };
    let mut name = name(parent, depth + 1)?;
    name.push(field);
    Some(name)
}

fn refuse<T>(line: u16, what: impl Into<String>) -> Result<T, Refused> {
    let what = what.into();
    Err(Refused { line, what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::machinery::parse;

    fn refused(template: &str) -> Option<String> {
        let parsed = parse(template, "t", minijinja::syntax::SyntaxConfig::default()).unwrap();
        check(&parsed).err().map(|refused| refused.what)
    }

    #[test]
    fn what_cannot_grow_may_be_said() {
        for template in [
            "plain { text } # 100 %",
            "{{ json.a }}{{ json['b'] }}{{ json[0] }}{{ json[json.a] }}",
            "{{ value | replace('a', 'b') | b64encode | default('x') }}",
            "{% if json.a is defined and not (json.b == 1 or json.c in ['x', 'y']) %}a{% elif 1 < 2 < 3 %}b{% else %}c{% endif %}",
            "{% for key, field in json | items if field is string %}{{ loop.index }}{{ key ~ field }}{% else %}x{% endfor %}",
            "{% set a = json.b %}{% set c | trim %} {{ a }} {% endset %}{{ c if a else 'x' }}{{ -1 }}",
            "{% raw %}{{ [x] * 9 }}{% endraw %}{# {{ a() }} #}",
        ] {
            assert_eq!(refused(template), None, "{template}");
        }
    }

    #[test]
    fn what_can_grow_is_refused_by_name() {
        for (template, word) in [
            ("{{ [json, json] }}", "list"),
            ("{{ (json, 1) }}", "list"),
            ("{{ {'a': json} }}", "map"),
            ("{{ json.a + json.b }}", "arithmetic"),
            ("{{ 'x' * 9 }}", "arithmetic"),
            ("{{ 2 ** 9 }}", "arithmetic"),
            ("{{ value[:1] }}", "slice"),
            ("{{ range(9) }}", "call"),
            ("{{ value.upper() }}", "call"),
            ("{{ json | map('upper') }}", "\"map\""),
            ("{{ json | pprint }}", "\"pprint\""),
            ("{{ value is lower }}", "\"lower\""),
            ("{% with a = [1] %}{% endwith %}", "with"),
            ("{% for a in json recursive %}{% endfor %}", "recursive"),
            ("{% filter upper %}{% endfilter %}", "filter block"),
            ("{% autoescape true %}{% endautoescape %}", "autoescape"),
            ("{% set json.a = 1 %}", "assignment"),
            ("{{ value | join(*json.a) }}", "*"),
            ("{% do a() %}", "do"),
        ] {
            let said = refused(template);
            assert!(
                said.as_ref().is_some_and(|said| said.contains(word)),
                "{template}: {said:?}"
            );
        }
    }

    #[test]
    fn names_are_listed_with_their_lines() {
        let template = "{{ json.a.b }}\n{% for x in sources['my-own'].json.list %}{{ x.y | default(value) }}{% endfor %}";
        let parsed = parse(template, "t", minijinja::syntax::SyntaxConfig::default()).unwrap();
        let names = check(&parsed).unwrap();
        let used: Vec<_> = names
            .used
            .iter()
            .map(|(line, name)| (*line, name.join(".")))
            .collect();
        let expected = [
            (1, "json.a.b"),
            (2, "sources.my-own.json.list"),
            (2, "x.y"),
            (2, "value"),
        ];
        assert_eq!(used, expected.map(|(line, name)| (line, name.to_owned())));
        assert!(names.own.contains("x"));
    }
}
