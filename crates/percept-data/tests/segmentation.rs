//! Every layout of segmentation sets, made small: what is read, and what is said of what is wrong.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::fs;
use std::path::{Path, PathBuf};

use percept_data::{
    DataError, IGNORE, MaskSet, SegmentationSet, classes, open_ade20k, open_cityscapes,
    open_cityscapes27, open_coco_stuff, open_context, open_context59, open_custom, open_voc,
};
use png::{BitDepth, ColorType};
use tempfile::TempDir;

/// A folder to build sets in.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn file(&self, below: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// A photo that nobody looks into.
    fn photo(&self, below: &str) -> &Self {
        self.file(below, "a photo")
    }

    /// A mask of one row.
    fn mask(&self, below: &str, values: &[u8]) -> &Self {
        self.file(
            below,
            png(
                values.len() as u32,
                ColorType::Indexed,
                BitDepth::Eight,
                values,
            ),
        )
    }

    /// A 16-bit mask of one row.
    fn wide_mask(&self, below: &str, values: &[u16]) -> &Self {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_be_bytes())
            .collect();
        let width = values.len() as u32;
        self.file(
            below,
            png(width, ColorType::Grayscale, BitDepth::Sixteen, &bytes),
        )
    }

    /// VOC 2012 with one photo.
    fn voc(&self, above: &str, mask: &[u8]) -> &Self {
        self.file(&format!("{above}ImageSets/Segmentation/val.txt"), "a\n")
            .photo(&format!("{above}JPEGImages/a.jpg"))
            .mask(&format!("{above}SegmentationClass/a.png"), mask)
    }
}

