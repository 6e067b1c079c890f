//! Hidden characters in the words of sellers, MCP servers, lists and nodes: none reaches a person or a model, and a model
//! finds the words of strangers under `untrusted` only.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

#[path = "support/agent.rs"]
#[expect(dead_code, reason = "each test file uses a part")]
mod agent;

use agent::Session;
use bursar_tests::scripted::{ScriptedRequest, answer, offer, payment_required, scripted};
use serde_json::{Value, json};
use support::{CliHarness, Ended, policy, report};

/// One character of each hidden kind.
const HIDDEN: &str = "\u{1b}\u{7}\u{8}\u{7f}\u{85}\u{9b}\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200d}\u{200f}\u{2028}\
    \u{2029}\u{202e}\u{2060}\u{2066}\u{2069}\u{2800}\u{3164}\u{feff}\u{fe0f}\u{fff9}\u{e000}\u{378}\u{1d173}\u{e0001}\u{e0041}\
    \u{e007f}\u{e0100}\u{10fffd}";
const MARK: &str = "INJECTED";

fn nasty() -> String {
    format!("{MARK} a{HIDDEN}\u{338}")
}

/// Fails if a text has a hidden character, or a mark on none of the letters.
fn assert_clean(place: &str, text: &str) {
    for (index, character) in text.char_indices() {
        assert!(
            !HIDDEN.contains(character) && character != '\u{338}',
            "{place} has U+{:04X}: {}",
            u32::from(character),
            text[index..]
                .chars()
                .take(60)
                .collect::<String>()
                .escape_unicode()
        );
    }
}

fn assert_clean_end(place: &str, ended: &Ended) {
    assert_clean(place, ended.text());
    assert_clean(place, &ended.stderr);
}

/// Fails if the words of a stranger are outside of `untrusted`, or if a text in it has a hidden character.
fn assert_marked(place: &str, value: &Value) {
    match value {
        Value::String(text) => assert!(!text.contains(MARK), "{place}: {text}"),
        Value::Array(values) => values.iter().for_each(|value| assert_marked(place, value)),
        Value::Object(members) => {
            for (name, value) in members {
                assert!(!name.contains(MARK), "{place}: {name}");
                if name == "untrusted" {
                    assert_deeply_clean(place, value);
                } else {
                    assert_marked(&format!("{place}.{name}"), value);
                }
            }
        }
        _ => {}
    }
    assert_deeply_clean(place, value);
}

fn assert_deeply_clean(place: &str, value: &Value) {
    match value {
        Value::String(text) => assert_clean(place, text),
        Value::Array(values) => values
            .iter()
            .for_each(|value| assert_deeply_clean(place, value)),
        Value::Object(members) => {
            for (name, value) in members {
                assert_clean(place, name);
                assert_deeply_clean(place, value);
            }
        }
        _ => {}
    }
}

fn terms(path: &str) -> String {
    let words = format!("{} {path}", nasty());
    let mut offers = vec![offer(&words)];
    for member in ["scheme", "network", "asset", "payTo", "amount"] {
        let mut odd = offer("");
        odd[member] = json!(words);
        offers.push(odd);
    }
    payment_required(&json!({
        "x402Version": 2, "error": words,
        "resource": { "url": words, "description": words, "mimeType": words },
        "accepts": offers,
    }))
}

