//! Results beside each other and beside published numbers, and what stands in the way of comparing
//! them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::published::{Benchmark, Published, benchmark, published};
use crate::report::{escape_markdown, flatten, is_count, metric_label, percent, shorten, table};
use crate::result::{EvalResult, Task};

/// Settings that do not change what is measured: which model, how it was run, and what has notes of
/// its own.
const NEUTRAL: [&str; 5] = ["weights", "batch_size", "limit", "threads", "device"];

/// Published models with columns of their own; all others are listed below the table, which would
/// be too wide otherwise.
const BESIDE: [(&str, &str); 3] = [
    ("CLIPpy", ""),
    ("CLIP", "own training"),
    // The public checkpoint is the one that everybody can run.
    ("CLIPpy", "public checkpoint"),
];

/// Longest value of a setting in a list of differences, in characters.
const MAX_VALUE: usize = 60;

/// Results beside each other: rows are metrics of datasets, columns are results, then published
/// models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What each column of results is.
    pub results: Vec<Column>,
    /// What each column of published numbers is.
    pub published: Vec<String>,
    /// One row for each metric of each dataset.
    pub rows: Vec<Row>,
    /// Settings that differ between results of the same dataset and task.
    pub differences: Vec<Difference>,
    /// Why cells are not comparable, or only with care. Cells refer to them by index.
    pub notes: Vec<String>,
    /// The other published numbers for the same datasets and metrics.
    pub others: Vec<Published>,
}

/// A result in a [`Comparison`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The model.
    pub model: String,
    /// Its weights.
    pub pretrained: String,
    /// The dataset.
    pub dataset: String,
    /// The protocol.
    pub protocol: String,
}

/// A metric of a dataset in a [`Comparison`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The dataset.
    pub dataset: String,
    /// The task.
    pub task: Task,
    /// The metric.
    pub metric: String,
    /// One cell for each column of results; `None` where a result does not have the metric.
    pub results: Vec<Option<Cell>>,
    /// One cell for each published column.
    pub published: Vec<Option<Cell>>,
}

/// A number in a [`Comparison`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The value: a fraction, or a number of things where the metric is one.
    pub value: f64,
    /// Indices of the notes that apply to it.
    pub notes: Vec<usize>,
    /// Whether it may be compared: a result with the first of its row, a published number with
    /// every result of its row.
    pub comparable: bool,
}

/// A setting that differs between results of one dataset and task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The dataset.
    pub dataset: String,
    /// The task.
    pub task: Task,
    /// The setting; settings within settings as `outer.inner`.
    pub setting: String,
    /// Its value for each result of [`Comparison::results`], empty for those of other datasets or
    /// tasks and where it is not set.
    pub values: Vec<String>,
}

/// Puts results beside each other and beside the published numbers for the same metrics.
///
/// Results of the same dataset, split, samples, protocol and settings are comparable, whatever the
/// model. Anything else is marked, and a note says what differs.
pub fn compare(results: &[EvalResult]) -> Comparison {
    let keys = row_keys(results);
    let measured: BTreeSet<_> = keys
        .iter()
        .map(|(d, _, m)| (d.as_str(), m.as_str()))
        .collect();
    let relevant: Vec<&Published> = published()
        .iter()
        .filter(|p| measured.contains(&(p.dataset.as_str(), p.metric.as_str())))
        .collect();
    let mut columns: Vec<String> = Vec::new();
    for number in relevant.iter().filter(|p| is_beside(p)) {
        let title = title(number);
        if !columns.contains(&title) {
            columns.push(title);
        }
    }
    let mut notes = Notes::default();
    let rows = keys
        .into_iter()
        .map(|key| row(key, results, &relevant, &columns, &mut notes))
        .collect();
    Comparison {
        results: results.iter().map(Column::of).collect(),
        published: columns,
        rows,
        differences: differences(results),
        notes: notes.0,
        others: relevant
            .into_iter()
            .filter(|p| !is_beside(p))
            .cloned()
            .collect(),
    }
}

impl Column {
    fn of(result: &EvalResult) -> Self {
        Self {
            model: result.model.clone(),
            pretrained: result.pretrained.clone(),
            dataset: result.dataset.clone(),
            protocol: result.protocol.clone(),
        }
    }
}

fn is_beside(number: &Published) -> bool {
    BESIDE.contains(&(number.model.as_str(), number.variant.as_str()))
}

/// A published column. A model's numbers from tables of the same training share one.
fn title(number: &Published) -> String {
    let parts = [&number.model, &number.data, &number.variant];
    let parts: Vec<_> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    parts.into_iter().cloned().collect::<Vec<_>>().join(", ")
}

type Key = (String, Task, String);

