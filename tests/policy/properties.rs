//! Properties that hold for every sequence of payments.

use std::collections::BTreeSet;
use std::time::Duration;

use bursar::policy::Amount;
use bursar::secrecy::ExposeSecret;
use bursar::{Usd, usd};
use bursar_tests::clock::{HOUR, MINUTE};
use bursar_tests::test_offer::{Accept, TestOffer, offer};
use bursar_tests::tokens::{payee, usdc};
use bursar_tests::wallet_harness::{WalletHarness, settle};
use proptest::prelude::*;

use crate::bare;

fn cents(micros: std::ops::Range<u64>) -> impl Strategy<Value = u64> {
    // Around the limits, and far from them.
    prop_oneof![4 => micros, 1 => Just(0_u64), 1 => any::<u64>()]
}

fn offers() -> impl Strategy<Value = Vec<(u64, bool)>> {
    prop::collection::vec((cents(1..200_000), any::<bool>()), 1..8)
}

fn of_offers(offers: &[(u64, bool)]) -> TestOffer {
    let mut many = offer("1");
    many.accepts = offers
        .iter()
        .zip(0_u8..)
        .map(|(&(units, on_base), index)| {
            let network = if on_base { "base" } else { "polygon" };
            let offer = Accept::new(usdc(network), "1");
            Accept {
                units: units.try_into().unwrap(),
                payee: payee(0x20 + index),
                ..offer
            }
        })
        .collect();
    many
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_signed_is_within_every_limit_and_in_the_books(
        offers in offers(),
        global in 1_u64..200_000,
        host in 1_u64..200_000,
        polygon in 1_u64..200_000,
    ) {
        let usd = Usd::from_micros;
        let policy = bare()
            .allow_network("polygon")
            .per_payment(usd(global))
            .host_limits("*.example.com", |limits| limits.per_payment(usd(host)))
            .network_limits("polygon", |limits| limits.per_payment(usd(polygon)));
        let wallet = WalletHarness::new(policy);
        let allowed = |&(units, on_base): &(u64, bool)| {
            units > 0 && units <= global.min(host) && (on_base || units <= polygon)
        };
        let cheapest = offers.iter().filter(|offer| allowed(offer)).map(|offer| offer.0).min();
        run(async {
            match (wallet.authorize(&of_offers(&offers)).await, cheapest) {
                (Ok(payment), Some(cheapest)) => {
                    let purchases = wallet.purchases().await;
                    let json: serde_json::Value =
                        serde_json::from_str(payment.json().unwrap().expose_secret()).unwrap();
                    let signed = &json["payload"]["authorization"];
                    let purchase = &purchases[0];
                    prop_assert_eq!(signed["value"].as_str().unwrap(), cheapest.to_string());
                    prop_assert_eq!(purchase.value.to_string(), cheapest.to_string());
                    prop_assert_eq!(payment.payment().amount.units(), purchase.value);
                    prop_assert_eq!(signed["to"].as_str().unwrap().parse(), Ok(purchase.payee));
                    prop_assert_eq!(signed["nonce"].as_str().unwrap().parse(), Ok(purchase.nonce));
                    prop_assert_eq!(json["accepted"]["network"].as_str().unwrap(), purchase.network.to_string());
                    prop_assert_eq!((purchases.len(), wallet.signatures()), (1, 1));
                }
                (Err(error), None) => {
                    prop_assert!(error.is_denied(), "{error}");
                    prop_assert_eq!((wallet.purchases().await.len(), wallet.signatures()), (0, 0));
                }
                (outcome, cheapest) => prop_assert!(false, "{outcome:?} where {cheapest:?} was to be paid"),
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_window_ever_holds_more_than_its_limit(
        steps in prop::collection::vec((1_u64..60_000, 0_u64..1500, any::<bool>(), 0_u8..3), 1..40),
    ) {
        let policy = bare()
            .rolling(HOUR, usd!("0.10"))
            .each_origin(|origin| origin.rolling(HOUR, usd!("0.06")))
            .exposure(usd!("0.05"))
            .payments(10 * MINUTE, 3);
        let wallet = WalletHarness::new(policy);
        run(async {
            for (units, seconds, settles, seller) in steps {
                let mut next = offer("1").url(&format!("https://s{seller}.example"));
                next.accepts[0].units = units.try_into().unwrap();
                if let Ok(payment) = wallet.authorize(&next).await {
                    payment.lost("who knows").await;
                    if settles {
                        settle(&payment).await;
                    }
                }
                let (now, purchases) = (wallet.now(), wallet.purchases().await);
                let sum = |passes: &dyn Fn(&bursar::Purchase) -> bool| -> u64 {
                    purchases.iter().filter(|purchase| passes(purchase)).map(|purchase| purchase.usd.unwrap().micros()).sum()
                };
                prop_assert!(sum(&|purchase| purchase.counts_at > now.before(HOUR)) <= 100_000);
                prop_assert!(sum(&|purchase| purchase.is_outstanding(now)) <= 50_000);
                let origins: BTreeSet<_> = purchases.iter().map(|purchase| &purchase.origin).collect();
                for origin in origins {
                    prop_assert!(sum(&|purchase| purchase.origin == *origin && purchase.counts_at > now.before(HOUR)) <= 60_000);
                }
                let recent = purchases.iter().filter(|purchase| purchase.reserved_at > now.before(10 * MINUTE)).count();
                prop_assert!(recent <= 3, "{recent} payments in ten minutes");
                wallet.advance(Duration::from_secs(seconds));
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_denial_is_true_and_room_returns_when_it_says(
        steps in prop::collection::vec((1_u64..50_000, 0_u64..900, any::<bool>()), 1..30),
    ) {
        let wallet = WalletHarness::new(bare().rolling(HOUR, usd!("0.10")));
        run(async {
            for (units, seconds, settles) in steps {
                let mut next = offer("1");
                next.accepts[0].units = units.try_into().unwrap();
                match wallet.authorize(&next).await {
                    Ok(payment) if settles => settle(&payment).await,
                    Ok(_) => {}
                    Err(error) => {
                        let denial = error.denial().unwrap();
                        let amount = |value: &Option<bursar::policy::Quantity>| match value {
                            Some(bursar::policy::Quantity::Amount(Amount::Usd(usd))) => usd.micros(),
                            other => panic!("{other:?}"),
                        };
                        prop_assert_eq!(amount(&denial.asked), units);
                        prop_assert!(amount(&denial.used) + units > amount(&denial.limit));
                        let room = denial.room_returns.unwrap();
                        prop_assert!(room > wallet.now());
                        wallet.set_clock(room.before(Duration::from_millis(1)));
                        wallet.deny(&next).await;
                        wallet.set_clock(room);
                        wallet.hold(&next).await;
                    }
                }
                wallet.advance(Duration::from_secs(seconds));
            }
            Ok(())
        })?;
    }
}
