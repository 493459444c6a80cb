//! What files beside the weights say about photos: transformers' `preprocessor_config.json`, the `pretrained_cfg` of
//! timm's `config.json`, and `preprocess_cfg` of open_clip's `open_clip_config.json`.

use std::path::Path;

use percept_image::{Filter, Normalization};
use serde_json::Value;

use crate::ModelError;
use crate::json_file::JsonFile;

/// What a file says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Preprocessing {
    /// The file's name.
    pub(crate) from: String,
    pub(crate) normalization: Option<Normalization>,
    pub(crate) filter: Option<Filter>,
    /// Side of the square that the model sees, in pixels.
    pub(crate) image_size: Option<usize>,
    /// How the library brings a photo to that square, where percept does so in another way.
    pub(crate) other_fit: Option<String>,
}

impl Preprocessing {
    /// What the files in `folder` say. `config` is its `config.json`.
    ///
    /// # Errors
    /// A file cannot be read, or asks for what percept does not do.
    pub(crate) fn read(folder: &Path, config: &JsonFile) -> Result<Self, ModelError> {
        let open_clip = JsonFile::read(&folder.join("open_clip_config.json"))?;
        if open_clip.is_there() {
            return of_open_clip(&open_clip);
        }
        let transformers = JsonFile::read(&folder.join("preprocessor_config.json"))?;
        if transformers.is_there() {
            return of_transformers(&transformers);
        }
        // Models with a tokeniser of their own have both in one file.
        let both =
            JsonFile::read(&folder.join("processor_config.json"))?.inside("image_processor")?;
        if both.is_there() {
            return of_transformers(&both);
        }
        let pretrained = config.inside("pretrained_cfg")?;
        if pretrained.is_there() {
            return of_timm(&pretrained);
        }
        // timm's files before 0.8 have the same keys at the top.
        match config.get("architecture").is_some() && config.get("mean").is_some() {
            true => of_timm(config),
            false => Ok(Self::default()),
        }
    }
}

fn of_transformers(file: &JsonFile) -> Result<Preprocessing, ModelError> {
    let mut fit = None;
    let mut image_size = None;
    if file.bool("do_resize")? != Some(false)
        && let Some(size) = file.get("size")
    {
        let [height, width] = sides(file, "size", size)?;
        if height != width {
            return Err(file.refuse_value("size", size));
        }
        image_size = Some(height);
        // `shortest_edge` keeps the aspect; a height and a width do not.
        if size.get("shortest_edge").is_none() && size.as_u64().is_none() {
            fit = Some("squashes".to_owned());
        }
    }
    if file.bool("do_center_crop")? == Some(true)
        && let Some(size) = file.get("crop_size")
    {
        let [height, width] = sides(file, "crop_size", size)?;
        if height != width {
            return Err(file.refuse_value("crop_size", size));
        }
        if let Some(resized) = image_size.filter(|resized| *resized != height) {
            fit = Some(format!("resizes to {resized} px, then cuts out"));
        }
        image_size = Some(height);
    }
    if file.bool("do_resize")? == Some(false) && file.bool("do_center_crop")? != Some(true) {
        fit = Some("does not resize to".to_owned());
    }
    let stated = both(file, "image_mean", "image_std")?;
    let is_normalized = file.bool("do_normalize")? != Some(false);
    let scale = match file.bool("do_rescale")? {
        Some(false) => 1.0,
        _ => match file.f64("rescale_factor")? {
            // It would go into mean and deviation, which are not known.
            Some(factor) if is_normalized && stated.is_none() && !is_usual(factor) => {
                return Err(file.refuse(format!(
                    "rescale_factor {factor} without image_mean and image_std is not supported"
                )));
            }
            Some(factor) => factor,
            None => 1.0 / 255.0,
        },
    };
    if !(scale.is_finite() && scale > 0.0) {
        return Err(file.refuse(format!("rescale_factor {scale} is not supported")));
    }
    // Some processors shift values to -1..1 with a flag of their own.
    file.only_bool("rescale_offset", false)?;
    file.only_bool("do_flip_channel_order", false)?;
    let stated = match is_normalized {
        false => Some(([0.0; 3], [1.0; 3])),
        true => stated,
    };
    // percept's values are 0..1 before the mean is taken off: other factors go into mean and deviation.
    let factor = 255.0 * scale;
    let scaled = |values: [f64; 3]| values.map(|value| (value / factor) as f32);
    let normalization = stated.map(|(mean, std)| Normalization {
        mean: scaled(mean),
        std: scaled(std),
    });
    Ok(Preprocessing {
        from: file.name(),
        normalization: checked(file, normalization)?,
        filter: file
            .get("resample")
            .map(|value| filter(file, "resample", value))
            .transpose()?,
        image_size: positive(file, image_size)?,
        other_fit: fit,
    })
}

