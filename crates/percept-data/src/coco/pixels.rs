//! The pixels of an annotation, in the forms that COCO's files use and in those that exporters make
//! of them. What each is read as is what pycocotools' `annToMask` makes of it.

use std::fmt;

use percept_image::Rle;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::polygon::{MAX_NUMBERS, Polygon, union};
use crate::json::{Scalar, drain, others_are};

/// Most polygons or masks of an annotation. Real ones have up to some hundred.
const MAX_PARTS: usize = 10_000;

/// The pixels of an annotation, and what is odd about how they are written.
#[derive(Debug, Default)]
pub(super) struct Segmentation {
    pixels: Pixels,
    odd: Odd,
}

#[derive(Debug, Default)]
enum Pixels {
    /// Nothing is drawn, as in files for detection.
    #[default]
    Missing,
    /// What is drawn cannot be read.
    Unreadable(Box<str>),
    Polygons(Box<[Polygon]>),
    Masks(Box<[Runs]>),
}

/// A mask as run lengths, column by column, the first outside.
#[derive(Debug)]
enum Runs {
    Lengths { size: [u32; 2], counts: Box<[u32]> },
    Text { size: [u32; 2], counts: Box<str> },
}

/// What is odd, each a kind that is counted.
#[derive(Debug, Default, Clone, Copy)]
struct Odd {
    odd_count: bool,
    few_points: bool,
    no_points: bool,
    float_runs: bool,
}

impl Odd {
    fn kinds(self) -> impl Iterator<Item = &'static str> {
        [
            (
                self.odd_count,
                "annotations with a polygon of an odd count of numbers, whose last is left out",
            ),
            (
                self.few_points,
                "annotations with a polygon of fewer than three points, which has no inside",
            ),
            (
                self.no_points,
                "annotations with an empty polygon, left out",
            ),
            (
                self.float_runs,
                "annotations whose run lengths or size are not written as whole numbers",
            ),
        ]
        .into_iter()
        .filter_map(|(is, kind)| is.then_some(kind))
    }
}

impl Segmentation {
    /// What is odd about how it is written, as kinds that are counted.
    pub(super) fn odd(&self) -> impl Iterator<Item = &'static str> {
        self.odd.kinds()
    }

    /// Why its pixels are not known, as a kind that is counted and what is wrong.
    pub(super) fn unusable(&self) -> Option<(&'static str, &str)> {
        match &self.pixels {
            Pixels::Missing => Some((
                "photos left out for an object without a mask (their boxes are for detection)",
                "",
            )),
            Pixels::Unreadable(reason) => Some((
                "photos left out for an object whose mask cannot be read",
                reason,
            )),
            Pixels::Polygons(_) | Pixels::Masks(_) => None,
        }
    }

    /// The pixels in a photo of a size that was checked.
    pub(super) fn mask(&self, height: u32, width: u32) -> Result<Rle, String> {
        let mut masks = match &self.pixels {
            Pixels::Missing => Vec::new(),
            Pixels::Unreadable(reason) => return Err(reason.to_string()),
            Pixels::Polygons(polygons) => {
                let masks = polygons.iter().map(|one| one.rasterize(height, width));
                return Ok(union(&masks.collect::<Vec<_>>(), height, width));
            }
            Pixels::Masks(masks) => {
                let masks = masks.iter().map(|runs| runs.mask(height, width));
                masks.collect::<Result<Vec<_>, String>>()?
            }
        };
        Ok(match masks.len() {
            1 => masks.remove(0),
            _ => union(&masks, height, width),
        })
    }
}

impl Runs {
    fn mask(&self, height: u32, width: u32) -> Result<Rle, String> {
        let (Self::Lengths { size, .. } | Self::Text { size, .. }) = self;
        if *size != [height, width] {
            return Err(format!(
                "a mask of {} x {} (height x width) in a photo of {height} x {width}",
                size[0], size[1]
            ));
        }
        match self {
            Self::Lengths { counts, .. } => {
                let sum: u64 = counts.iter().map(|&run| u64::from(run)).sum();
                if sum != u64::from(height) * u64::from(width) {
                    return Err(format!(
                        "runs of {sum} pixels in a photo of {height} x {width}"
                    ));
                }
                Ok(Rle {
                    height,
                    width,
                    counts: counts.to_vec(),
                })
            }
            Self::Text { counts, .. } => {
                Rle::from_compressed(counts, height, width).map_err(|error| error.to_string())
            }
        }
    }
}

