//! The steps of a purchase, one by one: `cargo bench`.

#[path = "pieces/core.rs"]
mod core;

use crate::core::{NAMES, Piece};

fn main() {
    divan::main();
}

#[divan::bench(args = NAMES)]
#[expect(clippy::expect_used, reason = "a benchmark has nobody else to tell")]
fn piece(bencher: divan::Bencher<'_, '_>, name: &str) {
    let mut piece = Piece::new(name).expect("a piece of this name");
    bencher.bench_local(|| piece.run());
}
