//! Makes a set like Waterbirds out of any segmentation set and two folders of photos.
//!
//! Objects of two classes are cut out and pasted onto photos of two places. Each object that is used
//! is pasted once onto each place, so that all four groups are equally large, hold the same objects,
//! and differ in nothing but what stands behind them.

mod parts;
mod paste;
mod staging;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use percept_image::{ImageError, Limits, RgbImage, Rle, jpeg_rgb, open, open_stored};
use serde::Serialize;
use serde_json::json;

use crate::files::invalid;
use crate::folder::photos;
use crate::random::Random;
use crate::waterbirds::SetFile;
use crate::{DataError, Omissions, SegmentationSet};

use parts::{cut_share, parts};
use paste::{Cutout, paste, shrink};
use staging::Staging;

/// JPEG quality of the photos made: differences to the source cannot be seen.
const QUALITY: u8 = 95;

/// Smallest side of a background photo, in pixels: less is an icon.
const MIN_SIDE: u32 = 32;

/// Most objects per group: four times as many photos are written.
const MAX_PER_GROUP: usize = 100_000;

/// Photos that could not be used and are named in the report; more are only counted.
const MAX_NAMED: usize = 1000;

/// Number of the split `test` in `metadata.csv`.
const TEST: &str = "2";

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct SpuriousSettings {
    /// Names of the two classes, as the segmentation set has them; label 0 and 1.
    pub classes: [String; 2],
    /// The two places.
    pub places: [Place; 2],
    /// Most objects in each of the four groups. Default: 100.
    pub per_group: usize,
    /// Decides which objects and photos are used, and which object goes where. Default: 0.
    pub seed: u64,
    /// Least share of its photo's pixels that an object must have to be used. Default: 0.05.
    pub min_share: f32,
    /// Largest share of an object's width or height that may lie at an edge of its photo, where it is
    /// cut off; 1 to use all objects. Default: 0.2.
    pub max_cut: f32,
    /// Share of the background photo's pixels that the object is scaled to. Default: 0.2.
    pub share: f32,
    /// Least share of the background photo's width left free on either side of the object, and of
    /// its height above and below; the object is made smaller for it. Default: 0.02.
    pub margin: f32,
    /// Background photos with a larger short side are first resized to this, in pixels. Default: 512.
    pub max_short_side: u32,
}

/// A place and photos of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// The folder of its photos; folders within are not looked into.
    pub folder: PathBuf,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpuriousReport {
    /// Photos in each of the four groups.
    pub per_group: usize,
    /// Photos of the segmentation set that were looked at.
    pub looked_at: usize,
    /// Objects passed over because they were too small.
    pub too_small: usize,
    /// Objects passed over because their photo does not show them whole.
    pub cut_off: usize,
    /// Photos passed over because both classes are in them.
    pub both_classes: usize,
    /// Photos that could not be used, the first 1,000 of them by name.
    pub unusable: Vec<Unusable>,
    /// How many could not be used in all.
    pub unusable_in_all: usize,
    /// What was left out of the segmentation set and of the places' folders.
    pub left_out: Omissions,
}

/// A photo that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unusable {
    /// Its name.
    pub photo: String,
    /// Why not.
    pub reason: String,
}

impl SpuriousSettings {
    /// The default settings for two classes and two places.
    pub fn new(classes: [String; 2], places: [Place; 2]) -> Self {
        Self {
            classes,
            places,
            per_group: 100,
            seed: 0,
            min_share: 0.05,
            max_cut: 0.2,
            share: 0.2,
            margin: 0.02,
            max_short_side: 512,
        }
    }

    fn check(&self) -> Result<(), DataError> {
        let within = |name, value: f32, low: f32, high: f32| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is {value}, not {low} to {high}")),
        };
        let distinct = |what, [a, b]: [&String; 2]| match a == b || a.is_empty() || b.is_empty() {
            true => Err(format!("two {what} are needed, not `{a}` and `{b}`")),
            false => Ok(()),
        };
        within("the least share of an object", self.min_share, 0.0, 1.0)
            .and_then(|()| within("the share of an object at an edge", self.max_cut, 0.0, 1.0))
            .and_then(|()| within("the share of the object", self.share, 0.001, 1.0))
            .and_then(|()| within("the margin", self.margin, 0.0, 0.45))
            .and_then(|()| distinct("classes", self.classes.each_ref()))
            .and_then(|()| distinct("places", self.places.each_ref().map(|place| &place.name)))
            .and_then(|()| match self.per_group {
                1..=MAX_PER_GROUP => Ok(()),
                n => Err(format!("{n} objects per group, not 1 to {MAX_PER_GROUP}")),
            })
            .and_then(|()| match self.max_short_side {
                MIN_SIDE.. => Ok(()),
                side => Err(format!(
                    "a short side of {side} pixels, not {MIN_SIDE} or more"
                )),
            })
            .map_err(DataError::Setting)
    }
}

