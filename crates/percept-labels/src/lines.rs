//! Class files with one class a line, with or without ids.

use crate::Refused;
use crate::list::{Entry, LabelList, entry, is_index};
use crate::names::{abbreviate, is_foreign_id, is_number, split_names, why_no_name};

/// What columns are called, and labels are not.
const HEADINGS: [&str; 22] = [
    "",
    "id",
    "ids",
    "idx",
    "index",
    "#",
    "no",
    "nr",
    "number",
    "label_id",
    "class_id",
    "labelid",
    "classid",
    "name",
    "names",
    "label",
    "labels",
    "class",
    "classes",
    "class_name",
    "classname",
    "category",
];

/// A line that holds a class, without what has been understood of it.
#[derive(Debug, Clone)]
struct Row<'a> {
    line: usize,
    text: &'a str,
    id: Option<&'a str>,
}

/// The classes of a text of lines.
///
/// # Errors
/// A line may mean several things, or holds no class.
pub(crate) fn parse(text: &str) -> Result<LabelList, Refused> {
    let (mut rows, blank_lines) = rows(text)?;
    strip_bullets(&mut rows)?;
    let mut notes = Vec::new();
    if let Some(heading) = heading(&rows) {
        notes.push(format!("line {} is the columns' heading", heading.line));
        rows.remove(0);
    }
    if rows.iter().any(|row| row.text.contains('\t')) {
        split_tabs(&mut rows)?;
    }
    // Twice: a list may number what is numbered, as `1 001.Albatross`.
    for _ in 0..2 {
        strip_numbers(&mut rows)?;
        strip_foreign_ids(&mut rows)?;
    }
    strip_numbers_behind(&mut rows);
    let entries: Vec<Entry> = rows.iter().map(class_of).collect::<Result<_, _>>()?;
    notes.extend(synonyms_note(&entries));
    if let [only] = entries.as_slice()
        && only.label.synonyms.len() > 1
    {
        notes.push(format!(
            "one line is one class, \"{}\", and what follows its commas means the same; if these are classes, \
             write one a line",
            abbreviate(&only.label.name)
        ));
    }
    Ok(LabelList {
        entries,
        notes,
        blank_lines,
    })
}

/// What commas mean, where more than one line has them.
fn synonyms_note(entries: &[Entry]) -> Option<String> {
    /// Lines that are shown.
    const SHOWN: usize = 2;
    let mut with: Vec<&Entry> = entries.iter().collect();
    with.retain(|entry| entry.label.synonyms.len() > 1);
    if entries.len() < 2 || with.is_empty() {
        return None;
    }
    let shown = with.iter().take(SHOWN).map(|entry| {
        let names: Vec<String> = entry
            .label
            .synonyms
            .iter()
            .map(|name| abbreviate(name))
            .collect();
        format!("\"{}\"", abbreviate(&names.join(" = ")))
    });
    let shown: Vec<String> = shown.collect();
    let (lines, dots) = match with.len() {
        1 => ("1 line has".to_owned(), ""),
        count => (
            format!("{count} lines have"),
            if count > SHOWN { ", …" } else { "" },
        ),
    };
    Some(format!(
        "{lines} synonyms, which stand after commas and are one class with the first: {}{dots}",
        shown.join(", ")
    ))
}

/// The lines that hold something, and the numbers of the empty ones before the last of them.
fn rows(text: &str) -> Result<(Vec<Row<'_>>, Vec<usize>), Refused> {
    let mut rows = Vec::new();
    let mut blank = Vec::new();
    for (line, full) in (1..).zip(text.lines()) {
        let text = full.trim();
        if text.is_empty() {
            blank.push(line);
            continue;
        }
        if let Some(comment) = text.strip_prefix('#') {
            if comment.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(Refused::at(
                    line,
                    format!(
                        "is \"{}\" a comment? write `# ` before a comment, and a label in quotes",
                        abbreviate(text)
                    ),
                ));
            }
            continue;
        }
        // As in YAML: a comment behind a name begins with space and `#`, and ends with the line.
        let text = match text.split_once(" # ") {
            Some((text, _)) if !text.contains('"') => text.trim_end(),
            _ => text,
        };
        rows.push(Row {
            line,
            text,
            id: None,
        });
    }
    let last = rows.last().map_or(0, |row| row.line);
    blank.retain(|line| *line < last);
    Ok((rows, blank))
}

