//! Label-free grouping: how well some group covers each annotated region (paper §3.2).

use std::path::PathBuf;

use percept::{Centering, GroupOptions, Grouper, LabelMap, TokenGrid};
use percept_data::{Region, SegmentationSet};
use percept_image::{ChwImage, Rle, message};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Encoder, Picture, Pictured, Run, check_crop, files_of, if_turned, read_photo, read_truth,
    say_what_is_missing, size, window,
};
use crate::EvalError;
use crate::metrics::{GroupSizes, Jaccard};
use crate::protocol::{self, Protocol, Regions, Upsample};
use crate::result::{ClassResult, EvalResult, Task};
use crate::run::{Benchmark, Loaded, run};

/// Groups every photo of `set` without words and gives the mean, over all annotated regions, of
/// the IoU with the best group.
///
/// # Errors
/// Settings, model and set do not fit together, or records cannot be written.
pub fn grouping(set: &dyn SegmentationSet, how: Run<'_>) -> Result<EvalResult, EvalError> {
    check_crop(how.protocol)?;
    if how.protocol.truth.resize.is_some() && how.protocol.grouping.regions == Regions::Instances {
        // Masks of objects are kept at the photo's own size; the groups are brought to it.
        (how.progress)(crate::Event::Note(
            "truth.resize is for maps; objects are compared at the photo's own size",
        ));
    }
    let image = &how.protocol.image;
    let grouping = &how.protocol.grouping;
    let options = GroupOptions {
        groups: grouping.groups,
        centering: match how.protocol.grouping.centering {
            protocol::Centering::Raw => Centering::Raw,
            protocol::Centering::Centered => Centering::Centered,
        },
        size: size(image.resize, image.size),
        window: window(image),
    };
    let benchmark = Grouping {
        set,
        encoder: how.encoder()?,
        grouper: Grouper::new(how.model(), &options)?,
        protocol: how.protocol,
    };
    let settings = how.settings(Task::Grouping, set.name(), set.split(), json!({}));
    let classes = set.classes();
    let mut whole = Jaccard::default();
    let mut by_class = vec![Jaccard::default(); classes.len()];
    let mut by_groups = vec![Jaccard::default(); grouping.sweep.len()];
    let mut scores = Vec::new();
    let tally = run(
        &benchmark,
        &settings,
        how.options,
        how.progress,
        |sample, record: &Record| {
            let mut own = Jaccard::default();
            for (class, iou) in &record.regions {
                let found = Jaccard {
                    sum: *iou,
                    count: 1,
                };
                by_class
                    .get_mut(usize::from(*class))
                    .ok_or_else(|| format!("class {class} does not exist"))?
                    .merge(&found);
                own.merge(&found);
            }
            whole.merge(&own);
            for (jaccard, ious) in by_groups.iter_mut().zip(&record.sweep) {
                jaccard.merge(&Jaccard {
                    sum: ious.iter().sum(),
                    count: ious.len() as u64,
                });
            }
            if let Some(score) = own.mean() {
                scores.push((sample, score));
            }
            Ok(())
        },
    )?;
    let mut result = how.result(
        Task::Grouping,
        set.name(),
        set.split(),
        settings,
        (set.omissions(), tally),
    );
    if let Some(mean) = whole.mean() {
        result.metrics.insert("jaccard".into(), mean);
    }
    result.metrics.insert("regions".into(), whole.count as f64);
    for (groups, jaccard) in grouping.sweep.iter().zip(&by_groups) {
        if let Some(mean) = jaccard.mean() {
            result.metrics.insert(format!("jaccard@{groups}"), mean);
        }
    }
    say_what_is_missing(&mut result);
    result.per_class = classes
        .iter()
        .zip(&by_class)
        .filter(|(_, jaccard)| jaccard.count > 0)
        .map(|(class, jaccard)| ClassResult {
            name: class.name.clone(),
            iou: jaccard.mean(),
            accuracy: None,
            count: jaccard.count,
        })
        .collect();
    result.gallery = how.gallery(&benchmark, scores, "jaccard");
    Ok(result)
}

struct Grouping<'a> {
    set: &'a dyn SegmentationSet,
    encoder: Encoder<'a>,
    grouper: Grouper<'a>,
    protocol: &'a Protocol,
}

/// The class and best IoU of each region of a photo.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    regions: Vec<(u16, f64)>,
    /// The best IoU of each region for each of the sweep's numbers of groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sweep: Vec<Vec<f64>>,
}

