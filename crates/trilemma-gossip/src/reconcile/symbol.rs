//! What is reconciled and what is sent.

/// One element of a set: 16 bytes that no other element of either set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element(pub u128);

/// Bytes of one symbol on the wire.
pub const SYMBOL_BYTES: usize = 26;

/// The sum of some elements of a set, or of the difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// The elements, by exclusive or.
    pub(super) sum: u128,
    /// Their checks, by exclusive or.
    pub(super) check: u64,
    /// Their number. Only differences of numbers matter, so that 16 bits do.
    pub(super) count: u16,
}

/// By how much the number of elements changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum By {
    One = 1,
    LessOne = u16::MAX,
}

/// On which side of a difference an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    There,
    Here,
}

impl Symbol {
    /// Adds one element, or takes it out.
    pub(super) fn change(&mut self, element: Element, check: u64, by: By) {
        self.sum ^= element.0;
        self.check ^= check;
        self.count = self.count.wrapping_add(by as u16);
    }

    /// This symbol of one set less the same symbol of another: what both hold is gone.
    #[must_use]
    pub fn minus(self, other: Symbol) -> Symbol {
        Symbol {
            sum: self.sum ^ other.sum,
            check: self.check ^ other.check,
            count: self.count.wrapping_sub(other.count),
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Symbol::default()
    }

    /// The side of its only element, if it may hold one alone.
    pub(super) fn single(self) -> Option<Side> {
        match self.count {
            1 => Some(Side::There),
            u16::MAX => Some(Side::Here),
            _ => None,
        }
    }

    /// Some symbols as they travel, little-endian.
    #[must_use]
    pub fn write_all(symbols: &[Symbol]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(symbols.len() * SYMBOL_BYTES);
        for symbol in symbols {
            bytes.extend_from_slice(&symbol.sum.to_le_bytes());
            bytes.extend_from_slice(&symbol.check.to_le_bytes());
            bytes.extend_from_slice(&symbol.count.to_le_bytes());
        }
        bytes
    }

    /// The symbols in some bytes; `None` if the last one is cut off.
    #[must_use]
    pub fn read_all(bytes: &[u8]) -> Option<Vec<Symbol>> {
        let (symbols, rest) = bytes.as_chunks::<SYMBOL_BYTES>();
        rest.is_empty()
            .then(|| symbols.iter().map(Symbol::read).collect())
    }

    fn read(bytes: &[u8; SYMBOL_BYTES]) -> Symbol {
        let (mut sum, mut check, mut count) = ([0; 16], [0; 8], [0; 2]);
        sum.copy_from_slice(&bytes[..16]);
        check.copy_from_slice(&bytes[16..24]);
        count.copy_from_slice(&bytes[24..]);
        Symbol {
            sum: u128::from_le_bytes(sum),
            check: u64::from_le_bytes(check),
            count: u16::from_le_bytes(count),
        }
    }
}
