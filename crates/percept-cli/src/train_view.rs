//! How a training looks on a terminal: a bar with its numbers, or a line now and then.

use indicatif::{HumanDuration, ProgressBar};
use percept_train::{Event, LogLine, Observer};

use crate::console::Console;

/// Cells of the curve.
const CELLS: usize = 24;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Numbers of a training, as they come.
pub struct TrainView<'a> {
    console: &'a Console,
    bar: Option<ProgressBar>,
    steps: u64,
    curve: Curve,
}

impl<'a> TrainView<'a> {
    /// A view that shows nothing yet.
    pub fn new(console: &'a Console) -> Self {
        Self {
            console,
            bar: None,
            steps: 0,
            curve: Curve::default(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// A line that stays, above the bar.
    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.console.progress(line)),
            None => self.console.progress(line),
        }
    }

    fn logged(&self, line: &LogLine) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{} {}", self.curve, numbers(line))),
            None => self.console.progress(&format!(
                "step {}/{} {}",
                line.step,
                self.steps,
                numbers(line)
            )),
        }
    }
}

impl Observer for TrainView<'_> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                config,
                folder,
                step,
                steps,
                parameters,
            } => {
                self.steps = *steps;
                self.console.progress(&format!(
                    "{}: {:.1} M numbers learn in {} steps of {} pairs",
                    folder.display(),
                    *parameters as f64 / 1e6,
                    steps,
                    config.batch()
                ));
                self.bar = self.console.live_bar(*steps);
                if let Some(bar) = &self.bar {
                    bar.set_position(*step);
                    bar.reset_eta();
                }
            }
            Event::Step(report) => {
                self.curve.push(f64::from(report.loss));
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                }
            }
            Event::Logged(line) => self.logged(line),
            Event::Validated { step, found } => self.line(&format!(
                "step {step}: validation loss {:.4}, image to text {:.1} %, text to image {:.1} %{}",
                found.loss,
                100.0 * found.image_to_text,
                100.0 * found.text_to_image,
                match found.bad_samples {
                    0 => String::new(),
                    left_out => format!(", of {} pairs, {left_out} left out", found.samples),
                }
            )),
            Event::Evaluated { step, metrics } => {
                let text: Vec<String> = metrics
                    .iter()
                    .map(|(name, value)| format!("{name} {:.2} %", 100.0 * value))
                    .collect();
                self.line(&format!("step {step}: {}", text.join(", ")));
            }
            Event::BadSample(bad) => self.line(&format!("skipped {bad}")),
            Event::BadValidation(bad) => self.line(&format!("not validated on {bad}")),
            Event::Note(note) => self.line(&format!("note: {note}")),
            // Often, and as expected.
            Event::Saved { .. } => {}
            _ => {}
        }
    }
}

fn numbers(line: &LogLine) -> String {
    let left = std::time::Duration::try_from_secs_f64(line.seconds_left).unwrap_or_default();
    format!(
        "loss {:.3}, temperature {:.1}, lr {:.1e}, {:.0} images/s, waiting {:.0} %, {:#} left",
        line.loss,
        line.logit_scale.exp(),
        line.lr,
        line.images_per_second,
        100.0 * line.data_wait,
        HumanDuration(left)
    )
}

/// All values so far as a few means, of twice as many each time that the cells are full.
#[derive(Debug, Default)]
struct Curve {
    means: Vec<f64>,
    sum: f64,
    count: u64,
    per_cell: u64,
}

impl Curve {
    fn push(&mut self, value: f64) {
        self.per_cell = self.per_cell.max(1);
        self.sum += value;
        self.count += 1;
        if self.count < self.per_cell {
            return;
        }
        self.means.push(self.sum / self.count as f64);
        (self.sum, self.count) = (0.0, 0);
        if self.means.len() == 2 * CELLS {
            let halves = self.means.chunks(2);
            self.means = halves
                .map(|pair| pair.iter().sum::<f64>() / pair.len() as f64)
                .collect();
            self.per_cell *= 2;
        }
    }
}

impl std::fmt::Display for Curve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.means[self.means.len().saturating_sub(2 * CELLS)..];
        // Two means a cell once there are more means than cells.
        let group = shown.len().div_ceil(CELLS).max(1);
        let cells: Vec<f64> = shown
            .chunks(group)
            .map(|cell| cell.iter().sum::<f64>() / cell.len() as f64)
            .collect();
        let low = cells.iter().copied().fold(f64::INFINITY, f64::min);
        let high = cells.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for value in &cells {
            let height = (value - low) / (high - low).max(1e-9) * (BARS.len() - 1) as f64;
            let bar = BARS.get(height.round() as usize).unwrap_or(&BARS[0]);
            write!(f, "{bar}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_falls_and_stays_short() {
        let mut curve = Curve::default();
        assert_eq!(curve.to_string(), "");
        curve.push(2.0);
        curve.push(1.0);
        assert_eq!(curve.to_string(), "█▁");
        for i in 0..10_000 {
            curve.push(10_000.0 - f64::from(i));
        }
        let text = curve.to_string();
        assert!(text.chars().count() <= CELLS, "{text}");
        assert!(text.ends_with('▁'));
    }
}
