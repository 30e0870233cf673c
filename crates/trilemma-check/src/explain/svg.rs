//! A timeline as an SVG picture: one row per process, one box per operation, offenders marked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::answer;
use crate::history::{History, Operation, Outcome};
use crate::verdict::Violation;

/// Most operations drawn: the offenders, then what overlaps them.
const DRAWN_MAX: usize = 150;
/// Width between two neighbouring instants, in pixels. Time is drawn by order, not to scale: what matters is who was
/// complete before whom, and a pause of a second among microseconds would hide it.
const INSTANT_WIDTH: usize = 44;
const ROW_HEIGHT: usize = 46;
const BOX_HEIGHT: usize = 30;
const LEFT: usize = 96;
const TOP: usize = 74;
const CHARACTER_WIDTH: usize = 7;

/// Draws the part of a history that shows a violation.
///
/// Self-contained: no script, no style sheet, no font but the reader's own. Every text of the history is escaped. A
/// dashed box has an unknown outcome and may take effect anywhere to the right of its begin.
#[must_use]
pub fn svg(history: &History, violation: &Violation) -> String {
    let operations = &history.operations;
    let offenders: BTreeSet<usize> = violation
        .operations
        .iter()
        .copied()
        .filter(|place| *place < operations.len())
        .collect();
    let drawn = drawn(operations, &offenders);
    let scale = Scale::of(drawn.iter().map(|place| &operations[*place]));
    let mut rows: BTreeMap<u64, usize> = drawn
        .iter()
        .map(|place| (operations[*place].process, 0))
        .collect();
    for (row, place) in rows.values_mut().enumerate() {
        *place = row;
    }
    let heading = format!("{}: {}", violation.rule, violation.what);
    let lines = wrapped(&heading, 100);
    let top = TOP + 18 * lines.len().saturating_sub(1);
    let width = (scale.width() + 40).max(760);
    let height = top + rows.len() * ROW_HEIGHT + 30;
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"ui-monospace, monospace\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let y = 24 + 18 * row;
        let line = escaped(line);
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            picture,
            "<text x=\"16\" y=\"{y}\" font-size=\"14\" fill=\"#9b1c1c\">{line}</text>"
        );
    }
    let y = top - 28;
    let left_out = operations.len() - drawn.len();
    let _ = writeln!(
        picture,
        "<text x=\"16\" y=\"{y}\" fill=\"#666666\">time runs to the right, in order and not to scale; red: the \
         operations that contradict each other; dashed: outcome unknown; {left_out} operations not drawn</text>"
    );
    for (process, row) in &rows {
        let middle = top + row * ROW_HEIGHT + BOX_HEIGHT / 2;
        let (text, line) = (middle + 4, scale.width() + 20);
        let _ = writeln!(
            picture,
            "<text x=\"16\" y=\"{text}\" fill=\"#333333\">process {process}</text>\n\
             <line x1=\"{LEFT}\" y1=\"{middle}\" x2=\"{line}\" y2=\"{middle}\" stroke=\"#dddddd\"/>"
        );
    }
    for place in drawn {
        let y = top + rows[&operations[place].process] * ROW_HEIGHT;
        draw(
            &mut picture,
            &scale,
            y,
            place,
            &operations[place],
            offenders.contains(&place),
        );
    }
    picture.push_str("</svg>\n");
    picture
}

/// The offenders and as many of those that overlap their time as may be drawn.
fn drawn(operations: &[Operation], offenders: &BTreeSet<usize>) -> Vec<usize> {
    let mut drawn: Vec<usize> = offenders.iter().copied().take(DRAWN_MAX).collect();
    let from = drawn
        .iter()
        .map(|place| operations[*place].invoke)
        .min()
        .unwrap_or(0);
    let to = drawn
        .iter()
        .map(|place| end(&operations[*place]))
        .max()
        .unwrap_or(u64::MAX);
    let around = operations.iter().enumerate().filter(|(place, operation)| {
        !offenders.contains(place) && end(operation) >= from && operation.invoke <= to
    });
    let room = DRAWN_MAX - drawn.len();
    drawn.extend(around.map(|(place, _)| place).take(room));
    drawn.sort_unstable();
    drawn
}

