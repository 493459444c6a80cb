//! The regions of a result, as lists and files name them.

use std::collections::{HashMap, HashSet};

use percept_image::{LabelMap, LegendEntry, Rle};
use serde::{Deserialize, Serialize};

use crate::{ClassBank, Grouping, Segmentation};

/// The pixels of one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Region {
    /// The label's index in the map.
    pub index: u16,
    /// Its name.
    pub name: String,
    /// Number of pixels.
    pub pixels: u64,
    /// Share of the photo's pixels, 0 to 1.
    pub share: f32,
    /// Mean cosine similarity with the text that won, −1 to 1; groups have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

impl Region {
    /// Its line in the legend of an [overlay](percept_image::overlay).
    pub fn legend_entry(&self) -> LegendEntry {
        LegendEntry {
            index: self.index,
            name: self.name.clone(),
            share: self.share,
        }
    }
}

impl Segmentation {
    /// What was found, the largest first.
    pub fn regions(&self) -> Vec<Region> {
        self.found
            .iter()
            .map(|class| Region {
                index: class.class,
                name: class.name.clone(),
                pixels: class.pixels,
                share: class.share,
                score: Some(class.score),
            })
            .collect()
    }
}

impl Grouping {
    /// The groups that have pixels, `group 1` and so on, the largest first.
    pub fn regions(&self) -> Vec<Region> {
        let total = f64::from(self.labels.width()) * f64::from(self.labels.height());
        let mut regions: Vec<Region> = self
            .labels
            .counts(self.explained.len() + 1)
            .into_iter()
            .enumerate()
            .filter(|(_, pixels)| *pixels > 0)
            .map(|(index, pixels)| Region {
                index: index as u16,
                name: format!("group {index}"),
                pixels,
                share: (pixels as f64 / total) as f32,
                score: None,
            })
            .collect();
        regions.sort_by_key(|region| std::cmp::Reverse(region.pixels));
        regions
    }
}

/// The label that was nearest to being found in a photo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nearest {
    /// Its name.
    pub name: String,
    /// Its best cosine similarity with any patch, −1 to 1.
    pub score: f32,
}

impl Segmentation {
    /// Whether any pixel has a label of `bank`; others are all background.
    pub fn has_found(&self) -> bool {
        self.found.iter().any(|class| class.class > 0)
    }

    /// The label of `bank`, with which this was made, that some patch is most like.
    pub fn nearest(&self, bank: &ClassBank) -> Option<Nearest> {
        let patches = self.similarity.height * self.similarity.width;
        let scores = self.similarity.values.chunks_exact(patches.max(1));
        let best = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        bank.rows()
            .iter()
            .zip(scores)
            .filter(|(row, _)| row.class > 0)
            .map(|(row, scores)| (row.class, best(scores)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(class, score)| Nearest {
                name: bank.classes()[usize::from(class)].clone(),
                score,
            })
    }
}

/// What a COCO results file calls a photo: a whole number, as in COCO, so that every tool reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub u64);

/// Numbers below are photos' own, those from here on are made up of a name. Doubles, which some JSON
/// readers have alone, hold all below twice this.
const MADE_UP: u64 = 1 << 52;

impl ImageId {
    /// The number that `stem`, a file's name without ending, is: all of it (`000000000042`), or what
    /// stands behind COCO's prefix (`COCO_val2014_000000000042`). Else one that follows from `name`
    /// alone, from 2^52 on.
    pub fn new(stem: &str, name: &str) -> Self {
        Self(own_number(stem).unwrap_or_else(|| made_up(name)))
    }

    /// The ids of photos, each its own, from their stems and names. Where two claim a number, such as
    /// `139.jpg` and `000000000139.jpg` or photos of one name in two folders, neither gets it. Names
    /// should differ.
    pub fn of_all<'a>(photos: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Self> {
        let photos: Vec<_> = photos.into_iter().collect();
        let mut claims: HashMap<u64, usize> = HashMap::new();
        for number in photos.iter().filter_map(|(stem, _)| own_number(stem)) {
            *claims.entry(number).or_default() += 1;
        }
        let mut taken = HashSet::new();
        photos
            .iter()
            .map(|(stem, name)| {
                let own = own_number(stem).filter(|number| claims[number] == 1);
                let mut id = own.unwrap_or_else(|| made_up(name));
                // 52 bits of a million names hardly ever meet.
                while !taken.insert(id) {
                    id = MADE_UP | (id + 1) & (MADE_UP - 1);
                }
                Self(id)
            })
            .collect()
    }

