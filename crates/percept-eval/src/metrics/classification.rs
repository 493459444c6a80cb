//! Classification of whole photos: top-1, top-5 and accuracy by class.

use serde::{Deserialize, Serialize};

use super::{Confusion, MetricError, check_finite, mean, share};

/// Most classes: ImageNet's largest list has 21,841.
const MAX_CLASSES: usize = 65_536;

/// Up to so many classes the confusion matrix is kept: beyond, nobody can read it.
const MAX_CONFUSION: usize = 256;

/// The second accuracy is over this many guesses.
const TOP: usize = 5;

/// How often the class of a photo was the first guess, and how often among the first five.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    classes: Vec<ClassAccuracy>,
    confusion: Option<Confusion>,
}

/// What was counted of the photos of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassAccuracy {
    /// Photos of the class.
    pub samples: u64,
    /// Those whose first guess was right.
    pub top1: u64,
    /// Those with the right class among the first five guesses.
    pub top5: u64,
}

impl ClassAccuracy {
    /// Share of the photos whose first guess was right; `None` without photos.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.top1, self.samples)
    }

    fn merge(&mut self, other: &Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.top1 = self.top1.saturating_add(other.top1);
        self.top5 = self.top5.saturating_add(other.top5);
    }
}

impl Classification {
    /// Nothing counted yet, for the classes `0..classes`.
    ///
    /// # Errors
    /// [`MetricError::Classes`] unless there are 1 to 65,536.
    pub fn new(classes: usize) -> Result<Self, MetricError> {
        if !(1..=MAX_CLASSES).contains(&classes) {
            return Err(MetricError::Classes {
                classes,
                limit: MAX_CLASSES,
            });
        }
        let confusion = (classes <= MAX_CONFUSION)
            .then(|| Confusion::new(classes))
            .transpose()?;
        Ok(Self {
            classes: vec![ClassAccuracy::default(); classes],
            confusion,
        })
    }

    /// Counts a photo of class `truth` by its `scores`, `[classes]`. Of equal scores the lower
    /// class comes first.
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there is one score a class, [`MetricError::NotFinite`] if
    /// one is NaN or infinite, [`MetricError::Class`] if `truth` is beyond the last class.
    pub fn add_scores(&mut self, truth: usize, scores: &[f32]) -> Result<(), MetricError> {
        self.check_class("truth", truth, 0)?;
        if scores.len() != self.classes.len() {
            return Err(MetricError::Length {
                what: "scores",
                expected: self.classes.len(),
                actual: scores.len(),
            });
        }
        check_finite("scores", scores)?;
        let own = scores.get(truth).copied().unwrap_or(f32::NEG_INFINITY);
        let mut rank = 0;
        let mut first = (0, f32::NEG_INFINITY);
        for (class, &score) in scores.iter().enumerate() {
            if score > first.1 {
                first = (class, score);
            }
            if score > own || (score == own && class < truth) {
                rank += 1;
            }
        }
        self.count(truth, first.0, Some(rank))
    }

    /// Counts a photo of class `truth` by its guesses, best first. Fewer than five are enough; a
    /// class that is not among them was not guessed.
    ///
    /// # Errors
    /// [`MetricError::Setting`] without guesses, [`MetricError::Class`] if `truth` or one of the
    /// first five guesses is beyond the last class.
    pub fn add_ranked(&mut self, truth: usize, guesses: &[usize]) -> Result<(), MetricError> {
        self.check_class("truth", truth, 0)?;
        let Some(&first) = guesses.first() else {
            return Err(MetricError::Setting("a photo without any guess"));
        };
        for (index, &guess) in guesses.iter().take(TOP).enumerate() {
            self.check_class("prediction", guess, index)?;
        }
        let rank = guesses.iter().take(TOP).position(|&guess| guess == truth);
        self.count(truth, first, rank)
    }

    fn count(
        &mut self,
        truth: usize,
        first: usize,
        rank: Option<usize>,
    ) -> Result<(), MetricError> {
        if let Some(class) = self.classes.get_mut(truth) {
            class.merge(&ClassAccuracy {
                samples: 1,
                top1: u64::from(rank == Some(0)),
                top5: u64::from(rank.is_some_and(|rank| rank < TOP)),
            });
        }
        if let Some(confusion) = &mut self.confusion {
            // Both below 256 where there is a matrix.
            confusion.add(&[truth as u16], &[first as u16])?;
        }
        Ok(())
    }