/// Datasets and metrics, in the order in which the results bring them.
fn row_keys(results: &[EvalResult]) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for result in results {
        for (metric, value) in &result.metrics {
            let key = (result.dataset.clone(), result.task, metric.clone());
            if value.is_finite() && !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    // Stable: datasets stay in the order of the results.
    let order: Vec<_> = results
        .iter()
        .map(|r| (r.dataset.clone(), r.task))
        .collect();
    keys.sort_by_key(|(dataset, task, _)| {
        order.iter().position(|(d, t)| d == dataset && t == task)
    });
    keys
}

fn row(
    (dataset, task, metric): Key,
    results: &[EvalResult],
    relevant: &[&Published],
    columns: &[String],
    notes: &mut Notes,
) -> Row {
    let here = |r: &&EvalResult| r.dataset == dataset && r.task == task;
    let has = |r: &&EvalResult| here(r) && r.metrics.get(&metric).is_some_and(|v| v.is_finite());
    let first = results.iter().find(has);
    let numbers = || {
        relevant
            .iter()
            .filter(|p| p.dataset == dataset && p.metric == metric)
    };
    let published_here = numbers().next().is_some();

    let cells = results
        .iter()
        .map(|result| {
            let value = *Some(result).filter(has)?.metrics.get(&metric)?;
            let mut reasons = first.map(|f| against_result(result, f)).unwrap_or_default();
            let comparable = reasons.is_empty();
            reasons.extend(own_reasons(result));
            if published_here {
                reasons.extend(against_benchmark(result));
            }
            Some(notes.cell(value, reasons, comparable))
        })
        .collect();
    let published = columns
        .iter()
        .map(|column| {
            let number = numbers().find(|p| is_beside(p) && title(p) == *column)?;
            let mut reasons = Vec::new();
            for result in results.iter().filter(has) {
                reasons.extend(published_against(number, result));
            }
            let comparable = reasons.is_empty()
                && results
                    .iter()
                    .filter(has)
                    .all(|r| own_reasons(r).is_empty() && against_benchmark(r).is_none());
            if !number.note.is_empty() {
                reasons.push(format!("{}: {}", title(number), number.note));
            }
            Some(notes.cell(number.value / 100.0, reasons, comparable))
        })
        .collect();
    Row {
        dataset,
        task,
        metric,
        results: cells,
        published,
    }
}

/// What keeps a result from being compared with another of the same dataset and task.
fn against_result(result: &EvalResult, first: &EvalResult) -> Vec<String> {
    let mut reasons = Vec::new();
    if result.split != first.split {
        reasons.push(format!(
            "split {} instead of {} of the first result",
            named(&result.split),
            named(&first.split)
        ));
    }
    if result.counts.done != first.counts.done {
        reasons.push(format!(
            "{} samples instead of {} of the first result",
            result.counts.done, first.counts.done
        ));
    }
    if result.protocol != first.protocol {
        reasons.push(format!(
            "protocol {} instead of {} of the first result",
            named(&result.protocol),
            named(&first.protocol)
        ));
    }
    if result.language != first.language {
        reasons.push(format!(
            "prompts in {} instead of {} of the first result",
            named(&result.language),
            named(&first.language)
        ));
    }
    let (ours, theirs) = (settings(result), settings(first));
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ: Vec<&str> = names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(String::as_str)
        .collect();
    if !differ.is_empty() {
        reasons.push(format!(
            "other settings than the first result: {}",
            differ.join(", ")
        ));
    }
    reasons
}

/// What there is to say of a result by itself.
fn own_reasons(result: &EvalResult) -> Vec<String> {
    let counts = &result.counts;
    let mut reasons = Vec::new();
    if counts.failed > 0 {
        reasons.push(format!(
            "{} samples failed and are not counted",
            counts.failed
        ));
    }
    if counts.samples < counts.found {
        reasons.push(format!(
            "limited to {} of {} samples",
            counts.samples, counts.found
        ));
    }
    reasons
}

/// What keeps a result from being compared with published numbers of its dataset.
fn against_benchmark(result: &EvalResult) -> Option<String> {
    let Benchmark { split, samples, .. } = benchmark(&result.dataset)?;
    let done = result.counts.done;
    if result.split != *split {
        Some(format!(
            "split {}; published numbers are made on {split}",
            named(&result.split)
        ))
    } else if done != *samples {
        Some(format!(
            "{done} samples; published numbers are made on the {samples} of {} {split}",
            result.dataset
        ))
    } else {
        None
    }
}

/// What keeps a published number from being compared with a result, other than its samples.
fn published_against(number: &Published, result: &EvalResult) -> Vec<String> {
    let mut reasons = Vec::new();
    if number.protocol.is_empty() {
        reasons.push(format!("{}: protocol not known", title(number)));
    } else if number.protocol != result.protocol {
        reasons.push(format!(
            "{}: protocol {} instead of {}",
            title(number),
            number.protocol,
            named(&result.protocol)
        ));
    }
    if !same_family(&number.model, &result.model) {
        reasons.push(format!(
            "{}: another model than {}",
            title(number),
            result.model
        ));
    }
    reasons
}

/// Whether two model names mean the same kind of model: equal but for case, version and folder.
fn same_family(published: &str, model: &str) -> bool {
    let model = model.rsplit('/').next().unwrap_or(model).to_lowercase();
    let letters: String = model.chars().take_while(|c| c.is_alphabetic()).collect();
    letters == published.to_lowercase()
}

fn named(text: &str) -> &str {
    if text.is_empty() { "(not said)" } else { text }
}

/// The settings of a result that change what is measured.
fn settings(result: &EvalResult) -> BTreeMap<String, String> {
    let mut settings: BTreeMap<_, _> = flatten(&result.settings).into_iter().collect();
    settings.retain(|name, _| !NEUTRAL.contains(&name.as_str()));
    settings
}

fn differences(results: &[EvalResult]) -> Vec<Difference> {
    let all: Vec<_> = results.iter().map(settings).collect();
    let mut groups: Vec<(&str, Task)> = Vec::new();
    for result in results {
        let group = (result.dataset.as_str(), result.task);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let mut differences = Vec::new();
    for (dataset, task) in groups {
        let in_group: Vec<bool> = results
            .iter()
            .map(|r| r.dataset == dataset && r.task == task)
            .collect();
        let members = || all.iter().zip(&in_group).filter(|(_, inside)| **inside);
        let names: BTreeSet<_> = members().flat_map(|(s, _)| s.keys()).collect();
        for name in names {
            let distinct: BTreeSet<_> = members().map(|(s, _)| s.get(name)).collect();
            if distinct.len() < 2 {
                continue;
            }
            let value = |(settings, inside): (&BTreeMap<String, String>, &bool)| {
                let value = settings.get(name).filter(|_| *inside);
                value.cloned().unwrap_or_default()
            };
            differences.push(Difference {
                dataset: dataset.to_owned(),
                task,
                setting: name.clone(),
                values: all.iter().zip(&in_group).map(value).collect(),
            });
        }
    }
    differences
}

/// Notes, each once.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn cell(&mut self, value: f64, reasons: Vec<String>, comparable: bool) -> Cell {
        let mut notes: Vec<usize> = reasons.into_iter().map(|r| self.index(r)).collect();
        notes.sort_unstable();
        notes.dedup();
        Cell {
            value,
            notes,
            comparable,
        }
    }

    fn index(&mut self, reason: String) -> usize {
        if let Some(index) = self.0.iter().position(|note| *note == reason) {
            return index;
        }
        self.0.push(reason);
        self.0.len() - 1
    }
}