/// A seller with a path for each way of answering.
async fn seller() -> String {
    scripted(|request: &ScriptedRequest| {
        let words = nasty();
        let body = json!({ "error": words, "plain": words }).to_string();
        let path = request.target.trim_start_matches('/');
        match (path, request.is_paid()) {
            ("moved", _) => answer(302, &[("location", &format!("/{MARK}-call-pay-again"))], ""),
            ("away", _) => answer(302, &[("location", &format!("http://localhost:9/{MARK}"))], ""),
            ("gone", _) => answer(302, &[("location", &format!("/{MARK}/missing"))], ""),
            (path, _) if path.ends_with("missing") => answer(404, &[], &words),
            ("unreadable", _) => answer(402, &[("PAYMENT-REQUIRED", "{\"x402Version\":2,\"accepts\":7}")], &body),
            ("unpayable", false) => payment_required(&json!({
                "x402Version": 2, "resource": {}, "accepts": [{ "scheme": words, "network": words }],
            })),
            (path, false) => terms(path),
            ("refused", true) => answer(402, &[], &body),
            ("broken", true) => answer(500, &[], &body),
            (_, true) => answer(200, &[("content-type", "text/plain")], &words),
        }
    })
    .await
}

const PATHS: [&str; 9] = [
    "report",
    "refused",
    "broken",
    "moved",
    "away",
    "gone",
    "missing",
    "unreadable",
    "unpayable",
];

#[tokio::test]
async fn no_hidden_character_of_a_seller_is_in_the_output_of_a_command() {
    let origin = seller().await;
    let harness = CliHarness::new(report()).await;
    let rules = harness.file(
        "permits.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n[[permit]]\npath = [\"/report\", \"/moved\", \"/refused\", \"/broken\"]\n",
    );
    for path in PATHS {
        let url = format!("{origin}/{path}");
        for args in [&[][..], &["--json"]] {
            let usual = [&["--timeout", "2", url.as_str()], args].concat();
            let paid = harness.pay(&usual).await;
            assert_clean(path, &paid.stderr);
            if !args.is_empty() {
                assert_clean_end(path, &paid);
                assert_eq!(paid.lines().len(), 1);
            }
            let usual = [&usual[..], &["--dry-run"]].concat();
            assert_clean_end(path, &harness.pay(&usual).await);
            let quote = [
                "quote",
                "--allow-http-loopback",
                "--network",
                "base-sepolia",
                &url,
            ];
            assert_clean_end(path, &harness.run(&[&quote[..], args].concat()).await);
            let quote = ["quote", "--allow-http-loopback", &url];
            assert_clean_end(path, &harness.run(&[&quote[..], args].concat()).await);
            let permitted = ["pay", "--policy", &rules, "--allow-http-loopback", &url];
            let permitted = harness.run(&[&permitted[..], args].concat()).await;
            assert_clean(path, &permitted.stderr);
        }
    }
    let ledger = ["--ledger", "ledger.db"];
    for args in [
        &["ledger"][..],
        &["ledger", "--format", "csv"],
        &["ledger", "--format", "jsonl"],
        &["report"],
        &["report", "--format", "html"],
        &["report", "--format", "csv"],
        &["report", "--format", "json"],
    ] {
        let ended = harness.run(&[args, &ledger].concat()).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_clean_end(&args.join(" "), &ended);
    }
    let purchases = harness
        .run(&[&["ledger", "--format", "jsonl"], &ledger[..]].concat())
        .await;
    for purchase in purchases.lines() {
        let id = purchase["id"]
            .as_str()
            .or(purchase["purchase"].as_str())
            .unwrap();
        let evidence = harness
            .run(&[&["ledger", "evidence", id], &ledger[..]].concat())
            .await;
        assert_eq!(
            (evidence.code, evidence.lines().len()),
            (0, 1),
            "{evidence:?}"
        );
        assert_clean_end("evidence", &evidence);
    }
    assert!(
        purchases.text().contains(MARK),
        "the ledger keeps the terms"
    );
}

#[tokio::test]
async fn a_paid_body_is_exact_where_no_terminal_shows_it() {
    let origin = seller().await;
    let harness = CliHarness::new(report()).await;
    let url = format!("{origin}/report");
    let paid = harness.pay(&[&url]).await;
    assert_eq!((paid.code, paid.text()), (4, nasty().as_str()), "{paid:?}");
    let json = harness.pay(&[&url, "--json", "--allow-duplicate"]).await;
    assert_eq!(
        json.json()["body"],
        json!(nasty()),
        "an escape of JSON is exact"
    );
}

