//! The confusion matrix of pixels, and intersection over union.

use serde::{Deserialize, Serialize};

use super::{IGNORE, MetricError, mean, share};

/// Most classes: above any segmentation set (ADE20K's full list has 847 in use), and a matrix of
/// 32 MiB.
const MAX_CLASSES: usize = 2048;

/// How often each class was predicted where each class was true.
///
/// One matrix counts a whole set, so that a class's IoU is over all its pixels, not a mean over
/// photos. Counts stop at `u64::MAX` rather than overflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[truth, predicted]`.
    counts: Vec<u64>,
    ignored: u64,
}

/// Which classes a mean IoU is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeanOver {
    /// Those in the truth or in the prediction: evaluate, torchmetrics, mmsegmentation.
    #[default]
    TruthOrPrediction,
    /// All of the set, one that never occurs counting as 0: the public CLIPpy code.
    All,
    /// Those in the truth: one that is only predicted costs others, but does not count itself.
    Truth,
}

impl MeanOver {
    /// All of them.
    pub const EACH: [Self; 3] = [Self::TruthOrPrediction, Self::All, Self::Truth];

    /// The name of the metric in result files.
    pub fn metric(self) -> &'static str {
        match self {
            Self::TruthOrPrediction => "miou_truth_or_prediction",
            Self::All => "miou_all_classes",
            Self::Truth => "miou_present",
        }
    }
}

/// A confusion matrix without its zeros: small enough for one line of JSON a photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseConfusion {
    /// Number of classes.
    pub classes: usize,
    /// Pixels left out.
    pub ignored: u64,
    /// True class, predicted class and number of pixels, in this order, of all that is not zero.
    pub counts: Vec<(u16, u16, u64)>,
}

/// What was counted of one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassPixels {
    /// Pixels that are of the class.
    pub truth: u64,
    /// Pixels predicted to be of the class.
    pub predicted: u64,
    /// Pixels that are both.
    pub correct: u64,
    /// Intersection over union; `None` if the class is in neither truth nor prediction.
    pub iou: Option<f64>,
    /// Share of the class's pixels that were found (recall); `None` if it has no pixels.
    pub accuracy: Option<f64>,
}

impl Confusion {
    /// An empty matrix for the classes `0..classes`.
    ///
    /// # Errors
    /// [`MetricError::Classes`] unless there are 1 to 2048.
    pub fn new(classes: usize) -> Result<Self, MetricError> {
        if !(1..=MAX_CLASSES).contains(&classes) {
            return Err(MetricError::Classes {
                classes,
                limit: MAX_CLASSES,
            });
        }
        Ok(Self {
            classes,
            counts: vec![0; classes * classes],
            ignored: 0,
        })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts the pixels of a photo. Where the truth is [`IGNORE`], the prediction may be anything.
    ///
    /// # Errors
    /// [`MetricError::Length`] if there are not as many predictions as truths, and
    /// [`MetricError::Class`] on a class beyond the last. Nothing is counted then.
    pub fn add(&mut self, truth: &[u16], predicted: &[u16]) -> Result<(), MetricError> {
        if truth.len() != predicted.len() {
            return Err(MetricError::Length {
                what: "prediction",
                expected: truth.len(),
                actual: predicted.len(),
            });
        }
        // Checked first, for an error must leave the counts as they were. Without an early exit:
        // the compiler makes vector instructions of this.
        let classes = self.classes as u16; // 2048 at most
        let beyond = |t: u16, p: u16| (t != IGNORE) & ((t >= classes) | (p >= classes));
        let bad = truth
            .iter()
            .zip(predicted)
            .fold(false, |bad, (&t, &p)| bad | beyond(t, p));
        if bad && let Some(error) = self.first_error(truth, predicted) {
            return Err(error);
        }
        for (&t, &p) in truth.iter().zip(predicted) {
            if t == IGNORE {
                self.ignored = self.ignored.saturating_add(1);
                continue;
            }
            let at = usize::from(t) * self.classes + usize::from(p);
            if let Some(count) = self.counts.get_mut(at) {
                *count = count.saturating_add(1);
            }
        }
        Ok(())
    }

    fn first_error(&self, truth: &[u16], predicted: &[u16]) -> Option<MetricError> {
        let pixels = truth.iter().zip(predicted).enumerate();
        pixels
            .filter(|(_, (truth, _))| **truth != IGNORE)
            .flat_map(|(index, (&t, &p))| [(index, "truth", t), (index, "prediction", p)])
            .find_map(|(index, what, class)| self.check_class(index, what, class).err())
    }

    fn check_class(&self, index: usize, what: &'static str, class: u16) -> Result<(), MetricError> {
        let value = usize::from(class);
        if value < self.classes {
            return Ok(());
        }
        Err(MetricError::Class {
            what,
            value,
            index,
            classes: self.classes,
        })
    }

    /// Adds the counts of another matrix.
    ///
    /// # Errors
    /// [`MetricError::Length`] if it has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        self.check_classes(other.classes)?;
        for (count, &more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(more);
        }
        self.ignored = self.ignored.saturating_add(other.ignored);
        Ok(())
    }

