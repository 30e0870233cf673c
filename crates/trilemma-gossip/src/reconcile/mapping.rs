//! In which symbols an element is: in symbol `i` with probability `1/(1 + i/2)`.
//!
//! Section 4.2 of the paper, with the update rule of the authors' program. The square root and the division are correctly
//! rounded on every machine (IEEE 754), so that all nodes compute the same.

/// The symbols of one element, ascending; 0 is the first of every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mapping {
    state: u64,
    /// A whole number. Each step depends on the one before: between whole numbers and fractions it would take twice as long.
    at: f64,
}

impl Mapping {
    /// The symbols of the element with this check.
    #[must_use]
    pub fn new(check: u64) -> Self {
        Self {
            state: check,
            at: 0.0,
        }
    }

    /// The present symbol.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at as u64
    }

    /// The present symbol, if it is one of the first `length`.
    #[must_use]
    pub fn within(&self, length: usize) -> Option<usize> {
        (self.at < length as f64).then_some(self.at as u32 as usize)
    }

    /// Goes on to the next symbol.
    pub fn advance(&mut self) {
        const RANGE: f64 = 4_294_967_296.0;
        // 2^52: what is added to it has no fraction left. The nearest whole number, then the next one above if that is below.
        const WHOLE: f64 = 4_503_599_627_370_496.0;
        self.state = self.state.wrapping_mul(0xda94_2042_e4dd_58b5);
        let skip = (self.at + 1.5) * (RANGE / (self.state as f64 + 1.0).sqrt() - 1.0);
        let nearest = (skip + WHOLE) - WHOLE;
        let step = nearest + if nearest < skip { 1.0 } else { 0.0 };
        // It is at least 1 but where the state is all ones.
        self.at += step.max(1.0);
    }

    /// Whether the element is in this symbol, which is not before the present one.
    #[must_use]
    pub fn hits(mut self, symbol: u64) -> bool {
        while self.at < symbol as f64 {
            self.advance();
        }
        self.at() == symbol
    }
}
