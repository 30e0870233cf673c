//! What a check found.

/// The result of checking one history against one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Some order that the model allows explains every answer.
    Legal,
    /// No order does.
    Illegal(Violation),
    /// The check ran out of its budget. Never a pass.
    Undecided {
        /// What ran out, and where.
        why: String,
    },
}

/// Why a history is illegal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule that is broken, as a short name: `linearizability`, `real-time`, `lost-update`, `G1c`, …
    pub rule: &'static str,
    /// One sentence: what was seen and what would have been right.
    pub what: String,
    /// Positions in the history of operations that show it, ascending. A check names those that it found at odds;
    /// [`crate::explain::smallest`] makes of them a smallest part that is illegal by itself.
    pub operations: Vec<usize>,
}

impl Verdict {
    /// An illegal history; `operations` in any order, with repeats.
    pub(crate) fn illegal(
        rule: &'static str,
        what: String,
        operations: impl IntoIterator<Item = usize>,
    ) -> Self {
        let mut operations: Vec<usize> = operations.into_iter().collect();
        operations.sort_unstable();
        operations.dedup();
        Verdict::Illegal(Violation {
            rule,
            what,
            operations,
        })
    }

    /// Whether the history is legal.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        matches!(self, Verdict::Legal)
    }
}
