//! Two-phase commit by plays: the files of `tests/plays/` are run, and their traces must be what is recorded.
//!
//! `cargo xtask plays --rewrite` renews them. The form is that of [`trilemma_testkit::plays`].

use std::fs;
use std::path::Path;

use trilemma_core::{Incarnation, NodeId};
use trilemma_testkit::plays::{Plays, Setup, Stage, show_command, show_op};
use trilemma_two_phase::{Batch, BatchId, Head, Message, Transaction, TwoPhase, TwoPhaseConfig, Verdict};

/// Two-phase commit on the stage.
struct OfTwoPhase;

impl Stage for OfTwoPhase {
    type Protocol = TwoPhase;

    fn build(node: NodeId, incarnation: Incarnation, seed: u64, setup: &Setup) -> TwoPhase {
        TwoPhase::new(TwoPhaseConfig::new(node, setup.members(), incarnation, seed))
    }

    fn show(message: &Message) -> Vec<String> {
        vec![show(message)]
    }
}

#[test]
fn two_phase_plays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plays");
    let mut plays = Plays::<OfTwoPhase>::new(std::env::var("TRILEMMA_PLAYS").ok().as_deref());
    for file in fs::read_dir(folder).expect("there are plays") {
        let path = file.expect("the folder can be read").path();
        let recorded = fs::read_to_string(&path).expect("a play is text");
        if let Some(renewed) = plays.perform(&path.display().to_string(), &recorded) {
            fs::write(&path, renewed).expect("a play can be written");
        }
    }
    plays.end();
}

/// A batch: incarnation of the sequencer and number.
fn name(id: BatchId) -> String {
    match id {
        BatchId::ORIGIN => "none".into(),
        id => format!("{}-{}", id.incarnation.0, id.seq),
    }
}

fn names(ids: &[BatchId]) -> String {
    ids.iter().map(|id| name(*id)).collect::<Vec<_>>().join(", ")
}

fn known(head: &Head) -> String {
    format!(
        "decided up to {}, finished below {}",
        name(head.decided),
        name(head.finished)
    )
}

fn batch(batch: &Batch) -> String {
    let show = |transaction: &Transaction| match transaction {
        Transaction::Write { op, command } => format!("{} {}", show_op(*op), show_command(command)),
        Transaction::Fence { op } => format!("fence {}", show_op(*op)),
    };
    let transactions = batch.transactions.iter().map(show).collect::<Vec<_>>().join("; ");
    format!("{} after {}: [{transactions}]", name(batch.id), name(batch.prev))
}

fn show(message: &Message) -> String {
    match message {
        Message::Prepare { batch: asked, head } => format!("prepare {}; {}", batch(asked), known(head)),
        Message::Announce { head } => format!("announce {}", known(head)),
        Message::Resolved(facts) => format!(
            "resolved after {} and below {}: committed [{}], open [{}], all others aborted",
            name(facts.after),
            name(facts.below),
            names(&facts.committed),
            names(&facts.open)
        ),
        Message::Probe => "probe: where do you stand?".into(),
        Message::Hello(at) if at.is_blank => "hello: without state".into(),
        Message::Hello(at) => format!(
            "hello: decided {}, prepared {}",
            name(at.decided),
            name(at.prepared)
        ),
        Message::Vote { prepared, acked } => {
            format!("vote up to {}, knows {}", name(*prepared), name(*acked))
        }
        Message::Refusal { id, why } => format!("refusal of {}: {why}", name(*id)),
        Message::Resend { after } => format!("resend after {}", name(*after)),
        Message::Inquire { in_doubt, is_urgent } => {
            let urgent = if *is_urgent { ", urgently" } else { "" };
            format!("inquire about {}{urgent}", names(in_doubt))
        }
        Message::Evidence {
            committed,
            aborted,
            finished,
        } => {
            let upto = |id: &Option<BatchId>| id.map_or("nothing".into(), name);
            let (committed, aborted) = (upto(committed), upto(aborted));
            format!(
                "evidence: committed {committed}, aborted {aborted}, finished below {}",
                name(*finished)
            )
        }
        Message::Forwards { items, .. } => {
            let show = |item: &trilemma_two_phase::Forward| match &item.transaction {
                Transaction::Write { op, command } => format!("{} {}", show_op(*op), show_command(command)),
                Transaction::Fence { op } => format!("fence {}", show_op(*op)),
            };
            format!(
                "forward [{}]",
                items.iter().map(show).collect::<Vec<_>>().join("; ")
            )
        }
        Message::Answers { items, .. } => {
            let show = |item: &trilemma_two_phase::Answer| match &item.verdict {
                Verdict::Refused(refused) => refused.to_string(),
                Verdict::Unknown(cause) => format!("unknown: {cause}"),
                Verdict::Resolved(_) => "has run before".into(),
            };
            format!(
                "answer [{}]",
                items.iter().map(show).collect::<Vec<_>>().join("; ")
            )
        }
        Message::Install { decided, .. } => format!("install the state at {}", name(*decided)),
        Message::Fetch { index, .. } => format!("fetch piece {index}"),
        Message::Piece { index, is_last, .. } => {
            let last = if *is_last { ", the last" } else { "" };
            format!("piece {index}{last}")
        }
    }
}