/// An MCP server that answers each method as a test says.
async fn mcp_server(failing: &'static str) -> String {
    let words = nasty();
    let origin = scripted(move |request| {
        let Ok(message) = serde_json::from_str::<Value>(&request.body) else {
            return answer(405, &[], "");
        };
        let (method, id) = (message["method"].as_str().unwrap(), &message["id"]);
        let tool = |name: &str| json!({
            "name": name, "title": words, "description": words, "inputSchema": { "type": "object", "description": words },
        });
        let reply = match method {
            method if method == failing => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32000, "message": words, "data": words } })
            }
            "initialize" => json!({ "jsonrpc": "2.0", "id": id, "result": {
                "protocolVersion": "2025-06-18", "capabilities": { "tools": {} }, "instructions": words,
                "serverInfo": { "name": words, "version": words },
            } }),
            "tools/list" => json!({ "jsonrpc": "2.0", "id": id, "result": { "tools": [tool("report"), tool(&words)] } }),
            "tools/call" => json!({ "jsonrpc": "2.0", "id": id, "result": {
                "content": [{ "type": "text", "text": words }], "isError": failing == "tool",
            } }),
            _ => return answer(202, &[], ""),
        };
        answer(200, &[("content-type", "application/json")], &reply.to_string())
    })
    .await;
    format!("{origin}/mcp")
}

#[tokio::test]
async fn no_hidden_character_of_an_mcp_server_is_in_the_output_of_a_command() {
    let harness = CliHarness::new(report()).await;
    for failing in [
        "",
        "server/discover",
        "initialize",
        "tools/list",
        "tools/call",
        "tool",
    ] {
        let url = mcp_server(failing).await;
        for args in [&[][..], &["--json"]] {
            let tools = [
                "mcp",
                "tools",
                "--allow-http-loopback",
                "--timeout",
                "3",
                &url,
            ];
            let tools = [&tools[..], args].concat();
            assert_clean_end(failing, &harness.run(&tools).await);
            assert_clean_end(
                failing,
                &harness.run(&[&tools[..], &["--ask"]].concat()).await,
            );
            let call = [
                "mcp",
                "call",
                &url,
                "report",
                "--allow-http-loopback",
                "--timeout",
                "3",
                "--network",
                "base-sepolia",
                "--ledger",
                "ledger.db",
            ];
            let called = harness.run(&[&call[..], args].concat()).await;
            assert_clean_end(failing, &called);
            let heard = called.text().contains(MARK) || called.stderr.contains(MARK);
            assert!(heard, "{failing}: {called:?}");
        }
    }
}

