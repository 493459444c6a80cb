//! Hints for labels that look like slips. A hint never changes a label.

use std::collections::HashSet;
use std::fmt;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Shorter words are like too many others.
const SHORTEST: usize = 3;
/// Letters from which one that is wrong still leaves a word that can be told.
const LONG: usize = 7;
/// Letters that are wrong, missing, too many or in the wrong order, at most.
const MOST_SLIPS: usize = 2;
/// Share of a tokeniser's words in other scripts above which it is taken to read them. English ones have
/// letters of other scripts, a few in a hundred; multilingual ones words, a third and more.
const READS_OTHERS: f64 = 0.2;

/// Everyday words of other languages, and what they are in English.
const FOREIGN: &str = include_str!("../data/foreign.txt");

/// English words that look like slips and are none.
const RARE: &str = include_str!("../data/rare.txt");

/// What a label may have been meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A word that the tokeniser does not know, and a name that it is like.
    Slip {
        /// The word.
        word: String,
        /// What it may be meant to be.
        meant: String,
    },
    /// A word of another language.
    Foreign {
        /// The word.
        word: String,
        /// What it is in English.
        meant: String,
    },
    /// Letters that the tokeniser does not know as words.
    Script {
        /// The label.
        label: String,
    },
    /// Words joined by underscores, as files and programs write them.
    Joined {
        /// The label.
        label: String,
        /// The same with spaces.
        meant: String,
    },
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slip { word, meant } => write!(
                f,
                "\"{word}\" is no word that the model's tokeniser knows; did you mean \"{meant}\"?"
            ),
            Self::Foreign { word, meant } => write!(
                f,
                "\"{word}\" is not English, which the model's tokeniser was made for; did you mean \
                 \"{meant}\"?"
            ),
            Self::Script { label } => write!(
                f,
                "\"{label}\" is in letters that the model's tokeniser does not know as words; the model \
                 learned from English"
            ),
            Self::Joined { label, meant } => write!(
                f,
                "\"{label}\" has underscores, which captions do not; did you mean \"{meant}\"?"
            ),
        }
    }
}

/// The words that labels are held against: names of things, and what a tokeniser knows.
#[derive(Debug, Clone, Default)]
pub struct Dictionary {
    /// Words of names: what a slip may have been meant to be.
    names: HashSet<String>,
    /// Whole words of the tokeniser.
    known: HashSet<String>,
    reads_others: bool,
}

