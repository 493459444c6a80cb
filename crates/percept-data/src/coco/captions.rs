//! COCO's captions.

use std::path::Path;

use super::{Annotations, Images, MAX_JSON_BYTES, Photos, objects, split_name, variants};
use crate::files::invalid;
use crate::json::{Scalar, loose, read_json, shown};
use crate::layout::find;
use crate::{CaptionSample, CaptionSet, DataError, Omissions};

loose! {
    struct File {
        images: Images,
        annotations: Annotations<Entry>,
    }
}

loose! {
    struct Entry {
        id: Scalar,
        image_id: Scalar,
        caption: Scalar,
    }
}

/// Opens COCO's captions, set `coco-captions`, mostly five a photo.
///
/// Reads `annotations/captions_SPLIT.json`; photos lie in `SPLIT` or `images/SPLIT`. `root` is the
/// folder that holds these or the one above. The split is `val2017` (also `val`) unless given.
/// Captions are stripped of the white space around them; empty ones, and photos without any, are left
/// out and counted.
///
/// # Errors
/// [`DataError`]: the layout is another one; the JSON cannot be read, is larger than 2 GiB, or has no
/// photo with a caption.
pub fn open_coco_captions(root: &Path, split: Option<&str>) -> Result<CaptionSet, DataError> {
    let split = split_name(split)?;
    let variants = variants(split, |above, photos| {
        [photos, format!("{above}annotations/captions_{split}.json")]
    });
    let [folder, json] = find(root, &variants)?;
    let file: File = read_json(&json, MAX_JSON_BYTES)?;
    let mut omissions = Omissions::new();
    let photos = Photos::new(&json, &folder, file.images, &mut omissions)?;
    let entries = objects(file.annotations, "annotations", &json, &mut omissions)?;
    let mut captions = vec![Vec::new(); photos.samples.len()];
    for Entry {
        id,
        image_id,
        caption,
    } in entries
    {
        let name = format!("annotation {}", shown(&id));
        let position = photos.position(&image_id, &name, &mut omissions);
        let Some(of_photo) = position.and_then(|position| captions.get_mut(position)) else {
            continue;
        };
        match caption.text().map(str::trim) {
            Some("") => omissions.add("empty captions, left out", &name),
            Some(caption) => of_photo.push(caption.to_owned()),
            None => omissions.add("captions that are no text, left out", &name),
        }
    }
    let mut samples = Vec::with_capacity(photos.samples.len());
    for (sample, captions) in photos.samples.into_iter().zip(captions) {
        match captions.is_empty() {
            true => omissions.add("photos without a caption, left out", &sample.id),
            false => samples.push(CaptionSample {
                id: sample.id,
                image: sample.image,
                captions,
            }),
        }
    }
    if samples.is_empty() {
        return Err(invalid(
            &json,
            omissions.after("no photo has a caption here"),
        ));
    }
    Ok(CaptionSet {
        name: "coco-captions".to_owned(),
        samples,
        omissions,
    })
}