fn end(operation: &Operation) -> u64 {
    operation.returned.unwrap_or(operation.invoke)
}

/// Instants in order, each with its place on the picture.
struct Scale(Vec<u64>);

impl Scale {
    fn of<'a>(operations: impl Iterator<Item = &'a Operation>) -> Self {
        let mut instants: Vec<u64> = operations
            .flat_map(|operation| [operation.invoke, end(operation)])
            .collect();
        instants.sort_unstable();
        instants.dedup();
        Self(instants)
    }

    fn x(&self, instant: u64) -> usize {
        LEFT + self.0.partition_point(|other| *other < instant) * INSTANT_WIDTH
    }

    fn width(&self) -> usize {
        LEFT + (self.0.len() + 1) * INSTANT_WIDTH
    }
}

fn draw(
    picture: &mut String,
    scale: &Scale,
    y: usize,
    place: usize,
    operation: &Operation,
    is_offender: bool,
) {
    let from = scale.x(operation.invoke);
    let to = scale.x(end(operation)).max(from + INSTANT_WIDTH / 2);
    let width = to - from;
    let (fill, stroke, weight) = match (is_offender, &operation.outcome) {
        (true, _) => ("#fde2e2", "#c81e1e", 2),
        (false, Outcome::Fail) => ("#f7f7f7", "#bbbbbb", 1),
        (false, _) => ("#eef3fb", "#7c93b8", 1),
    };
    let is_unknown = operation.outcome == Outcome::Unknown;
    let dashes = if is_unknown {
        " stroke-dasharray=\"4 3\""
    } else {
        ""
    };
    let answer = answer(&operation.outcome);
    let returned = operation
        .returned
        .map_or("...".to_owned(), |time| time.to_string());
    let title = format!(
        "#{place} process {} [{}, {returned}] {} -> {answer}",
        operation.process, operation.invoke, operation.call
    );
    let label = format!("#{place} {}", operation.call);
    let room = (width / CHARACTER_WIDTH).saturating_sub(1);
    let below = match &operation.outcome {
        Outcome::Ok(_) => format!("-> {answer}"),
        Outcome::Fail => "-> failed".into(),
        Outcome::Unknown => "-> unknown".into(),
    };
    let (text_x, first, second) = (from + 4, y + 13, y + 26);
    let (label, below, title) = (
        escaped(&shortened(&label, room)),
        escaped(&shortened(&below, room)),
        escaped(&title),
    );
    let _ = writeln!(
        picture,
        "<g><title>{title}</title><rect x=\"{from}\" y=\"{y}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"3\" \
         fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{weight}\"{dashes}/>\
         <text x=\"{text_x}\" y=\"{first}\" fill=\"#111111\">{label}</text>\
         <text x=\"{text_x}\" y=\"{second}\" fill=\"#444444\">{below}</text></g>"
    );
    if is_unknown {
        let (x, middle, line) = (to, y + BOX_HEIGHT / 2, scale.width());
        let _ = writeln!(
            picture,
            "<line x1=\"{x}\" y1=\"{middle}\" x2=\"{line}\" y2=\"{middle}\" stroke=\"{stroke}\"{dashes}/>"
        );
    }
}

fn shortened(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(room.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Lines of about `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is a line from the start");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
    }
    lines
}

/// Text for XML: markup is escaped, and what XML cannot hold at all is shown as a replacement character.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\u{FFFE}' | '\u{FFFF}' => safe.push('\u{FFFD}'),
            control if control.is_control() => safe.push('\u{FFFD}'),
            other => safe.push(other),
        }
    }
    safe
}
