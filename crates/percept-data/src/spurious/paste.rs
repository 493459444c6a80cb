//! Cutting an object out of one photo and pasting it onto another.

use percept_image::{Filter, LabelMap, Rgb, RgbImage, Rle, resize};

/// An object: the rectangle of its photo around it, and which of the pixels are its own.
pub(super) struct Cutout {
    colour: RgbImage,
    /// White on the object, black beside it: an image, to be resized like one.
    mask: RgbImage,
    /// Its pixels.
    area: u64,
}

impl Cutout {
    pub(super) fn new(photo: &RgbImage, mask: &Rle) -> Result<Self, String> {
        if (mask.width, mask.height) != photo.dimensions() {
            return Err(format!(
                "{} x {} pixels, but annotated as {} x {}",
                photo.width(),
                photo.height(),
                mask.width,
                mask.height
            ));
        }
        let [left, top, width, height] = mask.bbox().map(|side| side as u32);
        let inside = mask.to_mask().map_err(|error| error.to_string())?;
        let inside = inside.into_iter().map(u16::from).collect();
        let inside = LabelMap::new(mask.width, mask.height, inside);
        let inside = inside.map_err(|error| error.to_string())?;
        let colour = RgbImage::from_fn(width, height, |x, y| {
            *photo
                .get_pixel_checked(left + x, top + y)
                .unwrap_or(&Rgb([0; 3]))
        });
        let white = RgbImage::from_fn(width, height, |x, y| {
            let inside = inside.get(left + x, top + y) == Some(1);
            Rgb([if inside { 255 } else { 0 }; 3])
        });
        Ok(Self {
            colour,
            mask: white,
            area: mask.area(),
        })
    }
}

/// A photo whose short side is at most `max_short_side`.
pub(super) fn shrink(photo: RgbImage, max_short_side: u32) -> RgbImage {
    let (width, height) = photo.dimensions();
    let short = width.min(height);
    if short <= max_short_side {
        return photo;
    }
    let scale = f64::from(max_short_side) / f64::from(short);
    let [width, height] = [width, height].map(|side| scaled(side, scale));
    resize(&photo, width, height, Filter::Bicubic)
}

/// Pastes an object onto the middle of a photo, scaled to `share` of its pixels or as large as the
/// margins allow.
pub(super) fn paste(object: &Cutout, photo: RgbImage, share: f32, margin: f32) -> RgbImage {
    let mut photo = photo;
    let (photo_width, photo_height) = photo.dimensions();
    let (width, height) = object.colour.dimensions();
    let wanted = f64::from(share) * f64::from(photo_width) * f64::from(photo_height);
    let free = 1.0 - 2.0 * f64::from(margin);
    let scale = (wanted / object.area.max(1) as f64)
        .sqrt()
        .min(free * f64::from(photo_width) / f64::from(width.max(1)))
        .min(free * f64::from(photo_height) / f64::from(height.max(1)));
    let [width, height] = [width, height].map(|side| scaled(side, scale));
    let colour = resize(&object.colour, width, height, Filter::Bicubic);
    let alpha = feathered(&resize(&object.mask, width, height, Filter::Bilinear));
    let left = photo_width.saturating_sub(width) / 2;
    let top = photo_height.saturating_sub(height) / 2;
    for ((x, y, over), alpha) in colour.enumerate_pixels().zip(alpha) {
        if let Some(under) = photo.get_pixel_mut_checked(left + x, top + y) {
            for (under, &over) in under.0.iter_mut().zip(&over.0) {
                let mixed = u32::from(over) * alpha + u32::from(*under) * (255 - alpha);
                *under = ((mixed + 127) / 255) as u8;
            }
        }
    }
    photo
}

fn scaled(side: u32, scale: f64) -> u32 {
    ((f64::from(side) * scale).round() as u32).max(1)
}

/// The mask with an edge that is soft over a pixel to either side: the mean of three by three pixels,
/// black all around. From 0 to 255, row by row.
fn feathered(mask: &RgbImage) -> Vec<u32> {
    let around = |x: u32, y: u32| {
        let mut sum = 0;
        for y in (y.saturating_sub(1))..=y + 1 {
            for x in (x.saturating_sub(1))..=x + 1 {
                sum += mask
                    .get_pixel_checked(x, y)
                    .map_or(0, |pixel| u32::from(pixel.0[0]));
            }
        }
        (sum + 4) / 9
    };
    let rows = 0..mask.height();
    rows.flat_map(|y| (0..mask.width()).map(move |x| (x, y)))
        .map(|(x, y)| around(x, y))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_gets_its_share_in_the_middle() {
        let photo = RgbImage::from_pixel(60, 40, Rgb([200, 0, 0]));
        let mask: Vec<bool> = (0..40 * 60)
            .map(|at| (10..20).contains(&(at % 60)) && at / 60 < 10)
            .collect();
        let mask = Rle::from_mask(&mask, 40, 60).unwrap();
        let object = Cutout::new(&photo, &mask).unwrap();
        assert_eq!((object.colour.dimensions(), object.area), ((10, 10), 100));

        let made = paste(&object, RgbImage::new(100, 80), 0.2, 0.0);
        let red = made.pixels().filter(|pixel| pixel.0[0] > 100).count();
        assert!((1400..1750).contains(&red), "{red}"); // 0.2 of 8000, less corners
        assert_eq!(made.get_pixel(50, 40).0, [200, 0, 0]);
        assert_eq!(made.get_pixel(0, 0).0, [0, 0, 0]);
        assert_eq!(made.get_pixel(50, 10).0, [0, 0, 0]);

        // As large as the margins allow: 80 % of 80.
        let made = paste(&object, RgbImage::new(100, 80), 1.0, 0.1);
        let column: Vec<bool> = (0..80).map(|y| made.get_pixel(50, y).0[0] > 100).collect();
        assert_eq!(column.iter().filter(|&&red| red).count(), 64);
        assert!(!column[7] && column[8] && column[71] && !column[72]);
    }

    #[test]
    fn a_photo_of_another_size_is_refused() {
        let mask = Rle::from_mask(&[true; 6], 2, 3).unwrap();
        let Err(reason) = Cutout::new(&RgbImage::new(2, 3), &mask) else {
            panic!("accepted");
        };
        assert_eq!(reason, "2 x 3 pixels, but annotated as 3 x 2");
    }

    #[test]
    fn large_photos_are_shrunk() {
        assert_eq!(
            shrink(RgbImage::new(300, 200), 100).dimensions(),
            (150, 100)
        );
        assert_eq!(shrink(RgbImage::new(30, 20), 100).dimensions(), (30, 20));
    }
}