    /// Whether the number says nothing by itself.
    pub fn is_made_up(self) -> bool {
        self.0 >= MADE_UP
    }
}

/// The number of a photo that is named by one.
fn own_number(stem: &str) -> Option<u64> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let digits = match stem.strip_prefix("COCO_") {
        Some(rest) => rest.rsplit_once('_')?.1,
        None => stem,
    };
    let number = digits.parse().ok().filter(|_| is_digits(digits));
    number.filter(|&number| number < MADE_UP)
}

/// A number from 2^52 to 2^53 that follows from a name (FNV-1a).
fn made_up(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    MADE_UP | (hash ^ hash >> 52) & (MADE_UP - 1)
}

/// One entry of a COCO results file, which pycocotools reads.
///
/// There is no `bbox`: with one, pycocotools takes the box's area for the mask's. Without, it takes
/// both from the mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CocoResult {
    /// The photo.
    pub image_id: ImageId,
    /// Its file name.
    pub file_name: String,
    /// Index of the label, or its number in another list.
    pub category_id: u64,
    /// Its name.
    pub category_name: String,
    /// Mean cosine similarity, or 1 where there is none.
    pub score: f32,
    /// Number of pixels.
    pub area: u64,
    /// The mask.
    pub segmentation: CompressedRle,
}

/// The categories of a COCO file, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Categories(HashMap<String, u64>);

impl Categories {
    /// Reads the `categories` of a COCO annotation file, or a list of them; the rest of the file is
    /// passed over.
    ///
    /// # Errors
    /// It is no such JSON, there are no categories, an id is no whole number from 0 on, or one name has
    /// two ids.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Category {
            id: u64,
            name: String,
        }
        #[derive(Deserialize)]
        struct Annotations {
            categories: Vec<Category>,
        }
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        let is_list = json.trim_ascii_start().first() == Some(&b'[');
        let categories = match is_list {
            true => serde_json::from_slice(json),
            false => serde_json::from_slice(json).map(|file: Annotations| file.categories),
        }
        .map_err(|error| format!("no COCO categories: {error}"))?;
        let mut ids = HashMap::new();
        for Category { id, name } in categories {
            if let Some(other) = ids.insert(normal(&name), id).filter(|other| *other != id) {
                return Err(format!("category `{name}` has the ids {other} and {id}"));
            }
        }
        match ids.is_empty() {
            true => Err("no COCO categories: the list is empty".into()),
            false => Ok(Self(ids)),
        }
    }

    /// The id of a label, whatever its case.
    pub fn id(&self, label: &str) -> Option<u64> {
        self.0.get(&normal(label)).copied()
    }
}

fn normal(name: &str) -> String {
    name.trim().to_lowercase()
}

/// A mask as COCO's JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressedRle {
    /// Height and width in pixels.
    pub size: [u32; 2],
    /// Compressed run lengths.
    pub counts: String,
}

impl From<&Rle> for CompressedRle {
    fn from(rle: &Rle) -> Self {
        Self {
            size: [rle.height, rle.width],
            counts: rle.to_compressed(),
        }
    }
}

