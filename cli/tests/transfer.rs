//! The request that is sent, and the destination of the body.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::process::Stdio;

use bursar::usd;
use bursar_testing::Route;
use support::{CliHarness, report};

#[tokio::test]
async fn the_options_for_a_request_work_as_in_curl() {
    let harness = CliHarness::new(Route::any("/*").price(usd!("0.01")).echo()).await;
    let url = harness.paywall.url("/form?a=1").to_string();
    let file = harness.file("data.bin", b"line one\nline \xff two\n");
    let at = format!("@{file}");

    let ended = harness
        .pay(&[
            &url, "-d", "a=1", "-d", "b=2", "-H", "X-One: 1", "-H", "x-one:2", "-H", "X-Empty;",
        ])
        .await;
    assert_eq!((ended.code, ended.text()), (0, "a=1&b=2"));
    let sent = harness.paywall.requests();
    for request in &sent {
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/form?a=1")
        );
        assert_eq!(
            request.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        assert_eq!(
            request.headers.get_all("x-one").iter().collect::<Vec<_>>(),
            ["1", "2"]
        );
        assert_eq!(request.header("x-empty"), Some(""));
        assert!(request.header("user-agent").unwrap().starts_with("bursar/"));
    }

    let ended = harness
        .pay(&[
            &url,
            "-d",
            &at,
            "-X",
            "PUT",
            "-H",
            "content-type: application/octet-stream",
        ])
        .await;
    assert_eq!(
        (ended.code, ended.stdout.as_slice()),
        (0, b"line one\nline \xff two\n".as_slice())
    );
    let request = harness.paywall.requests().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.header("content-type")),
        ("PUT", Some("application/octet-stream"))
    );

    let ledger = harness.path("ledger.db");
    let stdin = harness.command(&[
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--ledger",
        ledger.to_str().unwrap(),
        &url,
        "--data",
        "@-",
        "--header",
        "Content-Type:",
        "--header",
        "User-Agent:",
    ]);
    let ended = harness.end(stdin, b"from a pipe").await;
    assert_eq!((ended.code, ended.text()), (0, "from a pipe"));
    let request = harness.paywall.requests().pop().unwrap();
    assert_eq!(
        (request.header("content-type"), request.header("user-agent")),
        (None, None)
    );
}

#[tokio::test]
async fn the_body_goes_to_a_file() {
    let long = "0123456789abcdef".repeat(8192);
    let harness = CliHarness::new(report().chunks([long.clone(), "end".to_owned()])).await;
    let file = harness.file("out.bin", "y".repeat(200_000));
    let ended = harness.buy(&["-o", &file]).await;
    assert_eq!((ended.code, ended.text()), (0, ""));
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("{long}end")
    );

    let ended = harness.buy(&["--json", "--output", &file]).await;
    assert_eq!(ended.json()["body"].as_str().unwrap(), &long[..65_536]);
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("{long}end")
    );

    assert_eq!(
        harness.buy(&["--json"]).await.json()["body"]
            .as_str()
            .unwrap()
            .len(),
        65_536
    );
    assert_eq!(harness.buy(&["-o", "-"]).await.text(), format!("{long}end"));
    let nowhere = harness.path("no/such/directory");
    let before = harness.settled();
    assert_eq!(
        harness.buy(&["-o", nowhere.to_str().unwrap()]).await.code,
        2
    );
    assert_eq!(
        harness.settled(),
        before,
        "bursar pays nothing if it cannot store the body"
    );
}

#[tokio::test]
async fn a_denied_request_does_not_change_the_output_file() {
    let harness = CliHarness::new(report()).await;
    let file = harness.file("out.bin", "precious");
    assert_eq!(
        harness
            .buy(&["-o", &file, "--max-per-payment", "0.001"])
            .await
            .code,
        3
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn invalid_text_in_a_json_body_is_replaced_within_64_kib() {
    let harness =
        CliHarness::new(report().body([b"\xff".repeat(65_535), "é".into()].concat())).await;
    let body = harness.buy(&["--json"]).await.json()["body"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(body.len() <= 65_536 && body.starts_with('\u{fffd}'));
    let harness = CliHarness::new(report().body(["a".repeat(65_535), "é".into()].concat())).await;
    assert_eq!(
        harness.buy(&["--json"]).await.json()["body"]
            .as_str()
            .unwrap(),
        "a".repeat(65_535)
    );
}

#[tokio::test]
async fn a_closed_pipe_ends_the_run_without_an_error() {
    let harness = CliHarness::new(report().body("x".repeat(1_000_000))).await;
    let ledger = harness.path("ledger.db");
    let url = harness.url();
    for json in [&[][..], &["--json"]] {
        let args = [
            "pay",
            &url,
            "--network",
            "base-sepolia",
            "--allow-http-loopback",
            "--ledger",
            ledger.to_str().unwrap(),
        ];
        let mut command = harness.command(&[&args[..], &["--repeat", "5"], json].concat());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
            .await
            .unwrap();
        assert_eq!(
            (
                output.status.code(),
                String::from_utf8(output.stderr).unwrap().as_str()
            ),
            (Some(0), "")
        );
    }
    assert_eq!(harness.settled(), 2, "one in each run");
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_not_followed() {
    let harness =
        CliHarness::new(Route::get("/report").redirect("http://127.0.0.1:1/elsewhere")).await;
    let ended = harness.buy(&[]).await;
    assert_eq!(
        (ended.code, harness.paywall.requests().len()),
        (1, 1),
        "{ended:?}"
    );
    assert_eq!(
        ended.stderr,
        "not paid: the answer is 307 Temporary Redirect, a redirect that bursar does not follow: GET \
         http://127.0.0.1:1/elsewhere (add --location to fetch it without any header of this request)\n"
    );
}