impl Comparison {
    /// The comparison as Markdown that also reads well in a terminal: percentages, `!` behind a
    /// number that is not comparable, `[1]` for its notes.
    pub fn markdown(&self) -> String {
        let mut head = vec!["dataset".to_owned(), "metric, %".to_owned()];
        head.extend(
            self.results
                .iter()
                .map(|c| escape_markdown(&format!("{} ({})", c.model, named(&c.protocol)))),
        );
        let published = self.published.iter();
        head.extend(published.map(|title| escape_markdown(&format!("{title}, published"))));
        let mut rows = vec![head];
        rows.extend(self.rows.iter().map(|row| {
            let metric = metric_label(&row.metric);
            let mut cells = vec![escape_markdown(&row.dataset), escape_markdown(&metric)];
            let all = row.results.iter().chain(&row.published);
            cells.extend(all.map(|cell| cell_text(&row.metric, cell.as_ref())));
            cells
        }));
        let mut text = table(&rows);

        if !self.notes.is_empty() {
            text.push_str("\n`!` not comparable with the first result of the row\n\n");
        }
        for (i, note) in self.notes.iter().enumerate() {
            text.push_str(&format!("- [{}] {}\n", i + 1, escape_markdown(note)));
        }
        if !self.differences.is_empty() {
            let mut head = vec!["dataset".to_owned(), "setting".to_owned()];
            head.extend(self.results.iter().map(|c| escape_markdown(&c.model)));
            let mut rows = vec![head];
            rows.extend(self.differences.iter().map(|difference| {
                let fixed = [&difference.dataset, &difference.setting];
                let values = difference.values.iter();
                let cells = fixed.into_iter().chain(values);
                cells
                    .map(|v| escape_markdown(&shorten(v, MAX_VALUE)))
                    .collect()
            }));
            text.push_str(&format!("\nSettings that differ:\n\n{}", table(&rows)));
        }
        if !self.others.is_empty() {
            let head = ["dataset", "metric", "%", "model", "source"];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            rows.extend(self.others.iter().map(|number| {
                vec![
                    number.dataset.clone(),
                    metric_label(&number.metric),
                    format!("{:.1}", number.value),
                    title(number),
                    number.source.clone(),
                ]
            }));
            text.push_str(&format!("\nAlso published:\n\n{}", table(&rows)));
        }
        text
    }
}

fn cell_text(metric: &str, cell: Option<&Cell>) -> String {
    let Some(cell) = cell else {
        return "–".to_owned();
    };
    let mut text = match is_count(metric) {
        true => format!("{:.0}", cell.value),
        false => percent(Some(cell.value)),
    };
    if !cell.comparable {
        text.push('!');
    }
    if !cell.notes.is_empty() {
        let notes: Vec<_> = cell.notes.iter().map(|n| (n + 1).to_string()).collect();
        text.push_str(&format!(" [{}]", notes.join(",")));
    }
    text
}