/// What is read beside the model's input.
struct Scene {
    truth: LabelMap,
    regions: Vec<Region>,
}

impl Grouping<'_> {
    /// The groups at the truth's size, for each number of groups.
    fn groups(
        &self,
        grid: &TokenGrid,
        truth: &LabelMap,
        groups: &[usize],
    ) -> Result<Vec<LabelMap>, String> {
        let (width, height) = (truth.width(), truth.height());
        let size = match self.protocol.grouping.upsample {
            Upsample::Bilinear => [width, height],
            Upsample::Nearest => [grid.columns as u32, grid.rows as u32],
        };
        let found = self.grouper.assign_each(grid, size, groups);
        let found = found.map_err(|e| message(&e))?.into_iter();
        Ok(found
            .map(|grouping| percept_image::resize_labels(&grouping.labels, width, height))
            .collect())
    }

    /// All of a class together, background left out.
    fn class_regions(&self, truth: &LabelMap) -> Vec<Region> {
        let counts = truth.counts(self.set.classes().len());
        counts
            .iter()
            .zip(0u16..)
            .filter(|(pixels, class)| **pixels > 0 && Some(*class) != self.set.background())
            .map(|(_, class)| Region {
                class,
                mask: Rle::from_labels(truth, class),
            })
            .collect()
    }
}

impl Benchmark for Grouping<'_> {
    type Extra = Scene;
    type Record = Record;

    fn len(&self) -> usize {
        self.set.samples().len()
    }

    fn id(&self, sample: usize) -> &str {
        &self.set.samples()[sample].id
    }

    fn files(&self, sample: usize) -> Vec<PathBuf> {
        files_of(self.set, sample)
    }

    fn load(&self, sample: usize) -> Result<Loaded<Scene>, String> {
        let (photo, about) = read_photo(&self.set.samples()[sample].image, self.protocol)?;
        let instances = match self.protocol.grouping.regions {
            Regions::Instances => self.set.instances(sample).map_err(|e| message(&e))?,
            Regions::Classes => None,
        };
        let scene = match instances {
            Some(regions) => Scene {
                truth: self.set.truth(sample).map_err(|e| message(&e))?,
                regions,
            },
            None => {
                let truth = read_truth(self.set, sample, &photo, self.protocol)?;
                Scene {
                    regions: self.class_regions(&truth),
                    truth,
                }
            }
        };
        Ok(Loaded {
            extra: scene,
            image: self.encoder.prepare(&photo),
            about,
        })
    }

    fn if_turned(&self) -> &'static str {
        if_turned(self.protocol)
    }

    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> {
        self.encoder.encode(images)
    }

    fn judge(&self, _: usize, scene: Scene, grid: TokenGrid) -> Result<Record, String> {
        let settings = &self.protocol.grouping;
        let numbers: Vec<usize> = std::iter::once(&settings.groups)
            .chain(&settings.sweep)
            .copied()
            .collect();
        let maps = self.groups(&grid, &scene.truth, &numbers)?;
        let mut best = maps.iter().map(|groups| best(&scene, groups));
        let regions = best.next().ok_or("no number of groups")??;
        let sweep = best.map(|found| Ok(found?.into_iter().map(|(_, iou)| iou).collect()));
        Ok(Record {
            regions,
            sweep: sweep.collect::<Result<_, String>>()?,
        })
    }
}

impl Pictured for Grouping<'_> {
    fn picture(&self, sample: usize) -> Result<Picture, String> {
        let (scene, grid) = self.again(sample)?;
        let groups = self.groups(&grid, &scene.truth, &[self.protocol.grouping.groups])?;
        let (photo, _) = read_photo(&self.set.samples()[sample].image, self.protocol)?;
        let mut picture = Picture::of_maps(photo, scene.truth, &groups[0]);
        picture.note = "the prediction's colours are groups, not classes".into();
        Ok(picture)
    }
}

/// The class of each region, and the IoU of the group that fits it best.
fn best(scene: &Scene, groups: &LabelMap) -> Result<Vec<(u16, f64)>, String> {
    // Pixels that nobody annotated are no fault of a group.
    let sizes = GroupSizes::new(groups, Some(&scene.truth)).map_err(|e| e.to_string())?;
    let mut regions = Vec::new();
    for region in &scene.regions {
        if let Some(best) = sizes.best(&region.mask).map_err(|e| e.to_string())? {
            regions.push((region.class, best.iou));
        }
    }
    Ok(regions)
}
