//! The distribution of the time until all nodes have a change: a mixture of uniform pieces, in ticks.

/// Probability mass spread evenly over a stretch of time; a point if both ends are equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) mass: f64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pieces: Vec<Piece>,
}

/// Halvings that find a quantile: better than a millionth of the longest time.
const HALVINGS: u32 = 40;

impl Times {
    /// Everything at one moment.
    pub(crate) fn at(time: f64) -> Self {
        let mut times = Self::default();
        times.add(time, time, 1.0);
        times
    }

    pub(crate) fn add(&mut self, from: f64, to: f64, mass: f64) {
        if mass > 0.0 {
            self.pieces.push(Piece { from, to, mass });
        }
    }

    fn mass(&self) -> f64 {
        self.pieces.iter().map(|piece| piece.mass).sum()
    }

    pub(crate) fn mean(&self) -> f64 {
        let sum: f64 = self
            .pieces
            .iter()
            .map(|piece| piece.mass * f64::midpoint(piece.from, piece.to))
            .sum();
        if self.pieces.is_empty() {
            0.0
        } else {
            sum / self.mass()
        }
    }

    /// Mass up to a time.
    fn up_to(&self, time: f64) -> f64 {
        let part = |piece: &Piece| {
            if time >= piece.to {
                piece.mass
            } else if time <= piece.from {
                0.0
            } else {
                piece.mass * (time - piece.from) / (piece.to - piece.from)
            }
        };
        self.pieces.iter().map(part).sum()
    }

    /// The time that this share of the writes does not pass.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.pieces.iter().map(|piece| piece.to).fold(0.0, f64::max));
        let wanted = share * self.mass() - 1e-12;
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if self.up_to(middle) >= wanted {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}