/// `* cat` and `• cat` on every line. (`- cat` is YAML.)
fn strip_bullets(rows: &mut [Row<'_>]) -> Result<(), Refused> {
    let bullet = |text: &str| {
        ["* ", "• ", "- ", "– ", "· "]
            .iter()
            .any(|bullet| text.starts_with(bullet))
    };
    let Some(first) = rows.iter().find(|row| bullet(row.text)) else {
        return Ok(());
    };
    if let Some(without) = rows.iter().find(|row| !bullet(row.text)) {
        return Err(Refused::at(
            first.line,
            format!("begins with a bullet, and line {} does not", without.line),
        ));
    }
    for row in rows {
        row.text = row.text.split_once(' ').map_or("", |(_, text)| text.trim());
    }
    Ok(())
}

/// The first line, where it names the columns of a table.
fn heading<'a>(rows: &[Row<'a>]) -> Option<Row<'a>> {
    let (first, rest) = rows.split_first()?;
    let cells = first.text.split(['\t', ',', ';']);
    let cells: Vec<String> = cells
        .map(|cell| cell.trim().trim_matches('"').to_lowercase())
        .collect();
    let is_heading = |cell: &String| HEADINGS.contains(&cell.as_str());
    let is_table = cells.len() == 2 && cells.iter().all(is_heading);
    let has_numbers = |row: &Row<'_>| {
        let mut cells = row.text.split(['\t', ',', ';']).map(str::trim);
        cells.any(is_index)
    };
    (is_table && !rest.is_empty() && rest.iter().all(has_numbers)).then(|| first.clone())
}

/// Two columns: an id, and names.
fn split_tabs(rows: &mut [Row<'_>]) -> Result<(), Refused> {
    let mut cells = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        let columns: Vec<&str> = row.text.split('\t').map(str::trim).collect();
        match columns.as_slice() {
            [first, second] => cells.push([*first, *second]),
            columns => {
                return Err(Refused::at(
                    row.line,
                    format!(
                        "has {} columns and not two, an id and the class with a tab between them",
                        columns.len()
                    ),
                ));
            }
        }
    }
    let is_id = |text: &str| is_index(text) || is_foreign_id(text);
    let column = if cells.iter().all(|[first, _]| is_id(first)) {
        0
    } else if cells.iter().all(|[_, second]| is_id(second)) {
        1
    } else {
        let line = rows.first().map_or(1, |row| row.line);
        return Err(Refused::at(
            line,
            "two columns of words with a tab between them; keep the one of the classes",
        ));
    };
    for (row, cells) in rows.iter_mut().zip(cells) {
        (row.id, row.text) = (Some(cells[column]), cells[1 - column]);
    }
    Ok(())
}

/// How a number stands before a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// `1: cat`, `1. cat`, `1) cat`, `1, cat`, `1 - cat`
    Sign,
    /// `1 cat`
    Space,
}

/// A number before a name, how it stands there, and the name.
fn numbered(text: &str) -> Option<(&str, Mark, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(end);
    if !is_index(number) {
        return None;
    }
    let trimmed = rest.trim_start();
    let after = trimmed.strip_prefix([':', '.', ')', ',', ';', '=', '|']);
    let dash = || (trimmed.len() < rest.len()).then(|| trimmed.strip_prefix("- "))?;
    let (mark, name) = match after.or_else(dash) {
        Some(name) => (Mark::Sign, name.trim()),
        None if trimmed.len() < rest.len() => (Mark::Space, trimmed),
        None => return None,
    };
    (!name.is_empty()).then_some((number, mark, name))
}

/// Whether numbers are 0, 1, 2 … or 1, 2, 3 …
fn is_count<'a>(numbers: impl Iterator<Item = &'a str>) -> bool {
    let numbers = numbers.map(|number| number.parse::<u64>().ok());
    let mut expected = None;
    for number in numbers {
        match (expected, number) {
            (None, Some(first @ (0 | 1))) => expected = Some(first + 1),
            (Some(next), Some(number)) if next == number => expected = Some(next + 1),
            _ => return false,
        }
    }
    true
}

