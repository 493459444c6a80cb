//! Errors as one line for people.

use std::error::Error;

/// An error and everything behind it as one line: each text once, from the outermost to the cause.
///
/// The errors of percept never print their [`source`](Error::source), so whoever turns one into a
/// string goes this way, or the reason is lost. Those of other crates may print theirs, which is then
/// not said again.
///
/// ```
/// use std::path::Path;
/// let missing = percept_image::open(Path::new("/nope.jpg"), &Default::default()).unwrap_err();
/// assert!(percept_image::message(&missing).starts_with("/nope.jpg: "));
/// ```
pub fn message(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !says(&line, &text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// Whether a text is among the parts of a line that colons separate, or what a sentence ends with. A path may
/// hold the same words by chance.
fn says(line: &str, text: &str) -> bool {
    text.is_empty()
        || line.match_indices(text).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + text.len()..]);
            let is_part = (before.is_empty() || before.ends_with(": "))
                && (after.is_empty() || after.starts_with(": "));
            is_part || after.is_empty() && before.ends_with(' ')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("the cause")]
        Cause,
        #[error("outer")]
        Silent(#[source] Box<Layer>),
        #[error("tells all: {0}")]
        Talkative(#[source] Box<Layer>),
    }

    #[test]
    fn each_text_is_said_once_and_none_is_lost() {
        let silent = Layer::Silent(Box::new(Layer::Cause));
        assert_eq!(message(&silent), "outer: the cause");
        let talkative = Layer::Talkative(Box::new(Layer::Cause));
        assert_eq!(message(&talkative), "tells all: the cause");
        let both = Layer::Silent(Box::new(talkative));
        assert_eq!(message(&both), "outer: tells all: the cause");
        assert_eq!(message(&Layer::Cause), "the cause");
    }

    #[test]
    fn a_cause_is_not_taken_for_a_part_of_a_path() {
        #[derive(Debug, thiserror::Error)]
        #[error("{path}{told}")]
        struct Named {
            path: &'static str,
            told: &'static str,
            source: Layer,
        }
        let line = |path, told| {
            message(&Named {
                path,
                told,
                source: Layer::Cause,
            })
        };
        assert_eq!(
            line("/of/the cause/a.jpg", ""),
            "/of/the cause/a.jpg: the cause"
        );
        assert_eq!(
            line("/of/the cause", ": lost"),
            "/of/the cause: lost: the cause"
        );
        assert_eq!(line("a.jpg", ": the cause"), "a.jpg: the cause");
        assert_eq!(
            line("a.jpg", ": lost by the cause"),
            "a.jpg: lost by the cause"
        );
        assert_eq!(line("the cause", ": a.jpg"), "the cause: a.jpg");
    }
}
