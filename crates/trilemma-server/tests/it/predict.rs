//! `trilemma predict`: numbers in, numbers out.

use crate::harness::{lines, text, trilemma_with_input};

fn predict(args: &[&str]) -> std::process::Output {
    trilemma_with_input(&[&["predict"], args].concat(), b"")
}

const THOUSAND: &[&str] = &["--nodes", "1000", "--fanout", "3", "--tick", "100"];

#[test]
fn a_prediction_is_a_table_or_json_and_names_its_engine() {
    let table = predict(THOUSAND);
    assert!(table.status.success(), "{}", text(&table));
    let shown = String::from_utf8_lossy(&table.stdout).into_owned();
    for what in ["delay equation", "p99.99", "nodes that rumors miss"] {
        assert!(shown.contains(what), "{shown}");
    }
    let formula = predict(&[THOUSAND, &["--output", "json"]].concat());
    let simulate = ["--simulate", "50", "--seed", "7", "--json"];
    let simulated = predict(&[THOUSAND, &simulate].concat());
    assert_eq!(simulated.stdout, predict(&[THOUSAND, &simulate].concat()).stdout);
    let (formula, simulated) = (&lines(&formula)[0], &lines(&simulated)[0]);
    assert_eq!(simulated["engine"], "Monte Carlo, 50 runs, seed 7");
    let mean = |found: &serde_json::Value| found["mean_ms"].as_f64().expect("a number");
    assert!(
        (mean(formula) / mean(simulated) - 1.0).abs() < 0.1,
        "{formula} {simulated}"
    );
    let rounds = predict(&[THOUSAND, &["--synchronised"]].concat());
    assert!(text(&rounds).contains("recurrence"), "{}", text(&rounds));
}

#[test]
fn a_rough_estimate_says_so() {
    let rough = predict(&[THOUSAND, &["--groups", "50"]].concat());
    assert!(
        rough.status.success() && text(&rough).contains("--simulate 1000"),
        "{}",
        text(&rough)
    );
}

#[test]
fn a_picture_has_a_text_alternative_and_a_dark_form() {
    let file = std::env::temp_dir().join(format!("trilemma-predict-{}.svg", std::process::id()));
    let drawn = predict(&[THOUSAND, &["--svg", crate::harness::path(&file)]].concat());
    assert!(drawn.status.success(), "{}", text(&drawn));
    let svg = std::fs::read_to_string(&file).expect("a picture");
    for what in [
        "<title",
        "<desc",
        "prefers-color-scheme:dark",
        "p50",
        "p99",
        "polyline",
    ] {
        assert!(svg.contains(what), "{what}: {svg}");
    }
    std::fs::remove_file(&file).expect("its own file");
}

#[test]
fn what_has_no_answer_is_refused_with_what_would_work() {
    for (args, what) in [
        (&["--vouchers", "1000"][..], "at most 64"),
        (&["--loss", "1"], "0.999"),
        (&["--groups", "1001"], "1000 nodes"),
        (&["--top", "2"], "0 to 1"),
        (&["--latency", "NaN"], "--latency"),
        (&["--simulate", "0"], "at least 1"),
        (&["--simulate", "4000000000"], "at most 200000"),
    ] {
        let refused = predict(&[THOUSAND, args].concat());
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains(what), "{}", text(&refused));
    }
}
