//! Policy files: what each key does, and where a mistake stands.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::future::pending;

use bursar::approval::{Verdict, approve_fn};
use bursar::config::{Config, ConfigError};
use bursar::credential::{CallPlan, Preference};
use bursar::policy::{AskingPrice, PolicyError, Rule};
use bursar::{Address, Policy, TokenAmount, Usd, usd};
use bursar_tests::clock::at;
use bursar_tests::imagined_payment::ImaginedPayment;
use bursar_tests::test_offer::{TestOffer, offer, offer_in};
use bursar_tests::tokens::{euro, payee, usdc};
use bursar_tests::wallet_harness::{WalletHarness, settle};

const SAMPLE: &str = include_str!("../examples/policy.toml");

/// A policy for Base with this text, without the default limits and without the need for others.
fn bare(text: &str) -> Policy {
    policy(&format!(
        "version = 1\nnetworks = [\"base\"]\nunlimited = true\n{text}"
    ))
}

fn policy(text: &str) -> Policy {
    Policy::from_toml(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A payment of a cent that every scope of these tests matches.
fn payment() -> ImaginedPayment {
    at_url("https://api.example.com:8443/report")
        .payee(payee(0x11))
        .tag("research")
        .agent("scout")
}

/// One that none matches but `[global]`.
fn other() -> ImaginedPayment {
    at_url("https://elsewhere.net")
        .network("polygon".parse().unwrap())
        .payee(payee(0x22))
}

fn at_url(url: &str) -> ImaginedPayment {
    ImaginedPayment::new(url, usd!("0.01"))
}

/// The brakes that hold whatever the limits are.
const BRAKES: [&str; 2] = [
    "origin https://api.example.com:8443 failures per 10m: 3 payments",
    "same request repeats per 1m: 30 payments",
];

/// Returns the limits that apply to a payment, without the default brakes, and the rest of each.
fn limits(policy: &Policy, payment: &ImaginedPayment) -> Vec<String> {
    let mut limits = all_limits(policy, payment);
    limits.retain(|line| {
        let brake = line.ends_with("failures per 10m: 3 payments") || line == BRAKES[1];
        !brake && !line.starts_with("unlimited")
    });
    limits
}

/// Returns the limits that apply to a payment, and the rest of each.
fn all_limits(policy: &Policy, payment: &ImaginedPayment) -> Vec<String> {
    let said = payment.explain(policy, at("2025-03-10T12:00:00Z")).unwrap();
    let left = said
        .answers
        .into_iter()
        .filter_map(|answer| Some(format!("{}: {}", answer.name, answer.detail?)));
    left.map(|line| line.split(" of ").next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_limit_can_stand_in_every_scope() {
    let keys = r#"
        per_payment = "1 USD"
        rolling = [{ window = "90s", max = "2 USD" }, { window = "7d", max = "$2.50" }]
        calendar = { period = "month", zone = "Europe/Berlin", max = "3 USD" }
        lifetime = ["4 USD"]
        exposure = "5 USD"
        payments = { window = "1h", max = 6 }
        ask_above = "0.005 USD"
    "#;
    let eleven = "0x1111111111111111111111111111111111111111";
    for (table, matched, scope) in [
        ("[global]", "", "global"),
        ("[each.origin]", "", "origin https://api.example.com:8443"),
        ("[each.domain]", "", "domain example.com"),
        (
            "[each.payee]",
            "",
            "payee 0x1111111111111111111111111111111111111111",
        ),
        (
            "[each.asset]",
            "",
            "asset 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913 on eip155:8453",
        ),
        ("[each.network]", "", "network eip155:8453"),
        ("[each.tag]", "", "tag research"),
        ("[each.agent]", "", "agent scout"),
        (
            "[[origin]]",
            "https://API.example.com.:8443/",
            "origin https://api.example.com:8443",
        ),
        ("[[host]]", "api.example.com", "host api.example.com"),
        ("[[host]]", "*.Example.com", "host *.example.com"),
        (
            "[[resource]]",
            "https://api.example.com:8443/report",
            "resource https://api.example.com:8443/report",
        ),
        ("[[domain]]", "example.com", "domain example.com"),
        (
            "[[payee]]",
            eleven,
            "payee 0x1111111111111111111111111111111111111111",
        ),
        (
            "[[asset]]",
            "usdc@base",
            "asset 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913 on eip155:8453",
        ),
        (
            "[[asset]]",
            "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913@eip155:8453",
            "asset 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913 on eip155:8453",
        ),
        ("[[network]]", "base", "network eip155:8453"),
        ("[[tag]]", "research", "tag research"),
        ("[[agent]]", "scout", "agent scout"),
    ] {
        let matched = if matched.is_empty() {
            String::new()
        } else {
            format!("match = \"{matched}\"")
        };
        let policy = bare(&format!("{table}\n{matched}\n{keys}"));
        assert_eq!(
            limits(&policy, &payment()),
            [
                format!("{scope} per payment: 1.00 USD"),
                format!("{scope} rolling 90s: 2.00 USD"),
                format!("{scope} rolling 7d: 2.50 USD"),
                format!("{scope} calendar month (Europe/Berlin): 3.00 USD"),
                format!("{scope} lifetime: 4.00 USD"),
                format!("{scope} exposure: 5.00 USD"),
                format!("{scope} payments per 1h: 6 payments"),
            ],
            "{table}"
        );
        let said = payment()
            .explain(&policy, at("2025-03-10T12:00:00Z"))
            .unwrap();
        assert_eq!(said.ask, Some(format!("above 0.005 USD ({scope})")));
        let elsewhere = limits(&policy, &other());
        assert!(
            table == "[global]"
                || elsewhere
                    .iter()
                    .all(|limit| !limit.starts_with(&format!("{scope} "))),
            "{table}"
        );
        assert!(
            !table.starts_with("[[") || elsewhere.is_empty(),
            "{table}: {elsewhere:?}"
        );
    }
}

#[test]
fn calendars_have_four_periods() {
    let text = ["day", "week", "month", "year"]
        .map(|period| format!("{{ period = \"{period}\", zone = \"UTC\", max = \"1 USD\" }}"))
        .join(", ");
    let policy = bare(&format!("global.calendar = [{text}]"));
    let named = ["day", "week", "month", "year"]
        .map(|period| format!("global calendar {period} (UTC): 1.00 USD"));
    assert_eq!(limits(&policy, &payment()), named);
}

#[test]
fn defaults_stand_unless_replaced_or_dropped() {
    let defaults = [
        "global per payment: 0.10 USD",
        "global rolling 1d: 5.00 USD",
        "global exposure: 1.00 USD",
    ];
    let file = |text: &str| {
        all_limits(
            &policy(&format!("version = 1\nnetworks = [\"base\"]\n{text}")),
            &payment(),
        )
    };
    assert_eq!(file("")[..3], defaults);
    assert_eq!(file("default_limits = true")[..3], defaults);
    assert_eq!(file("default_limits = false"), BRAKES);
    assert_eq!(file("unlimited = true")[1..], BRAKES);
    let replaced = file("global.per_payment = \"0.01 USD\"");
    assert!(replaced.contains(&"global per payment: 0.01 USD".to_owned()));
    assert!(!replaced.contains(&"global per payment: 0.10 USD".to_owned()));
    assert_eq!(replaced.len(), 6);
}

#[tokio::test]
async fn networks_are_named_and_kept_apart() {
    let text = "version = 1\nnetworks = [\"base\", \"eip155:137\"]";
    let wallet = WalletHarness::new(policy(text));
    wallet.buy(&offer("0.01")).await;
    wallet.buy(&offer_in(usdc("polygon"), "0.01")).await;
    assert_eq!(
        wallet.deny(&offer_in(usdc("arbitrum"), "0.01")).await.rule,
        Rule::Network
    );

    let mixed = "networks = [\"base\", \"base-sepolia\"]\nmix_testnets = true";
    let wallet = WalletHarness::new(policy(&format!("version = 1\n{mixed}")));
    wallet.buy(&offer_in(usdc("base-sepolia"), "0.01")).await;

    // A file may leave the networks to the code.
    let unnamed = policy("version = 1");
    assert_eq!(unnamed.check(), Err(PolicyError::NoNetwork));
    WalletHarness::new(unnamed.allow_network("base"))
        .buy(&offer("0.01"))
        .await;
}

#[tokio::test]
async fn tokens_can_be_added_and_limited_in_their_units() {
    let token = r#"
        [[token]]
        network = "base"
        address = "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42"
        symbol = "EURC"
        decimals = 6
        name = "EURC"
        version = "2"
    "#;
    let limits = r#"
        [global]
        per_payment = ["1 USD", "0.5 EURC@base"]
        rolling = { window = "24h", max = "2 0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42@eip155:8453" }
    "#;
    let wallet = WalletHarness::new(bare(&format!("{limits}{token}")));
    let denial = wallet.deny(&offer_in(euro(), "0.51")).await;
    assert_eq!(
        (denial.rule, denial.limit.unwrap().to_string()),
        (Rule::PerPayment, "0.5 EURC".to_owned())
    );
    for _ in 0..4 {
        wallet.buy(&offer_in(euro(), "0.5")).await;
    }
    let denial = wallet.deny(&offer_in(euro(), "0.000001")).await;
    assert_eq!(
        (denial.rule, denial.limit.unwrap().to_string()),
        (Rule::Rolling, "2 EURC".to_owned())
    );
    wallet.buy(&offer("1")).await;

    let pegged = WalletHarness::new(bare(&format!(
        "{token}\npeg = \"USD\"\n[global]\nper_payment = \"0.10 USD\""
    )));
    pegged.buy(&offer_in(euro(), "0.10")).await;
    assert_eq!(
        pegged
            .deny(&offer_in(euro(), "0.11"))
            .await
            .limit
            .unwrap()
            .to_string(),
        "0.10 USD"
    );
}

/// What happens to each offer: paid, or refused by a rule.
async fn outcomes<const N: usize>(text: &str, sales: [TestOffer; N]) -> [Option<Rule>; N] {
    let wallet = WalletHarness::new(bare(text));
    let mut outcomes = [None; N];
    for (offer, outcome) in sales.iter().zip(&mut outcomes) {
        match wallet.authorize(offer).await {
            Ok(payment) => settle(&payment).await,
            Err(error) => *outcome = Some(error.denial().unwrap().rule),
        }
    }
    outcomes
}

#[tokio::test]
async fn lists_allow_and_deny() {
    let from = |url: &str| offer("0.01").url(url);
    let to = |byte: u8| offer("0.01").payee(payee(byte));
    let allowed = outcomes(
        "allow.hosts = [\"*.example.com\", \"b.example\"]",
        [
            from("https://a.example.com"),
            from("https://b.example"),
            from("https://c.example"),
        ],
    );
    assert_eq!(allowed.await, [None, None, Some(Rule::Host)]);
    let denied = outcomes(
        "deny.hosts = \"*.example.com\"",
        [from("https://a.example.com"), from("https://b.example")],
    );
    assert_eq!(denied.await, [Some(Rule::Host), None]);

    let one = "0x0101010101010101010101010101010101010101";
    assert_eq!(
        outcomes(&format!("allow.payees = [\"{one}\"]"), [to(1), to(2)]).await,
        [None, Some(Rule::Payee)]
    );
    assert_eq!(
        outcomes(&format!("deny.payees = [\"{one}\"]"), [to(1), to(2)]).await,
        [Some(Rule::Payee), None]
    );

    let polygon = || offer_in(usdc("polygon"), "0.01");
    let allowed = policy(
        "version = 1\nnetworks = [\"base\", \"polygon\"]\nallow.assets = [\"USDC@polygon\"]",
    );
    assert_eq!(
        WalletHarness::new(allowed.clone())
            .deny(&offer("0.01"))
            .await
            .rule,
        Rule::Asset
    );
    WalletHarness::new(allowed).buy(&polygon()).await;
    assert_eq!(
        outcomes("deny.assets = [\"USDC@base\"]", [offer("0.01")]).await,
        [Some(Rule::Asset)]
    );
    let denied =
        policy("version = 1\nnetworks = [\"base\", \"polygon\"]\ndeny.networks = [\"polygon\"]");
    assert_eq!(
        WalletHarness::new(denied.clone())
            .deny(&polygon())
            .await
            .rule,
        Rule::Network
    );
    WalletHarness::new(denied).buy(&offer("0.01")).await;
}

#[tokio::test]
async fn payees_are_free_pinned_or_listed() {
    let to = |byte: u8| offer("0.01").payee(payee(byte));
    let all = || [to(1), to(2), to(1)];
    let changed = Some(Rule::PayeeChanged);
    assert_eq!(outcomes("", all()).await, [None, None, None]);
    assert_eq!(
        outcomes("global.payee = \"pinned\"", all()).await,
        [None, changed, None]
    );
    let here = "[[host]]\nmatch = \"api.example.com\"\npayee";
    assert_eq!(
        outcomes(
            &format!("global.payee = \"pinned\"\n{here} = \"free\""),
            all()
        )
        .await,
        [None, None, None]
    );
    let listed = format!("{here} = [\"{}\", \"{}\"]", payee(2), payee(3));
    assert_eq!(
        outcomes(&listed, all()).await,
        [Some(Rule::Payee), None, Some(Rule::Payee)]
    );
    let listed = format!(
        "[[origin]]\nmatch = \"https://api.example.com\"\npayee = \"{}\"",
        payee(1)
    );
    assert_eq!(
        outcomes(&listed, all()).await,
        [None, Some(Rule::Payee), None]
    );
}

#[tokio::test]
async fn prices_resources_and_validity() {
    let prices = || [offer("0.10"), offer("0.12"), offer("0.15")];
    assert_eq!(outcomes("", prices()).await, [None, None, None]);
    assert_eq!(
        outcomes("global.max_price_rise = \"20%\"", prices()).await,
        [None, None, Some(Rule::PriceRise)]
    );

    let foreign = || [offer("0.01").resource("https://other.example", "")];
    assert_eq!(
        outcomes("global.foreign_resource = \"record\"", foreign()).await,
        [None]
    );
    let refuse = "global.foreign_resource = \"refuse\"";
    assert_eq!(
        outcomes(refuse, foreign()).await,
        [Some(Rule::ResourceOrigin)]
    );
    let record = "[[host]]\nmatch = \"*.example.com\"\nforeign_resource = \"record\"";
    assert_eq!(
        outcomes(&format!("{refuse}\n{record}"), foreign()).await,
        [None]
    );

    for (text, seconds) in [
        ("", 300),
        ("global.max_validity = \"6s\"", 6),
        ("global.max_validity = \"2m\"", 120),
        ("global.max_validity = \"7d\"", 604_800),
    ] {
        let wallet = WalletHarness::new(bare(text));
        let paid = wallet
            .hold(&offer("0.01").max_timeout_seconds(u64::from(u32::MAX)))
            .await;
        assert_eq!(paid.valid_before - wallet.now().secs(), seconds);
    }
}

#[tokio::test]
async fn approvals_and_queries() {
    let policy = bare("approval_timeout = \"1s\"\nglobal.ask_above = \"0.05 USD\"");
    let wallet = WalletHarness::with(policy.clone(), |builder| {
        builder.approver(approve_fn(|_| pending()))
    });
    let denial = wallet.deny(&offer("0.06")).await;
    assert_eq!(
        (denial.rule, denial.message.as_str()),
        (Rule::Approval, "not approved: no answer within 1s")
    );
    let wallet = WalletHarness::with(policy, |builder| {
        builder.approver(approve_fn(|_| async { Verdict::Approve }))
    });
    wallet.buy(&offer("0.06")).await;

    for (stored, path) in [(false, "/report"), (true, "/report?q=1")] {
        let wallet = WalletHarness::new(bare(&format!("store_queries = {stored}")));
        wallet
            .buy(&offer("0.01").url("https://api.example.com/report?q=1"))
            .await;
        assert_eq!(wallet.purchases().await[0].path, path);
    }
}

/// The keys that a table may have, as the message about an unknown key lists them.
fn keys_of(table: &str) -> Vec<String> {
    let error = Policy::from_toml(&format!("version = 1\n{table}\n\"no such key at all\" = 1"));
    let message = error.unwrap_err().to_string();
    let (_, keys) = message.split_once("its keys are ").unwrap();
    let keys = keys.lines().next().unwrap().split(", ");
    keys.map(|key| key.trim_matches('`').to_owned()).collect()
}

#[test]
fn the_example_has_every_key() {
    let named = |key: &str| {
        SAMPLE.lines().any(|line| {
            line.starts_with(&format!("{key} = "))
                || line.starts_with(&format!("[{key}]"))
                || line.starts_with(&format!("[[{key}]]"))
                || line.starts_with(&format!("[each.{key}]"))
                || line.contains(&format!("{{ {key} = "))
                || line.contains(&format!(", {key} = "))
        })
    };
    let tables = [
        "",
        "[freeze]",
        "[global]",
        "[global.rolling]",
        "[global.calendar]",
        "[global.payments]",
        "[global.loop_guard]",
        "[global.circuit_breaker]",
        "[each.origin]",
        "[allow]",
        "[deny]",
        "[[permit]]",
        "[[credential]]",
        "[credential.bearer]",
        "[credential.header]",
        "[credential.basic]",
        "[credential.query]",
        "[credential.plan]",
        "[credential.plan.tiers]",
        "[discovery]",
        "[[mcp_server]]",
        "[[token]]",
    ];
    for table in tables {
        for key in keys_of(table) {
            assert!(
                named(&key) || key == "each",
                "the example has no `{key}` ({table})"
            );
        }
    }
    assert_eq!(
        keys_of("[each]"),
        [
            "origin", "domain", "payee", "asset", "network", "tag", "agent"
        ]
    );
    for key in keys_of("[each]") {
        assert!(SAMPLE.contains(&format!("\n[each.{key}]\n")), "{key}");
        assert!(SAMPLE.contains(&format!("\n[[{key}]]\n")), "{key}");
    }
}

#[tokio::test]
async fn the_example_is_a_policy() {
    let policy = policy(SAMPLE);
    policy.check().unwrap();
    let payment = at_url("https://api.example.com:8443/v1/x")
        .payee(
            "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
                .parse::<Address>()
                .unwrap(),
        )
        .tag("research")
        .agent("scout");
    let said = payment
        .explain(&policy, at("2025-03-10T12:00:00Z"))
        .unwrap();
    assert_eq!(said.denial(), None);
    // Ten on everything, seven of [each], six of the tables that match, and the two brakes.
    assert_eq!(all_limits(&policy, &payment).len(), 25, "{said}");
    let wallet = WalletHarness::new(policy.clone());
    let euros = TokenAmount::parse("0.08", euro()).unwrap();
    let told = |payment: ImaginedPayment| {
        payment
            .payee(payee(0x11))
            .explain(&policy, wallet.now())
            .unwrap()
    };
    let paid = ImaginedPayment::new("https://a.example.com", euros).agent("operator");
    assert_eq!(told(paid).denial(), None);
    let rule = |payment: ImaginedPayment| told(payment).denial().unwrap().rule;
    assert_eq!(
        rule(at_url("https://api.example.com:8443/").agent("operator")),
        Rule::Payee
    );
    assert_eq!(
        rule(at_url("https://api.example.com:8443/").agent("scout")),
        Rule::Permission
    );
}

#[test]
fn the_example_has_keys_and_sources() {
    let config = Config::from_toml(SAMPLE).unwrap();
    assert!(!config.sources.is_empty());
    let keys = config.credentials;
    let key = |origin: &str| keys.find(&origin.parse().unwrap()).unwrap();
    assert_eq!(
        keys.names().collect::<BTreeSet<_>>(),
        BTreeSet::from(["archive", "example", "maps", "search"])
    );
    let (example, search) = (
        key("https://a.eu.example.com"),
        key("https://search.example.net"),
    );
    assert_eq!(
        (example.preference(), search.preference()),
        (Preference::Cheapest, Preference::KeyFirst)
    );
    let plan = CallPlan::per_call(usd!("0.002"))
        .monthly(usd!("10"))
        .included(1000)
        .from_call(10_001, usd!("0.001"));
    assert_eq!(*example.declared_plan(), plan);
}

#[test]
fn short_windows_have_keys_of_their_own() {
    let policy = bare(
        "[global]\nper_hour = \"1 USD\"\nper_day = [\"2 USD\", \"3 USD\"]\nper_month = \"$4\"",
    );
    assert_eq!(
        limits(&policy, &payment()),
        [
            "global rolling 1h: 1.00 USD",
            "global rolling 1d: 2.00 USD",
            "global rolling 1d: 3.00 USD",
            "global rolling 30d: 4.00 USD",
        ]
    );
}

#[test]
fn a_program_can_add_to_the_policy_of_a_file() {
    let policy = bare("global.per_payment = \"1 USD\"")
        .per_payment(Usd::from_micros(5))
        .tag_limits("research", |tag| tag.lifetime(usd!("2")));
    assert_eq!(
        limits(&policy, &payment()),
        [
            "global per payment: 1.00 USD",
            "global per payment: 0.000005 USD",
            "tag research lifetime: 2.00 USD"
        ]
    );
}

#[test]
fn files_are_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    let missing = Policy::from_file(&path).unwrap_err();
    assert!(
        matches!(&missing, ConfigError::Unreadable { path: named, .. } if *named == path),
        "{missing}"
    );
    std::fs::write(&path, SAMPLE).unwrap();
    Policy::from_file(&path).unwrap().check().unwrap();
    std::fs::write(&path, "version = 1\nnetworking = \"base\"\nglobl = {}").unwrap();
    let error = Config::from_file(&path).unwrap_err();
    let file = path.display();
    assert_eq!(
        error.to_string(),
        format!(
            "{file}: line 2, column 1: unknown key `networking` in the file; did you mean `networks`?\n\
             {file}: line 3, column 1: unknown key `globl` in the file; did you mean `global`?"
        )
    );
    let ConfigError::Invalid {
        path: named,
        mistakes,
    } = error
    else {
        panic!("the file can be read");
    };
    assert_eq!(named.as_deref(), Some(path.as_path()));
    assert_eq!((mistakes[1].line, mistakes[1].column), (3, 1));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(Policy::from_file(&path).is_err());
}

/// Asserts the mistakes of a text. Each `|` marks the place of one and is not part of the text.
fn assert_mistakes(marked: &str, messages: &[&str]) {
    let mut text = String::new();
    let mut places = Vec::new();
    for character in marked.chars() {
        if character == '|' {
            let line = text.matches('\n').count() + 1;
            let column = text.rsplit('\n').next().unwrap().chars().count() + 1;
            places.push((line, column));
        } else {
            text.push(character);
        }
    }
    assert_eq!(places.len(), messages.len(), "{marked}");
    let expected: Vec<String> = places
        .iter()
        .zip(messages)
        .map(|((line, column), message)| format!("line {line}, column {column}: {message}"))
        .collect();
    let error = Config::from_toml(&text).map(|_| ()).unwrap_err();
    let shown = error.to_string();
    let found: Vec<&str> = shown.split('\n').collect();
    assert_eq!(found, expected, "{marked}");
}

#[test]
fn every_mistake_of_a_file_is_reported_in_the_order_of_its_lines() {
    assert_mistakes(
        r#"version = 1
networks = ["base", |"bsae", |8453]
|mixtestnets = true
[global]
|per_pyment = "1 USD"
rolling = [{ window = |"1 day", max = |"0.10" }, |{ window = "1h" }, |"5 USD"]
max_validity = |"1s"
[[token]]
network = |"bas"
address = |"0x12"
symbol = |""
decimals = |300
name = "X"
version = "1"
[[host]]
match = |"not a host"
|pay_to = "pinned"
per_day = |"2 USD@base"
|[[credential]]
name = "x"
host = "a.example"
prefer = |"key first"
[discovery]
bazaar = |"x402.org"
"#,
        &[
            "`networks`: `bsae` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`; \
             did you mean `base`?",
            "`networks` must be a string, not an integer",
            "unknown key `mixtestnets` in the file; did you mean `mix_testnets`?",
            "unknown key `per_pyment` in [global]; did you mean `per_payment`?",
            "`window`: `1 day` is not a length of time; write one such as `90s`, `5m`, `24h` or `7d`",
            "`max`: `0.10` has no currency; write it like `0.10 USD` or `2.5 EURC@base`",
            "`rolling` needs a key `max`",
            "`rolling` must be a table, not a string",
            "`max_validity`: max_validity must be at least 6 s, the shortest that facilitators settle",
            "`network`: `bas` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`; \
             did you mean `base`?",
            "`address`: `0x12` is not an address, or its checksum is wrong",
            "`symbol`: the string is empty",
            "`decimals` must be a whole number such as 6",
            "`match`: `not a host` is not a host; expected a form like `api.example.com` or `*.example.com`, \
             without scheme or port",
            "unknown key `pay_to` in [[host]]; its keys are `match`, `per_payment`, `per_hour`, `per_day`, `per_month`, `rolling`, `calendar`, `lifetime`, `exposure`, `payments`, `ask_above`, `warn_at`, `payee`, `max_validity`, `max_price_rise`, `foreign_resource`, `loop_guard`, `circuit_breaker`, `remember_terms`, `sign_in`, `schemes`, `transfer_methods`, `gas_sponsoring`, `sponsored_transactions`, `require_signed_offers`",
            "`per_day`: no token of the registry is `USD@base`; did you mean `USDC@base`?",
            "[[credential]] needs one of `bearer`, `header`, `basic` and `query`",
            "`prefer`: `key first` is not \"key\", \"pay\", \"never pay\", \"never key\" or \"cheapest\"",
            "`bazaar`: relative URL without a base",
        ],
    );
}

#[test]
fn the_grammar_of_a_file_is_checked_first() {
    assert_mistakes(
        "version = |\nunknown = 1",
        &["string values must be quoted, expected literal string"],
    );
    assert_mistakes("version = 1\n[global]\n[|global]", &["duplicate key"]);
    assert_mistakes(
        "version = 1\nnetworks = [\"base\"]\n|networks = []",
        &["duplicate key"],
    );
}

#[test]
fn the_version_is_checked() {
    let version = "`version` must be 1, the only version that this bursar reads";
    assert_mistakes(
        "|networks = [\"base\"]",
        &["the file needs a key `version`"],
    );
    assert_mistakes("version = |2", &[version]);
    assert_mistakes("version = |0x1", &[version]);
    assert_mistakes("version = |\"1\"", &[&format!("{version}, not a string")]);
    assert_mistakes(
        "|versoin = 1",
        &["unknown key `versoin` in the file; did you mean `version`?"],
    );
}

/// Asserts the one mistake of each text.
fn assert_each(cases: &[(&str, &str)]) {
    for (text, message) in cases {
        assert_mistakes(&format!("version = 1\n{text}"), &[message]);
    }
}

#[test]
fn an_unknown_key_is_a_mistake_in_every_table() {
    assert_each(&[
        (
            "\n  |lifetime = \"1 USD\"",
            "unknown key `lifetime` in the file; its keys are `version`, `networks`, `mix_testnets`, \
             `default_limits`, `unlimited`, `approval_timeout`, `refusal_pause`, `warn_at`, `mcp_methods`, `store_queries`, `refunds_make_room`, `freeze`, `global`, \
             `each`, `origin`, `host`, `resource`, `domain`, `payee`, `asset`, `network`, `tag`, `agent`, \
             `allow`, `deny`, `permit`, `credential`, `chain`, `discovery`, `proxy`, `mcp_server`, `token`",
        ),
        (
            "global.rolling = [{ window = \"1h\", max = \"1 USD\" },\n  { window = \"1d\", max = \"1 USD\", |per = 1 }]",
            "unknown key `per` in `rolling`; its keys are `window`, `max`",
        ),
        (
            "[each.|user]\nlifetime = \"1 USD\"",
            "unknown key `user` in `each`; its keys are `origin`, `domain`, `payee`, `asset`, `network`, `tag`, `agent`",
        ),
        (
            "[allow]\n|networks = [\"base\"]",
            "unknown key `networks` in [allow]; its keys are `hosts`, `payees`, `assets`",
        ),
        (
            "[[permit]]\n|methods = \"GET\"",
            "unknown key `methods` in [[permit]]; did you mean `method`?",
        ),
    ]);
}

#[test]
fn the_routes_of_a_proxy_are_read_with_all_their_settings() {
    let config = Config::from_toml(SAMPLE).unwrap();
    let proxy = &config.proxy;
    assert_eq!(proxy.listen.unwrap().to_string(), "127.0.0.1:8402");
    assert!(proxy.explicit);
    assert_eq!(proxy.body_limit, Some(32 * 1024 * 1024));
    let [route] = proxy.routes.as_slice() else {
        panic!("{:?}", proxy.routes);
    };
    assert_eq!(route.path, "/openai");
    assert_eq!(route.target.as_str(), "https://api.example.com/");
    assert_eq!(route.agent.as_deref(), Some("scout"));
    assert_eq!(route.tag.as_deref(), Some("research"));
    assert_eq!(route.max_price, Some(usd!("0.05")));
    assert_eq!(route.credential.as_deref(), Some("example"));
    assert_eq!(route.clients, ["notebook", "batch"]);
    assert_eq!(route.timeout.unwrap().as_secs(), 600);
    let none = Config::from_toml("version = 1").unwrap().proxy;
    assert!(none.explicit && none.routes.is_empty() && none.listen.is_none());
}

#[test]
fn a_mistake_in_a_route_of_a_proxy_is_found() {
    let route = "[[proxy.route]]\npath = \"/a\"\ntarget = \"https://a.example\"\n";
    for (marked, message) in [
        (
            "[proxy]\nlisten = |\"0.0.0.0:8402\"",
            "`listen`: the proxy holds a wallet and listens on loopback only; write one such as `127.0.0.1:8402`",
        ),
        (
            "[proxy]\nlisten = |\"localhost\"",
            "`listen`: `localhost` is not an address with a port; write one such as `127.0.0.1:8402`",
        ),
        (
            "[proxy]\nbody_limit = |\"32 MB\"",
            "`body_limit`: `32 MB` is not a size up to 1024 MiB; write one such as `512 KiB` or `16 MiB`",
        ),
        (
            "[proxy]\nbody_limit = |\"0 MiB\"",
            "`body_limit`: `0 MiB` is not a size up to 1024 MiB; write one such as `512 KiB` or `16 MiB`",
        ),
        (
            "[proxy]\n|routes = 1",
            "unknown key `routes` in [proxy]; did you mean `route`?",
        ),
        (
            "[[proxy.route]]\npath = |\"openai\"\ntarget = \"https://a.example\"",
            "`path`: `openai` is not a path; write one such as `/openai`",
        ),
        (
            "[[proxy.route]]\npath = |\"/a/../b\"\ntarget = \"https://a.example\"",
            "`path`: `/a/../b` is not a plain path; write letters, digits and `-._~`, without a slash at the end",
        ),
        (
            "[[proxy.route]]\npath = |\"/a/\"\ntarget = \"https://a.example\"",
            "`path`: `/a/` is not a plain path; write letters, digits and `-._~`, without a slash at the end",
        ),
        (
            "[[proxy.route]]\npath = |\"/to/x\"\ntarget = \"https://a.example\"",
            "`path`: the proxy answers `/to` itself; choose another path",
        ),
        (
            "[[proxy.route]]\npath = \"/a\"\ntarget = |\"http://a.example\"",
            "`target`: plain http is for the loopback only; write https",
        ),
        (
            "[[proxy.route]]\npath = \"/a\"\ntarget = |\"a.example\"",
            "`target`: relative URL without a base; write a base URL such as `https://api.example.com/v1`",
        ),
        (
            "[[proxy.route]]\npath = \"/a\"\ntarget = |\"ftp://a.example\"",
            "`target`: the target is not an http or https URL with a host",
        ),
        (
            "[[proxy.route]]\npath = \"/a\"\ntarget = |\"https://a.example?key=s3cret\"",
            "`target`: the target has a user, a query or a fragment; write a base URL such as `https://api.example.com/v1`, \
             and put keys into [[credential]]",
        ),
        (
            "[[proxy.route]]\npath = \"/a\"\ntarget = \"https://a.example\"\ncredential = |\"exampel\"\n\
             [[credential]]\nname = \"example\"\nhost = \"a.example\"\nbearer = { env = \"X\" }",
            "`credential`: no [[credential]] has the name `exampel`; did you mean `example`?",
        ),
        (
            "[[proxy.route]]\npath = \"/a\"\ntarget = \"https://a.example\"\n|max_prize = \"1 USD\"",
            "unknown key `max_prize` in [[proxy.route]]; did you mean `max_price`?",
        ),
        (
            "[[proxy.route]]\npath = \"/a\"\ntarget = \"https://a.example\"\nclients = |[]",
            "`clients` is an empty array; write a value or leave the key out",
        ),
    ] {
        assert_each(&[(marked, message)]);
    }
    let twice = format!("version = 1\n{route}{}", route.replace("\"/a\"", "|\"/a\""));
    assert_mistakes(&twice, &["`path`: another route has the path `/a`"]);
}

#[test]
fn the_place_of_an_api_key_is_checked_and_never_repeated() {
    let key = "[[credential]]\nname = \"x\"\nhost = \"a.example\"\n";
    for (place, messages) in [
        (
            "bearer = |{ |key = \"s3cret\" }",
            [
                "`bearer` needs a key `env` or `file`: the place of the API key",
                "unknown key `key` in `bearer`; its keys are `env`, `file`",
            ]
            .as_slice(),
        ),
        (
            "bearer = |\"s3cret\"",
            &["`bearer` must be a table, not a string"],
        ),
        (
            "bearer = |{ env = \"X\", file = \"x\" }",
            &["`bearer` has `env` and `file`; keep one of them"],
        ),
        (
            "bearer = { env = \"X\" }\nbasic = |{ env = \"X\", user = \"x\" }",
            &["[[credential]] has `bearer` and `basic`; keep one of them"],
        ),
        (
            "header = { name = |\"x key\", env = \"X\" }",
            &["`name`: `x key` is not the name of a header; write a name such as `x-api-key`"],
        ),
        (
            "bearer = { env = \"X\" }\nplan = { per_call = |\"0.1\" }",
            &["`per_call`: `0.1` has no currency; write it like `0.10 USD`"],
        ),
        (
            "bearer = { env = \"X\" }\nplan = { tiers = { from = |0, per_call = \"0.1 USD\" } }",
            &["`from` must be the number of a call, counted from 1"],
        ),
        (
            "bearer = { env = \"X\" }\npay_when = [402, |40]",
            &["`pay_when` must be a status from 100 to 999"],
        ),
        (
            "bearer = { env = \"X\" }\nprefer = |\"never-pay\"",
            &[
                "`prefer`: `never-pay` is not \"key\", \"pay\", \"never pay\", \"never key\" or \"cheapest\"; \
                 did you mean `never pay`?",
            ],
        ),
    ] {
        assert_mistakes(&format!("version = 1\n{key}{place}"), messages);
    }
    assert_each(&[
        (
            "|[[credential]]\nname = \"x\"\nbearer = { env = \"X\" }",
            "[[credential]] needs a key `host`",
        ),
        (
            "[[credential]]\nname = \"x\"\nhost = |\"not a host\"\nbearer = { env = \"X\" }",
            "`host`: `not a host` is not a host; expected a form like `api.example.com` or `*.example.com`, without scheme or port",
        ),
        (
            "[[credential]]\nname = \"x\"\nhost = \"a.example\"\nbearer = { env = \"X\" }\n\
             |[[credential]]\nname = \"x\"\nhost = \"b.example\"\nbearer = { env = \"X\" }\nplan = { monthly = \"1 USD\" }",
            "the credential `x` is given twice with different plans",
        ),
    ]);
}

#[test]
fn a_setting_is_a_mistake_where_only_limits_are_allowed() {
    assert_each(&[
        (
            "[[tag]]\nmatch = \"x\"\npayee = |\"pinned\"",
            "`payee` is a setting of [global], [[host]] and [[origin]]; [[tag]] takes limits only",
        ),
        (
            "[each.origin]\nloop_guard = |{ window = \"1m\", max = 1 }",
            "`loop_guard` is a setting of [global], [[host]] and [[origin]]; [each.origin] takes limits only",
        ),
        ("[global]\nmatch = |\"x\"", "[global] has no key `match`"),
        (
            "[each.tag]\nmatch = |\"x\"",
            "[each.tag] has no key `match`",
        ),
    ]);
}

#[test]
fn a_table_without_a_required_key_is_a_mistake() {
    assert_each(&[
        (
            "|[[host]]\nlifetime = \"1 USD\"",
            "[[host]] needs a key `match`",
        ),
        (
            "global.payments = |{ window = \"1m\" }",
            "`payments` needs a key `max`",
        ),
        ("|[freeze]", "[freeze] needs a key `file`"),
        (
            "[freeze]\nfile = |\"run/STOP\"",
            "`file` must be an absolute path: a relative one depends on the directory in which the program starts",
        ),
        ("freeze = |{}", "`freeze` needs a key `file`"),
    ]);
    assert_mistakes(
        "version = 1\n||||[[token]]\nnetwork = \"base\"\ndecimals = 6",
        &[
            "[[token]] needs a key `address`",
            "[[token]] needs a key `name`",
            "[[token]] needs a key `symbol`",
            "[[token]] needs a key `version`",
        ],
    );
}

#[test]
fn amounts_are_checked() {
    let amount = "must be a string such as \"0.10 USD\" or \"2.5 EURC@base\", not";
    assert_each(&[
        (
            "global.per_payment = |0.10",
            &format!("`per_payment` {amount} a float"),
        ),
        (
            "global.lifetime = [\"1 USD\", |1]",
            &format!("`lifetime` {amount} an integer"),
        ),
        (
            "global.exposure = |\"0.10\"",
            "`exposure`: `0.10` has no currency; write it like `0.10 USD` or `2.5 EURC@base`",
        ),
        (
            "global.exposure = |\"$0.0000001\"",
            "`exposure`: `$0.0000001` is finer than a micro-dollar; at most six decimals",
        ),
        (
            "global.exposure = |\"5 cents USD\"",
            "`exposure`: `5 cents USD` is not an amount of dollars; expected a form like `0.05`, `$0.05` or `0.05 USD`",
        ),
        (
            "global.ask_above = |\"2 EURX@ethereum\"",
            "`ask_above`: no token of the registry is `EURX@ethereum`; add one with a [[token]] table",
        ),
        (
            "global.lifetime = |\"0.0000001 USDC@base\"",
            "`lifetime`: `0.0000001 USDC@base` is not an amount of a token with 6 decimals",
        ),
        (
            "global.lifetime = |\"1 USDC@bas\"",
            "`lifetime`: `bas` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`; \
             did you mean `base`?",
        ),
        (
            "global.lifetime = |\"1 USDC\"",
            "`lifetime`: `USDC` is not a token; write one such as `USDC@base` or `0x…@base`",
        ),
        (
            "global.payments = { window = \"1m\", max = |\"60\" }",
            "`max` must be a number of payments such as 60, not a string",
        ),
        (
            "global.payments = { window = \"1m\", max = |-1 }",
            "`max` must be a number of payments such as 60",
        ),
        // Places are counted in characters, not in bytes.
        (
            "global = { ask_above = [\"1 USD\"], lifetime = |'€5' } # naïve",
            "`lifetime`: `€5` has no currency; write it like `0.10 USD` or `2.5 EURC@base`",
        ),
    ]);
}

#[test]
fn times_and_percentages_are_checked() {
    assert_each(&[
        (
            "global.rolling = { max = \"1 USD\", window = |\"0s\" }",
            "`window`: `0s` is not a length of time; write one such as `90s`, `5m`, `24h` or `7d`",
        ),
        (
            "approval_timeout = |120",
            "`approval_timeout` must be a string such as \"90s\", \"5m\", \"24h\" or \"7d\", not an integer",
        ),
        (
            "[[host]]\nmatch = \"a.example\"\nmax_validity = |\"5s\"",
            "`max_validity`: max_validity must be at least 6 s, the shortest that facilitators settle",
        ),
        (
            "global.calendar = { period = |\"hour\", zone = \"UTC\", max = \"1 USD\" }",
            "`period`: `hour` is not \"day\", \"week\", \"month\" or \"year\"",
        ),
        (
            "global.calendar = { period = |\"mnth\", zone = \"UTC\", max = \"1 USD\" }",
            "`period`: `mnth` is not \"day\", \"week\", \"month\" or \"year\"; did you mean `month`?",
        ),
        (
            "global.calendar = { period = \"day\", zone = |\"Mars/Base\", max = \"1 USD\" }",
            "`zone`: time zone `Mars/Base` is not known here",
        ),
        (
            "global.max_price_rise = |\"1.2\"",
            "`max_price_rise`: `1.2` is not a percentage; write one such as `20%`",
        ),
        (
            "global.max_price_rise = |20",
            "`max_price_rise` must be a string such as \"20%\", not an integer",
        ),
    ]);
}

#[test]
fn names_of_sellers_networks_and_tokens_are_checked() {
    assert_each(&[
        (
            "networks = [\"base\", |\"Base\"]",
            "`networks`: `Base` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`; \
             did you mean `base`?",
        ),
        (
            "networks = [\"base\",\n  |\"base-sepolia\"]",
            "`networks`: the policy names base with real money and the test network base-sepolia; only a policy with mix_testnets allows both",
        ),
        (
            "[[host]]\nmatch = |\"https://a.example\"",
            "`match`: `https://a.example` is not a host; expected a form like `api.example.com` or `*.example.com`, \
             without scheme or port",
        ),
        (
            "[[origin]]\nmatch = |\"a.example\"",
            "`match`: `a.example` is not an origin; expected a form like `https://api.example.com`",
        ),
        (
            "[[domain]]\nmatch = |\"api.example.com\"",
            "`match`: `api.example.com` is not a registrable domain; write `example.com`, or limit the name as a host",
        ),
        (
            "[[resource]]\nmatch = |\"https://a.example/x?y\"",
            "`match`: `https://a.example/x?y` is not a resource such as `https://api.example.com/report`, without query and fragment",
        ),
        (
            "[deny]\npayees = [|\"0x209693bC6afc0C5328bA36FaF03C514EF312287C\"]",
            "`payees`: `0x209693bC6afc0C5328bA36FaF03C514EF312287C` is not an address, or its checksum is wrong",
        ),
        (
            "[[payee]]\nmatch = |\"0x1\"",
            "`match`: `0x1` is not an address, or its checksum is wrong",
        ),
        (
            "[deny]\nassets = |\"USCD@base\"",
            "`assets`: no token of the registry is `USCD@base`; did you mean `USDC@base`?",
        ),
        (
            "[[permit]]\nmethod = [\"GET\", |\"get\"]",
            "`method`: `get` is not a method such as `GET`",
        ),
        (
            "[[permit]]\npath = |\"search\"",
            "`path`: `search` is not a path such as `/search` or `/v1/**`: it begins with a slash, and is ASCII without `?` and `#`",
        ),
        (
            "[[token]]\nnetwork = \"base\"\naddress = \"0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42\"\n\
             symbol = \"EURC\"\ndecimals = 6\nname = \"EURC\"\nversion = \"2\"\npeg = |\"EUR\"",
            "`peg` must be \"USD\"",
        ),
    ]);
}

#[test]
fn endpoints_of_the_chain_are_read_and_checked() {
    use bursar::Network;
    use bursar::config::Config;

    let config = Config::from_toml(SAMPLE).unwrap();
    let base = Network::from_chain_id(8453);
    let chain = config.chain.unwrap();
    assert_eq!((chain.networks(), chain.reads(base)), (vec![base], true));
    let shown = format!("{chain:?}");
    for host in ["mainnet.base.org", "base-rpc.publicnode.com", "localhost"] {
        assert!(shown.contains(host), "{host} is not in {shown}");
    }
    let none = Config::from_toml("version = 1\nnetworks = [\"base\"]").unwrap();
    assert!(none.chain.is_none());
    assert_each(&[
        (
            "|[[chain]]\nnetwork = \"base\"",
            "[[chain]] needs a key `rpc`",
        ),
        (
            "[[chain]]\nnetwork = |\"basis\"\nrpc = \"https://a.example\"",
            "`network`: `basis` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`",
        ),
        (
            "[[chain]]\nnetwork = \"base\"\nrpc = |\"http://a.example/v2/s3cret\"",
            "`rpc`: plain http is for a JSON-RPC endpoint on this machine's loopback only; use https",
        ),
        (
            "[[chain]]\nnetwork = \"base\"\nrpc = |\"ftp://a.example\"",
            "`rpc`: a JSON-RPC endpoint is an http or https URL",
        ),
    ]);
    let secret = "version = 1\n[[chain]]\nnetwork = \"base\"\nrpc = \"http://a.example/v2/s3cret\"";
    let error = Config::from_toml(secret).unwrap_err().to_string();
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn other_values_are_checked() {
    assert_each(&[
        (
            "global.payee = |\"pined\"",
            "`payee`: `pined` is not \"free\", \"pinned\", an address or an array of addresses; did you mean `pinned`?",
        ),
        (
            "global.payee = [|\"free\", \"0x0000000000000000000000000000000000000001\"]",
            "`payee`: \"free\" and \"pinned\" cannot be in an array with other payees",
        ),
        (
            "global.foreign_resource = |true",
            "`foreign_resource` must be \"record\" or \"refuse\", not a boolean",
        ),
        ("[[tag]]\nmatch = |\"\"", "`match`: the string is empty"),
        (
            "[[host]]\nmatch = \"a.example\"\n[[host]]\nmatch = |\"A.example.\"",
            "`match`: the table of `A.example.` is on line 2; put all limits there",
        ),
        (
            "allow.hosts = |[]",
            "`hosts` is an empty array; write a value or leave the key out",
        ),
        (
            "global = |\"1 USD\"",
            "`global` must be a table, not a string",
        ),
        (
            "global.require_signed_offers = |\"yes\"",
            "`require_signed_offers` must be `true` or `false`, not a string",
        ),
        (
            "mix_testnets = |\"yes\"",
            "`mix_testnets` must be `true` or `false`, not a string",
        ),
        (
            "mix_testnets = |1979-05-27",
            "`mix_testnets` must be `true` or `false`, not a date",
        ),
    ]);
}

#[test]
fn the_fuzzer_starts_from_every_key_of_a_policy() {
    let seed = include_str!("../fuzz/seeds/policy/example.toml");
    assert_eq!(
        seed, SAMPLE,
        "copy examples/policy.toml to fuzz/seeds/policy/example.toml"
    );
    let longest = "longest=16384";
    assert!(include_str!("../fuzz/run").contains(longest) && seed.len() < 16_384);
}

#[test]
fn an_effective_policy_is_the_same_policy_with_its_defaults() {
    let example = include_str!("../examples/policy.toml");
    let minimal = "version = 1\nnetworks = [\"base\"]";
    let unlimited = "version = 1\nnetworks = [\"base\"]\nunlimited = true";
    let odd = "version = 1\nnetworks = [\"eip155:424242\"]\n[[tag]]\nmatch = \"a \\\" \\u007f b\"\nper_day = [\"1 USD\", \"2 USD\"]\n\
               rolling = { window = \"90s\", max = \"0.000001 USD\" }\nwarn_at = \"12.5%\"\n[each.payee]\nask_above = \"1 USD\"";
    for text in [example, minimal, unlimited, odd] {
        let policy = Policy::from_toml(text).unwrap();
        let effective = policy.effective();
        let again = Policy::from_toml(&effective.to_string())
            .unwrap_or_else(|error| panic!("{error}\n{effective}"));
        again.check().unwrap();
        assert_eq!(again.effective(), effective);
        let json = serde_json::to_value(&effective).unwrap();
        assert_eq!(json["version"], 1);
        for (url, price) in [
            ("https://api.example.com/v1/x", usd!("0.01")),
            ("https://api.example.com/v1/x", usd!("0.15")),
            ("https://tools.example.com/other", usd!("0.01")),
            ("https://api.example.net/search", usd!("7")),
        ] {
            let request = bursar::PurchaseRequest::new("GET", url, b"")
                .unwrap()
                .tag("research");
            let answers = |policy: &Policy| {
                let now = bursar::Timestamp::from_secs(1_800_000_000);
                let agent = Some("scout");
                let explanation = policy.explain(&request, AskingPrice::new(price), agent, now);
                let text = explanation
                    .map(|answers| answers.to_string())
                    .unwrap_or_default();
                // Without the default limits, one rule more holds: that there are others.
                let lines = text.lines().filter(|line| *line != "pass  unlimited");
                lines.map(ToOwned::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(answers(&policy), answers(&again), "{url} {price}");
        }
    }
}

#[test]
fn a_share_in_a_file_is_a_percentage_or_a_part_of_one() {
    for text in [
        "warn_at = 1.5",
        "warn_at = 0.0",
        "warn_at = -0.5",
        "warn_at = nan",
        "warn_at = 80",
        "warn_at = true",
        "warn_at = \"0.8\"",
        "warn_at = \"0%\"",
        "warn_at = \"101%\"",
    ] {
        let error =
            Policy::from_toml(&format!("version = 1\nnetworks = [\"base\"]\n{text}")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("line 3") && error.contains("share of a limit"),
            "{error}"
        );
    }
    let policy =
        Policy::from_toml("version = 1\nnetworks = [\"base\"]\nwarn_at = [\"90%\", \"50%\"]")
            .unwrap();
    let decimal = Policy::from_toml("version = 1\nnetworks = [\"base\"]\nwarn_at = [0.9, 5e-1]");
    assert_eq!(decimal.unwrap().effective(), policy.effective());
    let error = Policy::from_toml("version = 1\nrefusal_pause = 0.5").unwrap_err();
    assert!(error.to_string().contains("not a float"), "{error}");
    assert!(
        policy
            .effective()
            .to_string()
            .contains("warn_at = [\"50%\", \"90%\"]")
    );
}

#[test]
fn the_places_and_names_of_mcp_servers_are_checked() {
    assert_each(&[
        (
            "|[[mcp_server]]\nname = \"a\"",
            "[[mcp_server]] needs a key `url` or `command`",
        ),
        (
            "|[[mcp_server]]\nname = \"a\"\nurl = \"https://a.example\"\ncommand = \"a\"",
            "[[mcp_server]] has `url` and `command`; keep one of them",
        ),
        (
            "[[mcp_server]]\nname = |\"A_b\"\nurl = \"https://a.example\"",
            "`name`: the name of an MCP server is 1 to 32 of a-z, 0-9 and -, such as `weather`",
        ),
        (
            "[[mcp_server]]\nname = \"a\"\nurl = |\"http://a.example\"",
            "`url`: the URL of an MCP server is https, or http on a loopback address",
        ),
        (
            "[[mcp_server]]\nname = \"a\"\ncommand = \"a\"\n[[mcp_server]]\nname = |\"a\"\ncommand = \"b\"",
            "`name`: there is already an MCP server `a`",
        ),
        (
            "[[mcp_server]]\nname = \"a\"\nurl = \"https://a.example\"\nenv = |\"A\"",
            "`env` belongs to a server with a `command`",
        ),
    ]);
    let config = Config::from_toml(SAMPLE).unwrap();
    let names: Vec<_> = config
        .mcp_servers
        .iter()
        .map(|server| &server.name)
        .collect();
    assert_eq!(names, ["weather", "files"]);
    assert!(config.add_servers);
}