/// Makes a set in the folder `out`: `images/*.jpg`, `set.json` and `metadata.csv`, all photos in the
/// split `test`. [`Waterbirds::open`](crate::Waterbirds::open) reads it.
///
/// The set is made in a folder beside `out`, which takes its name in the end: `out` holds all of it
/// or nothing. If making it fails, that folder is removed.
///
/// An object is used if it covers enough of its photo ([`SpuriousSettings::min_share`]), does not end
/// at an edge of it ([`SpuriousSettings::max_cut`]), and the photo has no object of the other class.
/// Where the set does not tell objects apart, each connected part of the class is one. Objects and
/// background photos are drawn without replacement; background photos are used again only when all
/// have been. The same settings on the same files make the same set. Two photos are in memory at a
/// time. `progress` gets the report so far after every four photos.
///
/// A photo that cannot be read, or is not of the size of its annotation, is counted, named in the
/// report, and replaced by the next.
///
/// # Errors
/// [`DataError`]: the settings make no sense, or name a class that the set does not have; `out` is not
/// empty or cannot be written to; a folder of photos cannot be read or has none that can be; no object
/// of one of the classes can be used.
pub fn build(
    set: &dyn SegmentationSet,
    settings: &SpuriousSettings,
    out: &Path,
    progress: &mut dyn FnMut(&SpuriousReport),
) -> Result<SpuriousReport, DataError> {
    settings.check()?;
    let [a, b] = &settings.classes;
    let classes = [class_index(set, a)?, class_index(set, b)?];
    if classes[0] == classes[1] {
        return Err(DataError::Setting(format!("`{a}` and `{b}` are one class")));
    }
    let mut random = Random::new(settings.seed);
    let mut report = SpuriousReport {
        per_group: 0,
        looked_at: 0,
        too_small: 0,
        cut_off: 0,
        both_classes: 0,
        unusable: Vec::new(),
        left_out: set.omissions().clone(),
        unusable_in_all: 0,
    };
    let mut objects = Objects::new(set, classes, settings, &mut random);
    let [here, there] = &settings.places;
    let mut backgrounds = [
        Deck::new(here, &mut random, &mut report.left_out)?,
        Deck::new(there, &mut random, &mut report.left_out)?,
    ];
    let staging = Staging::new(out)?;
    staging.folder("images")?;
    let mut rows = Vec::new();
    let mut sources = Vec::new();
    while report.per_group < settings.per_group {
        let Some(first) = objects.next(0, &mut report) else {
            break;
        };
        let Some(second) = objects.next(1, &mut report) else {
            break;
        };
        let round = report.per_group;
        sources.push([first.0.clone(), second.0.clone()]);
        for (label, (_, cutout)) in [first, second].into_iter().enumerate() {
            for (place, deck) in backgrounds.iter_mut().enumerate() {
                let (photo, name) = deck.next(&mut random, &mut report)?;
                let photo = shrink(photo, settings.max_short_side);
                let made = paste(&cutout, photo, settings.share, settings.margin);
                let file = format!("images/{round:05}_y{label}_place{place}.jpg");
                let jpeg = jpeg_rgb(&made, QUALITY);
                let jpeg = jpeg.map_err(|error| invalid(&out.join(&file), error.to_string()))?;
                staging.file(&file, &jpeg)?;
                rows.push(Row {
                    file,
                    label,
                    place,
                    name,
                });
            }
        }
        report.per_group += 1;
        progress(&report);
    }
    if report.per_group == 0 {
        return Err(DataError::Setting(format!(
            "no pair of objects of `{a}` and `{b}` can be used: of {} photos looked at, {} have \
             both, {} objects are too small, {} cut off, {} photos are unusable",
            report.looked_at,
            report.both_classes,
            report.too_small,
            report.cut_off,
            report.unusable_in_all
        )));
    }
    let described = describe(set, settings, classes, &report, &sources);
    let json = serde_json::to_vec_pretty(&described);
    let json = json.map_err(|error| invalid(&out.join("set.json"), error.to_string()))?;
    staging.file("set.json", &json)?;
    staging.file("metadata.csv", &metadata(&rows)?)?;
    staging.finish()?;
    Ok(report)
}

/// A photo that was made.
struct Row {
    file: String,
    label: usize,
    place: usize,
    /// Place and file of the background.
    name: String,
}