    /// Adds the photos of another part.
    ///
    /// # Errors
    /// [`MetricError::Length`] if it has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if other.classes.len() != self.classes.len() {
            return Err(MetricError::Length {
                what: "classes of the other part",
                expected: self.classes.len(),
                actual: other.classes.len(),
            });
        }
        for (class, more) in self.classes.iter_mut().zip(&other.classes) {
            class.merge(more);
        }
        if let (Some(confusion), Some(more)) = (&mut self.confusion, &other.confusion) {
            confusion.merge(more)?;
        }
        Ok(())
    }

    fn check_class(
        &self,
        what: &'static str,
        class: usize,
        index: usize,
    ) -> Result<(), MetricError> {
        if class < self.classes.len() {
            return Ok(());
        }
        Err(MetricError::Class {
            what,
            value: class,
            index,
            classes: self.classes.len(),
        })
    }

    fn total(&self) -> ClassAccuracy {
        let mut total = ClassAccuracy::default();
        for class in &self.classes {
            total.merge(class);
        }
        total
    }

    /// Number of photos counted.
    pub fn samples(&self) -> u64 {
        self.total().samples
    }

    /// Share of the photos whose first guess was right; `None` without photos.
    pub fn top1(&self) -> Option<f64> {
        self.total().accuracy()
    }

    /// Share of the photos with the right class among the first five guesses; `None` without
    /// photos. With five classes or fewer it says nothing.
    pub fn top5(&self) -> Option<f64> {
        let total = self.total();
        share(total.top5, total.samples)
    }

    /// Mean of [`ClassAccuracy::accuracy`] over the classes that have photos.
    pub fn mean_per_class(&self) -> Option<f64> {
        mean(self.classes.iter().filter_map(ClassAccuracy::accuracy))
    }

    /// The counts of every class, by index.
    pub fn per_class(&self) -> &[ClassAccuracy] {
        &self.classes
    }

    /// Which class was guessed first for which; `None` beyond 256 classes.
    pub fn confusion(&self) -> Option<&Confusion> {
        self.confusion.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracies_are_those_by_hand() {
        let mut classes = Classification::new(7).unwrap();
        assert_eq!((classes.top1(), classes.mean_per_class()), (None, None));
        let scores = [0.1, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2];
        for truth in [1, 2, 5, 6, 0] {
            classes.add_scores(truth, &scores).unwrap();
        }
        classes.add_ranked(1, &[1]).unwrap();
        classes.add_ranked(0, &[2, 0]).unwrap();
        classes.add_ranked(0, &[2, 3, 4, 5, 6, 0]).unwrap();
        assert_eq!(classes.samples(), 8);
        assert_eq!(classes.top1(), Some(0.25));
        assert_eq!(classes.top5(), Some(0.625));
        assert_eq!(classes.mean_per_class(), Some(0.2)); // 0 1 0 - - 0 0
        assert_eq!(classes.per_class()[3].accuracy(), None);
        assert_eq!(classes.per_class()[1].top1, 2);
        let confusion = classes.confusion().unwrap();
        assert_eq!((confusion.get(0, 2), confusion.get(6, 1)), (2, 1));
        let mut twice = classes.clone();
        twice.merge(&classes).unwrap();
        assert_eq!((twice.samples(), twice.top1()), (16, Some(0.25)));
    }

    #[test]
    fn the_lower_of_equal_classes_comes_first() {
        let mut classes = Classification::new(7).unwrap();
        for truth in 0..7 {
            classes.add_scores(truth, &[0.5; 7]).unwrap();
        }
        let top: Vec<_> = classes
            .per_class()
            .iter()
            .map(|c| (c.top1, c.top5))
            .collect();
        let expected = [(1, 1), (0, 1), (0, 1), (0, 1), (0, 1), (0, 0), (0, 0)];
        assert_eq!(top, expected);
        assert_eq!(classes.confusion().unwrap().get(6, 0), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut classes = Classification::new(2).unwrap();
        assert!(classes.add_scores(2, &[0.0; 2]).is_err());
        assert!(classes.add_scores(0, &[0.0; 3]).is_err());
        let error = classes.add_scores(0, &[0.0, f32::NAN]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "scores: the value at index 1 is not finite"
        );
        assert!(classes.add_ranked(0, &[]).is_err());
        assert!(classes.add_ranked(0, &[1, 2]).is_err());
        assert!(classes.merge(&Classification::new(3).unwrap()).is_err());
        assert_eq!(classes, Classification::new(2).unwrap());
        assert!(Classification::new(0).is_err());
        assert!(Classification::new(MAX_CLASSES + 1).is_err());
        let many = Classification::new(MAX_CONFUSION + 1).unwrap();
        assert!(many.confusion().is_none());
    }
}
