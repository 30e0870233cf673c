//! A stale read among much else is cut out, explained and drawn.

use super::*;
use crate::history::{Answer, Call, History};
use crate::linearizability::{Budget, check};
use crate::model::Model;
use crate::verdict::Verdict;

fn put(invoke: u64, key: &str, value: &str) -> Operation {
    let call = Call::Put {
        key: key.into(),
        value: value.into(),
    };
    let answer = Answer::Done { version: None };
    operation(1, invoke, call, answer)
}

fn get(invoke: u64, key: &str, value: &str) -> Operation {
    let call = Call::Get { key: key.into() };
    let answer = Answer::Value {
        value: Some(value.into()),
        version: None,
        at: None,
    };
    operation(2, invoke, call, answer)
}

fn operation(process: u64, invoke: u64, call: Call, answer: Answer) -> Operation {
    Operation {
        process,
        invoke,
        returned: Some(invoke + 5),
        call,
        outcome: Outcome::Ok(answer),
    }
}

fn history() -> Vec<Operation> {
    let mut operations = Vec::new();
    for turn in 0..40 {
        let at = turn * 20;
        operations.push(put(at, "a", &format!("a{turn}")));
        operations.push(put(at + 10, "b", &format!("b{turn}")));
        operations.push(get(at + 10, "a", &format!("a{turn}")));
    }
    operations.push(get(900, "a", "a7"));
    operations
}

fn found(operations: &[Operation], model: Model) -> Violation {
    match check(operations, model, Budget::default()).verdict {
        Verdict::Illegal(violation) => violation,
        other => panic!("must be illegal: {other:?}"),
    }
}

#[test]
fn a_stale_read_is_cut_out() {
    let operations = history();
    for model in [Model::Register, Model::KeyValue] {
        let violation = found(&operations, model);
        let small = smallest(&operations, model, Budget::default(), &violation);
        // The write of a7, one later value with what makes it certain, and the read.
        assert!(small.operations.len() <= 3, "{}", text(&operations, &small));
        assert!(
            small.operations.contains(&120) && small.operations.contains(&21),
            "{small:?}"
        );
        let part: Vec<Operation> = small
            .operations
            .iter()
            .map(|place| operations[*place].clone())
            .collect();
        found(&part, model);
        let shown = text(&operations, &small);
        for words in [
            "#120 process 2 [900, 905] get a -> a7",
            "#120 sees a7, which #21 wrote",
            "was complete before #120 began",
        ] {
            assert!(shown.contains(words), "{shown}");
        }
    }
}

#[test]
fn reads_keep_the_write_that_explains_them() {
    let operations = vec![put(0, "a", "x"), get(10, "a", "x"), get(20, "a", "nobody's")];
    let violation = found(&operations, Model::Register);
    let small = smallest(&operations, Model::Register, Budget::default(), &violation);
    assert_eq!(
        (small.rule, &small.operations[..]),
        ("value-from-nowhere", &[2][..])
    );
    let mut failed = put(0, "a", "x");
    failed.outcome = Outcome::Fail;
    let operations = vec![failed, put(10, "a", "y"), get(20, "a", "x")];
    let violation = found(&operations, Model::Register);
    let small = smallest(&operations, Model::Register, Budget::default(), &violation);
    assert_eq!(
        (small.rule, &small.operations[..]),
        ("failed-write-seen", &[0, 2][..])
    );
}

#[test]
fn the_picture_is_whole_and_escapes_what_it_shows() {
    let mut operations = history();
    operations.push(put(901, "<script>&\"'", "\u{1}]]>"));
    operations.last_mut().unwrap().process = 9;
    let violation = found(&operations, Model::Register);
    let small = smallest(&operations, Model::Register, Budget::default(), &violation);
    let picture = svg(&History { operations }, &small);
    assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
    assert!(!picture.contains("<script>") && !picture.contains('\u{1}'));
    assert!(picture.contains("put &lt;script&gt;&amp;&quot;&apos; = \u{FFFD}]]&gt;"));
    assert_eq!(picture.matches("#c81e1e").count(), small.operations.len());
    assert_eq!(picture.matches("<g>").count(), picture.matches("</g>").count());
}