impl Dictionary {
    /// A dictionary of the words of `names`, such as those of public class lists.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut words = HashSet::new();
        for name in names {
            words.extend(words_of(name.as_ref()).map(|word| folded(&word)));
        }
        Self {
            names: words,
            ..Self::default()
        }
    }

    /// Whether every word of `label` is one of the names', so that no tokeniser needs to be asked.
    pub fn is_plain(&self, label: &str) -> bool {
        !label.contains('_')
            && label.chars().all(|c| !c.is_alphabetic() || is_latin(c))
            && words_of(label).all(|word| forms(&folded(&word)).any(|f| self.names.contains(&f)))
    }

    /// Adds the words of a tokeniser's vocabulary: of WordPiece (`##` continues a word), SentencePiece (`▁`
    /// begins one), and byte pairs (`Ġ` begins one, or `</w>` ends one).
    #[must_use]
    pub fn with_tokens<S: AsRef<str>>(mut self, tokens: impl IntoIterator<Item = S>) -> Self {
        let tokens: Vec<S> = tokens.into_iter().collect();
        let starts = |mark: &str| {
            let marked = tokens.iter().filter(|t| t.as_ref().starts_with(mark));
            marked.count() * 10 > tokens.len()
        };
        let mark = ["▁", "Ġ"].into_iter().find(|mark| starts(mark));
        let ends = tokens.iter().any(|t| t.as_ref().ends_with("</w>"));
        let (mut words, mut others) = (0_usize, 0_usize);
        for token in &tokens {
            let token = token.as_ref();
            let word = match mark {
                Some(mark) => token.strip_prefix(mark),
                None if ends => token.strip_suffix("</w>"),
                None => Some(token).filter(|token| !token.starts_with("##")),
            };
            let Some(word) = word.filter(|word| word.chars().all(char::is_alphabetic)) else {
                continue;
            };
            words += 1;
            others += usize::from(word.chars().any(|c| !is_latin(c)));
            if word.chars().count() >= SHORTEST {
                self.known.insert(folded(word));
            }
        }
        let rare = RARE.lines().filter(|line| !line.starts_with('#'));
        let rare = rare.flat_map(str::split_whitespace);
        self.known.extend(rare.map(str::to_owned));
        self.reads_others = others as f64 > READS_OTHERS * words as f64;
        self
    }

    /// What may be wrong with a label, if anything.
    pub fn hint(&self, label: &str) -> Option<Hint> {
        let has_others = label.chars().any(|c| c.is_alphabetic() && !is_latin(c));
        if has_others {
            let label = crate::abbreviate(label);
            return (!self.reads_others).then_some(Hint::Script { label });
        }
        if label.contains('_') {
            let meant = label.replace('_', " ");
            let meant: Vec<&str> = meant.split_whitespace().collect();
            return Some(Hint::Joined {
                label: crate::abbreviate(label),
                meant: crate::abbreviate(&meant.join(" ")),
            });
        }
        // A multilingual model knows words that are slips to others.
        if self.reads_others {
            return None;
        }
        words_of(label).find_map(|word| self.hint_of_word(&word))
    }

    fn hint_of_word(&self, word: &str) -> Option<Hint> {
        let lower = word.to_lowercase();
        let plain = folded(word);
        let letters = plain.chars().count();
        if letters < SHORTEST || plain.chars().any(|c| c.is_ascii_digit()) {
            return None;
        }
        if let Some(meant) = english(&lower) {
            let word = word.to_owned();
            return (!self.names.contains(&lower)).then_some(Hint::Foreign { word, meant });
        }
        if self.knows(&plain) || self.is_compound(&plain) {
            return None;
        }
        let meant = self.nearest(&plain, letters);
        let meant = meant.or_else(|| self.with_more_doubles(&plain))?;
        Some(Hint::Slip {
            word: word.to_owned(),
            meant,
        })
    }

    fn knows(&self, word: &str) -> bool {
        forms(word).any(|form| self.names.contains(&form) || self.known.contains(&form))
    }

    /// Whether a word is two known ones, as `lawnmower`.
    fn is_compound(&self, word: &str) -> bool {
        const PART: usize = 4;
        word.is_ascii()
            && (PART..word.len().saturating_sub(PART - 1)).any(|at| {
                let (first, second) = word.split_at(at);
                self.knows(first) && self.knows(second)
            })
    }

    /// The word of the tokeniser that has the same letters, one of them twice, or once where English does not double
    /// it: the `kitty` of `kity`, the `couch` of `couuch`. Else many a word would do: `latte` is no slip of `late`.
    fn with_more_doubles(&self, word: &str) -> Option<String> {
        const NEVER_DOUBLED: [&str; 9] = ["aa", "hh", "ii", "jj", "qq", "uu", "vv", "xx", "yy"];
        let single = without_doubles(word);
        let has_odd_double = NEVER_DOUBLED.iter().any(|pair| word.contains(pair));
        let mut alike: Vec<&String> = self.known.iter().collect();
        alike.retain(|known| {
            let is_longer = known.len() == word.len() + 1;
            let is_shorter = known.len() + 1 == word.len();
            (is_longer || is_shorter && has_odd_double) && without_doubles(known) == single
        });
        alike.into_iter().min().cloned()
    }

    /// The name that a slip or two make this word of: two letters in the wrong order; a letter twice or once; a
    /// vowel that is missing; letters that sound the same; in a long word one letter that is another, but for the
    /// last, which may be an ending.
    fn nearest(&self, word: &str, letters: usize) -> Option<String> {
        let first = word.chars().next();
        let sorted = |word: &str| {
            let mut letters: Vec<char> = word.chars().collect();
            letters.sort_unstable();
            letters
        };
        let (own_letters, own_sound) = (sorted(word), sound(word));
        let single = without_doubles(word);
        let is_meant = |distance: usize, name: &str| {
            let is_turned = distance == 1 && sorted(name) == own_letters;
            let sounds_alike = letters > 4 && sound(name) == own_sound;
            let has_one_slip =
                distance == 1 && letters >= LONG && name.chars().last() == word.chars().last();
            let has_other_doubles = distance == 1 && without_doubles(name) == single;
            let misses_vowel = distance == 1
                && letters > 4
                && name.chars().count() == letters + 1
                && name.chars().last() == word.chars().last()
                && sound(name).0 == own_sound.0;
            let has_slip = sounds_alike || has_one_slip || has_other_doubles || misses_vowel;
            is_turned || name.chars().next() == first && has_slip
        };
        self.names
            .iter()
            .filter(|name| name.chars().count() >= SHORTEST)
            .filter(|name| name.chars().count().abs_diff(letters) <= MOST_SLIPS)
            .map(|name| (strsim::osa_distance(word, name), name))
            .filter(|(distance, name)| *distance <= MOST_SLIPS && is_meant(*distance, name))
            .min()
            .map(|(_, name)| name.clone())
    }
}

/// A word with one of each letters that are the same and side by side.
fn without_doubles(word: &str) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    letters.dedup();
    letters.into_iter().collect()
}