/// An item of the list that is a segmentation.
enum Part {
    /// A polygon, and of how many numbers.
    Polygon(Polygon, usize),
    Runs(Runs, bool),
    Unreadable(String),
}

impl Segmentation {
    fn unreadable(reason: impl Into<Box<str>>) -> Self {
        Self {
            pixels: Pixels::Unreadable(reason.into()),
            odd: Odd::default(),
        }
    }

    /// A segmentation of all its parts.
    fn of(parts: Vec<Part>) -> Self {
        let mut odd = Odd::default();
        let mut polygons = Vec::new();
        let mut masks = Vec::new();
        let mut has_inside = false;
        for part in parts {
            match part {
                Part::Unreadable(reason) => return Self::unreadable(reason),
                Part::Runs(runs, floats) => {
                    odd.float_runs |= floats;
                    masks.push(runs);
                }
                Part::Polygon(polygon, numbers) => {
                    has_inside |= numbers >= 6;
                    odd.odd_count |= numbers % 2 == 1;
                    odd.no_points |= numbers < 2;
                    odd.few_points |= (2..6).contains(&numbers);
                    polygons.push(polygon);
                }
            }
        }
        let pixels = match (masks.is_empty(), polygons.is_empty()) {
            (false, false) => return Self::unreadable("polygons and run lengths in one list"),
            (false, true) => Pixels::Masks(masks.into()),
            (true, true) => Pixels::Missing,
            (true, false) if !has_inside => Pixels::Missing,
            (true, false) => Pixels::Polygons(polygons.into()),
        };
        Self { pixels, odd }
    }
}

impl<'de> Deserialize<'de> for Segmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Forms)
    }
}

/// Tells the forms apart as they come: serde's untagged enums would first make a tree of the values,
/// many times their size.
struct Forms;

impl<'de> Visitor<'de> for Forms {
    type Value = Segmentation;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of polygons, or runs as `size` and `counts`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Segmentation, A::Error> {
        let mut parts = Vec::new();
        let mut outline = 0;
        while let Some(part) = sequence.next_element::<Part>()? {
            if let Part::Polygon(polygon, _) = &part {
                match polygon.check_outline(outline) {
                    Ok(longer) => outline = longer,
                    Err(reason) => {
                        drain(sequence)?;
                        return Ok(Segmentation::unreadable(reason));
                    }
                }
            }
            if parts.len() == MAX_PARTS {
                drain(sequence)?;
                let reason = format!("more than {MAX_PARTS} polygons or masks");
                return Ok(Segmentation::unreadable(reason));
            }
            parts.push(part);
        }
        Ok(Segmentation::of(parts))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Segmentation, A::Error> {
        Ok(Segmentation::of(vec![runs(map)?]))
    }

    fn visit_unit<E: Error>(self) -> Result<Segmentation, E> {
        Ok(Segmentation::default())
    }

    others_are!(Segmentation::unreadable("neither polygons nor run lengths"));
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a polygon or run lengths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Part, A::Error> {
                polygon(sequence)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Part, A::Error> {
                runs(map)
            }

            fn visit_unit<E: Error>(self) -> Result<Part, E> {
                Ok(not_a_polygon())
            }

            others_are!(not_a_polygon());
        }

        deserializer.deserialize_any(Either)
    }
}

fn not_a_polygon() -> Part {
    Part::Unreadable("a value where a list of numbers should be".to_owned())
}

/// Reads a polygon number by number: a list of numbers would take twice the memory, and be read to
/// its end before its length is known.
fn polygon<'de, A: SeqAccess<'de>>(mut sequence: A) -> Result<Part, A::Error> {
    let mut points = Polygon::builder();
    let mut count = 0;
    while let Some(value) = sequence.next_element::<Scalar>()? {
        let added = match value.number() {
            _ if count == MAX_NUMBERS => {
                Err(format!("a polygon of more than {MAX_NUMBERS} numbers"))
            }
            Some(number) => points.push(number),
            None => Err("a polygon with something else than finite numbers".to_owned()),
        };
        if let Err(reason) = added {
            drain(sequence)?;
            return Ok(Part::Unreadable(reason));
        }
        count += 1;
    }
    Ok(match points.finish() {
        Ok(polygon) => Part::Polygon(polygon, count),
        Err(reason) => Part::Unreadable(reason),
    })
}