fn metadata(rows: &[Row]) -> Result<Vec<u8>, DataError> {
    let failed = |error: String| DataError::Setting(format!("metadata.csv: {error}"));
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record([
        "img_id",
        "img_filename",
        "y",
        "split",
        "place",
        "place_filename",
    ])
    .map_err(|error| failed(error.to_string()))?;
    for (row, id) in rows.iter().zip(1_usize..) {
        let [id, label, place] = [id, row.label, row.place].map(|number| number.to_string());
        csv.write_record([&id, &row.file, &label, TEST, &place, &row.name])
            .map_err(|error| failed(error.to_string()))?;
    }
    csv.into_inner().map_err(|error| failed(error.to_string()))
}

/// The names of the set and how it was made.
fn describe(
    set: &dyn SegmentationSet,
    settings: &SpuriousSettings,
    classes: [u16; 2],
    report: &SpuriousReport,
    sources: &[[String; 2]],
) -> SetFile {
    let names = |class: u16| {
        let class = set.classes().get(usize::from(class));
        class.map_or_else(String::new, |class| class.synonyms.join(", "))
    };
    let place = |place: &Place| place.name.clone();
    SetFile {
        labels: Some(classes.map(names)),
        places: Some(settings.places.each_ref().map(place)),
        background: Some("background".to_owned()),
        made: Some(json!({
            "by": concat!("percept ", env!("CARGO_PKG_VERSION")),
            "objects_from": { "set": set.name(), "split": set.split() },
            "settings": {
                "per_group": settings.per_group,
                "seed": settings.seed,
                "min_share": written(settings.min_share),
                "max_cut": written(settings.max_cut),
                "share": written(settings.share),
                "margin": written(settings.margin),
                "max_short_side": settings.max_short_side,
            },
            "counts": report,
            "objects": sources,
        })),
    }
}

/// A setting as it is written: 0.05 has other digits as the nearest f32 than as the nearest f64.
fn written(setting: f32) -> f64 {
    let digits = setting.to_string().parse();
    digits.unwrap_or_else(|_| f64::from(setting))
}

/// Index of the class with a name or synonym, whatever its case.
fn class_index(set: &dyn SegmentationSet, name: &str) -> Result<u16, DataError> {
    let same = |known: &String| known.to_lowercase() == name.to_lowercase();
    let mut classes = set.classes().iter().zip(0..);
    let found = classes.find(|(class, _)| same(&class.name) || class.synonyms.iter().any(same));
    let index = found.map(|(_, index)| index);
    index
        .filter(|index| Some(*index) != set.background())
        .ok_or_else(|| {
            let all = set.classes().iter().zip(0..);
            let objects = all.filter(|(_, index)| Some(*index) != set.background());
            let names: Vec<&str> = objects.map(|(class, _)| class.name.as_str()).collect();
            let (set, names) = (set.name(), names.join(", "));
            DataError::Setting(format!(
                "{set} has no objects called `{name}`; it has {names}"
            ))
        })
}

/// The objects of both classes, in random order of their photos.
struct Objects<'a> {
    set: &'a dyn SegmentationSet,
    classes: [u16; 2],
    settings: &'a SpuriousSettings,
    /// Photos that were not looked at, the next one last.
    photos: Vec<usize>,
    /// Objects found and not used, by class: photo, and number among the photo's objects.
    found: [VecDeque<(usize, usize)>; 2],
}

impl<'a> Objects<'a> {
    fn new(
        set: &'a dyn SegmentationSet,
        classes: [u16; 2],
        settings: &'a SpuriousSettings,
        random: &mut Random,
    ) -> Self {
        let mut photos: Vec<usize> = (0..set.samples().len()).collect();
        random.shuffle(&mut photos);
        Self {
            set,
            classes,
            settings,
            photos,
            found: [VecDeque::new(), VecDeque::new()],
        }
    }

    /// The next object with the given label, and the id of its photo; `None` when there are no more.
    fn next(&mut self, label: usize, report: &mut SpuriousReport) -> Option<(String, Cutout)> {
        loop {
            while let Some((photo, number)) = self.found.get_mut(label)?.pop_front() {
                match self.cut(photo, label, number) {
                    Ok(cutout) => return Some((self.set.samples().get(photo)?.id.clone(), cutout)),
                    Err(reason) => report.note(self.id(photo), reason),
                }
            }
            let photo = self.photos.pop()?;
            report.looked_at += 1;
            if let Err(error) = self.look_at(photo, report) {
                report.note(self.id(photo), without_folders(&error));
            }
        }
    }