/// How a word sounds, roughly: its consonants, those that sound alike as one, and how many times vowels stand
/// between them.
fn sound(word: &str) -> (String, usize) {
    let word = word.replace("ph", "f");
    let mut consonants = String::new();
    let mut vowels = 0;
    let mut last_is_vowel = false;
    for c in word.chars() {
        let is_vowel = "aeiouy".contains(c);
        vowels += usize::from(is_vowel && !last_is_vowel);
        last_is_vowel = is_vowel;
        let c = match c {
            'c' | 'q' => 'k',
            'z' => 's',
            c => c,
        };
        if !is_vowel && c != 'h' && !consonants.ends_with(c) {
            consonants.push(c);
        }
    }
    // An e at the end is silent, but for that of table.
    let is_silent = word.ends_with('e') && !word.ends_with("le");
    (consonants, vowels - usize::from(is_silent && vowels > 1))
}

/// The words of a label.
fn words_of(label: &str) -> impl Iterator<Item = String> {
    label
        .split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
}

/// A word in lower case, without accents.
fn folded(word: &str) -> String {
    let letters = word.nfd().filter(|c| !is_combining_mark(*c));
    letters.collect::<String>().to_lowercase()
}

/// A word, and what it may be a form of.
fn forms(word: &str) -> impl Iterator<Item = String> {
    let without = |ending: &str, instead: &str| {
        let stem = word.strip_suffix(ending)?;
        (stem.chars().count() >= 2).then(|| format!("{stem}{instead}"))
    };
    let endings = [
        ("s", ""),
        ("es", ""),
        ("ies", "y"),
        ("ves", "f"),
        ("ing", ""),
        ("ing", "e"),
        ("ed", ""),
        ("ed", "e"),
        ("er", ""),
        ("er", "e"),
        ("ers", ""),
        ("ers", "e"),
        ("y", ""),
        ("y", "e"),
        ("ly", ""),
        ("like", ""),
        ("less", ""),
        ("ful", ""),
    ];
    let stems: Vec<String> = endings
        .iter()
        .filter_map(|(ending, instead)| without(ending, instead))
        .collect();
    std::iter::once(word.to_owned()).chain(stems)
}

/// Whether a letter is of the Latin script, or of none.
fn is_latin(c: char) -> bool {
    matches!(c, '\0'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}' | '\u{2C60}'..='\u{2C7F}' | '\u{A720}'..='\u{A7FF}')
        // Ligatures, and letters in bold and italics that posts are written with, are another matter.
        || is_combining_mark(c)
}

/// The English for an everyday word of another language.
fn english(word: &str) -> Option<String> {
    FOREIGN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "))
        .find(|(_, words)| words.split(", ").any(|foreign| foreign == word))
        .map(|(english, _)| english.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary() -> Dictionary {
        Dictionary::new([
            "golden retriever",
            "elephant",
            "dog",
            "table",
            "giraffe",
            "person",
            "hot dog",
        ])
        .with_tokens([
            "photo", "lawn", "mower", "##ing", "chat", "hund", "couch", "house", "[PAD]",
        ])
    }

    #[test]
    fn slips_are_told_and_words_are_not() {
        let dictionary = dictionary();
        let meant = |label: &str| match dictionary.hint(label) {
            Some(Hint::Slip { meant, .. } | Hint::Foreign { meant, .. }) => Some(meant),
            Some(Hint::Joined { meant, .. }) => Some(meant),
            Some(Hint::Script { .. }) => Some("script".into()),
            None => None,
        };
        for (label, expected) in [
            ("elefant", "elephant"),
            ("Elephnat", "elephant"),
            ("golden retreiver", "retriever"),
            ("dgo", "dog"),
            ("doog", "dog"),
            ("dogg", "dog"),
            ("tabble", "table"),
            ("couuch", "couch"),
            ("persn", "person"),
            ("tabel", "table"),
            ("a giraf", "giraffe"),
            ("Katze", "cat"),
            ("pájaro", "bird"),
            ("собака", "script"),
            ("猫", "script"),
            ("hot_dog", "hot dog"),
        ] {
            assert_eq!(meant(label).as_deref(), Some(expected), "{label}");
        }
        for label in [
            "elephants",
            "lawnmower",
            "lawn mowing",
            "chat",
            "xyz",
            "dug",
            "cable",
            "no. 7",
            "R2D2",
            "",
        ] {
            assert_eq!(meant(label), None, "{label}");
        }
        assert!(dictionary.is_plain("golden retrievers, dogs"));
        assert!(!dictionary.is_plain("couch") && !dictionary.is_plain("hot_dog"));
    }

    #[test]
    fn tokenisers_of_many_scripts_read_them() {
        let tokens = ["▁cat", "▁собака", "▁кот", "▁猫", "▁dog"];
        assert!(dictionary().with_tokens(tokens).hint("собака").is_none());
        // Words of SentencePiece begin with their mark; what does not is a part of one.
        let dictionary = Dictionary::new(["zebra"]).with_tokens(["▁cat", "zebar", "▁dog"]);
        assert!(dictionary.hint("zebar").is_some());
    }
}