/// COCO results of all `regions` of a photo but the background, index 0.
pub fn coco_results(
    image_id: ImageId,
    file_name: &str,
    labels: &LabelMap,
    regions: &[Region],
) -> Vec<CocoResult> {
    let most = regions.iter().map(|region| region.index).max().unwrap_or(0);
    let masks = Rle::of_each_label(labels, usize::from(most) + 1);
    regions
        .iter()
        .filter(|region| region.index > 0)
        .filter_map(|region| Some((region, masks.get(usize::from(region.index))?)))
        .map(|(region, rle)| CocoResult {
            image_id,
            file_name: file_name.to_owned(),
            category_id: region.index.into(),
            category_name: region.name.clone(),
            score: region.score.unwrap_or(1.0),
            area: rle.area(),
            segmentation: rle.into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_of_coco_are_known_by_number() {
        for (stem, number) in [
            ("000000397133", 397_133),
            ("397133", 397_133),
            ("0", 0),
            ("COCO_val2014_000000000042", 42),
            ("COCO_train2014_000000581921", 581_921),
        ] {
            assert_eq!(ImageId::new(stem, stem), ImageId(number), "{stem}");
        }
        let names = [
            "cat",
            "a 42",
            "+5",
            "-5",
            "4.2",
            "",
            "٤٢",
            "0x10",
            "COCO_42_",
            "COCO_42",
            "IMG_0042",
            "4503599627370496",
            "18446744073709551616",
            "99999999999999999999999",
        ];
        let ids = ImageId::of_all(names.map(|name| (name, name)));
        assert!(
            ids.iter().all(|id| id.is_made_up() && id.0 < 1 << 53),
            "{ids:?}"
        );
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn every_photo_has_an_id_of_its_own_that_stays() {
        let photos = [
            ("42", "a/42"),
            ("42", "b/42"),
            ("000000000139", "000000000139"),
            ("139", "139"),
            ("7", "7"),
            ("cat", "a/cat"),
            ("cat", "b/cat"),
        ];
        let ids = ImageId::of_all(photos);
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), photos.len());
        assert_eq!(ids[4], ImageId(7));
        // The same without the others, and in another order.
        let reversed = ImageId::of_all(photos.into_iter().rev());
        assert!(ids.iter().eq(reversed.iter().rev()));
        assert_eq!(ImageId::of_all([photos[6]]), ids[6..]);
        // And from version to version.
        assert_eq!(ids[5], ImageId::new("cat", "a/cat"));
        // Names that are the same after all.
        let same = ImageId::of_all([("x", "x"), ("x", "x")]);
        assert_ne!(same[0], same[1]);
    }

    #[test]
    fn results_leave_out_the_background() {
        let labels = LabelMap::new(2, 2, vec![0, 3, 0, 3]).unwrap();
        let region = |index, score| Region {
            index,
            name: format!("label {index}"),
            pixels: 2,
            share: 0.5,
            score,
        };
        let regions = [region(0, Some(0.1)), region(3, None)];
        let results = coco_results(ImageId(7), "7.jpg", &labels, &regions);
        let json = serde_json::to_value(&results).unwrap();
        assert_eq!(
            json,
            serde_json::json!([{
                "image_id": 7, "file_name": "7.jpg", "category_id": 3,
                "category_name": "label 3", "score": 1.0, "area": 2,
                "segmentation": { "size": [2, 2], "counts": "22" },
            }])
        );
    }

    #[test]
    fn categories_come_from_coco_files() {
        let file = "\u{feff}{\"info\": {}, \"annotations\": [{\"id\": 1}], \"categories\":
            [{\"id\": 17, \"name\": \"cat\", \"supercategory\": \"animal\"},
             {\"id\": 28, \"name\": \"umbrella \"}]}";
        let categories = Categories::parse(file.as_bytes()).unwrap();
        let ids = ["cat", "CAT", "umbrella", "dog"].map(|label| categories.id(label));
        assert_eq!(ids, [Some(17), Some(17), Some(28), None]);
        let list = Categories::parse(br#" [{"id": 0, "name": "a"}, {"id": 0, "name": "A"}]"#);
        assert_eq!(list.unwrap().id("a"), Some(0));
        for (wrong, why) in [
            ("", "no COCO categories"),
            ("[]", "the list is empty"),
            ("{\"images\": []}", "missing field `categories`"),
            ("{\"categories\": []}", "the list is empty"),
            (r#"[{"id": 1.5, "name": "a"}]"#, "1.5"),
            (r#"[{"id": -1, "name": "a"}]"#, "-1"),
            (r#"[{"name": "a"}]"#, "missing field `id`"),
            (
                r#"[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]"#,
                "the ids 1 and 2",
            ),
        ] {
            let error = Categories::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn categories_never_panic(bytes: Vec<u8>, name: String, id: u64) {
            let _ = Categories::parse(&bytes);
            let file = serde_json::json!({ "categories": [{ "id": id, "name": name }] });
            let categories = Categories::parse(file.to_string().as_bytes()).unwrap();
            assert_eq!(categories.id(&name), Some(id));
        }

        #[test]
        fn ids_are_unique_whatever_the_names(names: Vec<String>) {
            let ids = ImageId::of_all(names.iter().map(|name| (name.as_str(), name.as_str())));
            assert_eq!(ids.iter().collect::<HashSet<_>>().len(), names.len());
            assert!(ids.iter().all(|id| id.0 < 1 << 53));
        }
    }
}