    fn id(&self, photo: usize) -> String {
        let sample = self.set.samples().get(photo);
        sample.map_or_else(String::new, |sample| sample.id.clone())
    }

    /// Notes which objects of a photo can be used.
    fn look_at(&mut self, photo: usize, report: &mut SpuriousReport) -> Result<(), DataError> {
        let truth = self.set.truth(photo)?;
        let has = |class: &u16| truth.data().contains(class);
        let label = match self.classes.each_ref().map(has) {
            [false, false] => return Ok(()),
            [true, true] => {
                report.both_classes += 1;
                return Ok(());
            }
            [_, second] => usize::from(second),
        };
        let pixels = f64::from(truth.width()) * f64::from(truth.height());
        let SpuriousSettings {
            min_share, max_cut, ..
        } = *self.settings;
        for (number, mask) in self.masks(photo, label)?.iter().enumerate() {
            let area = mask.area();
            if area == 0 || (area as f64) < f64::from(min_share) * pixels {
                report.too_small += 1;
            } else if cut_share(mask) > f64::from(max_cut) {
                report.cut_off += 1;
            } else {
                self.found[label].push_back((photo, number));
            }
        }
        Ok(())
    }

    /// The objects of a label in a photo.
    fn masks(&self, photo: usize, label: usize) -> Result<Vec<Rle>, DataError> {
        let class = self.classes[label];
        Ok(match self.set.instances(photo)? {
            Some(regions) => (regions.into_iter())
                .filter(|region| region.class == class)
                .map(|region| region.mask)
                .collect(),
            None => parts(&Rle::from_labels(&self.set.truth(photo)?, class)),
        })
    }

    fn cut(&self, photo: usize, label: usize, number: usize) -> Result<Cutout, String> {
        let masks = self.masks(photo, label);
        let masks = masks.map_err(|error| without_folders(&error))?;
        let mask = masks.get(number).ok_or("the annotation has changed")?;
        let sample = self.set.samples().get(photo).ok_or("no such photo")?;
        // Masks are drawn on what is stored.
        let image = open_stored(&sample.image, &Limits::default()).map_err(reason)?;
        Cutout::new(&image.pixels, mask)
    }
}

/// The photos of a place, in random order, over and over.
struct Deck<'a> {
    place: &'a Place,
    photos: Vec<PathBuf>,
    /// Photos from here on are yet to be used in this round.
    next: usize,
}

impl<'a> Deck<'a> {
    fn new(
        place: &'a Place,
        random: &mut Random,
        left_out: &mut Omissions,
    ) -> Result<Self, DataError> {
        let above = format!("{}/", place.name);
        let mut photos = photos(&place.folder, &above, left_out)?;
        random.shuffle(&mut photos);
        let next = 0;
        Ok(Self {
            place,
            photos,
            next,
        })
    }

    /// The next photo that can be read, and its name for `metadata.csv`.
    fn next(
        &mut self,
        random: &mut Random,
        report: &mut SpuriousReport,
    ) -> Result<(RgbImage, String), DataError> {
        loop {
            if self.next >= self.photos.len() {
                random.shuffle(&mut self.photos);
                self.next = 0;
            }
            let Some(path) = self.photos.get(self.next) else {
                return Err(invalid(&self.place.folder, "no photo here can be read"));
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{}/{name}", self.place.name);
            let reason = match open(path, &Limits::default()) {
                Ok(photo) if photo.width().min(photo.height()) >= MIN_SIDE => {
                    self.next += 1;
                    return Ok((photo, name));
                }
                Ok(photo) => format!("{} x {} pixels are too few", photo.width(), photo.height()),
                Err(error) => reason(error),
            };
            report.note(name, reason);
            self.photos.remove(self.next);
        }
    }
}

impl SpuriousReport {
    fn note(&mut self, photo: String, reason: String) {
        self.unusable_in_all += 1;
        if self.unusable.len() < MAX_NAMED {
            self.unusable.push(Unusable { photo, reason });
        }
    }
}

/// Why a photo could not be read. Its name stands beside it, and the folders are no part of the set.
fn reason(error: ImageError) -> String {
    match error {
        ImageError::File { reason, .. } => reason.to_string(),
        other => other.to_string(),
    }
}

/// What is wrong with an annotation, and in which file, without the folders that this machine has it
/// in: the set says the same wherever it is made.
fn without_folders(error: &DataError) -> String {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    match error {
        DataError::Io { path, source } => format!("{}: {source}", name(path)),
        DataError::Invalid { path, reason } => format!("{}: {reason}", name(path)),
        other => other.to_string(),
    }
}