/// Reads a mask of `size` and `counts`.
fn runs<'de, A: MapAccess<'de>>(mut map: A) -> Result<Part, A::Error> {
    let mut size = Counts::None;
    let mut counts = Counts::None;
    while let Some(key) = map.next_key::<String>()? {
        match key.as_str() {
            "size" => size = map.next_value()?,
            "counts" => counts = map.next_value()?,
            _ => {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
    }
    let Counts::Lengths(size, odd_size) = size else {
        return Ok(Part::Unreadable("run lengths without a size".to_owned()));
    };
    let Ok(size) = <[u32; 2]>::try_from(&*size) else {
        return Ok(Part::Unreadable(
            "a size that is not two numbers".to_owned(),
        ));
    };
    Ok(match counts {
        Counts::Lengths(counts, odd) => Part::Runs(Runs::Lengths { size, counts }, odd | odd_size),
        Counts::Text(counts) => Part::Runs(Runs::Text { size, counts }, odd_size),
        Counts::None => Part::Unreadable("a mask without `counts`".to_owned()),
        Counts::Bad => Part::Unreadable("run lengths that are no whole numbers from 0".to_owned()),
    })
}

/// Run lengths, as numbers or in the compressed form.
enum Counts {
    None,
    Bad,
    /// And whether any is written as something else than a whole number.
    Lengths(Box<[u32]>, bool),
    Text(Box<str>),
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Counts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("run lengths as a list or a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Counts, E> {
                Ok(Counts::Text(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Counts, A::Error> {
                let mut counts = Vec::new();
                let mut odd = false;
                while let Some(count) = sequence.next_element::<Scalar>()? {
                    odd |= !matches!(count, Scalar::Whole(_));
                    let Some(count) = count.count() else {
                        drain(sequence)?;
                        return Ok(Counts::Bad);
                    };
                    counts.push(count);
                }
                Ok(Counts::Lengths(counts.into(), odd))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counts, A::Error> {
                use serde::de::IgnoredAny;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Counts::Bad)
            }

            fn visit_unit<E: Error>(self) -> Result<Counts, E> {
                Ok(Counts::None)
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Counts, E> {
                Ok(Counts::Bad)
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Counts, E> {
                Ok(Counts::Bad)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Counts, E> {
                Ok(Counts::Bad)
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Counts, E> {
                Ok(Counts::Bad)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Segmentation {
        serde_json::from_str(json).unwrap()
    }

    /// Pixels in a photo of 50 x 40, and what is odd.
    fn area(json: &str) -> (u64, Vec<&'static str>) {
        let segmentation = read(json);
        let odd = segmentation.odd().collect();
        (segmentation.mask(40, 50).unwrap().area(), odd)
    }

    #[test]
    fn all_forms_give_the_same_mask() {
        let forms = [
            "[[1, 0, 3, 0, 3, 2, 1, 2]]",
            "[[1, 0, 3, 0, 3, 2, 1, 2], []]",
            "[[1, 0, 3, 0, 3, 2, 1, 2, 9]]",
            r#"{"size": [2, 4], "counts": [2, 4, 2]}"#,
            r#"{"size": [2.0, "4"], "counts": [2.0, 4.0, 2]}"#,
            r#"{"counts": "242", "other": {"a": [1]}, "size": [2, 4]}"#,
            r#"[{"size": [2, 4], "counts": [2, 2, 4]}, {"size": [2, 4], "counts": "422"}]"#,
        ];
        for form in forms {
            let mask = read(form).mask(2, 4).unwrap();
            assert_eq!(mask.counts, [2, 4, 2], "{form}");
        }
    }

    #[test]
    fn odd_polygons_are_those_of_pycocotools() {
        // The area that pycocotools 2.0.11 gives in a photo of 50 x 40, but for the last: it refuses a
        // list that begins with four numbers, which here are a line as they are behind a polygon.
        let triangle = "[5, 5, 5, 20, 20, 20]";
        for (json, odd) in [
            (format!("[{triangle}]"), ""),
            (
                format!("[{triangle}, [30, 10, 40, 20]]"),
                "fewer than three points",
            ),
            (format!("[{triangle}, [3, 3]]"), "fewer than three points"),
            ("[[5, 5, 5, 20, 20, 20, 9]]".to_owned(), "odd count"),
            (format!("[{triangle}, []]"), "empty polygon"),
            (
                format!("[[30, 10, 40, 20], {triangle}]"),
                "fewer than three points",
            ),
        ] {
            let (found, kinds) = area(&json);
            assert_eq!(found, 120, "{json}");
            let kinds = kinds.join(" ");
            assert!(
                kinds.contains(odd) && kinds.is_empty() == odd.is_empty(),
                "{json}: {kinds}"
            );
        }
    }

    #[test]
    fn objects_without_pixels_are_told_from_unreadable_ones() {
        for json in [
            "null",
            "[]",
            "[[]]",
            "[[], []]",
            "[[1, 2]]",
            "[[1, 2], [3, 4, 5, 6]]",
            "[[1, 0, 2, 2]]",
        ] {
            let (kind, _) = read(json).unusable().unwrap();
            assert!(kind.contains("without a mask"), "{json}: {kind}");
        }
        let long = format!("[[{}1]]", "1,".repeat(MAX_NUMBERS));
        let many = format!("[{}[]]", "[],".repeat(MAX_PARTS));
        let far = format!("[[{}1,1]]", "-90000,0,90000,0,".repeat(20));
        for (json, reason) in [
            ("7", "neither polygons nor"),
            ("\"[[1]]\"", "neither polygons nor"),
            ("[7, 8, 9, 10, 11, 12]", "a value where a list"),
            ("[null]", "a value where a list"),
            (
                "[[[20, 30], [120, 30], [120, 130]]]",
                "else than finite numbers",
            ),
            ("[[1, 2, 3, 4, 5, null]]", "else than finite numbers"),
            ("[[1, 2, 3, 4, 5, \"6\"]]", "else than finite numbers"),
            ("[[1, 2, 3, 4, 5, 1e300]]", "far outside the photo"),
            (&long, "more than 1048576 numbers"),
            (&far, "outline"),
            (&many, "more than 10000 polygons or masks"),
            (r#"{"size": [2, 4]}"#, "without `counts`"),
            (r#"{"counts": []}"#, "without a size"),
            (r#"{"size": [2], "counts": []}"#, "not two numbers"),
            (
                r#"{"size": [2, 4], "counts": [1.5, 6.5]}"#,
                "no whole numbers",
            ),
            (r#"{"size": [2, 4], "counts": [-1, 9]}"#, "no whole numbers"),
            (
                r#"{"size": [2, 4], "counts": {"a": 1}}"#,
                "no whole numbers",
            ),
            (
                r#"[[1, 0, 3, 0, 3, 2], {"size": [2, 4], "counts": [8]}]"#,
                "in one list",
            ),
        ] {
            let segmentation = read(json);
            let (kind, found) = segmentation.unusable().unwrap();
            assert!(
                kind.contains("cannot be read") && found.contains(reason),
                "{json:.60}: {found}"
            );
            assert!(segmentation.mask(2, 4).is_err());
        }
    }

    #[test]
    fn masks_that_do_not_fit_are_refused() {
        for form in [
            r#"{"size": [4, 2], "counts": [2, 4, 2]}"#,
            r#"{"size": [2, 4], "counts": [2, 4, 4294967295]}"#,
            r#"{"size": [2, 4], "counts": "24"}"#,
            r#"{"size": [2, 4], "counts": "2 2"}"#,
        ] {
            let segmentation = read(form);
            assert!(
                segmentation.unusable().is_none() && segmentation.mask(2, 4).is_err(),
                "{form}"
            );
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i32>().prop_map(Into::into),
            (-200.0..200.0).prop_map(serde_json::Value::from),
            "[0-9a-z]{0,6}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 64, 12, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..12).prop_map(serde_json::Value::from),
                (inner.clone(), inner)
                    .prop_map(|(size, counts)| serde_json::json!({"size": size, "counts": counts})),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_a_segmentation(value in json()) {
            let segmentation = read(&value.to_string());
            if let Ok(mask) = segmentation.mask(20, 30) {
                prop_assert_eq!(mask.to_mask().unwrap().len(), 600);
            }
        }
    }
}
