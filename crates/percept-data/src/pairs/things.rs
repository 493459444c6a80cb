//! What captions say is on a photo.

use std::collections::HashSet;

/// Words for a person.
const PERSON: [&str; 23] = [
    "person", "people", "man", "men", "woman", "women", "boy", "boys", "girl", "girls", "child",
    "children", "kid", "kids", "guy", "guys", "lady", "ladies", "player", "players", "crowd",
    "toddler", "baby",
];

/// Things that are called what they are, or that with an *s*.
const THINGS: [&str; 15] = [
    "dog",
    "cat",
    "horse",
    "cow",
    "sheep",
    "car",
    "bicycle",
    "bottle",
    "chair",
    "boat",
    "bird",
    "bus",
    "train",
    "motorbike",
    "sofa",
];

/// The things that at least half of `captions` name: one that few of the people who described a photo
/// found worth a word is likely small, or not there.
pub(super) fn named<'a>(captions: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let captions: Vec<String> = captions.into_iter().map(str::to_lowercase).collect();
    let words: Vec<HashSet<&str>> = captions
        .iter()
        .map(|caption| caption.split(|c: char| !c.is_ascii_alphabetic()).collect())
        .collect();
    let by_half = |says: &dyn Fn(&HashSet<&str>) -> bool| {
        let votes = words.iter().filter(|words| says(words)).count();
        votes > 0 && 2 * votes >= words.len()
    };
    let person = by_half(&|words| PERSON.iter().any(|word| words.contains(word)));
    let things = THINGS.into_iter().filter(|thing| {
        by_half(&|words| words.contains(thing) || words.contains(format!("{thing}s").as_str()))
    });
    let person = person.then_some("person");
    person
        .into_iter()
        .chain(things)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_what_half_of_the_captions_name() {
        let said = |captions: &[&str]| named(captions.iter().copied()).join(",");
        assert_eq!(said(&["Two women walk their dogs ."]), "person,dog");
        assert_eq!(said(&["A man.", "A field and a cow"]), "person,cow");
        assert_eq!(said(&["A man.", "A dog!", "The dog-sledge"]), "dog");
        // Words, not letters.
        assert_eq!(said(&["A manor with carpets, a catalogue"]), "");
        assert_eq!(said(&["Ein Baum", "ひと"]), "");
        assert_eq!(said(&[]), "");
    }
}
