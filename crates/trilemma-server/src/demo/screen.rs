//! What the demo shows while it runs: a table that rewrites itself on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::ops::Range;

use super::cluster::KEYSPACES;
use super::history::{History, Micros};
use super::verdict::Side;

/// Where and how the demo shows.
pub(super) struct Screen {
    to: Target,
    live: bool,
    drawn: usize,
    width: usize,
}

/// With `--json` standard output is for the script, so people read standard error.
enum Target {
    Out,
    Err,
}

impl Screen {
    /// On standard output, or on standard error when a script reads the former.
    pub(super) fn new(json: bool) -> Self {
        let (to, live) = if json {
            (Target::Err, std::io::stderr().is_terminal())
        } else {
            (Target::Out, std::io::stdout().is_terminal())
        };
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|columns| columns.parse().ok());
        Self {
            to,
            live,
            drawn: 0,
            width: columns.unwrap_or(150),
        }
    }

    /// Writes a line.
    pub(super) fn say(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    fn write(&mut self, text: &str) {
        // The verdict does not depend on whether anybody looks.
        let _ = match self.to {
            Target::Out => std::io::stdout().lock().write_all(text.as_bytes()),
            Target::Err => std::io::stderr().lock().write_all(text.as_bytes()),
        };
    }

    /// Draws what happened since `since`; on a terminal, over what was drawn before.
    pub(super) fn tick(&mut self, history: &History, since: Micros) {
        if self.live {
            self.draw(history, since..history.now());
        }
    }

    /// Draws a phase for the last time.
    pub(super) fn end(&mut self, history: &History, phase: Range<Micros>) {
        self.draw(history, phase);
        self.drawn = 0;
        self.say("");
    }

    fn draw(&mut self, history: &History, time: Range<Micros>) {
        let mut lines = vec![format!(
            "  {:<9} {:<10} {:>22}   {:>22}   {}",
            "KEYSPACE", "BACKEND", "NODES 1+2 yes/no/?", "NODE 3 yes/no/?", "WHY NOT"
        )];
        for (name, backend) in KEYSPACES {
            let records = history.of(name);
            let [majority, minority] = [false, true].map(|minority| Side::count(&records, &time, minority));
            let counts = |side: &Side| format!("{}/{}/{}", side.accepted, side.refused, side.unknown);
            let why = if minority.why.is_empty() {
                &majority.why
            } else {
                &minority.why
            };
            let line = format!(
                "  {name:<9} {:<10} {:>22}   {:>22}   {why}",
                backend.name(),
                counts(&majority),
                counts(&minority)
            );
            lines.push(line);
        }
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            // A line that wraps would spoil the count of lines to go up.
            let shown: String = if self.live {
                line.chars().take(self.width).collect()
            } else {
                line.clone()
            };
            text.push_str(&shown);
            text.push_str(if self.live { "\x1b[K\n" } else { "\n" });
        }
        self.write(&text);
        self.drawn = if self.live { lines.len() } else { 0 };
    }
}
