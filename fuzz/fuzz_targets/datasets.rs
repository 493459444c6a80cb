//! Annotation files of datasets: whatever they hold, a set opens or is refused, its masks fill their
//! photos or are refused, and what was left out is counted.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use percept_data::{
    CaptionSet, SegmentationSet, Waterbirds, open_coco_captions, open_coco_object,
    open_coco_panoptic,
};

/// A folder with the layout of COCO, whose annotations each input replaces.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = std::env::temp_dir().join(format!("percept-fuzz-{}", std::process::id()));
    for folder in ["annotations", "annotations/panoptic_val2017", "val2017"] {
        fs::create_dir_all(root.join(folder)).expect("a folder for temporary files");
    }
    fs::write(root.join("val2017/a.jpg"), "no photo").expect("a temporary file");
    root
});

/// Most pixels of a mask that is drawn here: larger ones only take time.
const MAX_PIXELS: u64 = 1 << 20;

fn look(set: &dyn SegmentationSet) {
    assert!(!set.samples().is_empty() && !set.classes().is_empty());
    for sample in 0..set.samples().len().min(4) {
        if let Ok(truth) = set.truth(sample) {
            if truth.data().len() as u64 > MAX_PIXELS {
                return;
            }
            let _ = set.instances(sample);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let write = |name: &str| {
        let path = ROOT.join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
    };
    match kind % 5 {
        0 => {
            write("annotations/instances_val2017.json");
            if let Ok(set) = open_coco_object(&ROOT, None) {
                look(&set);
            }
        }
        1 => {
            write("annotations/panoptic_val2017.json");
            if let Ok(set) = open_coco_panoptic(&ROOT, None) {
                look(&set);
            }
        }
        2 => {
            write("annotations/captions_val2017.json");
            if let Ok(set) = open_coco_captions(&ROOT, None) {
                assert!(set.captions() >= set.samples.len());
            }
        }
        3 => {
            let csv = write("captions.csv");
            if let Ok(set) = CaptionSet::from_csv(&csv, None) {
                assert!(set.captions() >= set.samples.len());
            }
        }
        _ => {
            write("metadata.csv");
            if let Ok(set) = Waterbirds::open(&ROOT, None) {
                assert!(set.samples.iter().all(|sample| sample.label < 2 && sample.place < 2));
            }
        }
    }
});