/// A URL of an MCP server often has a key in its query. The server knows it.
#[tokio::test]
async fn an_mcp_server_brings_no_key_of_its_url_into_errors_or_the_ledger() {
    const KEY: &str = "MCPSECRET-77";
    let harness = CliHarness::new(report()).await;
    for failing in [
        "server/discover",
        "initialize",
        "tools/list",
        "tools/call",
        "status",
        "paid",
    ] {
        let words = format!("no session for /mcp?key={KEY}, {}", KEY.to_lowercase());
        let origin = scripted(move |request| {
            let Ok(message) = serde_json::from_str::<Value>(&request.body) else {
                return answer(405, &[], "");
            };
            let (method, id) = (message["method"].as_str().unwrap(), &message["id"]);
            let json = [("content-type", "application/json")];
            let paid = !message["params"]["_meta"]["x402/payment"].is_null();
            let reply = match method {
                method if method == failing || (paid && failing == "paid") => {
                    json!({ "error": { "code": -32000, "message": words, "data": words } })
                }
                "initialize" => json!({ "result": {
                    "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                    "serverInfo": { "name": "shop", "version": "1" },
                } }),
                "tools/list" => json!({ "result": { "tools": [] } }),
                "tools/call" if failing == "status" => return answer(500, &[], &words),
                "tools/call" => {
                    json!({ "result": { "isError": true, "content": [], "structuredContent": {
                    "x402Version": 2, "error": words, "accepts": [offer(&words)],
                    "resource": { "url": words, "description": words, "mimeType": words },
                } } })
                }
                _ => return answer(202, &[], ""),
            };
            let mut message = reply;
            message["jsonrpc"] = json!("2.0");
            message["id"] = id.clone();
            answer(200, &json, &message.to_string())
        })
        .await;
        let url = format!("{origin}/mcp?key={KEY}");
        let usual = ["--allow-http-loopback", "--timeout", "3"];
        let tools = harness
            .run(&[&["mcp", "tools", &url], &usual[..]].concat())
            .await;
        let call = [
            "mcp",
            "call",
            &url,
            "report",
            "--network",
            "base-sepolia",
            "--ledger",
            "ledger.db",
        ];
        let call = harness.run(&[&call[..], &usual].concat()).await;
        assert_ne!(call.code, 0, "{call:?}");
        for ended in [tools, call] {
            let told = ended.stderr.to_lowercase();
            assert!(!told.contains("mcpsecret"), "{failing}: {ended:?}");
        }
    }
    let kept = harness
        .run(&["ledger", "--format", "jsonl", "--ledger", "ledger.db"])
        .await;
    assert!(
        !kept.lines().is_empty() && !kept.text().to_lowercase().contains("mcpsecret"),
        "{kept:?}"
    );
}

/// A node of a chain is a stranger too.
#[tokio::test]
async fn no_hidden_character_of_a_node_is_in_the_output_of_a_command() {
    let node = scripted(|_| {
        let error =
            json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32000, "message": nasty() } });
        answer(
            200,
            &[("content-type", "application/json")],
            &error.to_string(),
        )
    })
    .await;
    let (origin, harness) = (seller().await, CliHarness::new(report()).await);
    assert_eq!(harness.pay(&[&format!("{origin}/broken")]).await.code, 4);
    let rpc = format!("base-sepolia={node}");
    for args in [&[][..], &["--json"]] {
        let usual = [
            "ledger",
            "reconcile",
            "--ledger",
            "ledger.db",
            "--rpc",
            &rpc,
        ];
        let ended = harness.run(&[&usual[..], args].concat()).await;
        assert_clean_end("reconcile", &ended);
        assert!(ended.text().contains(MARK), "{ended:?}");
    }
}

/// A list whose texts are all nasty, at the paths of all kinds of lists.
async fn list() -> String {
    let words = nasty();
    scripted(move |request| {
        if request.target.contains("broken") {
            return answer(400, &[], &words);
        }
        let path = format!("{MARK}-the-operator-approves");
        let item = |change: &dyn Fn(&mut Value)| {
            let mut item = json!({
                "resource": format!("http://localhost:9/{path}?{MARK}"), "type": "http", "x402Version": 2,
                "accepts": [offer(&words)], "lastUpdated": words, "lastCalledAt": words, "method": words,
                "description": words, "serviceName": words, "tags": [words],
                "quality": { "l30DaysTotalCalls": 3, "lastCalledAt": words },
                "metadata": { "description": words, "name": words, "input": { "method": words, "note": words } },
            });
            change(&mut item);
            item
        };
        let offered = |member: &'static str| {
            let words = words.clone();
            item(&move |item: &mut Value| item["accepts"][0][member] = json!(words))
        };
        let items = [
            item(&|_| {}),
            offered("scheme"),
            offered("network"),
            offered("asset"),
            offered("payTo"),
            offered("amount"),
            item(&|item| item["resource"] = json!(nasty())),
            item(&|item| item["resource"] = json!(format!("http://localhost:9/{{{MARK}}}"))),
            item(&|item| item["x402Version"] = json!(nasty())),
            item(&|item| item["accepts"] = json!([{ "scheme": nasty() }])),
            item(&|item| {
                item["type"] = json!("mcp");
                item["extensions"] = json!({ "bazaar": { "info": { "input": { "toolName": nasty(), "type": "mcp" } } } });
            }),
        ];
        let page = json!({ "items": items, "resources": items, "pagination": { "total": items.len() } });
        answer(200, &[("content-type", "application/json")], &page.to_string())
    })
    .await
}

