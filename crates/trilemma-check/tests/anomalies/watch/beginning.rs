//! Where a stream begins or goes on: changes skipped or repeated there, and wrong states.

use super::*;

#[test]
fn skipping_and_repeating_at_resumption_are_found() {
    power_of("watch-resume", &[Case::with_truth], |case, random| {
        let Some(place) = choose(case, random, |place| {
            place.resumed && place.before == 0 && place.after > 0
        }) else {
            return false;
        };
        case.streams[place.stream].items.remove(place.item);
        true
    });
    power_of("watch-resume", &[Case::with_history], |case, random| {
        lose_a_put(case, random, |place: &Place| {
            place.resumed && place.before == 0 && place.after > 0
        })
    });
    power_of("watch-resume", &ALL, |case, _| {
        let Some(stream) = (1..case.streams.len()).find(|stream| case.streams[*stream].resume.is_some())
        else {
            return false;
        };
        let Some(last @ Item::Changes { .. }) = case.streams[stream - 1].items.last().cloned() else {
            return false;
        };
        case.streams[stream].items.insert(0, last);
        true
    });
    power_of("watch-resume", &ALL, |case, random| {
        // The position is of another stream of changes: it must have begun again.
        let fits = |stream: &&mut Stream| {
            stream.resume.is_some() && !matches!(stream.items.first(), None | Some(Item::Reset { .. }))
        };
        let Some(stream) = case.streams.iter_mut().find(fits) else {
            return false;
        };
        let at = random.below(5) as u64;
        stream.resume = if random.percent(50) {
            None
        } else {
            Some(Position { stream: 7, at })
        };
        true
    });
}

#[test]
fn wrong_states_to_begin_with_are_found() {
    let plant = |case: &mut Case, random: &mut Random, any: bool| {
        let mut resets = Vec::new();
        let puts = acknowledged_puts(case);
        for (at, stream) in case.streams.iter().enumerate() {
            for (item, now) in stream.items.iter().enumerate() {
                if let Item::Reset {
                    entries, last: true, ..
                } = now
                {
                    let last = entries
                        .last()
                        .and_then(|state| Some((state.version?, state.key.clone())));
                    if last.is_some_and(|last| any || puts.contains(&last)) {
                        resets.push((at, item));
                    }
                }
            }
        }
        let Some((stream, item)) = random.pick(&resets).copied() else {
            return false;
        };
        let Item::Reset { entries, .. } = &mut case.streams[stream].items[item] else {
            return false;
        };
        entries.pop();
        true
    };
    power_of("watch-reset", &[Case::with_truth], |case, random| {
        plant(case, random, true)
    });
    power(
        &["watch-reset"],
        with_whole,
        |case, random| plant(case, random, true),
        Case::among,
    );
    // With nothing unknown, nothing can explain what is missing.
    let generate = |random: &mut Random| generate_with(random, false);
    power(
        &["watch-reset"],
        generate,
        |case, random| plant(case, random, false),
        Case::with_history,
    );
}
