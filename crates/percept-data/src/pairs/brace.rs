//! Lists of shards as shells and webdataset write them: `shards/{00000..01242}.tar`.

use std::ops::Range;

/// Most paths in a list: LAION-5B has 232,000 shards.
const MAX_PATHS: usize = 1_000_000;

/// Most bytes of all paths together.
const MAX_BYTES: usize = 256 << 20;

/// Braces within braces. Each level takes stack.
const MAX_DEPTH: usize = 16;

/// Splits `list` at commas and `::`, and writes out the braces of each part: `{00000..01242}`,
/// `{0..10..2}` and `{a,b{c,d}}`, as bash does. Zeros in front set the width. Braces around anything
/// else stay as they are.
///
/// # Errors
/// A reason, in words, for a list too long.
pub(super) fn expand(list: &str) -> Result<Vec<String>, String> {
    let braces = Braces::new(list);
    let mut paths = Vec::new();
    for part in braces.split(0..list.len(), &[",", "::"]) {
        let part = trim(list, part);
        if !part.is_empty() {
            paths.extend(braces.expand(part, 0)?);
            check(paths.len(), 0)?;
        }
    }
    Ok(paths)
}

fn trim(list: &str, part: Range<usize>) -> Range<usize> {
    let text = &list[part.clone()];
    let start = part.start + (text.len() - text.trim_start().len());
    start..start + text.trim().len()
}

fn check(paths: usize, bytes: usize) -> Result<(), String> {
    match paths > MAX_PATHS || bytes > MAX_BYTES {
        true => Err(format!("more than {MAX_PATHS} paths or {MAX_BYTES} bytes")),
        false => Ok(()),
    }
}

/// A text and where each of its braces closes.
struct Braces<'a> {
    text: &'a str,
    close: Vec<Option<usize>>,
}

impl<'a> Braces<'a> {
    fn new(text: &'a str) -> Self {
        let mut close = vec![None; text.len()];
        let mut open = Vec::new();
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'{' => open.push(at),
                b'}' => {
                    if let Some(start) = open.pop() {
                        close[start] = Some(at);
                    }
                }
                _ => {}
            }
        }
        Self { text, close }
    }

    /// The parts of `range` between separators that are in no braces.
    fn split(&self, range: Range<usize>, separators: &[&str]) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let (mut start, mut at) = (range.start, range.start);
        while at < range.end {
            let rest = &self.text.as_bytes()[at..range.end];
            let mut found = separators
                .iter()
                .filter(|found| rest.starts_with(found.as_bytes()));
            if let Some(end) = self.close[at] {
                at = end + 1;
            } else if let Some(separator) = found.next() {
                parts.push(start..at);
                at += separator.len();
                start = at;
            } else {
                at += 1;
            }
        }
        parts.push(start..range.end);
        parts
    }

    fn expand(&self, range: Range<usize>, depth: usize) -> Result<Vec<String>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} braces within each other"));
        }
        let mut results = vec![String::new()];
        let (mut literal, mut at) = (range.start, range.start);
        while at < range.end {
            let Some(end) = self.close[at] else {
                at += 1;
                continue;
            };
            let before = &self.text[literal..at];
            let choices = self.choices(at + 1..end, depth + 1)?;
            let bytes = |list: &[String]| list.iter().map(String::len).sum::<usize>();
            check(
                results.len().saturating_mul(choices.len()),
                (bytes(&results) + results.len() * before.len())
                    .saturating_mul(choices.len())
                    .saturating_add(bytes(&choices).saturating_mul(results.len())),
            )?;
            results = (results.iter())
                .flat_map(|start| {
                    let choices = choices.iter();
                    choices.map(move |choice| format!("{start}{before}{choice}"))
                })
                .collect();
            at = end + 1;
            literal = at;
        }
        let last = &self.text[literal..range.end];
        check(results.len(), last.len().saturating_mul(results.len()))?;
        results.iter_mut().for_each(|result| result.push_str(last));
        Ok(results)
    }

    /// What braces with this content stand for.
    fn choices(&self, range: Range<usize>, depth: usize) -> Result<Vec<String>, String> {
        let parts = self.split(range.clone(), &[","]);
        if parts.len() > 1 {
            let mut choices = Vec::new();
            for part in parts {
                choices.extend(self.expand(part, depth)?);
                check(choices.len(), 0)?;
            }
            return Ok(choices);
        }
        if let Some(numbers) = numbers(&self.text[range.clone()])? {
            return Ok(numbers);
        }
        let inner = self.expand(range, depth)?;
        Ok(inner.iter().map(|inner| format!("{{{inner}}}")).collect())
    }
}

