//! Plays as files: reading, running, renewing, and showing what differs.

use super::Stage;
use super::actions::Play;

/// What separates commands from their trace.
const RULE: &str = "----";

/// Runs a play. Returns it as it should be; equal to `text` if nothing has changed. An error names the line.
pub(super) fn perform<S: Stage>(text: &str) -> Result<String, String> {
    let mut play = Play::<S>::default();
    let mut renewed = String::new();
    let mut commands = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let line = line.trim_end();
        if line == RULE {
            renewed.push_str("----\n");
            renewed.push_str(&block(&mut play, &commands)?);
            commands.clear();
            let recorded = lines.by_ref().take_while(|(_, line)| !line.trim().is_empty());
            recorded.for_each(drop);
            renewed.push('\n');
            continue;
        }
        if !line.is_empty() && !line.starts_with('#') {
            commands.push((at + 1, line));
        }
        renewed.push_str(line);
        renewed.push('\n');
    }
    if let Some((at, command)) = commands.first() {
        return Err(format!(
            "line {at}: \"{command}\" has no line \"{RULE}\" after it"
        ));
    }
    Ok(renewed.trim_end().to_owned() + "\n")
}

fn block<S: Stage>(play: &mut Play<S>, commands: &[(usize, &str)]) -> Result<String, String> {
    play.begin();
    for (at, line) in commands {
        let words: Vec<&str> = line.split_whitespace().collect();
        play.run(&words)
            .map_err(|error| format!("line {at}: \"{line}\": {error}"))?;
    }
    Ok(play.end())
}

/// The lines in which a play differs from what happened, with what stands around the first of them; empty if none do.
pub(super) fn difference(recorded: &str, happened: &str) -> String {
    const AROUND: usize = 6;
    let old: Vec<&str> = recorded.lines().collect();
    let new: Vec<&str> = happened.lines().collect();
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    if same == old.len() && same == new.len() {
        return String::new();
    }
    let shorter = old.len().min(new.len()) - same;
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(shorter)
        .take_while(|(a, b)| a == b)
        .count();
    let mut shown = format!("  from line {}:\n", same + 1);
    let mut add = |mark: char, lines: &[&str]| {
        for line in lines {
            shown.push_str(&format!("  {mark} {line}\n"));
        }
    };
    add(' ', &old[same.saturating_sub(AROUND)..same]);
    add('-', &old[same..old.len() - tail]);
    add('+', &new[same..new.len() - tail]);
    add(
        ' ',
        &old[old.len() - tail..(old.len() - tail + AROUND).min(old.len())],
    );
    shown
}
