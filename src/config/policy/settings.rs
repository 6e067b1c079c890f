//! The settings of a scope that are not limits.

use super::super::reader::Value;
use super::super::scalar::{ForeignResource, Payee, Percent, Wei};
use super::super::schema;
use super::{Builder, content, contents, place, tables};
use crate::policy::{HostRules, PolicyError, SHORTEST_VALIDITY};

impl Builder<'_> {
    pub(super) fn refuse_settings(&self, title: &str, scope: &schema::Scope) {
        let settings = [
            ("payee", scope.payee.first().map(|payee| payee.at)),
            ("max_validity", place(scope.max_validity.as_ref())),
            ("max_price_rise", place(scope.max_price_rise.as_ref())),
            ("foreign_resource", place(scope.foreign_resource.as_ref())),
            (
                "loop_guard",
                scope.loop_guard.as_ref().map(|table| table.at),
            ),
            (
                "circuit_breaker",
                scope.circuit_breaker.as_ref().map(|table| table.at),
            ),
            ("remember_terms", place(scope.remember_terms.as_ref())),
            ("sign_in", place(scope.sign_in.as_ref())),
            ("schemes", scope.schemes.first().map(|one| one.at)),
            (
                "transfer_methods",
                scope.transfer_methods.first().map(|one| one.at),
            ),
            ("gas_sponsoring", place(scope.gas_sponsoring.as_ref())),
            (
                "sponsored_transactions",
                place(scope.sponsored_transactions.as_ref()),
            ),
            (
                "require_signed_offers",
                place(scope.require_signed_offers.as_ref()),
            ),
        ];
        for (key, at) in settings {
            if let Some(at) = at {
                let message = format!(
                    "`{key}` is a setting of [global], [[host]] and [[origin]]; {title} takes limits only"
                );
                self.mistakes.add(at, message);
            }
        }
    }

    pub(super) fn rules(&self, scope: &schema::Scope) -> HostRules {
        let mut rules = self.payees(HostRules::new(self.limits(scope)), &scope.payee);
        if let Some(validity) = &scope.max_validity
            && let Some(ceiling) = validity.content
        {
            if ceiling < SHORTEST_VALIDITY {
                let error = PolicyError::Validity;
                self.mistakes
                    .add(validity.at, format!("`max_validity`: {error}"));
            }
            rules = rules.max_validity(ceiling);
        }
        if let Some(Percent(percent)) = content(scope.max_price_rise.as_ref()) {
            rules = rules.max_price_rise(*percent);
        }
        rules = match content(scope.foreign_resource.as_ref()) {
            Some(ForeignResource::Record) => rules.record_foreign_resource(),
            Some(ForeignResource::Refuse) => rules.refuse_foreign_resource(),
            None => rules,
        };
        for (_, guard) in tables(&scope.loop_guard) {
            if let (Some(window), Some(max)) = (guard.window.content, guard.max.content) {
                rules = rules.loop_guard(window, max);
            }
        }
        for (_, breaker) in tables(&scope.circuit_breaker) {
            let read = (breaker.window.content, breaker.failures.content);
            if let (Some(window), Some(failures)) = read {
                rules = rules.circuit_breaker(window, failures);
            }
        }
        if let Some(lifetime) = content(scope.remember_terms.as_ref()) {
            rules = rules.remember_terms(*lifetime);
        }
        if let Some(sign_in) = content(scope.sign_in.as_ref()) {
            rules = rules.sign_in(*sign_in);
        }
        if !scope.schemes.is_empty() {
            rules = rules.schemes(contents(&scope.schemes).map(|(_, scheme)| *scheme));
        }
        if !scope.transfer_methods.is_empty() {
            let methods = contents(&scope.transfer_methods).map(|(_, method)| *method);
            rules = rules.transfer_methods(methods);
        }
        if let Some(allowed) = content(scope.gas_sponsoring.as_ref()) {
            rules = rules.gas_sponsoring(*allowed);
        }
        if let Some(Wei(cost)) = content(scope.sponsored_transactions.as_ref()) {
            rules = rules.sponsored_transactions(*cost);
        }
        rules = match content(scope.require_signed_offers.as_ref()) {
            Some(true) => rules.require_signed_offers(),
            Some(false) => rules.accept_unsigned_offers(),
            None => rules,
        };
        rules
    }

    fn payees(&self, rules: HostRules, payees: &[Value<Payee>]) -> HostRules {
        let mut listed = Vec::new();
        for (at, payee) in contents(payees) {
            match payee {
                Payee::Only(payee) => listed.push(*payee),
                Payee::Free if payees.len() == 1 => return rules.payee_free(),
                Payee::Pinned if payees.len() == 1 => return rules.payee_pinned(),
                Payee::Free | Payee::Pinned => self.mistakes.add(
                    at,
                    "`payee`: \"free\" and \"pinned\" cannot be in an array with other payees",
                ),
            }
        }
        if payees.is_empty() {
            rules
        } else {
            rules.payees(listed)
        }
    }
}
