//! COCO's captions.

use std::path::Path;

use serde::Deserialize;

use super::{MAX_JSON_BYTES, Photos, split_name, variants};
use crate::files::{invalid, read_json};
use crate::layout::find;
use crate::{CaptionSample, CaptionSet, DataError};

#[derive(Deserialize)]
struct File {
    images: Vec<super::Image>,
    annotations: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    image_id: u64,
    caption: String,
}

/// Opens COCO's captions, set `coco-captions`, mostly five a photo.
///
/// Reads `annotations/captions_SPLIT.json`; photos lie in `SPLIT` or `images/SPLIT`. `root` is the
/// folder that holds these or the one above. The split is `val2017` (also `val`) unless given.
/// Captions are stripped of the white space around them; photos without one are left out.
///
/// # Errors
/// [`DataError`]: the layout is another one; the JSON cannot be read, is larger than 2 GiB, names an
/// unknown photo, or one outside its folder.
pub fn open_coco_captions(root: &Path, split: Option<&str>) -> Result<CaptionSet, DataError> {
    let split = split_name(split)?;
    let variants = variants(split, |above, photos| {
        [photos, format!("{above}annotations/captions_{split}.json")]
    });
    let [folder, json] = find(root, &variants)?;
    let file: File = read_json(&json, MAX_JSON_BYTES)?;
    let photos = Photos::new(&json, &folder, file.images)?;
    let mut captions = vec![Vec::new(); photos.samples.len()];
    for Entry { image_id, caption } in file.annotations {
        let of_photo = (photos.positions.get(&image_id))
            .and_then(|&position| captions.get_mut(position))
            .ok_or_else(|| invalid(&json, format!("a caption of image {image_id}, not listed")))?;
        let caption = caption.trim();
        if !caption.is_empty() {
            of_photo.push(caption.to_owned());
        }
    }
    let samples: Vec<CaptionSample> = (photos.samples.into_iter().zip(captions))
        .filter(|(_, captions)| !captions.is_empty())
        .map(|(sample, captions)| CaptionSample {
            id: sample.id,
            image: sample.image,
            captions,
        })
        .collect();
    if samples.is_empty() {
        return Err(invalid(&json, "no photo has a caption here"));
    }
    Ok(CaptionSet {
        name: "coco-captions".to_owned(),
        samples,
    })
}
