//! The ONNX backend tests, where they are: `NETPROOF_BACKEND=<folder> cargo test -p netproof-graph --test backend -- --nocapture`.
#![allow(clippy::print_stdout, reason = "the lists are what it is run for")]

use netproof_graph::conformance::{Outcome, run_case};
use netproof_onnx::{Limits, backend_cases};

/// Records of the 1.17 suite that contradict the specification: `QLinearMatMul` saturates (these wrap around; corrected in
/// later releases), and a cast to bfloat16 rounds to nearest even (these cut off).
const DISPUTED: &str = include_str!("../../../tests/onnx-disputed.txt");

/// Nothing that runs may answer wrongly.
#[test]
fn recorded_answers_are_met_or_refused() {
    let Some(folder) = std::env::var_os("NETPROOF_BACKEND") else { return };
    let only = std::env::var("NETPROOF_ONLY").unwrap_or_default();
    let cases = backend_cases(folder.as_ref()).expect("the folder is there");
    let (mut passed, mut unsupported, mut failed) = (0, 0, 0);
    for case in cases.iter().filter(|c| c.name.contains(&only)) {
        match run_case(case, &Limits::default()) {
            Outcome::Passed => passed += 1,
            Outcome::Unsupported(why) => {
                unsupported += 1;
                println!("REFUSED {}: {why}", case.name);
            }
            Outcome::Failed(why) => {
                failed += usize::from(DISPUTED.lines().all(|name| name != case.name));
                println!("FAILED {}: {why}", case.name);
            }
        }
    }
    println!("{passed} passed, {unsupported} unsupported, {failed} failed");
    assert_eq!(failed, 0);
}
