//! What a policy may ask a Prometheus server: queries that give counters, a series a node and label.
//!
//! Rises are counted by ionledger itself, series by series, so that a counter that begins anew is seen. What falls by
//! itself, is a sum, or lies in the past gives wrong counts, or none, and nobody would be told.

use promql_parser::parser::{self, BinaryExpr, Expr, VectorSelector};

/// A version's name that no query holds by itself, in the place of `{version}`.
const SAMPLE_VERSION: &str = "0.0.0-ionledger";

/// Functions that give counters of counters: they change labels alone.
const LABELS_ONLY: [&str; 2] = ["label_replace", "label_join"];

/// Checks that `query` can give counters of one version.
///
/// # Errors
///
/// The rule that it breaks, with the next step.
pub(super) fn check(query: &str) -> Result<(), String> {
    if let Some(name) = unexpanded(query) {
        return Err(format!(
            "`{name}` was never replaced; write what it stands for, or correct what fills this file in"
        ));
    }
    let filled = query
        .replace("{service}", "service")
        .replace("{environment}", "environment")
        .replace("{version}", SAMPLE_VERSION);
    let parsed = parser::parse(&filled).map_err(|why| {
        let why = why.replace(SAMPLE_VERSION, "{version}");
        format!("it is no PromQL: {}; placeholders stand in quotes, `version=\"{{version}}\"`", one_line(&why))
    })?;
    counters(&parsed)?;
    if parsed.to_string().contains(SAMPLE_VERSION) {
        Ok(())
    } else {
        Err("it must tell the versions apart: write `{version}` where a version's name stands".to_owned())
    }
}

