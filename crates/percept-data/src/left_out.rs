//! What was left out of a set, or read otherwise than it is written: counted by kind, with examples.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Examples kept of each kind.
const EXAMPLES: usize = 5;

/// Most kinds told apart. Kinds that name what they met, such as the ending of a file, can be many;
/// those beyond are counted together.
const MAX_KINDS: usize = 100;

/// Longest kind or example, in characters: endings and names come from files that nobody has vetted.
const MAX_SHOWN: usize = 200;

/// The kind of all that is beyond [`MAX_KINDS`].
const OTHERS: &str = "of other kinds";

/// Things of one kind that were left out of a set, or read otherwise than they are written.
///
/// Shown as `polygons of fewer than three points: 3 (annotation 7, annotation 12, annotation 40)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What they are and what became of them, in the plural: `files passed over for the ending .txt`.
    pub kind: String,
    /// How many there are.
    pub count: u64,
    /// Names of the first few.
    #[serde(default)]
    pub examples: Vec<String>,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.count)?;
        if self.examples.is_empty() {
            return Ok(());
        }
        write!(f, " ({}", self.examples.join(", "))?;
        match self.count.saturating_sub(self.examples.len() as u64) {
            0 => f.write_str(")"),
            more => write!(f, " and {more} more)"),
        }
    }
}

/// All that was left out of a set, by kind, in the order in which kinds were met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Omissions(Vec<LeftOut>);

impl Omissions {
    /// Nothing left out yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one thing of a kind under its name.
    pub fn add(&mut self, kind: impl AsRef<str>, example: impl fmt::Display) {
        self.add_many(kind, 1, example);
    }

    /// Counts several things of a kind under one name.
    pub fn add_many(&mut self, kind: impl AsRef<str>, count: u64, example: impl fmt::Display) {
        let of_kind = self.of_kind(kind.as_ref());
        of_kind.count = of_kind.count.saturating_add(count);
        if of_kind.examples.len() < EXAMPLES {
            let example = example.to_string();
            of_kind.examples.push(showable(&example).into_owned());
        }
    }

    /// Adds what another part left out.
    pub fn merge(&mut self, other: &Self) {
        for more in &other.0 {
            let of_kind = self.of_kind(&more.kind);
            of_kind.count = of_kind.count.saturating_add(more.count);
            let room = EXAMPLES.saturating_sub(of_kind.examples.len());
            of_kind
                .examples
                .extend(more.examples.iter().take(room).cloned());
        }
    }

    /// What was left out, by kind.
    pub fn kinds(&self) -> &[LeftOut] {
        &self.0
    }

    /// Says that nothing is left, and what there was.
    pub(crate) fn after(&self, reason: &str) -> String {
        let kinds = self.0.iter().map(|kind| format!("; {kind}"));
        std::iter::once(reason.to_owned()).chain(kinds).collect()
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many things were left out, of all kinds.
    pub fn count(&self) -> u64 {
        let counts = self.0.iter().map(|kind| kind.count);
        counts.fold(0, u64::saturating_add)
    }

    /// The entry of a kind, made if it is the first.
    fn of_kind(&mut self, kind: &str) -> &mut LeftOut {
        let kind = showable(kind);
        let known = self.0.iter().position(|known| known.kind == kind);
        let at = known.unwrap_or_else(|| {
            let kind = match self.0.len() {
                ..MAX_KINDS => &kind,
                _ => OTHERS,
            };
            let known = self.0.iter().position(|known| known.kind == kind);
            known.unwrap_or_else(|| {
                self.0.push(LeftOut {
                    kind: kind.to_owned(),
                    count: 0,
                    examples: Vec::new(),
                });
                self.0.len() - 1
            })
        });
        &mut self.0[at]
    }
}

/// A text that is safe to show: no longer than [`MAX_SHOWN`], and spaces for control characters.
fn showable(text: &str) -> Cow<'_, str> {
    let end = text
        .char_indices()
        .nth(MAX_SHOWN)
        .map_or(text.len(), |(end, _)| end);
    let text = &text[..end];
    match text.contains(char::is_control) {
        true => text.replace(char::is_control, " ").into(),
        false => text.into(),
    }
}

impl From<Omissions> for Vec<LeftOut> {
    fn from(omissions: Omissions) -> Self {
        omissions.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_counted_by_kind_with_the_first_few_named() {
        let mut omissions = Omissions::new();
        for id in 1..=7 {
            omissions.add("photos turned", format!("photo {id}"));
        }
        omissions.add("empty folders", "cow\u{1b}");
        let lines: Vec<String> = (omissions.kinds().iter()).map(LeftOut::to_string).collect();
        assert_eq!(
            lines,
            [
                "photos turned: 7 (photo 1, photo 2, photo 3, photo 4, photo 5 and 2 more)",
                "empty folders: 1 (cow )"
            ]
        );
        let mut both = Omissions::new();
        both.add("empty folders", "cat");
        both.merge(&omissions);
        assert_eq!((both.count(), both.kinds().len()), (9, 2));
        assert_eq!(both.kinds()[0].examples, ["cat", "cow "]);
    }

    #[test]
    fn kinds_show_no_control_characters_and_end_somewhere() {
        let mut omissions = Omissions::new();
        let ending = "é".repeat(1 << 16);
        for ending in ["x\u{1b}[2J\r\n", &ending, &format!("{ending}e")] {
            omissions.add(format!("files passed over for the ending .{ending}"), "a");
        }
        let kinds: Vec<&str> = (omissions.kinds().iter()).map(|kind| &*kind.kind).collect();
        assert_eq!(kinds[0], "files passed over for the ending .x [2J  ");
        assert_eq!((kinds.len(), kinds[1].chars().count()), (2, MAX_SHOWN));
        assert_eq!(omissions.kinds()[1].count, 2);
        assert_eq!(Omissions::new().after("nothing"), "nothing");
    }

    #[test]
    fn kinds_are_bounded() {
        let mut omissions = Omissions::new();
        for kind in 0..1000 {
            omissions.add(format!("kind {kind}"), kind);
        }
        assert_eq!(omissions.kinds().len(), MAX_KINDS + 1);
        assert_eq!(omissions.count(), 1000);
    }
}
