//! Waterbirds: does the model see the object, or the place that it usually is at? (paper §3.4)
//!
//! Two answers from one forward pass. The *grouping* one segments the photo with three texts, the
//! two kinds and "background", and takes the kind with more pixels; where no pixel is of either
//! kind, the pooled answer. The *pooled* one is plain two-way classification.

use std::path::PathBuf;

use percept::{LabelMap, Pooling, TokenGrid};
use percept_data::{ClassName, Waterbirds as Set};
use percept_image::ChwImage;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Encoder, Picture, Pictured, Run, if_turned, read_photo, say_what_is_missing};
use crate::decide::decide;
use crate::metrics::{Habitat, Waterbirds as Groups};
use crate::protocol::Protocol;
use crate::result::{EvalResult, Task};
use crate::run::{Benchmark, Event, Loaded, run};
use crate::{EvalError, Vocabulary};

/// What the set is called in results, also where another set was made like it.
const DATASET: &str = "waterbirds";

/// Classes in a map: background, then the two kinds.
const BACKGROUND: u16 = 0;

/// Decides for every photo which of two kinds it shows, by grouping and by pooling.
///
/// # Errors
/// Settings, model and set do not fit together, or records cannot be written.
pub fn waterbirds(set: &Set, split: &str, how: Run<'_>) -> Result<EvalResult, EvalError> {
    let classes: Vec<ClassName> = std::iter::once(&set.background)
        .chain(&set.labels)
        .cloned()
        .collect();
    let benchmark = Waterbirds {
        set,
        encoder: how.encoder()?,
        pooling: how.model().image_config()?.pooling,
        vocabulary: Vocabulary::plain(how.model(), &classes, &how.protocol.text)?
            .with_background(BACKGROUND),
        // Three texts compete; refinement is for annotated sets.
        protocol: Protocol {
            refine: None,
            ..how.protocol.clone()
        },
    };
    let settings = how.settings(
        Task::SpuriousCorrelation,
        DATASET,
        split,
        json!({
            "texts": benchmark.vocabulary.texts,
            "made": set.made,
            "decision": "the kind with more pixels; the pooled one where neither has any",
        }),
    );
    let mut by_grouping = Groups::default();
    let mut by_pooling = Groups::default();
    let mut undecided = 0u64;
    let mut scores = Vec::new();
    let tally = run(
        &benchmark,
        &settings,
        how.options,
        how.progress,
        |sample, record: &Record| {
            let item = &set.samples[sample];
            let (bird, place) = (habitat(item.label)?, habitat(item.place)?);
            by_grouping.add(bird, place, habitat(record.grouping())?);
            by_pooling.add(bird, place, habitat(record.pooled)?);
            undecided += u64::from(record.pixels == [0, 0]);
            scores.push((sample, record.share_of(item.label)));
            Ok(())
        },
    )?;
    let tally = (&set.omissions, tally);
    let mut result = how.result(Task::SpuriousCorrelation, DATASET, split, settings, tally);
    for (way, groups) in [("grouping", &by_grouping), ("pooled", &by_pooling)] {
        let mut insert = |name: String, value: Option<f64>| {
            if let Some(value) = value {
                result.metrics.insert(format!("{way}_{name}"), value);
            }
        };
        for bird in Habitat::ALL {
            for place in Habitat::ALL {
                let name = format!(
                    "acc_{}_on_{}",
                    set.labels[bird as usize].name, set.places[place as usize]
                );
                insert(name, groups.accuracy(bird, place));
            }
            // As the paper prints it: what the unusual place costs, a negative number.
            let delta = groups.gap(bird).map(|gap| -gap);
            insert(format!("delta_{}", set.labels[bird as usize].name), delta);
        }
        insert("worst_group".into(), groups.worst());
        insert("average".into(), groups.average());
    }
    result
        .metrics
        .insert("photos_without_object_pixels".into(), undecided as f64);
    let empty: Vec<String> = Habitat::ALL
        .into_iter()
        .flat_map(|bird| Habitat::ALL.map(|place| (bird, place)))
        .filter(|(bird, place)| by_pooling.samples(*bird, *place) == 0)
        .map(|(bird, place)| {
            let (bird, place) = (&set.labels[bird as usize].name, &set.places[place as usize]);
            format!("{bird} on {place}")
        })
        .collect();
    if !empty.is_empty() && result.counts.done > 0 {
        // The worst of those that are left is not the worst of four.
        let reason = format!("no photo of {}", empty.join(", "));
        for name in ["grouping_worst_group", "pooled_worst_group"] {
            result.metrics.insert(name.to_owned(), f64::NAN);
            result.missing.insert(name.to_owned(), reason.clone());
        }
        (how.progress)(Event::Note(&format!(
            "{reason}: the worst group has no number"
        )));
    }
    say_what_is_missing(&mut result);
    result.gallery = how.gallery(
        &benchmark,
        scores,
        "share of object pixels with the right class",
    );
    Ok(result)
}