/// The numbers of `00000..01242` or `0..10..2`; `None` for anything else.
fn numbers(range: &str) -> Result<Option<Vec<String>>, String> {
    let mut parts = range.split("..");
    let (Some(first), Some(last)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let step = parts.next().unwrap_or("1");
    // 32 bits: sums and differences of them cannot overflow 64.
    let parsed = (first.parse::<i32>(), last.parse::<i32>(), step.parse());
    let (Ok(start), Ok(end), Ok(step)) = parsed else {
        return Ok(None);
    };
    if parts.next().is_some() {
        return Ok(None);
    }
    let (start, end) = (i64::from(start), i64::from(end));
    let step = i64::from(i32::abs_diff(step, 0).max(1));
    let padded = |text: &str| {
        let digits = text.trim_start_matches(['-', '+']);
        digits.len() > 1 && digits.starts_with('0')
    };
    let width = match padded(first) || padded(last) {
        true => first.len().max(last.len()),
        false => 0,
    };
    let count = (start - end).abs() / step;
    let paths = count as usize + 1;
    check(paths, width.saturating_mul(paths))?;
    let direction = (end - start).signum() * step;
    let numbers = (0..=count).map(|at| format!("{:0width$}", start + at * direction));
    Ok(Some(numbers.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn braces_expand_as_in_bash() {
        for (list, expected) in [
            ("a.tar", "a.tar"),
            (
                "s/{00008..00011}.tar",
                "s/00008.tar s/00009.tar s/00010.tar s/00011.tar",
            ),
            ("{a,b}{0..1}", "a0 a1 b0 b1"),
            ("{a,b{c,d{1..2}}}.tar", "a.tar bc.tar bd1.tar bd2.tar"),
            ("{3..1} , {0..5..2}", "3 2 1 0 2 4"),
            ("{8..010}", "008 009 010"),
            ("{-1..1}", "-1 0 1"),
            ("x,y::z,,", "x y z"),
            ("{,un}seen", "seen unseen"),
            ("{a}{}{b..c}", "{a}{}{b..c}"),
            ("{a{1..2}}", "{a1} {a2}"),
            ("a}{b,c", "a}{b c"),
            ("{a,b", "{a b"),
            ("été{é,ü}", "étéé étéü"),
            ("", ""),
        ] {
            assert_eq!(expand(list).unwrap().join(" "), expected, "{list}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        for list in [
            "{1..2000000}",
            "{1..1000}{1..1001}",
            "{-2147483648..2147483647}",
            &"{0,1}".repeat(10_000),
            &format!("{}{{0..9999}}", "a".repeat(1 << 16)),
            &format!("{{{}..9999}}", "0".repeat(1 << 16)),
        ] {
            assert!(expand(list).unwrap_err().contains("more than"));
        }
        let deep = format!("{}a{}", "{a,".repeat(40), "}".repeat(40));
        assert!(expand(&deep).unwrap_err().contains("within each other"));
    }

    proptest! {
        #[test]
        fn nothing_panics(list in "[{},.:a*é0-9-]{0,60}") {
            if let Ok(paths) = expand(&list) {
                prop_assert!(paths.len() <= MAX_PATHS);
            }
        }

        #[test]
        fn products_have_all_their_members(a in 1..30_i32, b in 1..30_i32) {
            let paths = expand(&format!("{{1..{a}}}/{{1..{b}}}")).unwrap();
            prop_assert_eq!(paths.len() as i32, a * b);
        }
    }
}