    /// The counts that are not zero.
    pub fn to_sparse(&self) -> SparseConfusion {
        let cells = self.counts.iter().enumerate();
        let counts = cells.filter(|&(_, &count)| count > 0).map(|(at, &count)| {
            let (truth, predicted) = (at / self.classes, at % self.classes);
            (truth as u16, predicted as u16, count) // both below 2048
        });
        SparseConfusion {
            classes: self.classes,
            ignored: self.ignored,
            counts: counts.collect(),
        }
    }

    /// Adds counts that were written earlier. A pair that is listed twice counts twice.
    ///
    /// # Errors
    /// [`MetricError::Length`] on another number of classes, [`MetricError::Class`] on a class
    /// beyond the last. Nothing is counted then.
    pub fn merge_sparse(&mut self, other: &SparseConfusion) -> Result<(), MetricError> {
        self.check_classes(other.classes)?;
        for (index, &(truth, predicted, _)) in other.counts.iter().enumerate() {
            self.check_class(index, "truth", truth)?;
            self.check_class(index, "prediction", predicted)?;
        }
        for &(truth, predicted, more) in &other.counts {
            let at = usize::from(truth) * self.classes + usize::from(predicted);
            if let Some(count) = self.counts.get_mut(at) {
                *count = count.saturating_add(more);
            }
        }
        self.ignored = self.ignored.saturating_add(other.ignored);
        Ok(())
    }

    fn check_classes(&self, classes: usize) -> Result<(), MetricError> {
        if classes == self.classes {
            return Ok(());
        }
        Err(MetricError::Length {
            what: "classes of the other confusion matrix",
            expected: self.classes,
            actual: classes,
        })
    }

    /// How many pixels of class `truth` were predicted to be of class `predicted`; 0 for classes
    /// that do not exist.
    pub fn get(&self, truth: usize, predicted: usize) -> u64 {
        if predicted >= self.classes {
            return 0;
        }
        let row = self.counts.chunks_exact(self.classes).nth(truth);
        row.and_then(|row| row.get(predicted)).copied().unwrap_or(0)
    }

    /// How many pixels were left out.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// How many pixels were counted, those left out aside.
    pub fn pixels(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The counts and scores of every class, by index.
    pub fn per_class(&self) -> Vec<ClassPixels> {
        // 2048 counts of 64 bits fit 128.
        let mut predicted = vec![0_u128; self.classes];
        let mut truth = Vec::with_capacity(self.classes);
        for row in self.counts.chunks_exact(self.classes) {
            truth.push(row.iter().map(|&count| u128::from(count)).sum::<u128>());
            for (sum, &count) in predicted.iter_mut().zip(row) {
                *sum += u128::from(count);
            }
        }
        let correct = self.counts.iter().step_by(self.classes + 1);
        let totals = truth.iter().zip(&predicted).zip(correct);
        totals
            .map(|((&truth, &predicted), &correct)| {
                let union = truth + predicted - u128::from(correct);
                ClassPixels {
                    truth: saturate(truth),
                    predicted: saturate(predicted),
                    correct,
                    iou: (union > 0).then(|| correct as f64 / union as f64),
                    accuracy: (truth > 0).then(|| correct as f64 / truth as f64),
                }
            })
            .collect()
    }

    /// Intersection over union of every class; `None` where neither truth nor prediction has it.
    pub fn iou(&self) -> Vec<Option<f64>> {
        self.per_class().iter().map(|class| class.iou).collect()
    }

    /// Mean IoU over the classes that `over` says; `None` if nothing was counted.
    pub fn miou(&self, over: MeanOver) -> Option<f64> {
        let classes = self.per_class();
        let sum = |iou: &[f64]| iou.iter().sum::<f64>();
        let found = |wanted: fn(&&ClassPixels) -> bool| -> Vec<f64> {
            classes
                .iter()
                .filter(wanted)
                .filter_map(|class| class.iou)
                .collect()
        };
        (self.pixels() > 0).then(|| match over {
            // A class that is in neither has no IoU, and adds 0 to the sum.
            MeanOver::All => sum(&found(|_| true)) / self.classes as f64,
            MeanOver::TruthOrPrediction => {
                let iou = found(|_| true);
                sum(&iou) / iou.len() as f64
            }
            MeanOver::Truth => {
                let iou = found(|class| class.truth > 0);
                sum(&iou) / iou.len() as f64
            }
        })
    }

    /// Share of the pixels whose class was found; `None` if nothing was counted.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        let correct = self.counts.iter().step_by(self.classes + 1);
        let correct = correct.fold(0_u64, |sum, &count| sum.saturating_add(count));
        share(correct, self.pixels())
    }

