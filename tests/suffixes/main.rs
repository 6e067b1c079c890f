//! bursar's table of public suffixes agrees with the official list.
//!
//! A limit for a domain or for each domain groups hosts by this table. `tests/suffixes/run` brings the list.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::HashSet;

use bursar::Origin;

/// The rules of the official list, both sections.
struct List {
    rules: HashSet<String>,
}

impl List {
    fn parse(text: &str) -> Self {
        let rule = |line: &str| line.split_whitespace().next().map(str::to_owned);
        let lines = text.lines().filter(|line| !line.starts_with("//"));
        Self {
            rules: lines.filter_map(rule).collect(),
        }
    }

    /// Returns the registrable domain by the algorithm of publicsuffix.org, or `None` for a public suffix.
    fn registrable_domain(&self, host: &str) -> Option<String> {
        let labels: Vec<&str> = host.split('.').collect();
        let tail = |start: usize| labels[start..].join(".");
        let exception =
            (0..labels.len()).find(|start| self.rules.contains(&format!("!{}", tail(*start))));
        let matched = (0..labels.len()).find(|start| {
            let wildcard =
                start + 1 < labels.len() && self.rules.contains(&format!("*.{}", tail(start + 1)));
            wildcard || self.rules.contains(&tail(*start))
        });
        // Without a rule, the last label is the suffix.
        let suffix =
            exception.map_or_else(|| matched.unwrap_or(labels.len() - 1), |start| start + 1);
        Some(tail(suffix.checked_sub(1)?))
    }

    /// Returns names at, below and above each rule.
    fn hosts(&self) -> impl Iterator<Item = String> {
        self.rules.iter().flat_map(|rule| {
            let name = rule.trim_start_matches('!').replace("*.", "any.");
            [
                format!("shop.{name}"),
                format!("api.shop.{name}"),
                format!("eu.api.shop.{name}"),
                name,
            ]
        })
    }
}

#[test]
#[ignore = "needs the official list: tests/suffixes/run"]
fn every_rule_of_the_official_suffix_list_holds() {
    let path = std::env::var("BURSAR_SUFFIX_LIST").unwrap();
    let list = List::parse(&std::fs::read_to_string(path).unwrap());
    assert!(list.rules.len() > 10_000, "{} rules", list.rules.len());
    let mut wrong = Vec::new();
    for host in list.hosts() {
        let origin: Origin = format!("https://{host}").parse().unwrap();
        let ascii = |name: String| {
            let origin: Origin = format!("https://{name}").parse().unwrap();
            origin.host().to_owned()
        };
        // A public suffix is its own domain, so that a limit counts it alone.
        let expected = ascii(list.registrable_domain(&host).unwrap_or(host));
        if origin.registrable_domain() != expected {
            wrong.push(format!(
                "{origin}: {} instead of {expected}",
                origin.registrable_domain()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
}