fn png(width: u32, colour: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut encoder = png::Encoder::new(&mut encoded, width, 1);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == ColorType::Indexed {
        // Colours that are no indices, so that a palette looked up would show.
        encoder.set_palette(vec![77; 3 * 256]);
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    encoded
}

fn truth(set: &MaskSet, sample: usize) -> Vec<u16> {
    set.truth(sample).unwrap().data().to_vec()
}

/// Classes and areas of the regions.
fn regions(set: &MaskSet, sample: usize) -> Option<Vec<(u16, u64)>> {
    let regions = set.instances(sample).unwrap()?;
    Some(
        regions
            .iter()
            .map(|region| (region.class, region.mask.area()))
            .collect(),
    )
}

fn message<T: std::fmt::Debug>(result: Result<T, DataError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn voc_is_read_from_the_set_or_above() {
    let tree = Tree::new();
    tree.voc("VOCdevkit/VOC2012/", &[0, 1, 20, 255]);
    for below in ["", "VOCdevkit", "VOCdevkit/VOC2012"] {
        let set = open_voc(&tree.path(below), None).unwrap();
        assert_eq!(
            (set.name(), set.split(), set.background()),
            ("voc", "val", Some(0))
        );
        assert_eq!(set.classes(), classes::voc());
        assert_eq!(set.samples().len(), 1);
        assert_eq!(set.samples()[0].id, "a");
        assert_eq!(
            set.samples()[0].image,
            tree.path("VOCdevkit/VOC2012/JPEGImages/a.jpg")
        );
        assert_eq!(truth(&set, 0), [0, 1, 20, IGNORE]);
        assert_eq!(regions(&set, 0), None);
        assert!(set.truth(1).is_err());
    }
}

#[test]
fn objects_of_voc_have_the_class_of_most_of_their_pixels() {
    let tree = Tree::new();
    tree.voc("", &[0, 5, 5, 7, 255, 7, 0]);
    tree.mask("SegmentationObject/a.png", &[0, 2, 2, 2, 255, 1, 1]);
    let set = open_voc(&tree.path(""), None).unwrap();
    // Object 1 lies on class 7 and background, object 2 on classes 5, 5 and 7.
    assert_eq!(regions(&set, 0), Some(vec![(7, 2), (5, 3)]));

    tree.mask("SegmentationObject/a.png", &[9, 0, 0, 0, 0, 0, 0]);
    assert!(message(set.instances(0)).ends_with("a.png: object 9 has no class"));
    tree.mask("SegmentationObject/a.png", &[1, 1]);
    assert!(message(set.instances(0)).contains("2 x 1 pixels, but the mask of classes has 7 x 1"));
    fs::remove_file(tree.path("SegmentationObject/a.png")).unwrap();
    assert!(matches!(set.instances(0), Err(DataError::Io { .. })));
}

#[test]
fn context_is_read_with_and_without_background() {
    let tree = Tree::new();
    tree.file("VOC2010/ImageSets/SegmentationContext/val.txt", "a\nb\n")
        .photo("VOC2010/JPEGImages/a.jpg")
        .mask("VOC2010/SegmentationClassContext/a.png", &[0, 1, 59]);
    let with = open_context(&tree.path(""), None).unwrap();
    assert_eq!((with.name(), with.background()), ("context", Some(0)));
    assert_eq!(truth(&with, 0), [0, 1, 59]);
    let without = open_context59(&tree.path("VOC2010"), Some("val")).unwrap();
    assert_eq!((without.name(), without.background()), ("context59", None));
    assert_eq!(truth(&without, 0), [IGNORE, 0, 58]);
    for (set, class) in [(&with, 1), (&without, 0), (&with, 59), (&without, 58)] {
        let name = if class < 2 { "aeroplane" } else { "wood" };
        assert_eq!(set.classes()[class].name, name);
    }
    // Sample b is listed, but not there.
    assert!(message(with.truth(1)).contains("b.png"));
}

#[test]
fn ade20k_counts_from_one() {
    let tree = Tree::new();
    tree.photo("ADEChallengeData2016/images/validation/ADE_val_00000001.jpg")
        .photo("ADEChallengeData2016/images/validation/._ADE_val_00000001.jpg")
        .mask(
            "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png",
            &[0, 1, 150],
        );
    for below in ["", "ADEChallengeData2016"] {
        let set = open_ade20k(&tree.path(below), None).unwrap();
        assert_eq!(
            (set.split(), set.samples().len(), set.background()),
            ("validation", 1, None)
        );
        assert_eq!(set.samples()[0].id, "ADE_val_00000001");
        assert_eq!(truth(&set, 0), [IGNORE, 0, 149]);
        assert_eq!(regions(&set, 0), None);
    }
}

#[test]
fn coco_stuff_is_read_in_each_of_its_layouts() {
    for (photos, masks) in [
        ("images/val2017", "annotations/val2017"),
        ("val2017", "stuffthingmaps/val2017"),
        ("val2017", "val2017"),
    ] {
        let tree = Tree::new();
        let mask = format!("coco/{masks}/000000000139_labelTrainIds.png");
        tree.photo(&format!("coco/{photos}/000000000139.jpg"))
            .mask(&mask, &[0, 170, 255]);
        for below in ["", "coco"] {
            let set = open_coco_stuff(&tree.path(below), None).unwrap();
            assert_eq!((set.name(), set.split()), ("coco-stuff", "val2017"));
            assert_eq!(set.samples()[0].id, "000000000139");
            assert_eq!(truth(&set, 0), [0, 170, IGNORE]);
        }
        tree.mask(&mask, &[171]);
        let set = open_coco_stuff(&tree.path(""), None).unwrap();
        assert!(
            message(set.truth(0)).ends_with("value 171 is no class of coco-stuff (171 classes)")
        );
        fs::remove_file(tree.path(&mask)).unwrap();
        assert!(message(open_coco_stuff(&tree.path(""), None)).contains("need converting"));
    }
}

#[test]
fn cityscapes_is_read_from_labels_or_train_ids() {
    let tree = Tree::new();
    let city = "gtFine/val/ulm/ulm_000000_000019_gtFine";
    tree.photo("leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png")
        .mask(&format!("{city}_labelIds.png"), &[0, 7, 9, 26, 33, 0])
        .wide_mask(
            &format!("{city}_instanceIds.png"),
            &[1, 7, 9, 26_001, 26_001, 24],
        );
    let set = open_cityscapes(&tree.path(""), None).unwrap();
    assert_eq!(set.samples()[0].id, "ulm_000000_000019");
    assert_eq!(truth(&set, 0), [IGNORE, 0, IGNORE, 13, 18, IGNORE]);
    // Road, a crowd and a car; parking is none of the 19 classes.
    assert_eq!(regions(&set, 0), Some(vec![(0, 1), (11, 1), (13, 2)]));

    let set = open_cityscapes27(&tree.path(""), None).unwrap();
    assert_eq!(truth(&set, 0), [IGNORE, 0, 2, 19, 26, IGNORE]);
    assert_eq!(
        regions(&set, 0),
        Some(vec![(0, 1), (2, 1), (17, 1), (19, 2)])
    );

    tree.mask(
        &format!("{city}_labelTrainIds.png"),
        &[255, 0, 255, 13, 18, 255],
    );
    let set = open_cityscapes(&tree.path(""), None).unwrap();
    assert_eq!(truth(&set, 0), [IGNORE, 0, IGNORE, 13, 18, IGNORE]);
    // Train ids under the name of label ids.
    fs::remove_file(tree.path(&format!("{city}_labelTrainIds.png"))).unwrap();
    tree.mask(&format!("{city}_labelIds.png"), &[255, 8, 13]);
    let set = open_cityscapes(&tree.path(""), None).unwrap();
    let error = message(set.truth(0));
    assert!(
        error.contains("value 255") && error.contains("look like train ids"),
        "{error}"
    );
    tree.wide_mask(&format!("{city}_instanceIds.png"), &[40_000]);
    assert!(message(set.instances(0)).contains("value 40000 is no label of Cityscapes"));
}

#[test]
fn a_custom_set_has_its_own_classes() {
    let tree = Tree::new();
    tree.photo("photos/b.JPG")
        .photo("photos/a.webp")
        .photo("photos/notes.txt")
        .mask("masks/a.png", &[0, 1, 2, 255])
        .file(
            "classes.txt",
            "\u{feff}cat, kitten\r\nBackground\r\ndog\r\n\r\n",
        );
    let open = || {
        open_custom(
            &tree.path("photos"),
            &tree.path("masks"),
            &tree.path("classes.txt"),
        )
    };
    let set = open().unwrap();
    assert_eq!(
        (set.name(), set.split(), set.background()),
        ("custom", "all", Some(1))
    );
    assert_eq!(set.classes()[0].synonyms, ["cat", "kitten"]);
    let ids: Vec<_> = set
        .samples()
        .iter()
        .map(|sample| sample.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(truth(&set, 0), [0, 1, 2, IGNORE]);
    assert!(matches!(set.truth(1), Err(DataError::Io { .. })));
    let odd = |set: &MaskSet| -> Vec<String> {
        let kinds = set.omissions().kinds().iter();
        kinds.map(ToString::to_string).collect()
    };
    assert_eq!(
        odd(&set),
        ["files passed over for the ending .txt: 1 (notes.txt)"]
    );

    for (text, reason) in [
        ("cat\n\ndog\n", "line 2 has no name"),
        (
            "cat\ndog\ncat\n",
            "line 3: \"cat\" is there twice, first on line 1",
        ),
        ("\n \n", "none given"),
        (
            "1: cat\n2: dog\n",
            "line 1: the id 1, where masks would have 0",
        ),
        (
            "0: cat\n2: dog\n",
            "line 2: the id 2, where masks would have 1",
        ),
        (
            "n02123045 tabby\n",
            "line 1: the id n02123045, where masks would",
        ),
    ] {
        tree.file("classes.txt", text);
        let error = message(open());
        assert!(error.contains(&format!("classes.txt: {reason}")), "{error}");
    }
    for text in [
        "cat\rBackground\rdog\r",
        "2: dog\n0: cat\n1: Background\n",
        "[\"cat\", \"Background\", \"dog\"]",
        "names:\n  0: cat\n  1: Background\n  2: dog\n",
    ] {
        tree.file("classes.txt", text);
        let set = open().unwrap();
        let names: Vec<&str> = set.classes().iter().map(|class| &*class.name).collect();
        assert_eq!(names, ["cat", "Background", "dog"], "{text}");
        assert_eq!(set.background(), Some(1));
    }
    // Whose the mask of two photos is cannot be known, unless it says so.
    tree.file("classes.txt", "cat\nb\nc\n")
        .photo("photos/a.jpg")
        .photo("photos/._a.jpg")
        .mask("masks/stray.png", &[0])
        .mask("masks/a.jpg.png", &[0, 1, 1, 0]);
    let set = open().unwrap();
    let ids: Vec<_> = set
        .samples()
        .iter()
        .map(|sample| sample.id.as_str())
        .collect();
    assert_eq!(ids, ["a.jpg", "b"]);
    assert_eq!(truth(&set, 0), [0, 1, 1, 0]);
    assert_eq!(
        odd(&set),
        [
            "copies that macOS makes (._*), passed over: 1 (._a.jpg)",
            "files passed over for the ending .txt: 1 (notes.txt)",
            "photos of one stem, whose mask could be of either, left out: 1 (a.webp)",
            "files among the masks that belong to no photo: 2 (a.png, stray.png)"
        ]
    );
    let error = open_custom(
        &tree.path("photo"),
        &tree.path("masks"),
        &tree.path("classes.txt"),
    );
    assert!(message(error).contains("classes.txt, masks, photos in "));
}

#[test]
fn more_than_255_classes_take_16_bit_masks() {
    let tree = Tree::new();
    let names: Vec<String> = (0..300).map(|n| format!("class {n}")).collect();
    tree.file("classes.txt", names.join("\n"))
        .photo("photos/a.jpg")
        .wide_mask("masks/a.png", &[0, 255, 299, 65535]);
    let set = open_custom(
        &tree.path("photos"),
        &tree.path("masks"),
        &tree.path("classes.txt"),
    );
    let set = set.unwrap();
    assert_eq!(truth(&set, 0), [0, 255, 299, IGNORE]);
    tree.wide_mask("masks/a.png", &[300]);
    assert!(message(set.truth(0)).contains("a.png: value 300 is no class of custom"));
}

#[test]
fn other_names_can_stand_in() {
    let tree = Tree::new();
    tree.voc("", &[0]);
    let set = open_voc(&tree.path(""), None).unwrap();
    let set = set.with_classes(classes::voc_mmseg()).unwrap();
    assert_eq!(set.classes()[20].name, "tvmonitor");
    assert_eq!(
        message(set.with_classes(classes::coco())),
        "voc has 21 classes, but 80 names were given"
    );
}

#[test]
fn a_wrong_folder_is_explained() {
    let tree = Tree::new();
    tree.voc("data/VOCdevkit/VOC2012/", &[0])
        .photo("elsewhere/x/y");
    let inside = tree.path("data/VOCdevkit/VOC2012");
    let lists = inside.join("ImageSets/Segmentation");
    assert_eq!(
        message(open_voc(&inside, Some("test"))),
        format!(
            "expected {}, found val.txt in {}",
            lists.join("test.txt").display(),
            lists.display()
        )
    );
    // A folder of the set, one too far above it, one beside it, and one mistyped.
    for (given, meant) in [
        (
            "data/VOCdevkit/VOC2012/JPEGImages",
            "data/VOCdevkit/VOC2012",
        ),
        ("", "data"),
        ("elsewhere", "data"),
        ("data/VOCdevkitt", "data"),
    ] {
        let error = message(open_voc(&tree.path(given), None));
        let hint = format!("; did you mean --data {}?", tree.path(meant).display());
        assert!(
            error.starts_with("expected ") && error.ends_with(&hint),
            "{error}"
        );
    }
    assert!(message(open_ade20k(&tree.path("elsewhere"), None)).contains("found x in "));
    assert!(matches!(
        open_voc(&inside, Some("../val")),
        Err(DataError::Setting(_))
    ));
}

#[test]
fn a_list_of_other_photos_is_refused_when_opened() {
    let tree = Tree::new();
    tree.voc("", &[0])
        .file("ImageSets/Segmentation/val.txt", "x\ny\n");
    let error = message(open_voc(&tree.path(""), None));
    assert!(error.contains("x.jpg, found a.jpg in "), "{error}");
    // One of the first is enough.
    tree.file("ImageSets/Segmentation/val.txt", "x\na\n");
    assert!(open_voc(&tree.path(""), None).is_ok());
    tree.file("ImageSets/Segmentation/val.txt", "a\na\n");
    let set = open_voc(&tree.path(""), None).unwrap();
    assert_eq!(
        set.omissions().kinds()[0].to_string(),
        "photos listed twice, counted once: 1 (a)"
    );
    tree.file("ImageSets/Segmentation/val.txt", "\n");
    assert!(message(open_voc(&tree.path(""), None)).contains("no photo is listed"));
}

#[test]
fn hostile_masks_are_refused_by_name() {
    let tree = Tree::new();
    tree.voc("", &[0, 1, 2]);
    let set = open_voc(&tree.path(""), None).unwrap();
    let mask = "SegmentationClass/a.png";
    let whole = fs::read(tree.path(mask)).unwrap();
    let rgb = png(1, ColorType::Rgb, BitDepth::Eight, &[1, 2, 3]);
    let rgba = png(1, ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 4]);
    let wide = png(20_001, ColorType::Grayscale, BitDepth::Eight, &[0; 20_001]);
    let class = png(1, ColorType::Grayscale, BitDepth::Eight, &[21]);
    for (content, reason) in [
        (&whole[..whole.len() / 2], "cannot decode as PNG"),
        (&whole[..10], "cannot decode as PNG"),
        (&[][..], "cannot decode as PNG"),
        (
            &rgb,
            "expected a mask of indices (palette or grey PNG), found RGB of 8 bits",
        ),
        (&rgba, "found RGB with alpha of 8 bits"),
        (&wide, "20001 x 1 pixels are over the limit"),
        (&class, "value 21 is no class of voc (21 classes)"),
    ] {
        tree.file(mask, content);
        let error = message(set.truth(0));
        assert!(
            error.contains("a.png: ") && error.contains(reason),
            "{error}"
        );
    }
    fs::remove_file(tree.path(mask)).unwrap();
    fs::create_dir(tree.path(mask)).unwrap();
    assert!(matches!(set.truth(0), Err(DataError::Io { .. })));
}

/// The part of VOC 2012 that stands beside the project on machines that have it.
#[test]
fn real_photos_have_classes() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.join("VOCdevkit").is_dir() {
        println!("SKIPPED: no VOCdevkit in {}", data.display());
        return;
    }
    for below in ["", "VOCdevkit", "VOCdevkit/VOC2012"] {
        let set = open_voc(&data.join(below), None).unwrap();
        assert_eq!(set.samples().len(), 222);
    }
    let set = open_voc(&data, None).unwrap();
    let mut pairs = 0;
    for sample in 0..222 {
        let map = set.truth(sample).unwrap();
        let present = (map.counts(21).iter().skip(1))
            .filter(|&&pixels| pixels > 0)
            .count();
        assert!(present > 0, "{}", set.samples()[sample].id);
        pairs += present;
    }
    assert_eq!(pairs, 303);
}
