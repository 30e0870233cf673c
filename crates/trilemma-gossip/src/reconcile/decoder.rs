//! Finds the difference of two sets, from the symbols of both.
//!
//! Section 3 of the paper: a symbol of the difference that holds one element alone gives it away; taken out of its other
//! symbols, it leaves more that hold one alone. All are found when symbol 0, which every element is in, is empty.

use std::collections::BTreeSet;

use super::mapping::Mapping;
use super::sketch::Sketch;
use super::symbol::{By, Element, Side, Symbol};

/// See the module. Memory and work are bounded by the symbols of this side's sketch: at most as many elements are found, each
/// in some 16 of them.
#[derive(Debug)]
pub struct Decoder {
    own: Sketch,
    /// What the symbols so far hold that is not found yet.
    symbols: Vec<Symbol>,
    found: Vec<Found>,
    known: BTreeSet<Element>,
    progress: Progress,
}

/// An element of the difference.
#[derive(Debug)]
struct Found {
    element: Element,
    check: u64,
    side: Side,
    /// Its first symbol that has not come yet.
    mapping: Mapping,
}

/// How far a decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Symbols are missing.
    Open,
    /// Everything is found.
    Done,
    /// This side has no more symbols: the difference is too large.
    Exhausted,
}

/// Why symbols cannot be those of any set: their sender lies or is broken, or another secret was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// An element was found in a symbol that it does not belong to.
    #[error("symbol {0} holds an element that does not belong there")]
    Misplaced(usize),
    /// An element was found twice.
    #[error("an element is in the difference twice")]
    Repeated,
    /// More elements were found than there are symbols.
    #[error("more elements than symbols")]
    TooMany,
    /// Everything is found, and something is left.
    #[error("symbol {0} holds something when everything is found")]
    Rest(usize),
}

/// The difference of two sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// What only the other set holds, ascending.
    pub there: Vec<Element>,
    /// What only this set holds, ascending.
    pub here: Vec<Element>,
}

impl Decoder {
    /// A decoder against the set of this sketch, as it is now.
    #[must_use]
    pub fn new(own: Sketch) -> Self {
        Self {
            own,
            symbols: Vec::new(),
            found: Vec::new(),
            known: BTreeSet::new(),
            progress: Progress::Open,
        }
    }

    /// Number of symbols taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.symbols.len()
    }

    /// Takes the next symbols of the other set. Those beyond what is needed, or beyond this side's own, are passed over.
    pub fn take(&mut self, symbols: &[Symbol]) -> Result<Progress, Defect> {
        if self.progress != Progress::Open {
            return Ok(self.progress);
        }
        let first = self.symbols.len();
        let own = &self.own.symbols()[first..];
        let differences = symbols.iter().zip(own).map(|(theirs, own)| theirs.minus(*own));
        self.symbols.extend(differences);
        for found in &mut self.found {
            found.take_out(&mut self.symbols, |_| {});
        }
        self.peel((first..self.symbols.len()).collect())?;
        self.progress = self.judge()?;
        Ok(self.progress)
    }

    /// Finds all that the symbols give away, beginning with these.
    fn peel(&mut self, mut candidates: Vec<usize>) -> Result<(), Defect> {
        let secret = self.own.secret();
        while let Some(at) = candidates.pop() {
            let symbol = self.symbols[at];
            let element = Element(symbol.sum);
            let Some(side) = symbol.single().filter(|_| secret.check(element) == symbol.check) else {
                continue;
            };
            if !Mapping::new(symbol.check).hits(at as u64) {
                return Err(Defect::Misplaced(at));
            }
            if !self.known.insert(element) {
                return Err(Defect::Repeated);
            }
            if self.found.len() >= self.symbols.len() {
                return Err(Defect::TooMany);
            }
            let mut found = Found {
                element,
                check: symbol.check,
                side,
                mapping: Mapping::new(symbol.check),
            };
            found.take_out(&mut self.symbols, |touched| candidates.push(touched));
            self.found.push(found);
        }
        Ok(())
    }

    fn judge(&self) -> Result<Progress, Defect> {
        match self.symbols.first() {
            None => Ok(Progress::Open),
            Some(first) if first.is_empty() => {
                let rest = self.symbols.iter().position(|symbol| !symbol.is_empty());
                rest.map_or(Ok(Progress::Done), |at| Err(Defect::Rest(at)))
            }
            Some(_) if self.symbols.len() == self.own.symbols().len() => Ok(Progress::Exhausted),
            Some(_) => Ok(Progress::Open),
        }
    }

    /// The difference. `None` unless everything is found.
    #[must_use]
    pub fn finish(self) -> Option<Decoded> {
        if self.progress != Progress::Done {
            return None;
        }
        let mut decoded = Decoded::default();
        for found in self.found {
            match found.side {
                Side::There => decoded.there.push(found.element),
                Side::Here => decoded.here.push(found.element),
            }
        }
        decoded.there.sort_unstable();
        decoded.here.sort_unstable();
        Some(decoded)
    }
}

impl Found {
    /// Takes the element out of those of its symbols that have come since the last time.
    fn take_out(&mut self, symbols: &mut [Symbol], mut touch: impl FnMut(usize)) {
        let by = match self.side {
            Side::There => By::LessOne,
            Side::Here => By::One,
        };
        while let Some(at) = self.mapping.within(symbols.len()) {
            symbols[at].change(self.element, self.check, by);
            touch(at);
            self.mapping.advance();
        }
    }
}
