//! A paid seller that speaks OpenAI's API, for tests in any language.
//!
//! `cargo run -p bursar-testing --example openai_seller -- --port 8500` prints one line of JSON when it is ready:
//! `{"base_url":"http://127.0.0.1:8500/v1","status_url":"http://127.0.0.1:8500/_seller"}`. Give `base_url` to a client of
//! OpenAI. `status_url` shows the requests and the settlements.
//!
//! `--help` prints all arguments.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use bursar_testing::{Fault, OpenAi, Paywall};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
A paid seller on loopback that speaks OpenAI's API, and settles on a simulated chain

Its first line of output is JSON with `base_url`, for a client of OpenAI or a route of
`bursar proxy`, and with `status_url`, which shows the requests and the settlements.

  --port N                     the port; 0, the default, takes a free one
  --price DOLLARS              the price of a request; 0.001 by default, 0 is free
  --price-per-token DOLLARS    a price for each token that the answer may have
  --model NAME                 a model, gpt-test by default; can be repeated
  --pause-ms N                 the time between the events of a stream
  --v1                         x402 version 1
  --idempotent                 gives the same answer again for the same payment
  --drop-first                 settles the first payment and closes the connection
  --hang-first                 settles the first payment and never answers
  --fail-first STATUS          settles the first payment and answers with an error, such as 502
  --stop-with-stdin            ends when the standard input ends

The three faults are for each path, and for its first payment only.
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "openai_seller: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<()> {
    let (mut seller, mut model) = (Paywall::builder().status_page("/_seller"), OpenAi::new());
    let (mut v1, mut idempotent, mut stop_with_stdin) = (false, false, false);
    let mut faults = Vec::new();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, mut value) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = || {
            let value = value.take().or_else(|| arguments.next());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "--port" => seller = seller.port(parsed(&name, value()?)?),
            "--price" => model = model.price(parsed(&name, value()?)?),
            "--price-per-token" => model = model.price_per_token(parsed(&name, value()?)?),
            "--model" => model = model.model(value()?),
            "--pause-ms" => model = model.pause(Duration::from_millis(parsed(&name, value()?)?)),
            "--v1" => v1 = true,
            "--idempotent" => idempotent = true,
            "--drop-first" => faults.push(Fault::DropAfterSettle),
            "--hang-first" => faults.push(Fault::HangAfterSettle),
            "--fail-first" => faults.push(Fault::StatusAfterSettle(parsed(&name, value()?)?)),
            "--stop-with-stdin" => stop_with_stdin = true,
            "--help" | "-h" => {
                std::io::stdout().write_all(HELP.as_bytes())?;
                return Ok(());
            }
            _ => return Err(format!("the argument {name} is unknown; see --help").into()),
        }
    }
    let model = model.paid_route(move |mut route| {
        if v1 {
            route = route.v1();
        }
        if idempotent {
            route = route.idempotent();
        }
        for fault in &faults {
            route = route.fault_once(fault.clone());
        }
        route
    });
    let seller = seller.routes(model).start().await?;

    let mut out = std::io::stdout();
    let (base, status) = (seller.url("/v1"), seller.url("/_seller"));
    writeln!(out, r#"{{"base_url":"{base}","status_url":"{status}"}}"#)?;
    out.flush()?;
    if stop_with_stdin {
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // An error ends the input, too.
            drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            ended.send(()).unwrap_or_default();
        });
        drop(end.await);
        // The thread that reads has ended.
        return Ok(());
    }
    std::future::pending().await
}

fn parsed<T: FromStr<Err: Display>>(name: &str, value: String) -> std::result::Result<T, String> {
    let read = value.parse();
    read.map_err(|error| format!("{name} {value}: {error}"))
}
