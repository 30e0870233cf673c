//! In which symbols an element is: in symbol `i` with probability `1/(1 + i/2)`.
//!
//! Section 4.2 of the paper, with the update rule of the authors' program. The square root and the division are correctly
//! rounded on every machine (IEEE 754), so that all nodes compute the same.

/// The symbols of one element, ascending; 0 is the first of every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    state: u64,
    at: u64,
}

impl Mapping {
    /// The symbols of the element with this check.
    #[must_use]
    pub fn new(check: u64) -> Self {
        Self { state: check, at: 0 }
    }

    /// The present symbol.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Goes on to the next symbol.
    pub fn advance(&mut self) {
        const RANGE: f64 = 4_294_967_296.0;
        self.state = self.state.wrapping_mul(0xda94_2042_e4dd_58b5);
        let skip = (self.at as f64 + 1.5) * (RANGE / (self.state as f64 + 1.0).sqrt() - 1.0);
        // Rounded up. The step is at least 1 but where the state is all ones.
        let whole = skip as u64;
        let step = whole + u64::from((whole as f64) < skip);
        self.at = self.at.saturating_add(step.max(1));
    }

    /// Whether the element is in this symbol, which is not before the present one.
    #[must_use]
    pub fn hits(mut self, symbol: u64) -> bool {
        while self.at < symbol {
            self.advance();
        }
        self.at == symbol
    }
}
