//! Results in the form that a client wants.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use percept::image::{
    LabelMap, Note, OVERLAY_OPACITY, RgbImage, Rle, colour, heatmap, mask_png, overlay, result_png,
};
use percept::{CompressedRle, ImageId, Region, coco_results};
use serde::{Deserialize, Serialize};

use crate::problem::{Kind, Problem};

/// Form of a label map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    /// The regions, each with its mask as run lengths.
    Json,
    /// COCO results: what `percept segment --format rle` writes.
    Rle,
    /// Palette PNG of label indices.
    Mask,
    /// The photo with coloured regions and a legend, PNG.
    Overlay,
    /// The similarity of one label, PNG.
    Heatmap,
    /// The same as numbers, one for each patch.
    Similarity,
}

/// Similarities that heat maps show: the darkest colour and the brightest. The same for all labels and
/// photos, so that maps can be compared.
///
/// Measured with the model that ships (`models/percept-s14`) on the four photos of `examples/photos`, each with
/// labels of what is on it and 13 of which most are not. Nine tenths of the patches are below 0.09 for the labels
/// that are not on the photo (99 %: 0.19, the most: 0.30). Where a label that is on it fits best, half of the patches
/// are above 0.24, a twentieth above 0.45 (the most: 0.47).
pub(crate) const HEAT_SCALE: [f32; 2] = [0.1, 0.45];

impl Output {
    /// The form that a request asks for: that of its field; else the one that its `Accept` prefers.
    ///
    /// # Errors
    /// `Accept` excludes it: 406.
    pub(crate) fn choose(field: Option<Output>, headers: &HeaderMap) -> Result<Self, Problem> {
        let accept: Vec<&str> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let accept = accept.join(",");
        let weight = |output: Output| match accept.trim().is_empty() {
            true => 1.0,
            false => weight(&accept, output.media_type()),
        };
        let chosen = match field {
            Some(output) => output,
            None if weight(Output::Mask) > weight(Output::Json) => Output::Mask,
            None => Output::Json,
        };
        if weight(chosen) > 0.0 {
            return Ok(chosen);
        }
        Err(Problem::new(
            Kind::NotAcceptable,
            format!(
                "the result would be {}, which Accept excludes",
                chosen.media_type()
            ),
        ))
    }

    fn media_type(self) -> &'static str {
        match self {
            Output::Json | Output::Rle | Output::Similarity => "application/json",
            Output::Mask | Output::Overlay | Output::Heatmap => "image/png",
        }
    }
}

/// How much an `Accept` header wants a media type: the weight of the most specific range that covers it
/// (RFC 9110, 12.5.1), 0 where none does.
fn weight(accept: &str, media_type: &str) -> f32 {
    let kind = media_type.split('/').next().unwrap_or("");
    let mut best = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let specificity = match name.split_once('/') {
            _ if name.eq_ignore_ascii_case(media_type) => 3,
            Some((main, "*")) if main.eq_ignore_ascii_case(kind) => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let weight = parts
            .find_map(|part| part.strip_prefix("q=")?.trim().parse().ok())
            .unwrap_or(1.0);
        if specificity > best.0 {
            best = (specificity, weight);
        }
    }
    best.1
}

/// A region with its mask.
#[derive(Debug, Serialize)]
struct MaskedRegion {
    #[serde(flatten)]
    region: Region,
    /// Red, green and blue in overlays, 0 to 255.
    colour: [u8; 3],
    segmentation: CompressedRle,
}

/// The answer in JSON.
#[derive(Debug, Serialize)]
struct MapJson {
    /// Of the map, in pixels; the photo's own unless `max_side` was given.
    width: u32,
    height: u32,
    regions: Vec<MaskedRegion>,
    /// Labels that were too long for the text encoder.
    truncated: Vec<String>,
    /// What is odd about the photo's file.
    notes: Vec<String>,
}

/// A label map to be rendered.
pub(crate) struct Map {
    pub(crate) labels: LabelMap,
    pub(crate) regions: Vec<Region>,
    pub(crate) truncated: Vec<String>,
    pub(crate) notes: Vec<Note>,
    /// File name of the photo.
    pub(crate) name: String,
}

