//! Images in, masks out: decoding, Pillow-exact resizing, normalisation, palettes, overlays and RLE.
//!
//! Everything a vision model needs on either side of its tensors, and nothing that knows about
//! tensors:
//!
//! | step | items |
//! |---|---|
//! | bytes to pixels | [`open`], [`decode()`], [`Limits`], [`ImageError`] |
//! | pixels to model input | [`Preprocess`], [`Fit`], [`Normalization`], [`ChwImage`], [`resize()`] |
//! | labels to files | [`LabelMap`], [`mask_png`], [`overlay`], [`heatmap`], [`Rle`] |
//! | files to disk | [`write_atomic`], [`kept`], [`npy_f32`], [`png_rgb`], [`jpeg_rgb`] |
//!
//! ```
//! use percept_image::{Filter, Fit, Normalization, Preprocess, RgbImage};
//!
//! let photo = RgbImage::new(640, 480);
//! let preprocess = Preprocess {
//!     fit: Fit::ShortSide { size: 448, multiple_of: 14 },
//!     filter: Filter::Bicubic,
//!     normalization: Normalization::IMAGENET,
//! };
//! let input = preprocess.apply(&photo);
//! assert_eq!((input.height, input.width), (448, 602));
//! ```

mod convolve;
pub mod decode;
pub mod kept;
pub mod label_map;
mod legend;
pub mod palette;
pub mod preprocess;
pub mod render;
pub mod resize;
pub mod rle;
pub mod save;

pub use decode::{
    EXTENSIONS, ImageError, Limits, Stored, decode, decode_reduced, open, open_stored, stored_size,
};
pub use image::{Rgb, RgbImage};
pub use label_map::{LabelMap, LabelMapError};
pub use palette::{colour, voc_palette};
pub use preprocess::{ChwImage, Fit, Normalization, Preprocess};
pub use render::{LegendEntry, OVERLAY_OPACITY, RenderError, heatmap, mask_png, overlay};
pub use resize::{Filter, resize, resize_labels};
pub use rle::{Rle, RleError};
pub use save::{jpeg_rgb, npy_f32, png_rgb, write_atomic};
