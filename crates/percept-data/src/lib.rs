//! Readers of datasets: segmentation sets, image folders, captions, Waterbirds, and image-caption
//! [`pairs`] to train on.
//!
//! A set lists its samples when it is opened and reads photos and truths one at a time, when they
//! are asked for: memory does not grow with the set. A layout that is not what was expected is an
//! error that says what was looked for, what is there instead, and which folder might be meant.

mod captions;
pub mod classes;
mod coco;
mod error;
mod files;
mod folder;
mod imagenet;
pub mod index_png;
mod json;
mod layout;
mod left_out;
pub mod pairs;
mod random;
mod segmentation;
mod sets;
pub mod spurious;
mod waterbirds;

pub use captions::{CaptionSample, CaptionSet};
pub use coco::{
    InstanceSet, PanopticSet, open_coco_captions, open_coco_object, open_coco_panoptic,
};
pub use error::DataError;
pub use folder::{Competing, EmptyClasses, FolderOptions, ImageFolder, ImageSample};
pub use imagenet::{ImageNetClass, imagenet_classes};
pub use left_out::{LeftOut, Omissions};
pub use segmentation::{ClassName, IGNORE, Region, SegmentationSample, SegmentationSet};
pub use sets::{
    MaskSet, open_ade20k, open_cityscapes, open_cityscapes27, open_coco_stuff, open_context,
    open_context59, open_custom, open_voc,
};
pub use waterbirds::{Waterbirds, WaterbirdsSample};