/// Returns a variable of a shell, a template or a dashboard that was to be replaced: `${VERSION}`, `$__interval`. A `$` that
/// ends a regular expression is none.
fn unexpanded(query: &str) -> Option<&str> {
    query.match_indices('$').find_map(|(at, _)| {
        let name = &query[at + 1..];
        if let Some(rest) = name.strip_prefix('{') {
            let length = rest.find('}').map_or(rest.len(), |end| end + 1);
            return Some(&query[at..at + 2 + length]);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = name.find(|c| !is_word(c)).unwrap_or(name.len());
        // `$1` is what a part of a regular expression matched.
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        is_name.then(|| &query[at..=at + length])
    })
}

fn counters(expression: &Expr) -> Result<(), String> {
    match expression {
        Expr::VectorSelector(selector) => now(selector),
        Expr::Paren(inner) => counters(&inner.expr),
        Expr::Binary(binary) => of_two(binary),
        Expr::Call(call) if LABELS_ONLY.contains(&call.func.name) => {
            call.args.args.iter().filter(|of| !matches!(***of, Expr::StringLiteral(_))).try_for_each(|of| counters(of))
        }
        Expr::Call(call) if call.func.name == "vector" => {
            Err("`vector(...)` is a series of its own that never rises; leave it out: no series is no requests"
                .to_owned())
        }
        Expr::Call(call) => Err(no_counters(call.func.name)),
        Expr::Aggregate(aggregate) => Err(no_counters(&aggregate.op.to_string())),
        Expr::MatrixSelector(_) => {
            Err("`[...]` gives a range of samples, not counters; leave it out: rises are counted here".to_owned())
        }
        Expr::Subquery(_) => Err("a subquery gives a range of samples, not counters; leave `[...]` out".to_owned()),
        Expr::Unary(_) => Err("what is negated falls instead of rising; leave the `-` out".to_owned()),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {
            Err("it gives a value and no series; write the counters' own selector".to_owned())
        }
    }
}

fn of_two(binary: &BinaryExpr) -> Result<(), String> {
    let operator = binary.op.to_string();
    if binary.op.is_comparison_operator() {
        return Err(format!(
            "`{operator}` drops a series whenever it is not so, or gives 0 and 1; compare labels inside `{{...}}` instead"
        ));
    }
    let is_number = |side: &Expr| matches!(side, Expr::NumberLiteral(_));
    match operator.as_str() {
        "*" if is_number(&binary.lhs) => counters(&binary.rhs),
        "*" | "/" if is_number(&binary.rhs) => counters(&binary.lhs),
        "*" | "+" => counters(&binary.lhs).and_then(|()| counters(&binary.rhs)),
        _ if binary.op.is_set_operator() => counters(&binary.lhs).and_then(|()| counters(&binary.rhs)),
        _ => Err(format!(
            "`{operator}` of two counters is no counter: it falls whenever one is scraped before the other; write one selector"
        )),
    }
}

/// A selector of what is counted now.
fn now(selector: &VectorSelector) -> Result<(), String> {
    if selector.offset.is_some() {
        return Err("`offset` gives what was counted before the rollout; leave it out".to_owned());
    }
    if selector.at.is_some() {
        return Err("`@` gives what was counted at one moment for ever; leave it out".to_owned());
    }
    Ok(())
}

fn no_counters(name: &str) -> String {
    format!(
        "`{name}` gives no counters; write the counters' own selector, a series a node: rises are counted here, and a sum \
         hides the restart of a node"
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_version_are_let_through() {
        for query in [
            r#"http_requests_total{version="{version}"}"#,
            r#"{__name__="http_requests_total",version="{version}"}"#,
            r#"http_requests_total{service="{service}",version="{version}",code=~"5..$"}"#,
            r#"a_total{version="{version}"} or b_total{version="{version}"}"#,
            r#"label_replace(a_total{version="{version}"}, "node", "$1", "pod", "(.*)")"#,
            r#"a_total{v='{version}'} * on (pod) group_left (node) pod_info"#,
            r#"(a_total{v="{version}"} + on (pod) b_total) unless on (pod) drained_total"#,
            r#"rate_total{sum="sum (",count='{version}'}"#,
            "milli_total{version=\"{version}\"} / 1000 # in {version}",
        ] {
            assert_eq!(check(query), Ok(()), "{query}");
        }
    }

    #[test]
    fn what_cannot_give_counters_is_refused_with_the_reason() {
        for (query, why) in [
            (r#"http_requests_total{version="{version}""#, "it is no PromQL"),
            (r#"http_requests_total{version={version}}"#, "placeholders stand in quotes"),
            (r#"http requests{version="{version}"}"#, "it is no PromQL"),
            (r#"a_total{version="{version}"}[5m]"#, "a range of samples"),
            (r#"a_total{version="{version}"}[5m:1m]"#, "a range of samples"),
            (r#"rate(a_total{version="{version}"}[5m])"#, "`rate` gives no counters"),
            (r#"(irate(a_total{version="{version}"}[5m]))"#, "`irate` gives no counters"),
            (r#"sum by (pod) (a_total{version="{version}"})"#, "`sum` gives no counters"),
            (r#"topk(3, a_total{version="{version}"})"#, "`topk` gives no counters"),
            (r#"clamp_min(a_total{version="{version}"}, 0)"#, "`clamp_min` gives no counters"),
            (r#"a_total{version="{version}"} > 0"#, "`>` drops a series"),
            (r#"a_total{version="{version}"} == bool 1"#, "`==` drops a series"),
            (r#"a_total{version="{version}"} and on (pod) (up == 1)"#, "`==` drops a series"),
            (r#"a_total{version="{version}"} or vector(0)"#, "`vector(...)` is a series of its own"),
            (r#"a_total{version="{version}"} or on () vector(0)"#, "`vector(...)` is a series of its own"),
            (r#"a_total{version="{version}"} offset 1h"#, "`offset` gives what was counted before"),
            (r#"b_total or a_total{version="{version}"} offset -5m"#, "`offset` gives"),
            (r#"a_total{version="{version}"} @ 1609746000"#, "`@` gives"),
            (r#"a_total{version="{version}"} - b_total"#, "`-` of two counters is no counter"),
            (r#"a_total{version="{version}"} / b_total"#, "`/` of two counters is no counter"),
            (r#"-a_total{version="{version}"}"#, "negated"),
            (r#"a_total{version="${VERSION}",x="{version}"}"#, "`${VERSION}` was never replaced"),
            (r#"a_total{version="{version}",job="$job"}"#, "`$job` was never replaced"),
            (r#"a_total{version="{version}"}[$__rate_interval]"#, "`$__rate_interval` was never replaced"),
            (r#"42"#, "gives a value and no series"),
            (r#""{version}""#, "gives a value and no series"),
            ("a_total # of {version}", "it must tell the versions apart"),
            ("", "it is no PromQL"),
        ] {
            let said = check(query).expect_err(query);
            assert!(said.contains(why), "{query}: {said}");
            assert!(!said.contains(SAMPLE_VERSION) && !said.contains('\n'), "{query}: {said}");
        }
    }
}