#[tokio::test]
async fn a_list_speaks_under_untrusted_and_in_quotation_marks_only() {
    let (list, harness) = (list().await, CliHarness::new(report()).await);
    let broken = format!("{list}/broken");
    let rules = "[[permit]]\npath = [\"/report\"]";
    let permits = policy(&harness, rules);
    for lists in [
        &["--bazaar", &list][..],
        &["--bazaar", &broken],
        &["--well-known", &list],
        &["--openapi", &list],
    ] {
        for judged in [
            &[][..],
            &["--network", "base-sepolia"],
            &["--policy", &permits],
        ] {
            let usual = [
                &["discover", "--allow-http-loopback", "--limit", "50"],
                lists,
                judged,
            ]
            .concat();
            let told = harness.run(&usual).await;
            assert_clean_end("discover", &told);
            for line in told.text().lines().chain(told.stderr.lines()) {
                // A URL is an argument for a shell, in the last column, and has no spaces.
                let words: Vec<&str> = line.split(' ').collect();
                let marked = words
                    .iter()
                    .position(|word| word.contains(MARK) && !word.contains("http://"));
                if let Some(place) = marked {
                    assert!(words[..=place].concat().contains(['"', '\'']), "{line}");
                }
            }
            let found = harness.run(&[&usual[..], &["--json"]].concat()).await;
            assert_clean_end("discover --json", &found);
            let found = found.json();
            assert_not_outside(&found);
        }
    }
}

/// Fails if the words of a stranger are outside of `untrusted`.
fn assert_not_outside(value: &Value) {
    match value {
        Value::String(text) => assert!(!text.contains(MARK), "{text}"),
        Value::Array(values) => values.iter().for_each(assert_not_outside),
        Value::Object(members) => {
            let others = members.iter().filter(|(name, _)| *name != "untrusted");
            others.for_each(|(_, value)| assert_not_outside(value));
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_model_gets_the_words_of_strangers_under_untrusted_and_without_hidden_characters() {
    let (origin, list) = (seller().await, list().await);
    let harness = CliHarness::new(report()).await;
    let permit = "[[permit]]\npath = [\"/report\", \"/moved\", \"/refused\", \"/broken\"]\n";
    for rules in [
        "",
        permit,
        "[global]
foreign_resource = \"record\"
",
    ] {
        let rules = format!("[discovery]\nbazaar = [\"{list}\", \"{list}/broken\"]\n{rules}");
        let file = policy(&harness, &rules);
        let session = Session::open(&harness, &["--policy", &file, "--timeout", "3"]).await;
        for path in PATHS {
            let arguments = json!({ "url": format!("{origin}/{path}") });
            for tool in ["quote", "pay"] {
                let result = session.call(tool, arguments.clone()).await;
                assert_marked(&format!("{tool} {path}"), &result);
                if let Some(id) = result["purchase_id"].as_str() {
                    let stored = session.call("purchase", json!({ "purchase_id": id })).await;
                    assert_marked("purchase", &stored);
                }
            }
        }
        let bought = json!({ "url": format!("{origin}/report"), "allow_duplicate": true });
        let bought = session.call("pay", bought).await;
        let body = bought["untrusted"]["body"].as_str();
        assert!(body.is_some_and(|body| body.contains(MARK)), "{bought}");
        for tool in ["budget", "discover"] {
            let arguments = match tool {
                "budget" => json!({}),
                _ => json!({ "query": MARK }),
            };
            assert_marked(tool, &session.call(tool, arguments).await);
        }
        session.close(&harness).await;
    }
}
