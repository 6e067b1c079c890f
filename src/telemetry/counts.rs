//! An observer that counts events.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Event, EventKind, Observer};
use crate::money::{TokenAmount, Usd};
use crate::policy::{LimitStatus, Rule};

/// An observer that counts events and, by rule, denials.
///
/// Clones share their counts. The counts are lost when the process ends. The ledger also counts denials, for all
/// processes; see [`Ledger::denials`](crate::Ledger::denials).
///
/// ```
/// use bursar::telemetry::Counts;
///
/// let counts = Counts::new();
/// let builder = bursar::Client::builder().observer(counts.clone());
/// assert_eq!(counts.of("denied"), 0);
/// for (rule, count) in counts.denials() {
///     println!("{} refused {count} payments", rule.name());
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    events: HashMap<EventKind, u64>,
    /// The dollars of settled payments, and of calls with an API key at their declared cost, in micro-dollars.
    settled: u64,
    called: u64,
    /// The times from the signature to the outcome.
    settling: Duration,
}

impl Counts {
    /// Creates an observer with all counts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of events with this name, such as `settled`.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        let counts = self.counted();
        counts
            .events
            .iter()
            .filter(|(kind, _)| kind.name() == name)
            .map(|(_, count)| *count)
            .sum()
    }

    /// Returns the number of denials of each rule, sorted by the rule's name.
    #[must_use]
    pub fn denials(&self) -> Vec<(Rule, u64)> {
        let counts = self.counted();
        let mut denials: Vec<(Rule, u64)> = counts
            .events
            .iter()
            .filter_map(|(kind, count)| Some((kind.rule()?, *count)))
            .collect();
        denials.sort_by_key(|(rule, _)| rule.name());
        denials
    }

    /// Returns the counts as a page for Prometheus, in its text format. `limits` are the limits that the page shows, from
    /// [`Client::budget`](crate::Client::budget); they can be empty.
    ///
    /// The metrics are counters, and begin at zero with the process. Their names are stable. The
    /// [guide](crate::guide::chapter_14_operating) lists them with queries for Grafana.
    ///
    /// | Metric | Type | Labels | Meaning |
    /// |---|---|---|---|
    /// | `bursar_events_total` | counter | `event` | the events of this name |
    /// | `bursar_denials_total` | counter | `rule` | the payments that this rule refused |
    /// | `bursar_settled_usd_total` | counter | | the dollars of settled payments; of `upto` the ceilings |
    /// | `bursar_api_calls_usd_total` | counter | | the declared cost of calls with an API key, refused ones included |
    /// | `bursar_settling_seconds` | summary | | the time from the signature to the receipt: sum and count |
    /// | `bursar_limit_used_ratio` | gauge | `limit`, `rule` | the used share of a limit, from 0 to 1 |
    ///
    /// ```
    /// use bursar::telemetry::Counts;
    ///
    /// let page = Counts::new().prometheus(&[]);
    /// assert!(page.contains("bursar_events_total{event=\"settled\"} 0"));
    /// ```
    #[must_use]
    pub fn prometheus(&self, limits: &[LimitStatus]) -> String {
        let counted = self.counted();
        let mut page = Page::default();
        page.head("bursar_events_total", "counter", "Steps of purchases.");
        for name in EventKind::NAMES {
            let of_name = counted
                .events
                .iter()
                .filter(|(kind, _)| kind.name() == name);
            let count = of_name.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
            page.line("bursar_events_total", &[("event", name)], count);
        }
        page.head(
            "bursar_denials_total",
            "counter",
            "Payments that a rule refused.",
        );
        let denials = counted.events.iter();
        let mut denials: Vec<(&str, u64)> = denials
            .filter_map(|(kind, count)| Some((kind.rule()?.name(), *count)))
            .collect();
        denials.sort_unstable();
        for (rule, count) in denials {
            page.line("bursar_denials_total", &[("rule", rule)], count);
        }
        let settled = Usd::from_micros(counted.settled);
        page.head(
            "bursar_settled_usd_total",
            "counter",
            "Dollars of settled payments.",
        );
        page.line("bursar_settled_usd_total", &[], settled);
        let called = Usd::from_micros(counted.called);
        page.head(
            "bursar_api_calls_usd_total",
            "counter",
            "Declared cost of calls with an API key.",
        );
        page.line("bursar_api_calls_usd_total", &[], called);
        let count = counted
            .events
            .get(&EventKind::Settled)
            .copied()
            .unwrap_or(0);
        let seconds = counted.settling;
        page.head(
            "bursar_settling_seconds",
            "summary",
            "Time from the signature to the receipt.",
        );
        let sum = format_args!("{}.{:03}", seconds.as_secs(), seconds.subsec_millis());
        page.line("bursar_settling_seconds_sum", &[], sum);
        page.line("bursar_settling_seconds_count", &[], count);
        page.head("bursar_limit_used_ratio", "gauge", "Used share of a limit.");
        for limit in limits {
            if let Some(used) = limit.used_per_mille() {
                let labels = [("limit", limit.name.as_str()), ("rule", limit.rule.name())];
                let ratio = Usd::from_micros(u64::from(used).saturating_mul(1000));
                page.line("bursar_limit_used_ratio", &labels, ratio);
            }
        }
        page.0
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Counts {
    fn observe(&self, event: &Event<'_>) {
        let mut counted = self.counted();
        let count = counted.events.entry(event.kind).or_default();
        *count = count.saturating_add(1);
        let dollars = event.amount.and_then(TokenAmount::dollars);
        let micros = dollars.map_or(0, Usd::micros);
        match event.kind {
            EventKind::Settled => {
                counted.settled = counted.settled.saturating_add(micros);
                let elapsed = event.elapsed.unwrap_or_default();
                counted.settling = counted.settling.saturating_add(elapsed);
            }
            EventKind::ApiCall => counted.called = counted.called.saturating_add(micros),
            _ => {}
        }
    }
}

/// A page in the text format of Prometheus.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let escaped = |text: &str| {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            text.replace('\n', "\\n")
        };
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        self.0.push_str(&format!("{name}{labels} {value}\n"));
    }
}
