//! Measures bursar, two plain requests (the floor), a payer by hand and other clients: `benches/run` runs it.

#[cfg(feature = "postgres")]
mod away;
mod clients;
mod counts;
mod drive;
#[cfg(feature = "postgres")]
mod fleet;
mod growth;
mod mode;
#[path = "../../pieces/core.rs"]
mod pieces;
#[cfg(feature = "postgres")]
mod postgres;
mod reading;
mod rounds;
mod server;
mod table;

use drive::{Failure, Plan};
use mode::Mode;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("server") => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(server::serve()),
        Some("client") => {
            let [_, name, base, plan @ ..] = arguments.as_slice() else {
                return Err("client NAME BASE PLAN".into());
            };
            let plan = Plan::read(plan)?;
            let measured = plan.runtime()?.block_on(clients::run(name, base, plan))?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
        Some("growth") => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(growth::measure(Mode::read(&arguments))),
        Some("read") => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(reading::run(&arguments[1..])),
        #[cfg(feature = "postgres")]
        Some("postgres") => postgres::run(&arguments[1..]),
        #[cfg(feature = "postgres")]
        Some("fleet") => fleet::measure(Mode::read(&arguments)),
        Some("pieces") => {
            pieces::NAMES.iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        Some("piece") => {
            let [_, name, count] = arguments.as_slice() else {
                return Err("piece NAME COUNT".into());
            };
            let mut piece = pieces::Piece::new(name)?;
            (0..count.parse()?).try_for_each(|_| piece.run())
        }
        Some("table") => table::print(&arguments),
        _ => Err("run benches/run".into()),
    }
}