/// Numbers before all names become their ids.
fn strip_numbers(rows: &mut [Row<'_>]) -> Result<(), Refused> {
    let found: Vec<_> = rows.iter().map(|row| numbered(row.text)).collect();
    let count = |mark| {
        found
            .iter()
            .flatten()
            .filter(|(_, m, _)| *m == mark)
            .count()
    };
    let (signs, spaces) = (count(Mark::Sign), count(Mark::Space));
    if signs + spaces == 0 {
        return Ok(());
    }
    let counts = is_count(found.iter().flatten().map(|(number, ..)| *number));
    let first = rows.iter().zip(&found).find(|(_, found)| found.is_some());
    let line = first.map_or(1, |(row, _)| row.line);
    if let Some((without, _)) = rows.iter().zip(&found).find(|(_, found)| found.is_none()) {
        // `2 door car` may be a name; `2: car` and a row of numbers are none.
        if signs > 0 || spaces > 1 && counts {
            return Err(Refused::at(
                line,
                format!(
                    "begins with a number, and line {} does not; in quotes the number is part of the name",
                    without.line
                ),
            ));
        }
        return Ok(());
    }
    if spaces > 0 && !counts {
        return Err(Refused::at(
            line,
            "is the number an id or part of the name? in quotes it is part of the name, with a colon \
             behind it on every line it is an id",
        ));
    }
    for (row, found) in rows.iter_mut().zip(found) {
        if let Some((number, _, name)) = found {
            row.id = row.id.or(Some(number));
            row.text = name;
        }
    }
    Ok(())
}

/// `n02123045 tabby, tabby cat` and `/m/011k07,Tortoise` on every line.
fn strip_foreign_ids(rows: &mut [Row<'_>]) -> Result<(), Refused> {
    fn split(text: &str) -> Option<(&str, &str)> {
        let (id, name) = text.split_once([' ', ',', ':', '=', ';'])?;
        is_foreign_id(id).then_some((id, name.trim()))
    }
    let Some(first) = rows.iter().find(|row| split(row.text).is_some()) else {
        return Ok(());
    };
    if let Some(without) = rows.iter().find(|row| split(row.text).is_none()) {
        return Err(Refused::at(
            first.line,
            format!("begins with an id, and line {} does not", without.line),
        ));
    }
    for row in rows {
        if let Some((id, name)) = split(row.text) {
            row.id = row.id.or(Some(id));
            row.text = name;
        }
    }
    Ok(())
}

/// `cat: 0` on every line, or `cat 0` where the numbers count the lines.
fn strip_numbers_behind(rows: &mut [Row<'_>]) {
    fn split(text: &str) -> Option<(&str, Mark, &str)> {
        let start = text.rfind(|c: char| !c.is_ascii_digit())? + 1;
        let (name, number) = text.split_at_checked(start)?;
        if !is_index(number) || name.contains('"') {
            return None;
        }
        let sign = name.trim_end().strip_suffix([':', '=', ';', ',', '|']);
        let (mark, name) = match sign {
            Some(name) => (Mark::Sign, name.trim_end()),
            None if name.ends_with(' ') => (Mark::Space, name.trim_end()),
            None => return None,
        };
        (!name.is_empty()).then_some((name, mark, number))
    }
    let found: Option<Vec<_>> = rows.iter().map(|row| split(row.text)).collect();
    let Some(found) = found else { return };
    let all_signs = found.iter().all(|(_, mark, _)| *mark == Mark::Sign);
    // `class 0` and `class 1` are told apart by nothing but the number: it is part of the name.
    let differ = found
        .iter()
        .zip(found.iter().skip(1))
        .any(|(a, b)| a.0 != b.0);
    let counts = differ && is_count(found.iter().map(|(.., number)| *number));
    if rows.iter().all(|row| row.id.is_none()) && (all_signs || counts) {
        for (row, (name, _, number)) in rows.iter_mut().zip(found) {
            (row.text, row.id) = (name, Some(number));
        }
    }
}

/// The class of a row.
fn class_of(row: &Row<'_>) -> Result<Entry, Refused> {
    let at = |reason: String| Refused::at(row.line, reason);
    let names = split_names(row.text).map_err(at)?;
    for name in &names {
        if name.is_quoted {
            continue;
        }
        let text = &name.text;
        if let Some(reason) = why_no_name(text).filter(|_| !text.is_empty()) {
            return Err(at(reason));
        }
        if is_number(text) {
            return Err(at(format!("{text} is a number; in quotes it is a label")));
        }
        if is_foreign_id(text) {
            return Err(at(format!("{text} is an id without a name")));
        }
    }
    if let [name] = names.as_slice()
        && !name.is_quoted
        && HEADINGS.contains(&name.text.to_lowercase().as_str())
    {
        return Err(at(format!(
            "\"{}\" looks like a column's heading; remove line {}, or write it in quotes if it is a label",
            name.text, row.line
        )));
    }
    let names = names.into_iter().map(|name| name.text).collect();
    entry(row.line, names, row.id.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use crate::parse_list;

    #[test]
    fn numbers_that_alone_tell_names_apart_are_part_of_them() {
        let list = parse_list("class 0\nclass 1\nclass 2\n").unwrap();
        let names: Vec<&str> = (list.entries.iter())
            .map(|entry| entry.label.name.as_str())
            .collect();
        assert_eq!(names, ["class 0", "class 1", "class 2"]);
        assert!(list.entries.iter().all(|entry| entry.id.is_none()));
        let list = parse_list("cat 0\ndog 1\n").unwrap();
        assert_eq!(list.entries[1].id.as_deref(), Some("1"));
    }
}
