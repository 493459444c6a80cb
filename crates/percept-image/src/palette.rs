//! Colours for labels and scores.

/// Colours for the first labels of an overlay. Neighbours in the list differ in hue and in
/// lightness, so that the few labels of an ordinary photo are easily told apart, also with most
/// kinds of colour blindness.
const CATEGORICAL: [[u8; 3]; 20] = [
    [230, 57, 70],   // red
    [46, 134, 222],  // blue
    [255, 183, 3],   // amber
    [42, 157, 143],  // teal
    [155, 93, 229],  // violet
    [144, 200, 60],  // lime
    [255, 120, 40],  // orange
    [90, 200, 250],  // sky
    [214, 51, 132],  // magenta
    [21, 110, 60],   // forest
    [255, 160, 190], // pink
    [62, 70, 170],   // indigo
    [225, 225, 80],  // lemon
    [145, 80, 40],   // brown
    [130, 30, 60],   // wine
    [100, 230, 190], // mint
    [195, 165, 245], // lavender
    [110, 120, 20],  // olive
    [250, 200, 150], // sand
    [20, 95, 120],   // petrol
];

/// Which colours the labels of a result have, in its mask, its overlay and its list of labels alike.
///
/// Index 0, the background of every result, is black in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Palette {
    /// Percept's own, whose first colours are told apart with ease: [`colour`].
    #[default]
    Percept,
    /// The PASCAL VOC devkit's: [`voc_palette`], which repeats after 255.
    Voc,
}

impl Palette {
    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Percept => "percept",
            Self::Voc => "voc",
        }
    }

    /// The colour of a label, red, green and blue.
    pub fn colour(self, index: u16) -> [u8; 3] {
        match (self, index) {
            (_, 0) => BACKGROUND,
            (Self::Percept, _) => colour(index),
            (Self::Voc, _) => repeated_voc(usize::from(index)),
        }
    }
}

/// The colour of index 0, where that is the background.
const BACKGROUND: [u8; 3] = [0, 0, 0];

/// The palette of the PASCAL VOC devkit: the bits of the index, lowest first, are dealt out to red,
/// green and blue, filling each channel from the top. Index 0 is black, 255 (void) is cream.
pub fn voc_palette() -> [[u8; 3]; 256] {
    std::array::from_fn(voc_colour)
}

fn voc_colour(index: usize) -> [u8; 3] {
    let mut colour = [0; 3];
    for bit in 0..8 {
        let value = (index >> bit & 1) as u8;
        colour[bit % 3] |= value << (7 - bit / 3);
    }
    colour
}

/// The colour of a label in overlays. The first 20 are hand-picked; then come the VOC palette's,
/// repeating after 255 (black, which reads as a shadow, is left out).
pub fn colour(index: u16) -> [u8; 3] {
    let index = usize::from(index);
    match CATEGORICAL.get(index) {
        Some(&colour) => colour,
        None => repeated_voc(index),
    }
}

/// The VOC palette, over and over; black is left out.
fn repeated_voc(index: usize) -> [u8; 3] {
    voc_colour(1 + (index - 1) % 255)
}

/// Colours for scores from 0 (first) to 1 (last): dark blue over magenta and orange to pale yellow.
///
/// Lightness rises evenly in OKLab, so equal steps of score look equal, and the map still reads in
/// greyscale print and with colour-blind eyes.
pub(crate) fn heat_ramp() -> [[u8; 3]; 256] {
    std::array::from_fn(|i| {
        let t = i as f32 / 255.0;
        let lightness = 0.16 + 0.81 * t;
        // Most colourful in the middle: neither the darkest nor the lightest colours can be vivid.
        let chroma = 0.03 + 0.16 * (std::f32::consts::PI * t).sin();
        // From blue (-90 degrees) through red (30) to yellow (105).
        let hue = (195.0 * t.powf(0.85) - 90.0).to_radians();
        oklab_to_rgb([lightness, chroma * hue.cos(), chroma * hue.sin()])
    })
}

/// OKLab (Ottosson 2020, "A perceptual color space for image processing") to sRGB bytes. Colours
/// that sRGB lacks are clipped.
fn oklab_to_rgb([l, a, b]: [f32; 3]) -> [u8; 3] {
    let long = (l + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let medium = (l - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let short = (l - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    [
        4.076_741_7 * long - 3.307_711_6 * medium + 0.230_969_94 * short,
        -1.268_438 * long + 2.609_757_4 * medium - 0.341_319_38 * short,
        -0.004_196_086_3 * long - 0.703_418_6 * medium + 1.707_614_7 * short,
    ]
    .map(|linear| {
        let encoded = if linear <= 0.003_130_8 {
            12.92 * linear
        } else {
            1.055 * linear.powf(1.0 / 2.4) - 0.055
        };
        (encoded * 255.0).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn voc_colours_are_the_devkits() {
        let palette = voc_palette();
        assert_eq!(palette[0], [0, 0, 0]);
        assert_eq!(palette[1], [128, 0, 0]); // aeroplane
        assert_eq!(palette[15], [192, 128, 128]); // person
        assert_eq!(palette[20], [0, 64, 128]); // tv/monitor
        assert_eq!(palette[255], [224, 224, 192]); // void
        assert_eq!(palette.iter().collect::<HashSet<_>>().len(), 256);
    }

    #[test]
    fn every_label_has_a_colour_other_than_black() {
        assert!((0..=u16::MAX).all(|index| colour(index) != [0, 0, 0]));
        let first: HashSet<_> = (0..150).map(colour).collect();
        assert_eq!(first.len(), 150);
    }

    #[test]
    fn the_background_is_black_and_nothing_else_is() {
        for palette in [Palette::Percept, Palette::Voc] {
            assert_eq!(palette.colour(0), [0, 0, 0]);
            assert!((1..=u16::MAX).all(|index| palette.colour(index) != [0, 0, 0]));
        }
        assert_eq!(Palette::Percept.colour(1), colour(1));
        assert_eq!(Palette::Voc.colour(15), [192, 128, 128]);
        assert_eq!(Palette::Voc.colour(256), [128, 0, 0]);
    }

    #[test]
    fn the_heat_ramp_gets_lighter_all_the_way() {
        let lightness = heat_ramp()
            .map(|[r, g, b]| 0.2126 * f32::from(r) + 0.7152 * f32::from(g) + 0.0722 * f32::from(b));
        assert!(lightness.windows(2).all(|pair| pair[1] > pair[0] - 0.6));
        assert!(lightness[0] < 20.0 && lightness[255] > 225.0);
    }

    #[test]
    fn oklab_knows_black_white_and_red() {
        assert_eq!(oklab_to_rgb([0.0, 0.0, 0.0]), [0, 0, 0]);
        assert_eq!(oklab_to_rgb([1.0, 0.0, 0.0]), [255, 255, 255]);
        assert_eq!(oklab_to_rgb([0.627_955, 0.224_863, 0.125_846]), [255, 0, 0]);
    }
}
