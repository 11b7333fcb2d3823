//! What a policy may ask a Prometheus server: queries that give counters, with one series per node and label.
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
            "`{name}` was not replaced; write its value, or correct the template that fills in this file"
        ));
    }
    let filled = query
        .replace("{service}", "service")
        .replace("{environment}", "environment")
        .replace("{version}", SAMPLE_VERSION);
    if let Some(name) = unknown(&filled) {
        return Err(format!(
            "`{name}` is not a placeholder; there are `{{service}}`, `{{environment}}` and `{{version}}`"
        ));
    }
    let parsed = parser::parse(&filled).map_err(|why| {
        let why = one_line(&why.replace(SAMPLE_VERSION, "{version}"));
        format!(
            "it is not valid PromQL: {why}; correct it, and write placeholders in quotes, `version=\"{{version}}\"`"
        )
    })?;
    counters(&parsed)?;
    if tells_apart(&parsed) {
        Ok(())
    } else {
        Err("it must tell the versions apart; write `{version}` as the value of the version label".to_owned())
    }
}

/// Returns a variable of a shell, a template or a dashboard that was to be replaced: `${VERSION}`, `$__interval`,
/// `{{ .Version }}`. A `$` that ends a regular expression is none, and neither is what a part of one matched: `$1`.
fn unexpanded(query: &str) -> Option<&str> {
    if let Some(at) = query.find("{{") {
        let length = query[at..].find("}}").map_or(query.len() - at, |end| end + 2);
        return Some(&query[at..at + length]);
    }
    query.match_indices('$').find_map(|(at, _)| {
        let (whole, name) = match query[at + 1..].strip_prefix('{') {
            Some(rest) => {
                let name = rest.split('}').next().unwrap_or_default();
                (&query[at..query.len().min(at + name.len() + 3)], name)
            }
            None => {
                let name = word(&query[at + 1..]);
                (&query[at..=at + name.len()], name)
            }
        };
        let is_number = name.bytes().all(|c| c.is_ascii_digit());
        let is_part = (whole == "$" || is_number && !name.is_empty()) || query.contains(&format!("(?P<{name}>"));
        (!is_part).then_some(whole)
    })
}

/// Returns what looks like a placeholder, and is none of ours.
fn unknown(filled: &str) -> Option<&str> {
    filled.match_indices('{').find_map(|(at, _)| {
        let name = word(&filled[at + 1..]);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !filled[..at].ends_with('$');
        (is_name && filled[at + 1 + name.len()..].starts_with('}')).then(|| &filled[at..at + name.len() + 2])
    })
}

/// Returns the letters, digits and underscores that `text` begins with.
fn word(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// Says whether each series that an expression gives is of one version.
fn tells_apart(expression: &Expr) -> bool {
    match expression {
        Expr::Paren(inner) => tells_apart(&inner.expr),
        Expr::Binary(binary) => match binary.op.to_string().as_str() {
            "or" => tells_apart(&binary.lhs) && tells_apart(&binary.rhs),
            "unless" => tells_apart(&binary.lhs),
            _ => tells_apart(&binary.lhs) || tells_apart(&binary.rhs),
        },
        other => other.to_string().contains(SAMPLE_VERSION),
    }
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
            Err("`vector(...)` is a series of its own that never rises; leave it out: no series already means no \
                 requests"
                .to_owned())
        }
        Expr::Call(call) => Err(no_counters(call.func.name)),
        Expr::Aggregate(aggregate) => Err(no_counters(&aggregate.op.to_string())),
        Expr::MatrixSelector(_) => {
            Err("`[...]` gives a range of samples, not counters; leave it out: rises are counted here".to_owned())
        }
        Expr::Subquery(_) => Err("a subquery gives a range of samples, not counters; leave `[...]` out".to_owned()),
        Expr::Unary(_) => Err("a negated counter falls instead of rising; leave the `-` out".to_owned()),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {
            Err("it gives one value, not series; write the counters' own selector".to_owned())
        }
    }
}