fn of_timm(file: &JsonFile) -> Result<Preprocessing, ModelError> {
    let side = match file.get("input_size") {
        None => None,
        Some(value) => {
            let sides: Option<Vec<u64>> = (value.as_array().into_iter().flatten())
                .map(Value::as_u64)
                .collect();
            match sides.as_deref() {
                Some(&[3, height, width]) if height == width => usize::try_from(height).ok(),
                _ => return Err(file.refuse_value("input_size", value)),
            }
        }
    };
    file.only("crop_mode", &["center", "squash", "border"])?;
    let crop = file.f64("crop_pct")?.unwrap_or(0.875);
    let fit = match file.str("crop_mode")? {
        Some("squash") => Some("squashes".to_owned()),
        Some("border") => Some("pads".to_owned()),
        _ if crop < 1.0 => side.map(|side| {
            let resized = (side as f64 / crop).floor();
            format!("resizes to {resized} px, then cuts out")
        }),
        _ => None,
    };
    let normalization = both(file, "mean", "std")?.map(single);
    Ok(Preprocessing {
        from: file.name(),
        normalization: checked(file, normalization)?,
        filter: (file.get("interpolation"))
            .map(|value| filter(file, "interpolation", value))
            .transpose()?,
        image_size: positive(file, side)?,
        other_fit: fit,
    })
}

fn of_open_clip(file: &JsonFile) -> Result<Preprocessing, ModelError> {
    let own = file.inside("preprocess_cfg")?;
    own.only("resize_mode", &["shortest", "squash", "longest"])?;
    let fit = match own.str("resize_mode")? {
        Some("squash") => Some("squashes".to_owned()),
        Some("longest") => Some("pads".to_owned()),
        _ => None,
    };
    let normalization = both(&own, "mean", "std")?.map(single);
    let size = match own.get("size") {
        Some(size) => Some(square(&own, "size", size)?),
        None => {
            let vision = file.inside("model_cfg")?.inside("vision_cfg")?;
            let size = vision.get("image_size").cloned();
            size.map(|size| square(&vision, "image_size", &size))
                .transpose()?
        }
    };
    Ok(Preprocessing {
        from: file.name(),
        // open_clip's own where the file has none.
        normalization: Some(checked(file, normalization)?.unwrap_or(Normalization::OPENAI)),
        filter: (own.get("interpolation"))
            .map(|value| filter(&own, "interpolation", value))
            .transpose()?,
        image_size: positive(file, size)?,
        other_fit: fit,
    })
}

/// Mean and deviation of each channel.
type MeanAndStd = ([f64; 3], [f64; 3]);

