//! Waterbirds: is it the bird that decides, or the background? (the CLIPpy paper, Figure 5)

use serde::{Deserialize, Serialize};

use super::share;

/// Water or land: where a bird lives, or what a photo shows it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Habitat {
    /// Landbird, or land: 0 in `metadata.csv`.
    Land,
    /// Waterbird, or water: 1 in `metadata.csv`.
    Water,
}

impl Habitat {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Land, Self::Water];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Land => Self::Water,
            Self::Water => Self::Land,
        }
    }
}

/// Right and wrong answers in the four groups of bird and place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waterbirds {
    /// Photos, `[bird][place]`, land before water.
    samples: [[u64; 2]; 2],
    /// Those whose bird was recognised.
    correct: [[u64; 2]; 2],
}

impl Waterbirds {
    /// Counts a photo of a `bird` at a `place` that was taken for `predicted`.
    pub fn add(&mut self, bird: Habitat, place: Habitat, predicted: Habitat) {
        let count = |counts: &mut [[u64; 2]; 2]| {
            let count = cell_mut(counts, bird, place);
            *count = count.saturating_add(1);
        };
        count(&mut self.samples);
        if predicted == bird {
            count(&mut self.correct);
        }
    }

    /// Adds the photos of another part.
    pub fn merge(&mut self, other: &Self) {
        for bird in Habitat::ALL {
            for place in Habitat::ALL {
                for (ours, theirs) in [
                    (&mut self.samples, &other.samples),
                    (&mut self.correct, &other.correct),
                ] {
                    let count = cell_mut(ours, bird, place);
                    *count = count.saturating_add(cell(theirs, bird, place));
                }
            }
        }
    }

    /// How many photos of a bird at a place there were.
    pub fn samples(&self, bird: Habitat, place: Habitat) -> u64 {
        cell(&self.samples, bird, place)
    }

    /// Accuracy in one of the four groups; `None` if it has no photos.
    pub fn accuracy(&self, bird: Habitat, place: Habitat) -> Option<f64> {
        share(
            cell(&self.correct, bird, place),
            cell(&self.samples, bird, place),
        )
    }

    /// The lowest accuracy of the groups that have photos; `None` without photos.
    pub fn worst(&self) -> Option<f64> {
        let birds = Habitat::ALL.into_iter();
        let groups = birds.flat_map(|bird| Habitat::ALL.map(|place| self.accuracy(bird, place)));
        groups.flatten().min_by(f64::total_cmp)
    }

    /// Accuracy over all photos; `None` without any.
    pub fn average(&self) -> Option<f64> {
        let sum = |counts: &[[u64; 2]; 2]| {
            let counts = counts.iter().flatten();
            counts.fold(0_u64, |sum, &count| sum.saturating_add(count))
        };
        share(sum(&self.correct), sum(&self.samples))
    }

    /// The domain gap Δ of a bird: its accuracy where it lives less that at the other place;
    /// `None` if either has no photos.
    ///
    /// The paper calls Δ the drop in accuracy and prints it with a minus sign: a gap of 0.321
    /// here is -32.1 there.
    pub fn gap(&self, bird: Habitat) -> Option<f64> {
        Some(self.accuracy(bird, bird)? - self.accuracy(bird, bird.other())?)
    }
}

fn cell(counts: &[[u64; 2]; 2], bird: Habitat, place: Habitat) -> u64 {
    counts[bird as usize][place as usize]
}

fn cell_mut(counts: &mut [[u64; 2]; 2], bird: Habitat, place: Habitat) -> &mut u64 {
    &mut counts[bird as usize][place as usize]
}

#[cfg(test)]
mod tests {
    use super::Habitat::{Land, Water};
    use super::*;

    /// The paper's Figure 5, 1000 photos a group.
    fn figure5(counts: [(Habitat, Habitat, u32); 4]) -> Waterbirds {
        let mut birds = Waterbirds::default();
        for (bird, place, correct) in counts {
            for photo in 0..1000 {
                let predicted = if photo < correct { bird } else { bird.other() };
                birds.add(bird, place, predicted);
            }
        }
        birds
    }

    fn per_mille(value: Option<f64>) -> i64 {
        (value.unwrap() * 1000.0).round() as i64
    }

    #[test]
    fn the_papers_gaps_follow_from_its_accuracies() {
        let clip = figure5([
            (Water, Water, 802),
            (Water, Land, 481),
            (Land, Water, 388),
            (Land, Land, 717),
        ]);
        assert_eq!(per_mille(clip.gap(Water)), 321);
        assert_eq!(per_mille(clip.gap(Land)), 329);
        assert_eq!(clip.worst(), Some(0.388));
        assert_eq!(clip.average(), Some(0.597));
        let clippy = figure5([
            (Water, Water, 769),
            (Water, Land, 749),
            (Land, Water, 800),
            (Land, Land, 841),
        ]);
        assert_eq!(per_mille(clippy.gap(Water)), 20);
        assert_eq!(per_mille(clippy.gap(Land)), 41);
        assert_eq!(clippy.worst(), Some(0.749));
    }

    #[test]
    fn groups_without_photos_have_no_accuracy() {
        let mut birds = Waterbirds::default();
        assert_eq!((birds.worst(), birds.average()), (None, None));
        birds.add(Water, Land, Water);
        birds.add(Water, Land, Land);
        assert_eq!(birds.accuracy(Water, Land), Some(0.5));
        assert_eq!(birds.accuracy(Land, Land), None);
        assert_eq!((birds.worst(), birds.gap(Water)), (Some(0.5), None));
        let mut twice = birds;
        twice.merge(&birds);
        assert_eq!(twice.samples(Water, Land), 4);
        assert_eq!(twice.average(), Some(0.5));
        let line = serde_json::to_string(&twice).unwrap();
        assert_eq!(serde_json::from_str::<Waterbirds>(&line).unwrap(), twice);
    }
}
