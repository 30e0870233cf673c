//! The first symbols of a set, kept as elements come and go.

use std::sync::Arc;

use super::mapping::Mapping;
use super::secret::Secret;
use super::symbol::{By, Element, Symbol};

/// Most symbols that a node keeps of a set: 128 KiB. They tell some 3,000 differences; for more, contents are cheaper.
pub const SYMBOLS_MAX: usize = 4096;
/// Fewest.
pub const SYMBOLS_MIN: usize = 64;

/// See the module. A clone is O(1); the first change after it copies the symbols.
#[derive(Clone, Debug)]
pub struct Sketch {
    secret: Secret,
    symbols: Arc<[Symbol]>,
}

impl Sketch {
    /// The symbols of an empty set.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            symbols: vec![Symbol::default(); SYMBOLS_MIN].into(),
        }
    }

    /// The symbols of these elements.
    #[must_use]
    pub fn of(secret: Secret, elements: impl IntoIterator<Item = Element>) -> Self {
        let elements: Vec<Element> = elements.into_iter().collect();
        let mut sketch = Self::new(secret);
        sketch.grow(elements.len(), elements);
        sketch
    }

    /// Number of symbols that a set of so many elements is worth: twice as many, up to the limit, so that it takes little
    /// beside its elements.
    fn length_for(elements: usize) -> usize {
        let wanted = elements.saturating_mul(2).next_power_of_two();
        wanted.clamp(SYMBOLS_MIN, SYMBOLS_MAX)
    }

    /// Whether the set has outgrown its symbols: then [`Sketch::grow`] is due.
    #[must_use]
    pub fn is_outgrown(&self, elements: usize) -> bool {
        self.symbols.len() < SYMBOLS_MAX && self.symbols.len() < Self::length_for(elements)
    }

    /// Counts a set of `length` elements again, with more symbols. It never has more than half of [`SYMBOLS_MAX`] elements, and
    /// each time twice as many as before.
    pub fn grow(&mut self, length: usize, elements: impl IntoIterator<Item = Element>) {
        let mut symbols = vec![Symbol::default(); Self::length_for(length)];
        for element in elements {
            change(self.secret, &mut symbols, element, By::One);
        }
        self.symbols = symbols.into();
    }

    /// Adds an element that is not in the set: some 16 of the symbols change.
    pub fn insert(&mut self, element: Element) {
        change(self.secret, Arc::make_mut(&mut self.symbols), element, By::One);
    }

    /// Takes out an element of the set.
    pub fn remove(&mut self, element: Element) {
        change(
            self.secret,
            Arc::make_mut(&mut self.symbols),
            element,
            By::LessOne,
        );
    }

    /// Takes an element of the set out and adds another one. Both at once take little more time than one: where an element leads is
    /// a chain of steps, each waiting for the one before.
    pub fn replace(&mut self, old: Element, new: Element) {
        let symbols = Arc::make_mut(&mut self.symbols);
        let (old_check, new_check) = (self.secret.check(old), self.secret.check(new));
        let (mut old_at, mut new_at) = (Mapping::new(old_check), Mapping::new(new_check));
        while let (Some(of_old), Some(of_new)) = (old_at.within(symbols.len()), new_at.within(symbols.len()))
        {
            symbols[of_old].change(old, old_check, By::LessOne);
            symbols[of_new].change(new, new_check, By::One);
            old_at.advance();
            new_at.advance();
        }
        go_on(symbols, old_at, old, old_check, By::LessOne);
        go_on(symbols, new_at, new, new_check, By::One);
    }

    /// The secret under which the symbols were made.
    #[must_use]
    pub fn secret(&self) -> Secret {
        self.secret
    }

    /// The symbols.
    #[must_use]
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }
}

fn change(secret: Secret, symbols: &mut [Symbol], element: Element, by: By) {
    let check = secret.check(element);
    go_on(symbols, Mapping::new(check), element, check, by);
}

fn go_on(symbols: &mut [Symbol], mut mapping: Mapping, element: Element, check: u64, by: By) {
    while let Some(at) = mapping.within(symbols.len()) {
        symbols[at].change(element, check, by);
        mapping.advance();
    }
}