    /// Mean of [`ClassPixels::accuracy`] over the classes that the truth has; `None` if nothing
    /// was counted.
    pub fn mean_accuracy(&self) -> Option<f64> {
        mean(self.per_class().iter().filter_map(|class| class.accuracy))
    }
}

fn saturate(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Truth 0 0 1 1 2, prediction 0 1 1 1 0, of four classes.
    fn example() -> Confusion {
        let mut confusion = Confusion::new(4).unwrap();
        confusion
            .add(&[0, 0, 1, IGNORE, 1, 2], &[0, 1, 1, 9, 1, 0])
            .unwrap();
        confusion
    }

    #[test]
    fn scores_are_those_by_hand() {
        let confusion = example();
        assert_eq!(
            confusion.iou(),
            [Some(1.0 / 3.0), Some(2.0 / 3.0), Some(0.0), None]
        );
        assert_eq!(confusion.miou(MeanOver::All), Some(0.25));
        assert_eq!(confusion.miou(MeanOver::TruthOrPrediction), Some(1.0 / 3.0));
        assert_eq!(confusion.miou(MeanOver::Truth), Some(1.0 / 3.0));
        assert_eq!(confusion.pixel_accuracy(), Some(0.6));
        assert_eq!(confusion.mean_accuracy(), Some(0.5));
        assert_eq!((confusion.ignored(), confusion.pixels()), (1, 5));
        assert_eq!((confusion.get(2, 0), confusion.get(0, 2)), (1, 0));
        assert_eq!((confusion.get(0, 4), confusion.get(4, 0)), (0, 0));
    }

    #[test]
    fn each_mean_has_its_own_classes() {
        // Of 21 classes the truth has 0 and 1, and 2 is only predicted.
        let mut confusion = Confusion::new(21).unwrap();
        confusion.add(&[0, 0, 1, 1], &[0, 0, 1, 2]).unwrap();
        assert_eq!(confusion.miou(MeanOver::TruthOrPrediction), Some(0.5));
        assert_eq!(confusion.miou(MeanOver::Truth), Some(0.75));
        assert_eq!(confusion.miou(MeanOver::All), Some(1.5 / 21.0));
        // Nothing was counted: no number at all.
        let mut nothing = Confusion::new(21).unwrap();
        nothing.add(&[IGNORE], &[3]).unwrap();
        for over in MeanOver::EACH {
            assert_eq!(nothing.miou(over), None);
        }
    }

    #[test]
    fn errors_name_the_value_and_leave_the_counts() {
        let mut confusion = example();
        let error = confusion.add(&[0, 1], &[0, 4]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "class 4 in the prediction, at index 1; there are 4 classes"
        );
        let error = confusion.add(&[0, 255], &[0, 4]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "class 255 in the truth, at index 1; there are 4 classes"
        );
        let error = confusion.add(&[0, 1], &[0]).unwrap_err();
        assert_eq!(error.to_string(), "prediction: 1 values, expected 2");
        // A predicted IGNORE is no class.
        assert!(confusion.add(&[0], &[IGNORE]).is_err());
        assert!(confusion.merge(&Confusion::new(3).unwrap()).is_err());
        assert_eq!(confusion, example());
        assert!(Confusion::new(0).is_err());
        assert!(Confusion::new(MAX_CLASSES + 1).is_err());
    }

    #[test]
    fn a_line_of_json_is_read_back() {
        let line = serde_json::to_string(&example().to_sparse()).unwrap();
        assert_eq!(
            line,
            r#"{"classes":4,"ignored":1,"counts":[[0,0,1],[0,1,1],[1,1,2],[2,0,1]]}"#
        );
        let mut read = Confusion::new(4).unwrap();
        let sparse = serde_json::from_str(&line).unwrap();
        read.merge_sparse(&sparse).unwrap();
        assert_eq!(read, example());
    }

    #[test]
    fn hostile_lines_are_refused_or_saturate() {
        let mut confusion = Confusion::new(2).unwrap();
        let mut sparse = SparseConfusion {
            classes: 2,
            ignored: u64::MAX,
            counts: vec![(0, 0, u64::MAX), (0, 0, 7), (0, 1, u64::MAX), (2, 0, 1)],
        };
        assert!(confusion.merge_sparse(&sparse).is_err());
        assert_eq!(confusion.pixels(), 0);
        sparse.counts.pop();
        confusion.merge_sparse(&sparse).unwrap();
        confusion.merge(&confusion.clone()).unwrap();
        confusion.add(&[0, IGNORE], &[0, 0]).unwrap();
        assert_eq!(confusion.get(0, 0), u64::MAX);
        assert_eq!(confusion.iou(), [Some(0.5), Some(0.0)]);
        sparse.classes = 3;
        assert!(confusion.merge_sparse(&sparse).is_err());
    }
}
