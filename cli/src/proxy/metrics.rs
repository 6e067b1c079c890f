//! Numbers for Prometheus.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bursar::Usd;
use bursar::policy::{Amount, LimitStatus, Quantity};
use bursar::telemetry::{Event, EventKind};

/// The upper bounds of the histogram, in milliseconds.
const BOUNDS: [u64; 10] = [50, 100, 250, 500, 1000, 2500, 5000, 15_000, 60_000, 300_000];
/// The largest number of series. The names of clients and routes are the operator's, so this is never reached.
const MOST_SERIES: usize = 10_000;

/// The families of numbers, with their texts for people.
const FAMILIES: [(&str, &str); 9] = [
    (
        "bursar_proxy_requests_total",
        "Requests that the proxy sent, by client, route, status and payment.",
    ),
    (
        "bursar_proxy_refused_total",
        "Requests that the proxy refused before it sent anything, by reason.",
    ),
    (
        "bursar_proxy_abandoned_total",
        "Calls whose program left before the answer.",
    ),
    (
        "bursar_proxy_lost_total",
        "Paid answers whose program left before the end.",
    ),
    (
        "bursar_proxy_reloads_total",
        "Reloads of the policy file, by result.",
    ),
    ("bursar_events_total", "Steps of purchases, by name."),
    ("bursar_denied_total", "Denials, by rule."),
    (
        "bursar_settled_usd_total",
        "Dollars that sellers confirmed with a receipt; of upto the ceilings, not the charges.",
    ),
    (
        "bursar_agent_settled_usd_total",
        "The same dollars by agent, which is the name of the token unless a route or --agent names one.",
    ),
];

/// The numbers since the start of the proxy.
#[derive(Default)]
pub(super) struct Metrics {
    numbers: Mutex<Numbers>,
}

#[derive(Default)]
struct Numbers {
    /// Counters by family and labels.
    counters: BTreeMap<(&'static str, String), u64>,
    buckets: [u64; BOUNDS.len()],
    calls: u64,
    milliseconds: u64,
}

impl Metrics {
    fn change(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.numbers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds to a counter.
    pub(super) fn add(&self, family: &'static str, labels: &[(&str, &str)], count: u64) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let key = (family, labels.join(","));
        self.change(|numbers| {
            if numbers.counters.len() < MOST_SERIES || numbers.counters.contains_key(&key) {
                let counter = numbers.counters.entry(key).or_default();
                *counter = counter.saturating_add(count);
            }
        });
    }

    /// Records the time until an answer began.
    pub(super) fn observe_time(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.change(|numbers| {
            for (bucket, bound) in numbers.buckets.iter_mut().zip(BOUNDS) {
                if milliseconds <= bound {
                    *bucket = bucket.saturating_add(1);
                }
            }
            numbers.calls = numbers.calls.saturating_add(1);
            numbers.milliseconds = numbers.milliseconds.saturating_add(milliseconds);
        });
    }

    /// Records a step of a purchase.
    pub(super) fn observe(&self, event: &Event<'_>) {
        self.add("bursar_events_total", &[("event", event.name())], 1);
        if let Some(rule) = event.kind.rule() {
            self.add("bursar_denied_total", &[("rule", rule.name())], 1);
        }
        if event.kind == EventKind::Settled
            && let Some(usd) = event.amount.and_then(bursar::TokenAmount::dollars)
        {
            self.add("bursar_settled_usd_total", &[], usd.micros());
            let labels = [("agent", event.agent.unwrap_or_default())];
            self.add("bursar_agent_settled_usd_total", &labels, usd.micros());
        }
    }

    /// Writes all numbers in the text format of Prometheus.
    pub(super) fn text(&self, in_flight: usize, limits: &[LimitStatus]) -> String {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (family, help) in FAMILIES {
            head(&mut text, family, "counter", help);
            let series = numbers.counters.iter();
            let series = series.filter(|((name, _), _)| *name == family);
            for ((_, labels), count) in series {
                let count = if family.ends_with("_usd_total") {
                    decimal(*count, 6)
                } else {
                    count.to_string()
                };
                line(&mut text, family, labels, &count);
            }
        }
        let family = "bursar_proxy_call_seconds";
        head(
            &mut text,
            family,
            "histogram",
            "Time until an answer began.",
        );
        let bucket = format!("{family}_bucket");
        for (bound, count) in BOUNDS.iter().zip(numbers.buckets) {
            let labels = format!("le=\"{}\"", decimal(*bound, 3));
            line(&mut text, &bucket, &labels, &count.to_string());
        }
        let calls = numbers.calls.to_string();
        line(&mut text, &bucket, "le=\"+Inf\"", &calls);
        line(
            &mut text,
            &format!("{family}_sum"),
            "",
            &decimal(numbers.milliseconds, 3),
        );
        line(&mut text, &format!("{family}_count"), "", &calls);
        let family = "bursar_proxy_calls_in_flight";
        head(&mut text, family, "gauge", "Calls that run now.");
        line(&mut text, family, "", &in_flight.to_string());
        for (family, help, read) in [
            (
                "bursar_limit",
                "The limits of the policy, in dollars or payments.",
                (|status| status.limit.as_ref()) as fn(&LimitStatus) -> Option<&Quantity>,
            ),
            (
                "bursar_limit_used",
                "The used part of each limit, in dollars or payments.",
                |status| status.used.as_ref(),
            ),
        ] {
            head(&mut text, family, "gauge", help);
            for status in limits {
                if let Some((value, unit)) = read(status).and_then(number) {
                    let labels = format!("limit=\"{}\",unit=\"{unit}\"", escaped(&status.name));
                    line(&mut text, family, &labels, &value);
                }
            }
        }
        text
    }
}

fn head(text: &mut String, family: &str, kind: &str, help: &str) {
    text.push_str(&format!("# HELP {family} {help}\n# TYPE {family} {kind}\n"));
}

fn line(text: &mut String, name: &str, labels: &str, value: &str) {
    let labels = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    text.push_str(&format!("{name}{labels} {value}\n"));
}

/// Returns an amount as a number and its unit. An amount of a token without a dollar value has none.
fn number(quantity: &Quantity) -> Option<(String, &'static str)> {
    match quantity {
        Quantity::Amount(Amount::Usd(usd)) => Some((decimal(Usd::micros(*usd), 6), "usd")),
        Quantity::Payments(count) => Some((count.to_string(), "payments")),
        _ => None,
    }
}

/// Returns a whole number of parts as a decimal number.
fn decimal(parts: u64, digits: usize) -> String {
    let text = format!("{parts:0>width$}", width = digits.saturating_add(1));
    let (whole, fraction) = text.split_at(text.len().saturating_sub(digits));
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.add("bursar_denied_total", &[("rule", "a\"b\\c\nd")], 2);
        metrics.add("bursar_settled_usd_total", &[], 1_020_000);
        metrics.observe_time(Duration::from_millis(100));
        metrics.observe_time(Duration::from_millis(1500));
        let text = metrics.text(3, &[]);
        for line in [
            "bursar_denied_total{rule=\"a\\\"b\\\\c\\nd\"} 2",
            "bursar_settled_usd_total 1.02",
            "bursar_proxy_call_seconds_bucket{le=\"0.1\"} 1",
            "bursar_proxy_call_seconds_bucket{le=\"2.5\"} 2",
            "bursar_proxy_call_seconds_bucket{le=\"+Inf\"} 2",
            "bursar_proxy_call_seconds_sum 1.6",
            "bursar_proxy_calls_in_flight 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(decimal(5, 6), "0.000005");
    }
}