/// Mean and deviation, of which a file states both or neither.
fn both(file: &JsonFile, mean: &str, std: &str) -> Result<Option<MeanAndStd>, ModelError> {
    match (triple(file, mean)?, triple(file, std)?) {
        (Some(mean), Some(std)) => Ok(Some((mean, std))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(file.refuse(format!("{mean} without {std}"))),
        (None, Some(_)) => Err(file.refuse(format!("{std} without {mean}"))),
    }
}

/// Whether values of eight bits become 0 to 1.
fn is_usual(factor: f64) -> bool {
    (factor * 255.0 - 1.0).abs() < 1e-6
}

fn single((mean, std): MeanAndStd) -> Normalization {
    Normalization {
        mean: mean.map(|value| value as f32),
        std: std.map(|value| value as f32),
    }
}

fn checked(
    file: &JsonFile,
    normalization: Option<Normalization>,
) -> Result<Option<Normalization>, ModelError> {
    let is_usable = |numbers: &Normalization| {
        (numbers.mean.iter()).all(|v| v.is_finite())
            && (numbers.std.iter()).all(|v| v.is_finite() && *v > 0.0)
    };
    match normalization {
        Some(numbers) if !is_usable(&numbers) => {
            Err(file.refuse("its mean or deviation is not finite, or a deviation not positive"))
        }
        other => Ok(other),
    }
}

fn positive(file: &JsonFile, side: Option<usize>) -> Result<Option<usize>, ModelError> {
    match side {
        Some(0) => Err(file.refuse("a size of 0 pixels")),
        other => Ok(other),
    }
}

/// Three numbers, one for each channel.
fn triple(file: &JsonFile, key: &str) -> Result<Option<[f64; 3]>, ModelError> {
    let Some(value) = file.get(key) else {
        return Ok(None);
    };
    // One number, or a list of one, is that of every channel.
    let numbers: Option<Vec<f64>> = match value {
        Value::Array(values) => values.iter().map(Value::as_f64).collect(),
        single => single.as_f64().map(|value| vec![value]),
    };
    match numbers.as_deref() {
        Some(&[r, g, b]) => Ok(Some([r, g, b])),
        Some(&[all]) => Ok(Some([all; 3])),
        _ => Err(file.refuse_value(key, value)),
    }
}

/// Height and width: a number, `{height, width}` or `{shortest_edge}`, as the releases of transformers have them.
fn sides(file: &JsonFile, key: &str, value: &Value) -> Result<[usize; 2], ModelError> {
    let number = |value: &Value| value.as_u64().and_then(|v| usize::try_from(v).ok());
    let of = |key: &str| value.get(key).and_then(number);
    let both = (number(value).or(of("shortest_edge"))).map(|side| [side, side]);
    let both = both.or_else(|| Some([of("height")?, of("width")?]));
    both.ok_or_else(|| file.refuse_value(key, value))
}

fn square(file: &JsonFile, key: &str, value: &Value) -> Result<usize, ModelError> {
    let number = |value: &Value| value.as_u64().and_then(|v| usize::try_from(v).ok());
    let side = match value {
        Value::Array(sides) => match sides.as_slice() {
            [height, width] if height == width => number(height),
            _ => None,
        },
        single => number(single),
    };
    side.ok_or_else(|| file.refuse_value(key, value))
}

/// A resampling filter by Pillow's number or by its name.
fn filter(file: &JsonFile, key: &str, value: &Value) -> Result<Filter, ModelError> {
    let by_name = |name: &str| match name.to_ascii_lowercase().as_str() {
        "nearest" => Some(Filter::Nearest),
        "lanczos" => Some(Filter::Lanczos),
        "bilinear" => Some(Filter::Bilinear),
        "bicubic" => Some(Filter::Bicubic),
        "box" => Some(Filter::Box),
        _ => None,
    };
    let found = match value {
        Value::String(name) => by_name(name),
        // PIL.Image.Resampling.
        other => match other.as_u64() {
            Some(0) => Some(Filter::Nearest),
            Some(1) => Some(Filter::Lanczos),
            Some(2) => Some(Filter::Bilinear),
            Some(3) => Some(Filter::Bicubic),
            Some(4) => Some(Filter::Box),
            _ => None,
        },
    };
    found.ok_or_else(|| file.refuse_value(key, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some JSON under the keys that are looked at.
    fn content() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z]{0,9}".prop_map(Value::from),
        ];
        let keys = "(do_resize|do_center_crop|do_rescale|do_normalize|size|crop_size|height|width|shortest_edge\
            |image_mean|image_std|mean|std|resample|interpolation|rescale_factor|input_size|crop_pct|preprocess_cfg\
            |model_cfg|vision_cfg|image_size)";
        leaf.prop_recursive(4, 32, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(keys, inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_used(json in content()) {
            let mut file = JsonFile::none(Path::new("some.json"));
            file.json = json;
            for read in [of_transformers, of_timm, of_open_clip] {
                let Ok(found) = read(&file) else { continue };
                if let Some(numbers) = found.normalization {
                    prop_assert!(numbers.std.iter().all(|std| *std > 0.0 && std.is_finite()));
                }
                prop_assert!(found.image_size != Some(0));
            }
        }
    }
}