impl Map {
    /// The map as the body of an answer. `photo` is called where the form shows it; a photo of another size
    /// than the map is resized.
    ///
    /// # Errors
    /// The photo cannot be read, or nothing can be encoded.
    pub(crate) fn render(
        self,
        output: Output,
        photo: impl FnOnce() -> Result<RgbImage, Problem>,
    ) -> Result<Rendered, Problem> {
        match output {
            Output::Mask => Ok(Rendered::png(mask_png(&self.labels)?)),
            Output::Overlay => {
                let legend: Vec<_> = self.regions.iter().map(Region::legend_entry).collect();
                let picture = overlay(&photo()?, &self.labels, &legend, OVERLAY_OPACITY, Some(0));
                Ok(Rendered::png(result_png(&picture)?))
            }
            Output::Rle => {
                let stem = self
                    .name
                    .rsplit_once('.')
                    .map_or(self.name.as_str(), |(stem, _)| stem);
                let id = ImageId::new(stem, &self.name);
                Rendered::json(&coco_results(id, &self.name, &self.labels, &self.regions))
            }
            Output::Json => Rendered::json(&self.into_json()),
            Output::Heatmap | Output::Similarity => {
                Err(Problem::invalid("output: groups have no heat map"))
            }
        }
    }

    fn into_json(self) -> MapJson {
        let most = self
            .regions
            .iter()
            .map(|region| region.index)
            .max()
            .unwrap_or(0);
        let masks = Rle::of_each_label(&self.labels, usize::from(most) + 1);
        let masked = |region: Region| {
            let segmentation = masks.get(usize::from(region.index))?.into();
            Some(MaskedRegion {
                colour: colour(region.index),
                region,
                segmentation,
            })
        };
        MapJson {
            width: self.labels.width(),
            height: self.labels.height(),
            regions: self.regions.into_iter().filter_map(masked).collect(),
            truncated: self.truncated,
            notes: self.notes.iter().map(Note::to_string).collect(),
        }
    }
}

/// Similarities `[height, width]` as a picture on [`HEAT_SCALE`]: dark blue to pale yellow.
///
/// # Errors
/// There are no pixels.
pub(crate) fn heat_png(
    mut values: Vec<f32>,
    [width, height]: [u32; 2],
) -> Result<Rendered, Problem> {
    let [low, high] = HEAT_SCALE;
    values
        .iter_mut()
        .for_each(|value| *value = (*value - low) / (high - low));
    Ok(Rendered::png(result_png(&heatmap(&values, width, height))?))
}

/// One label's similarities as numbers.
#[derive(Debug, Serialize)]
pub(crate) struct SimilarityJson {
    pub(crate) label: String,
    /// Of the patches.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Row by row.
    pub(crate) values: Vec<f32>,
    /// What heat maps show: the darkest colour and the brightest.
    pub(crate) scale: [f32; 2],
    /// The colours of the scale, at even steps.
    pub(crate) colours: Vec<[u8; 3]>,
}

/// The colours of heat maps from the lower end of their scale to the upper one.
pub(crate) fn heat_colours() -> Vec<[u8; 3]> {
    let steps: Vec<f32> = (0..=255_u8).map(|step| f32::from(step) / 255.0).collect();
    let bar = heatmap(&steps, 256, 1);
    bar.pixels().map(|pixel| pixel.0).collect()
}

/// A finished body.
#[derive(Debug)]
pub(crate) struct Rendered {
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Rendered {
    /// A body of PNG.
    pub(crate) fn png(bytes: Vec<u8>) -> Self {
        Self {
            media_type: "image/png",
            bytes,
        }
    }

    /// A body of JPEG.
    pub(crate) fn jpeg(bytes: Vec<u8>) -> Self {
        Self {
            media_type: "image/jpeg",
            bytes,
        }
    }

    /// A body of JSON.
    ///
    /// # Errors
    /// A value has no form in JSON: a fault of ours.
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, Problem> {
        let bytes = serde_json::to_vec(value).map_err(|e| Problem::internal(e.to_string()))?;
        Ok(Self {
            media_type: "application/json",
            bytes,
        })
    }
}

impl IntoResponse for Rendered {
    fn into_response(self) -> Response {
        let media_type = HeaderValue::from_static(self.media_type);
        ([(CONTENT_TYPE, media_type)], self.bytes).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(field: Option<Output>, accept: &str) -> Option<Output> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        Output::choose(field, &headers).ok()
    }

    #[test]
    fn accept_decides_where_no_field_does() {
        for (accept, expected) in [
            ("", Some(Output::Json)),
            ("*/*", Some(Output::Json)),
            ("image/png", Some(Output::Mask)),
            ("image/*", Some(Output::Mask)),
            ("application/json, image/png", Some(Output::Json)),
            ("application/json;q=0.5, image/png", Some(Output::Mask)),
            ("image/png;q=0, */*", Some(Output::Json)),
            ("text/html", None),
            ("*/*;q=0", None),
            ("nonsense;;,,/", None),
        ] {
            assert_eq!(choose(None, accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn the_field_wins_unless_accept_excludes_it() {
        assert_eq!(choose(Some(Output::Overlay), "*/*"), Some(Output::Overlay));
        assert_eq!(
            choose(Some(Output::Rle), "image/png, */*;q=0.1"),
            Some(Output::Rle)
        );
        assert_eq!(choose(Some(Output::Overlay), "application/json"), None);
    }
}
