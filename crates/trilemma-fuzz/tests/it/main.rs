//! The fuzz targets. The crate's documentation says how to run one longer.

/// Makes targets: `name(iterations, bytes of input) => check`.
macro_rules! targets {
    ($($name:ident($iterations:expr, $bytes:expr) => $check:expr;)*) => {$(
        #[test]
        fn $name() {
            let check = $check;
            bolero::check!()
                .with_iterations(crate::iterations($iterations))
                .with_generator(bolero::produce::<Vec<u8>>().with().len(0..=$bytes))
                .for_each(|input: &Vec<u8>| check(input));
        }
    )*};
}

mod checkpoints;
mod disk;
mod members;
mod receive;
mod streams;
mod texts;
// The server is a program, so its readers of configuration trees cannot be named from outside: they are compiled in.
#[path = "../../../trilemma-server/src/tree/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "reading files and telling differences is not decoding"
)]
mod tree;
mod trees;
mod wire;

/// How often a target runs: as it says, or as the environment says.
fn iterations(usually: usize) -> usize {
    let asked = std::env::var("TRILEMMA_FUZZ_ITERATIONS").ok();
    asked.map_or(usually, |asked| {
        asked
            .parse()
            .expect("TRILEMMA_FUZZ_ITERATIONS is a number of iterations")
    })
}