fn habitat(index: u16) -> Result<Habitat, String> {
    match index {
        0 => Ok(Habitat::Land),
        1 => Ok(Habitat::Water),
        other => Err(format!("{other} is neither kind")),
    }
}

struct Waterbirds<'a> {
    set: &'a Set,
    encoder: Encoder<'a>,
    pooling: Pooling,
    vocabulary: Vocabulary,
    protocol: Protocol,
}

/// What was found in a photo.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Pixels of either kind.
    pixels: [u64; 2],
    /// The pooled answer, 0 or 1.
    pooled: u16,
}

impl Record {
    fn grouping(&self) -> u16 {
        match self.pixels {
            [0, 0] => self.pooled,
            [a, b] if a == b => self.pooled,
            [a, b] => u16::from(b > a),
        }
    }

    /// Share of the pixels of either kind that have the kind `label`.
    fn share_of(&self, label: u16) -> f64 {
        let all: u64 = self.pixels.iter().sum();
        let own = self.pixels.get(usize::from(label)).copied().unwrap_or(0);
        if all == 0 {
            f64::from(u8::from(self.pooled == label))
        } else {
            own as f64 / all as f64
        }
    }
}

impl Waterbirds<'_> {
    fn map(&self, grid: &TokenGrid, size: [u32; 2]) -> Result<LabelMap, String> {
        let pooled = grid.pool(self.pooling);
        decide(&self.vocabulary, &self.protocol, grid, &pooled, size, None)
    }

    fn record(&self, map: &LabelMap, grid: &TokenGrid) -> Record {
        let counts = map.counts(3);
        let cosines = self.vocabulary.cosines(&grid.pool(self.pooling));
        Record {
            pixels: [counts[1], counts[2]],
            pooled: u16::from(cosines[2] > cosines[1]),
        }
    }
}

impl Benchmark for Waterbirds<'_> {
    /// Width and height of the photo.
    type Extra = [u32; 2];
    type Record = Record;

    fn len(&self) -> usize {
        self.set.samples.len()
    }

    fn id(&self, sample: usize) -> &str {
        &self.set.samples[sample].id
    }

    fn files(&self, sample: usize) -> Vec<PathBuf> {
        vec![self.set.samples[sample].image.clone()]
    }

    fn load(&self, sample: usize) -> Result<Loaded<[u32; 2]>, String> {
        let (photo, about) = read_photo(&self.set.samples[sample].image, &self.protocol)?;
        Ok(Loaded {
            extra: [photo.width(), photo.height()],
            image: self.encoder.prepare(&photo),
            about,
        })
    }

    fn if_turned(&self) -> &'static str {
        if_turned(&self.protocol)
    }

    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> {
        self.encoder.encode(images)
    }

    fn judge(&self, _: usize, size: [u32; 2], grid: TokenGrid) -> Result<Record, String> {
        let map = self.map(&grid, size)?;
        Ok(self.record(&map, &grid))
    }
}

impl Pictured for Waterbirds<'_> {
    fn picture(&self, sample: usize) -> Result<Picture, String> {
        let (size, grid) = self.again(sample)?;
        let prediction = self.map(&grid, size)?;
        let item = &self.set.samples[sample];
        let record = self.record(&prediction, &grid);
        let label = |index: u16| {
            let label = self.set.labels.get(usize::from(index));
            label.map_or("?", |label| label.name.as_str())
        };
        Ok(Picture {
            photo: read_photo(&item.image, &self.protocol)?.0,
            truth: None,
            prediction: Some(prediction),
            note: format!(
                "{} on {}; by grouping {}, pooled {}",
                label(item.label),
                self.set
                    .places
                    .get(usize::from(item.place))
                    .map_or("?", String::as_str),
                label(record.grouping()),
                label(record.pooled)
            ),
        })
    }
}