fn of_two(binary: &BinaryExpr) -> Result<(), String> {
    let operator = binary.op.to_string();
    if binary.op.is_comparison_operator() {
        return Err(format!(
            "`{operator}` drops a series while it is false, or gives 0 and 1; compare labels inside `{{...}}` instead"
        ));
    }
    let is_factor = |number: f64| number.is_finite() && number > 0.0;
    match (operator.as_str(), number(&binary.lhs), number(&binary.rhs)) {
        ("*", Some(by), None) if is_factor(by) => counters(&binary.rhs),
        ("*" | "/", None, Some(by)) if is_factor(by) => counters(&binary.lhs),
        ("*" | "+" | "and" | "or" | "unless", None, None) => counters(&binary.lhs).and_then(|()| counters(&binary.rhs)),
        (_, None, None) => Err(format!(
            "`{operator}` of two counters is not a counter: it may fall, and a fall is taken for a restart; write one selector"
        )),
        _ => Err(format!(
            "`{operator}` with such a number does not give a counter; a counter may be multiplied or divided by a \
             number above 0"
        )),
    }
}

fn number(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::NumberLiteral(number) => Some(number.val),
        Expr::Paren(inner) => number(&inner.expr),
        _ => None,
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
        "`{name}` gives no counters; write a selector of the counters themselves, with one series per node: \
         ionledger adds up their rises itself, and a sum hides the restart of a node"
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
            r#"label_replace(a_total{version="{version}"}, "node", "${1}", "pod", "(.*)")"#,
            r#"label_replace(a_total{version="{version}"}, "node", "${host}", "pod", "(?P<host>.*)-\\d{1,3}")"#,
            r#"a_total{v='{version}'} * on (pod) group_left (node) pod_info"#,
            r#"a_total * on (pod) group_left (version) pod_info{version="{version}"}"#,
            r#"http_requests_total{version="{version}",path!~"/health|/ready",code!~"1..|404"}"#,
            r#"http_requests_total{version=~"v?{version}(-.+)?$",pod=~"api-[0-9a-f]{8,10}-.{5}"}"#,
            r#"{service}_requests_total{env="{environment}",version="{version}"}"#,
            r#"(1000 * a_total{version="{version}"}) / (60)"#,
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
            (r#"http_requests_total{version="{version}""#, "it is not valid PromQL"),
            (r#"http_requests_total{version={version}}"#, "correct it, and write placeholders in quotes"),
            (r#"http requests{version="{version}"}"#, "it is not valid PromQL"),
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
            (r#"a_total{version="{version}"} - b_total"#, "`-` of two counters is not a counter"),
            (r#"a_total{version="{version}"} / b_total"#, "`/` of two counters is not a counter"),
            (r#"-a_total{version="{version}"}"#, "negated"),
            (r#"a_total{version="{version}"} % 2"#, "`%` with such a number"),
            (r#"a_total{version="{version}"} * 0"#, "`*` with such a number"),
            (r#"a_total{version="{version}"} * -1"#, "`*` with such a number"),
            (r#"60 / a_total{version="{version}"}"#, "`/` with such a number"),
            (r#"a_total{version="{version}"} + 1"#, "`+` with such a number"),
            (r#"a_total{version="{version}"} or 0 * up"#, "`*` with such a number"),
            (r#"a_total{version="{version}"} or b_total"#, "it must tell the versions apart"),
            (r#"a_total unless b_total{version="{version}"}"#, "it must tell the versions apart"),
            (r#"a_total{version="${VERSION}",x="{version}"}"#, "`${VERSION}` was not replaced"),
            (r#"a_total{version="{version}",env="${ENV"}"#, "`${ENV"),
            (r#"a_total{version="${}",x="{version}"}"#, "`${}` was not replaced"),
            (r#"a_total{version="{{version}}"}"#, "`{{version}}` was not replaced"),
            (r#"a_total{version="{version}",env="{{ .Values.env }}"}"#, "`{{ .Values.env }}` was not replaced"),
            (r#"a_total{version="{version}",env="{env}"}"#, "`{env}` is not a placeholder; there are `{service}`"),
            (r#"a_total{version="{version}",job="$job"}"#, "`$job` was not replaced"),
            (r#"a_total{version="{version}"}[$__rate_interval]"#, "`$__rate_interval` was not replaced"),
            (r#"42"#, "gives one value, not series"),
            (r#""{version}""#, "gives one value, not series"),
            ("a_total # of {version}", "it must tell the versions apart"),
            ("", "it is not valid PromQL"),
        ] {
            let said = check(query).expect_err(query);
            assert!(said.contains(why), "{query}: {said}");
            assert!(!said.contains(SAMPLE_VERSION) && !said.contains('\n'), "{query}: {said}");
        }
    }
}
