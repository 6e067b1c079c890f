//! Policy files: what each key does, and where a mistake stands.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::future::pending;

use bursar::{
    Address, CallPlan, Credentials, Hypothetical, Policy, PolicyError, Preference, Rule,
    TokenAmount, Usd, Verdict, approve_fn, usd,
};
use bursar_tests::clock::at;
use bursar_tests::test_offer::{TestOffer, offer, offer_in};
use bursar_tests::tokens::{euro, payee, usdc};
use bursar_tests::wallet_harness::{WalletHarness, settle};

const SAMPLE: &str = include_str!("../examples/policy.toml");

/// A policy for Base with this text, and without the default limits.
fn bare(text: &str) -> Policy {
    policy(&format!(
        "version = 1\nnetworks = [\"base\"]\ndefaults = false\n{text}"
    ))
}

fn policy(text: &str) -> Policy {
    Policy::from_toml(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A payment of a cent that every scope of these tests matches.
fn payment() -> Hypothetical {
    at_url("https://api.example.com:8443/report")
        .payee(payee(0x11))
        .tag("research")
        .agent("scout")
}

/// One that none matches but `[global]`.
fn other() -> Hypothetical {
    at_url("https://elsewhere.net")
        .network("polygon".parse().unwrap())
        .payee(payee(0x22))
}

fn at_url(url: &str) -> Hypothetical {
    Hypothetical::new(url.parse().unwrap(), usd!("0.01"))
}

/// The limits that apply to a payment, with what is left of them.
fn limits(policy: &Policy, payment: &Hypothetical) -> Vec<String> {
    let said = policy.explain(payment, at("2025-03-10T12:00:00Z")).unwrap();
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
        let said = policy
            .explain(&payment(), at("2025-03-10T12:00:00Z"))
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
        limits(
            &policy(&format!("version = 1\nnetworks = [\"base\"]\n{text}")),
            &payment(),
        )
    };
    assert_eq!(file("")[..3], defaults);
    assert_eq!(file("defaults = true")[..3], defaults);
    assert!(file("defaults = false").is_empty());
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

/// What happens to each sale: paid, or refused by a rule.
async fn outcomes<const N: usize>(text: &str, offers: [TestOffer; N]) -> [Option<Rule>; N] {
    let wallet = WalletHarness::new(bare(text));
    let mut outcomes = [None; N];
    for (offer, outcome) in offers.iter().zip(&mut outcomes) {
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

#[tokio::test]
async fn the_sample_is_a_policy_with_every_key() {
    let policy = policy(SAMPLE);
    policy.check().unwrap();
    let keys = [
        "version",
        "networks",
        "mix_testnets",
        "defaults",
        "approval_timeout",
        "store_queries",
        "[global]",
        "per_payment",
        "rolling",
        "window",
        "max",
        "calendar",
        "period",
        "zone",
        "lifetime",
        "exposure",
        "payments",
        "ask_above",
        "payee",
        "max_validity",
        "max_price_rise",
        "foreign_resource",
        "remember_terms",
        "sign_ahead",
        "[each.origin]",
        "[each.domain]",
        "[each.payee]",
        "[each.asset]",
        "[each.network]",
        "[each.tag]",
        "[each.agent]",
        "[[host]]",
        "[[origin]]",
        "[[domain]]",
        "[[payee]]",
        "[[asset]]",
        "[[network]]",
        "[[tag]]",
        "[[agent]]",
        "match",
        "[allow]",
        "[deny]",
        "hosts",
        "payees",
        "assets",
        "[[permit]]",
        "method",
        "path",
        "[[credential]]",
        "bearer",
        "header",
        "basic",
        "query",
        "prefer",
        "pay_when",
        "pay_when_missing",
        "plan",
        "monthly",
        "included",
        "per_call",
        "tiers",
        "from",
        "env",
        "file",
        "[[token]]",
        "network",
        "address",
        "symbol",
        "decimals",
        "name",
        "peg",
    ];
    for key in keys {
        let written = |line: &str| {
            line.starts_with(key)
                || line.contains(&format!("{{ {key} = "))
                || line.contains(&format!(", {key} = "))
        };
        assert!(SAMPLE.lines().any(written), "{key} is not in the sample");
    }
    let payment = at_url("https://api.example.com:8443/v1/x")
        .payee(
            "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
                .parse::<Address>()
                .unwrap(),
        )
        .tag("research")
        .agent("scout");
    let said = policy
        .explain(&payment, at("2025-03-10T12:00:00Z"))
        .unwrap();
    assert_eq!(said.denial(), None);
    // Seven on everything, seven of [each], six of the tables that match, and the two brakes.
    assert_eq!(limits(&policy, &payment).len(), 22, "{said}");
    let wallet = WalletHarness::new(policy.clone());
    let euros = TokenAmount::parse("0.08", euro()).unwrap();
    let told = |payment: Hypothetical| {
        policy
            .explain(&payment.payee(payee(0x11)), wallet.now())
            .unwrap()
    };
    let paid = Hypothetical::new("https://a.example.com".parse().unwrap(), euros).agent("operator");
    assert_eq!(told(paid).denial(), None);
    let rule = |payment: Hypothetical| told(payment).denial().unwrap().rule;
    assert_eq!(
        rule(at_url("https://api.example.com:8443/").agent("operator")),
        Rule::Payee
    );
    assert_eq!(
        rule(at_url("https://api.example.com:8443/").agent("scout")),
        Rule::Permission
    );
    let keys = Credentials::from_toml(SAMPLE).unwrap();
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
fn a_file_may_be_built_upon() {
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
        matches!(&missing, PolicyError::Unreadable { path: named, .. } if *named == path),
        "{missing}"
    );
    std::fs::write(&path, SAMPLE).unwrap();
    Policy::from_file(&path).unwrap().check().unwrap();
    std::fs::write(&path, "version = 1\nnetworking = \"base\"").unwrap();
    let error = Policy::from_file(&path).unwrap_err();
    assert!(error.to_string().starts_with(&format!(
        "{}: line 2, column 1: unknown key `networking`",
        path.display()
    )));
    assert!(matches!(
        error,
        PolicyError::File {
            line: 2,
            column: 1,
            ..
        }
    ));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(Policy::from_file(&path).is_err());
}

/// Every mistake with its place. `|` marks it in the text and is not part of it.
#[test]
fn mistakes_are_told_with_their_line() {
    let amount_is_number = "is a number; write a text such as \"0.10 USD\" or \"2.5 EURC@base\"";
    for (text, message) in [
        // Grammar.
        (
            "version = |",
            "string values must be quoted, expected literal string",
        ),
        ("version = 1\n[global]\n[|global]", "duplicate key"),
        (
            "version = 1\nnetworks = [\"base\"]\n|networks = []",
            "duplicate key",
        ),
        // Version.
        ("|networks = [\"base\"]", "the file needs a key `version`"),
        (
            "version = |2",
            "`version` must be 1, the only one that this bursar knows",
        ),
        (
            "version = |\"1\"",
            "`version` must be 1, the only one that this bursar knows",
        ),
        // Unknown keys, at every depth.
        (
            "version = 1\n\n  |per_payment = \"1 USD\"",
            "unknown key `per_payment` in the file; known are `version`, `defaults`, `store_queries`, `approval_timeout`, \
             `refunds_make_room`, `freeze_switch`, `mix_testnets`, `networks`, `token`, `allow`, `deny`, `global`, `each`, \
             `origin`, `host`, `resource`, `domain`, `payee`, `asset`, `network`, `tag`, `agent`, `permit`, `credential`, \
             `discovery`",
        ),
        (
            "version = 1\n[global]\nper_payment = \"1 USD\"\n|perpayment = \"1 USD\"",
            "unknown key `perpayment` in [global]; known are `payee`, `max_validity`, `max_price_rise`, \
             `foreign_resource`, `repeats`, `remember_terms`, `sign_ahead`, `breaker`, `per_payment`, `rolling`, `calendar`, `lifetime`, `exposure`, `payments`, `ask_above`",
        ),
        (
            "version = 1\nglobal.rolling = [{ window = \"1h\", max = \"1 USD\" },\n  { window = \"1d\", max = \"1 USD\", |per = 1 }]",
            "unknown key `per` in `rolling`; known are `window`, `max`",
        ),
        (
            "version = 1\n[[permit]]\nmethod = [\"GET\", |\"get\"]",
            "`get` is not a method such as `GET`",
        ),
        (
            "version = 1\n[[permit]]\npath = |\"search\"",
            "`search` is not a path such as `/search` or `/v1/**`: it begins with a slash, and is ASCII without `?` and `#`",
        ),
        (
            "version = 1\n[[credential]]\nname = \"x\"\nhost = \"a.example\"\nbearer = |{ key = \"s3cret\" }",
            "`bearer` needs `env` or `file`: where the key is",
        ),
        (
            "version = 1\n|[[credential]]\nname = \"x\"\nhost = \"a.example\"",
            "[[credential]] needs one of `bearer`, `header`, `basic` and `query`",
        ),
        (
            "version = 1\n[[credential]]\nname = \"x\"\nhost = |\"not a host\"\nbearer = { env = \"X\" }",
            "`host`: `not a host` is not a host; expected a form like `api.example.com` or `*.example.com`, without scheme or port",
        ),
        (
            "version = 1\n[[credential]]\nname = \"x\"\nhost = \"a.example\"\nbearer = { env = \"X\" }\nplan = { per_call = |\"0.1\" }",
            "`per_call`: `0.1` does not say that it is dollars; write it like `0.10 USD`",
        ),
        (
            "version = 1\n[[credential]]\nname = \"x\"\nhost = \"a.example\"\nbearer = { env = \"X\" }\nprefer = |\"money\"",
            "`prefer` must be \"key\" or \"pay\" or \"never pay\" or \"never key\" or \"cheapest\"",
        ),
        (
            "version = 1\n[each.|user]\nlifetime = \"1 USD\"",
            "unknown key `user` in [each]; known are `origin`, `domain`, `payee`, `asset`, `network`, `tag`, `agent`",
        ),
        (
            "version = 1\n[[tag]]\nmatch = \"x\"\n|payee = \"pinned\"",
            "unknown key `payee` in [[tag]]; known are `match`, `per_payment`, `rolling`, `calendar`, `lifetime`, \
             `exposure`, `payments`, `ask_above`",
        ),
        (
            "version = 1\n[allow]\n|networks = [\"base\"]",
            "unknown key `networks` in [allow]; known are `hosts`, `payees`, `assets`",
        ),
        // What a table cannot do without.
        (
            "version = 1\n|[[host]]\nlifetime = \"1 USD\"",
            "[[host]] needs a key `match`",
        ),
        (
            "version = 1\nglobal.payments = |{ window = \"1m\" }",
            "`payments` needs a key `max`",
        ),
        (
            "version = 1\n|[[token]]\nnetwork = \"base\"",
            "[[token]] needs a key `address`",
        ),
        // Amounts.
        (
            "version = 1\nglobal.per_payment = |0.10",
            &format!("`per_payment` {amount_is_number}"),
        ),
        (
            "version = 1\nglobal.lifetime = [\"1 USD\", |1]",
            &format!("`lifetime` {amount_is_number}"),
        ),
        (
            "version = 1\nglobal.exposure = |\"0.10\"",
            "`exposure`: `0.10` does not say of what; write it like `0.10 USD` or `2.5 EURC@base`",
        ),
        (
            "version = 1\nglobal.exposure = |\"$0.0000001\"",
            "`exposure`: `$0.0000001` is finer than a micro-dollar; at most six decimals",
        ),
        (
            "version = 1\nglobal.exposure = |\"5 cents USD\"",
            "`exposure`: `5 cents USD` is not an amount of dollars; expected a form like `0.05`, `$0.05` or `0.05 USD`",
        ),
        (
            "version = 1\nglobal.ask_above = |\"2 EURC@base\"",
            "`ask_above`: `EURC@base` is not one token of the registry; to add it, write a [[token]] table",
        ),
        (
            "version = 1\nglobal.lifetime = |\"0.0000001 USDC@base\"",
            "`lifetime`: `0.0000001 USDC@base` is not an amount of a token with 6 decimals",
        ),
        (
            "version = 1\nglobal.lifetime = |\"1 USDC@bas\"",
            "`lifetime`: `bas` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`",
        ),
        (
            "version = 1\nglobal.lifetime = |\"1 USDC\"",
            "`lifetime`: `USDC` is not a token; expected a form like `USDC@base` or `0x…@base`",
        ),
        (
            "version = 1\nglobal.payments = { window = \"1m\", max = |\"60\" }",
            "`max` must be a number of payments such as 60",
        ),
        (
            "version = 1\nglobal.payments = { window = \"1m\", max = |-1 }",
            "`max` must be a number of payments such as 60",
        ),
        // Times.
        (
            "version = 1\nglobal.rolling = { max = \"1 USD\", window = |\"1 day\" }",
            "`window`: `1 day` is not a length of time; expected a form like `90s`, `5m`, `24h` or `7d`",
        ),
        (
            "version = 1\nglobal.rolling = { max = \"1 USD\", window = |\"0s\" }",
            "`window`: `0s` is not a length of time; expected a form like `90s`, `5m`, `24h` or `7d`",
        ),
        (
            "version = 1\napproval_timeout = |120",
            "`approval_timeout` is a number; write a text such as \"90s\", \"5m\", \"24h\" or \"7d\"",
        ),
        (
            "version = 1\n[[host]]\nmatch = \"a.example\"\nmax_validity = |\"5s\"",
            "max_validity must be at least 6 s, the shortest that facilitators settle",
        ),
        (
            "version = 1\nglobal.calendar = { period = |\"hour\", zone = \"UTC\", max = \"1 USD\" }",
            "`period` must be \"day\" or \"week\" or \"month\" or \"year\"",
        ),
        (
            "version = 1\nglobal.calendar = { period = \"day\", zone = |\"Mars/Base\", max = \"1 USD\" }",
            "`zone`: time zone `Mars/Base` is not known here",
        ),
        (
            "version = 1\nglobal.max_price_rise = |\"1.2\"",
            "`max_price_rise`: `1.2` is not a percentage; expected a form like `20%`",
        ),
        (
            "version = 1\nglobal.max_price_rise = |20",
            "`max_price_rise` is a number; write a text such as \"20%\"",
        ),
        // Who and where.
        (
            "version = 1\nnetworks = [\"base\", |\"Base\"]",
            "`networks`: `Base` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`",
        ),
        (
            "version = 1\nnetworks = [\"base\",\n  |\"base-sepolia\"]",
            "the policy names eip155:8453 with real money and the test network eip155:84532; if that is meant, say mix_testnets",
        ),
        (
            "version = 1\n[[host]]\nmatch = |\"https://a.example\"",
            "`match`: `https://a.example` is not a host; expected a form like `api.example.com` or `*.example.com`, \
             without scheme or port",
        ),
        (
            "version = 1\n[[origin]]\nmatch = |\"a.example\"",
            "`match`: `a.example` is not an origin; expected a form like `https://api.example.com`",
        ),
        (
            "version = 1\n[[domain]]\nmatch = |\"api.example.com\"",
            "`match`: `api.example.com` is not a registrable domain; write `example.com`, or limit the name as a host",
        ),
        (
            "version = 1\n[deny]\npayees = [|\"0x209693bC6afc0C5328bA36FaF03C514EF312287C\"]",
            "`payees`: `0x209693bC6afc0C5328bA36FaF03C514EF312287C` is not an address, or its checksum is wrong",
        ),
        (
            "version = 1\nglobal.payee = |\"tofu\"",
            "`payee` must be \"free\", \"pinned\" or a list of addresses",
        ),
        (
            "version = 1\nglobal.foreign_resource = |true",
            "`foreign_resource` must be \"record\" or \"refuse\"",
        ),
        (
            "version = 1\n[[tag]]\nmatch = |\"\"",
            "`match`: the text is empty",
        ),
        (
            "version = 1\n[[host]]\nmatch = \"a.example\"\n[[host]]\nmatch = |\"A.example.\"",
            "there is a table for host a.example already; write all of it into one",
        ),
        (
            "version = 1\nallow.hosts = |[]",
            "`hosts` is an empty list, which says nothing: leave the key out",
        ),
        (
            "version = 1\nglobal = |\"1 USD\"",
            "`global` is a text; write a table",
        ),
        (
            "version = 1\nmix_testnets = |\"yes\"",
            "`mix_testnets` is a text; write true or false",
        ),
        (
            "version = 1\n[[token]]\nnetwork = \"base\"\naddress = \"0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42\"\n\
             symbol = \"EURC\"\ndecimals = 6\nname = \"EURC\"\nversion = \"2\"\npeg = |\"EUR\"",
            "`peg` must be \"USD\"",
        ),
        // Characters are counted, not bytes.
        (
            "version = 1\nglobal = { ask_above = [\"1 USD\"], lifetime = |'€5' } # naïve",
            "`lifetime`: `€5` does not say of what; write it like `0.10 USD` or `2.5 EURC@base`",
        ),
    ] {
        let (before, after) = text.split_once('|').unwrap();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        let error = Policy::from_toml(&format!("{before}{after}"))
            .map(|_| ())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("line {line}, column {column}: {message}"),
            "{text}"
        );
    }
}
