//! COCO's objects, panoptic segments and captions: masks exactly as pycocotools draws them, and what
//! is said of files that make no sense.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{Tree, message, shared};
use percept_data::{
    DataError, IGNORE, InstanceSet, Omissions, PanopticSet, SegmentationSet, classes,
    open_coco_captions, open_coco_object, open_coco_panoptic,
};
use percept_image::Rle;
use serde::Deserialize;
use serde_json::{Value, json};

const INSTANCES: &str = "annotations/instances_val2017.json";
const PANOPTIC: &str = "annotations/panoptic_val2017.json";
const CAPTIONS: &str = "annotations/captions_val2017.json";

/// What `tools/parity/polygons.py` writes.
#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    real: Real,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    size: [u32; 2],
    polygons: Value,
    rle: String,
}

#[derive(Deserialize)]
struct Real {
    areas: Vec<u64>,
    masks: String,
    maps: String,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/polygons.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// FNV-1a of 64 bits over the lines.
fn fnv1a(lines: &[String]) -> String {
    let bytes = lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// A photo that nobody looks into.
fn photo(tree: &Tree, name: &str) {
    tree.file(&format!("val2017/{name}"), "a photo");
}

/// A photo of 4 x 3 pixels, and persons and a toothbrush as given.
fn instances(annotations: Value) -> Value {
    json!({
        "info": {"year": 2017},
        "images": [{"id": 7, "file_name": "a.jpg", "height": 3, "width": 4, "license": 1}],
        "annotations": annotations,
        "categories": [
            {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
            {"id": 1, "name": "person", "supercategory": "person"},
        ],
    })
}

fn open_instances(json: &Value) -> Result<InstanceSet, DataError> {
    let tree = Tree::new();
    photo(&tree, "a.jpg");
    photo(&tree, "b.jpg");
    tree.file(INSTANCES, json.to_string());
    open_coco_object(&tree.path(""), None)
}

/// Class and runs of each object.
fn objects(set: &InstanceSet, sample: usize) -> Vec<(u16, Vec<u32>)> {
    let regions = set.instances(sample).unwrap().unwrap();
    (regions.into_iter())
        .map(|region| (region.class, region.mask.counts))
        .collect()
}

#[test]
fn polygons_are_drawn_as_pycocotools_draws_them() {
    let Golden { cases, .. } = golden();
    assert!(cases.len() > 350);
    let tree = Tree::new();
    photo(&tree, "0.jpg");
    let images: Vec<Value> = (cases.iter().zip(0..))
        .map(|(case, id)| {
            let [height, width] = case.size;
            json!({"id": id, "file_name": format!("{id}.jpg"), "height": height, "width": width})
        })
        .collect();
    let annotations: Vec<Value> = (cases.iter().zip(0..))
        .map(|(case, id)| {
            json!({"id": id, "image_id": id, "category_id": 1, "segmentation": case.polygons})
        })
        .collect();
    let categories = json!([{"id": 1, "name": "person"}]);
    let file = json!({"images": images, "annotations": annotations, "categories": categories});
    tree.file(INSTANCES, file.to_string());
    let set = open_coco_object(&tree.path(""), None).unwrap();
    let mut empty = 0;
    for (
        Case {
            name, size, rle, ..
        },
        sample,
    ) in cases.iter().zip(0..)
    {
        let [height, width] = *size;
        let expected = Rle::from_compressed(rle, height, width).unwrap();
        let regions = set.instances(sample).unwrap().unwrap();
        match regions.as_slice() {
            [] => {
                assert_eq!(expected.area(), 0, "{name}");
                empty += 1;
            }
            [region] => assert_eq!(region.mask.to_compressed(), *rle, "{name}"),
            _ => panic!("{name}: one annotation, {} regions", regions.len()),
        }
        let truth = set.truth(sample).unwrap();
        assert_eq!((truth.height(), truth.width()), (height, width), "{name}");
        assert_eq!(truth.counts(2)[1], expected.area(), "{name}");
    }
    assert!((1..100).contains(&empty), "{empty}");
}

#[test]
fn real_objects_are_those_of_pycocotools() {
    let Some(coco) = shared("coco") else { return };
    let Golden { real, .. } = golden();
    let set = open_coco_object(&coco, None).unwrap();
    assert_eq!(
        (set.name(), set.split(), set.background()),
        ("coco-object", "val2017", Some(0))
    );
    assert_eq!(set.samples().len(), 79);
    assert_eq!(set.classes()[1..], classes::coco()[..]);
    let mut objects = 0;
    let mut maps = Vec::new();
    for (sample, photo) in set.samples().iter().enumerate() {
        objects += set.instances(sample).unwrap().unwrap().len();
        let truth = set.truth(sample).unwrap();
        let image = percept_image::open(&photo.image, &Default::default()).unwrap();
        assert_eq!((truth.width(), truth.height()), image.dimensions());
        for label in BTreeSet::from_iter(truth.data().iter().copied()) {
            let rle = Rle::from_labels(&truth, label).to_compressed();
            maps.push(format!("{label} {rle}"));
        }
    }
    assert_eq!(objects, 619);
    assert_eq!(fnv1a(&maps), real.maps);

    // The five crowds as well, taken for objects.
    let mut file: Value = serde_json::from_slice(&fs::read(coco.join(INSTANCES)).unwrap()).unwrap();
    for annotation in file["annotations"].as_array_mut().unwrap() {
        annotation["iscrowd"] = json!(0);
    }
    let tree = Tree::new();
    photo(&tree, file["images"][0]["file_name"].as_str().unwrap());
    tree.file(INSTANCES, file.to_string());
    let set = open_coco_object(&tree.path(""), Some("val")).unwrap();
    let samples = 0..set.samples().len();
    let regions: Vec<_> = samples
        .flat_map(|sample| set.instances(sample).unwrap().unwrap())
        .collect();
    let areas: Vec<u64> = regions.iter().map(|region| region.mask.area()).collect();
    assert_eq!(areas.len(), 624);
    assert_eq!(areas, real.areas);
    let masks: Vec<String> = regions.iter().map(|r| r.mask.to_compressed()).collect();
    assert_eq!(fnv1a(&masks), real.masks);
}

#[test]
fn real_captions_are_five_a_photo() {
    let Some(coco) = shared("coco") else { return };
    for root in [coco.clone(), coco.parent().unwrap().to_owned()] {
        let set = open_coco_captions(&root, None).unwrap();
        assert_eq!(set.name, "coco-captions");
        assert_eq!((set.samples.len(), set.captions()), (79, 395));
        for sample in &set.samples {
            assert!(sample.image.is_file(), "{}", sample.id);
            let captions = &sample.captions;
            assert!(captions.iter().all(|c| !c.is_empty() && c.trim() == c));
        }
    }
}

#[test]
fn the_larger_mask_is_painted_first() {
    // Two columns, then one pixel of them, then two pixels of which one is the same.
    let set = open_instances(&instances(json!([
        {"id": 1, "image_id": 7, "category_id": 90, "segmentation": [[1, 0, 2, 0, 2, 1, 1, 1]]},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 3, 0, 3]]},
        {"id": 3, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]},
        {"id": 4, "image_id": 7, "category_id": 90, "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]},
        {"id": 5, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 0, 0, 0, 0]]},
    ])));
    let set = set.unwrap();
    assert_eq!(set.classes().len(), 81);
    assert_eq!(
        set.truth(0).unwrap().data(),
        [80, 80, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    );
    // In the order of the file, hidden ones whole, and none without a pixel.
    assert_eq!(
        objects(&set, 0),
        [
            (80, vec![3, 1, 8]),
            (1, vec![0, 6, 6]),
            (1, vec![0, 1, 11]),
            (80, vec![0, 1, 11])
        ]
    );
    let error = message(set.truth(1));
    assert_eq!(error, "coco-object has 1 photos, no number 1");
    assert!(set.instances(1).is_err());
}

#[test]
fn crowds_are_painted_but_are_no_objects() {
    let set = open_instances(&instances(json!([
        {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 1,
            "segmentation": {"size": [3, 4], "counts": [0, 3, 9]}},
        {"id": 2, "image_id": 7, "category_id": 90, "iscrowd": 0,
            "segmentation": {"size": [3, 4], "counts": "93"}},
    ])));
    let set = set.unwrap();
    assert_eq!(
        set.truth(0).unwrap().data(),
        [1, 0, 0, 80, 1, 0, 0, 80, 1, 0, 0, 80]
    );
    assert_eq!(objects(&set, 0), [(80, vec![9, 3])]);
}

#[test]
fn runs_are_read_as_numbers_and_as_text() {
    let mask = Rle::from_mask(&[false, true, true, false].repeat(3), 3, 4).unwrap();
    let text = mask.to_compressed();
    let set = open_instances(&instances(json!([
        {"id": 1, "image_id": 7, "category_id": 1,
            "segmentation": {"size": [3, 4], "counts": mask.counts}},
        {"id": 2, "image_id": 7, "category_id": 1,
            "segmentation": {"counts": text, "size": [3, 4]}},
        // As some tools write them: with runs of nothing.
        {"id": 3, "image_id": 7, "category_id": 1,
            "segmentation": {"size": [3, 4], "counts": [3, 2, 0, 4, 3, 0]}},
    ])));
    let set = set.unwrap();
    let regions = set.instances(0).unwrap().unwrap();
    for region in &regions {
        assert_eq!(region.mask.area(), 6);
        assert_eq!(region.mask.to_mask(), mask.to_mask());
        assert_eq!(region.mask.bbox(), [1.0, 0.0, 2.0, 3.0]);
    }
    assert_eq!(regions.len(), 3);
}

#[test]
fn masks_of_another_size_are_refused_when_read() {
    for (segmentation, reason) in [
        (
            json!({"size": [4, 3], "counts": [0, 12]}),
            "a mask of 4 x 3 (height x width) in a photo of 3 x 4",
        ),
        (
            json!({"size": [4, 3], "counts": "0<"}),
            "a mask of 4 x 3 (height x width) in a photo of 3 x 4",
        ),
        (
            json!({"size": [3, 4], "counts": [0, 11]}),
            "runs of 11 pixels in a photo of 3 x 4",
        ),
        (
            json!({"size": [3, 4], "counts": [1, u32::MAX, 12]}),
            "runs of 4294967308 pixels",
        ),
        (
            json!({"size": [3, 4], "counts": "0;"}),
            "11 pixels do not fill a mask of 3 x 4",
        ),
        (json!({"size": [3, 4], "counts": "é"}), "byte 0xc3"),
    ] {
        let set = open_instances(&instances(json!([
            {"id": 11, "image_id": 7, "category_id": 1, "segmentation": segmentation},
        ])));
        let set = set.unwrap();
        for error in [message(set.truth(0)), message(set.instances(0))] {
            assert!(
                error.contains("instances_val2017.json: annotation 11: ") && error.contains(reason),
                "{error}"
            );
        }
    }
}

/// What was left out or odd, a line a kind.
fn odd(omissions: &Omissions) -> Vec<String> {
    omissions.kinds().iter().map(ToString::to_string).collect()
}

/// An object of 2 x 2 pixels with one key changed, beside one of another photo that is as it should be.
fn changed(key: &str, value: Value) -> Value {
    let square = json!([[0, 0, 2, 0, 2, 2, 0, 2]]);
    let mut one =
        json!({"id": 11, "image_id": 7, "category_id": 1, "segmentation": square, "iscrowd": 0});
    let mut other = one.clone();
    other["id"] = json!(12);
    other["image_id"] = json!(8);
    match value {
        Value::String(text) if text == "missing" => {
            one.as_object_mut().unwrap().remove(key);
        }
        value => one[key] = value,
    }
    let mut file = instances(json!([one, other]));
    let image = json!({"id": 8, "file_name": "b.jpg", "height": 3, "width": 4});
    file["images"].as_array_mut().unwrap().push(image);
    file
}

#[test]
fn odd_annotations_are_read_as_pycocotools_reads_them_and_counted() {
    for (key, value, pixels, kind) in [
        (
            "segmentation",
            json!([[0, 0, 2, 0, 2, 2, 0, 2, 9]]),
            4,
            "an odd count of numbers",
        ),
        (
            "segmentation",
            json!([[0, 0, 2, 0, 2, 2, 0, 2], []]),
            4,
            "with an empty polygon",
        ),
        (
            "segmentation",
            json!([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1]]),
            4,
            "fewer than three points",
        ),
        (
            "segmentation",
            json!([[0, 0, 2, 2], [0, 0, 2, 0, 2, 2, 0, 2]]),
            4,
            "fewer than three points",
        ),
        (
            "segmentation",
            json!({"size": [3.0, 4.0], "counts": [0.0, 2.0, 10.0]}),
            2,
            "not written as whole",
        ),
        ("iscrowd", json!(2), 4, "neither 0 nor 1"),
        (
            "id",
            json!(null),
            4,
            "annotations without an id: 1 (one of image 7)",
        ),
        ("id", json!("missing"), 4, "annotations without an id"),
        (
            "id",
            json!(12),
            4,
            "annotations with the id of another, each counted: 1 (annotation 12)",
        ),
        (
            "image_id",
            json!("7"),
            4,
            "annotations whose image_id is text",
        ),
        (
            "category_id",
            json!(12),
            0,
            "a category that is not listed, whose pixels are ignored: 1 (annotation 11 of category 12)",
        ),
        (
            "image_id",
            json!(9),
            0,
            "images that are not listed, left out: 1 (annotation 11 of image 9)",
        ),
        (
            "image_id",
            json!("missing"),
            0,
            "annotation 11 of image without an id",
        ),
        ("iscrowd", json!(false), 4, ""),
        ("iscrowd", json!(null), 4, ""),
        ("iscrowd", json!("missing"), 4, ""),
        ("image_id", json!(7.0), 4, ""),
        ("category_id", json!(1.0), 4, ""),
        ("id", json!("a1"), 4, ""),
        ("area", json!(null), 4, ""),
    ] {
        let set = open_instances(&changed(key, value.clone())).unwrap();
        assert_eq!(set.samples().len(), 2, "{key} {value}");
        let found = set.truth(0).unwrap().counts(2)[1];
        assert_eq!(found, pixels, "{key} {value}");
        let is_object = set.instances(0).unwrap().unwrap().len() as u64;
        assert_eq!(
            is_object,
            u64::from(pixels > 0 && value != json!(2)),
            "{key} {value}"
        );
        assert_eq!(set.truth(1).unwrap().counts(2)[1], 4);
        let odd = odd(set.omissions()).join("; ");
        assert!(
            odd.contains(kind) && odd.is_empty() == kind.is_empty(),
            "{key} {value}: {odd}"
        );
    }
}

#[test]
fn a_photo_with_an_object_of_unknown_pixels_is_left_out() {
    let huge = [-90000, 0, 90000, 0].repeat(20);
    for (value, kind) in [
        (
            json!([]),
            "for an object without a mask (their boxes are for detection): 1 (image 7: annotation 11)",
        ),
        (json!("missing"), "for an object without a mask"),
        (json!(null), "for an object without a mask"),
        (json!([[]]), "for an object without a mask"),
        (json!([[0, 0, 2, 2]]), "for an object without a mask"),
        (
            json!([0, 0, 2, 0, 2, 2]),
            "whose mask cannot be read: 1 (image 7: annotation 11: a value where",
        ),
        (
            json!([[[0, 0], [2, 0], [2, 2]]]),
            "annotation 11: a polygon with something else than finite",
        ),
        (
            json!([[0, 0, 1e9, 0, 1e9, 1e9]]),
            "annotation 11: a coordinate of 1000000000 is far outside",
        ),
        (json!([huge]), "annotation 11: an outline of 7200"),
        (
            json!({"size": [3, 4], "counts": [-1, 13]}),
            "annotation 11: run lengths that are no whole",
        ),
        (
            json!({"size": [3, 4]}),
            "annotation 11: a mask without `counts`",
        ),
        (json!(7), "annotation 11: neither polygons nor run lengths"),
    ] {
        let set = open_instances(&changed("segmentation", value.clone())).unwrap();
        let ids: Vec<&str> = set
            .samples()
            .iter()
            .map(|sample| sample.id.as_str())
            .collect();
        assert_eq!(ids, ["b"], "{value}");
        assert_eq!(set.truth(0).unwrap().counts(2)[1], 4);
        let odd = odd(set.omissions()).join("; ");
        assert!(odd.contains(kind), "{value}: {odd}");
    }
    // A file for detection has nothing to count.
    let mut file =
        instances(json!([{"id": 1, "image_id": 7, "category_id": 1, "segmentation": []}]));
    file["images"].as_array_mut().unwrap().truncate(1);
    let error = message(open_instances(&file));
    assert!(
        error.contains("no photo is left whose objects all have a mask; photos left out"),
        "{error}"
    );
}

#[test]
fn odd_photos_cost_only_themselves() {
    let with = |image: Value| {
        let mut file = changed("area", json!(4));
        file["images"].as_array_mut().unwrap().push(image);
        file
    };
    let listed =
        |id: Value, name: Value| json!({"id": id, "file_name": name, "height": 3, "width": 4});
    for (image, kind) in [
        (
            listed(json!(7), json!("a.jpg")),
            "images listed twice, counted once: 1 (image 7)",
        ),
        (
            listed(json!("7"), json!("./a.jpg")),
            "images listed twice, counted once",
        ),
        (
            listed(json!(7), json!("c.jpg")),
            "with the id of another, of which the last counts: 1 (image 7)",
        ),
        (
            listed(json!(9), json!("a.jpg")),
            "photos listed under two ids, with the annotations of both: 1 (image 9",
        ),
        (
            listed(json!(9), json!("../x.jpg")),
            "leads out of the photos, left out: 1 (image 9: `../x.jpg`)",
        ),
        (listed(json!(9), json!(null)), "file_name is missing"),
        (
            listed(json!(null), json!("c.jpg")),
            "images without an id, left out: 1 (`c.jpg`)",
        ),
        (
            json!("c.jpg"),
            "items of `images` that are no objects, left out: 1 (number ",
        ),
    ] {
        let set = open_instances(&with(image.clone())).unwrap();
        assert_eq!(set.samples().len(), 2, "{image}");
        let odd = odd(set.omissions()).join("; ");
        assert!(odd.contains(kind), "{image}: {odd}");
        let name = set.samples()[0]
            .image
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        assert_eq!(name == "c.jpg", odd.contains("the last counts"), "{image}");
    }
    // Annotations under either id are of the one photo.
    let mut file = with(listed(json!(9), json!("a.jpg")));
    let more = json!({"id": 13, "image_id": 9, "category_id": 90, "segmentation": [[3, 0, 4, 0, 4, 3, 3, 3]]});
    file["annotations"].as_array_mut().unwrap().push(more);
    let set = open_instances(&file).unwrap();
    assert_eq!(objects(&set, 0).len(), 2);
    // Sizes are read as numbers in any spelling, or from the photo.
    for (width, kind) in [
        (
            json!(4.0),
            "written as text or with a decimal point: 1 (image 7)",
        ),
        (json!("4"), "written as text or with a decimal point"),
        (
            json!("four"),
            "is no whole number above 0, read from the photo: 1 (image 7)",
        ),
        (
            json!(0),
            "is no whole number above 0, read from the photo: 1 (image 7)",
        ),
        (json!(null), ""),
    ] {
        let tree = Tree::new();
        let photo = percept_image::RgbImage::new(4, 3);
        tree.file("val2017/a.jpg", percept_image::png_rgb(&photo).unwrap());
        let mut file = changed("area", json!(4));
        file["images"][0]["width"] = width.clone();
        tree.file(INSTANCES, file.to_string());
        let set = open_coco_object(&tree.path(""), None).unwrap();
        let truth = set.truth(0).unwrap();
        assert_eq!(
            (truth.width(), truth.height(), truth.counts(2)[1]),
            (4, 3, 4)
        );
        let odd = odd(set.omissions()).join("; ");
        assert!(
            odd.contains(kind) && odd.is_empty() == kind.is_empty() || width.is_null(),
            "{width}: {odd}"
        );
    }
    let mut file = changed("area", json!(4));
    file["images"][0]["width"] = json!(20_001);
    let set = open_instances(&file).unwrap();
    let reason = "image 7: 20001 x 3 is no size of a photo";
    assert!(message(set.truth(0)).contains(reason));
    assert!(set.truth(1).is_ok());
    let mut file = changed("area", json!(4));
    file["images"][0]["width"] = json!(null);
    let tree = Tree::new();
    photo(&tree, "a.jpg");
    tree.file(INSTANCES, file.to_string());
    let set = open_coco_object(&tree.path(""), None).unwrap();
    let error = message(set.truth(0));
    assert_eq!(error.matches("a.jpg").count(), 1, "{error}");
    assert!(error.contains("a.jpg: not an image"), "{error}");
    drop(tree);
    assert!(matches!(set.truth(0), Err(DataError::Io { .. })));
}

#[test]
fn photos_are_found_under_the_names_of_other_systems() {
    for (name, photo) in [
        ("a.jpg", "val2017/a.jpg"),
        ("val2017/a.jpg", "val2017/a.jpg"),
        ("images\\a.jpg", "val2017/a.jpg"),
        ("C:\\data\\a.jpg", "val2017/a.jpg"),
        ("/mnt/data/a.jpg", "val2017/a.jpg"),
        ("deep\\a.jpg", "val2017/deep/a.jpg"),
    ] {
        let tree = Tree::new();
        tree.file(photo, "a photo");
        let mut file = instances(json!([]));
        file["images"][0]["file_name"] = json!(name);
        tree.file(INSTANCES, file.to_string());
        let set = open_coco_object(&tree.path(""), None).unwrap();
        assert_eq!(set.samples()[0].image, tree.path(photo), "{name}");
        let mut odd = odd(set.omissions());
        odd.retain(|kind| !kind.starts_with("files without any annotation"));
        assert_eq!(odd.is_empty(), name == "a.jpg");
    }
    // Not by the name alone where two have it, and never from elsewhere.
    let tree = Tree::new();
    tree.file("val2017/a.jpg", "a photo")
        .file("secret/a.jpg", "");
    let mut file = instances(json!([]));
    file["images"] = json!([
        {"id": 1, "file_name": "a.jpg", "height": 3, "width": 4},
        {"id": 2, "file_name": "x/a.jpg", "height": 3, "width": 4},
        {"id": 3, "file_name": "../secret/a.jpg", "height": 3, "width": 4},
    ]);
    tree.file(INSTANCES, file.to_string());
    let set = open_coco_object(&tree.path(""), None).unwrap();
    let images: Vec<_> = set
        .samples()
        .iter()
        .map(|sample| sample.image.clone())
        .collect();
    assert_eq!(
        images,
        [tree.path("val2017/a.jpg"), tree.path("val2017/x/a.jpg")]
    );
}

#[test]
fn json_as_python_and_editors_write_it_is_read() {
    let tree = Tree::new();
    photo(&tree, "a.jpg");
    let text = changed("area", json!("NOT"))
        .to_string()
        .replace("\"NOT\"", "NaN");
    let twice = text.replacen("\"iscrowd\":0", "\"iscrowd\":1,\"iscrowd\":0", 1);
    let nan = text.replacen("[0,0,2,0,2,2,0,2]", "[0,0,2,0,2,2,0,NaN]", 1);
    for text in [text, twice] {
        tree.file(INSTANCES, format!("\u{feff}{text}"));
        let set = open_coco_object(&tree.path(""), None).unwrap();
        assert_eq!(objects(&set, 0).len(), 1);
        assert!(set.omissions().is_empty());
    }
    // One that is needed costs its photo.
    tree.file(INSTANCES, nan);
    let set = open_coco_object(&tree.path(""), None).unwrap();
    assert_eq!(set.samples().len(), 1);
}

#[test]
fn files_that_make_no_sense_are_refused_when_opened() {
    let with = |key: &str, value: Value| {
        let mut file = instances(json!([]));
        file[key] = value;
        file
    };
    for (file, reason) in [
        (with("images", json!([])), "no photo is listed here"),
        (
            with("images", json!([{"id": 7}])),
            "no photo is listed here; images whose file_name",
        ),
        (
            with("categories", json!([])),
            "0 categories, not 1 to 65000",
        ),
        (
            with("categories", json!([{"id": 5}])),
            "0 categories, not 1 to 65000; categories without",
        ),
        (with("categories", Value::Null), "no list `categories`"),
        (with("annotations", Value::Null), "no list `annotations`"),
        (
            with("annotations", json!({"a": 1})),
            "no list `annotations`",
        ),
        (json!([]), "no list `images`"),
    ] {
        let error = message(open_instances(&file));
        assert!(
            error.contains("instances_val2017.json: ") && error.contains(reason),
            "expected {reason}: {error}"
        );
    }
    let tree = Tree::new();
    photo(&tree, "a.jpg");
    let text = instances(json!([])).to_string();
    tree.file(INSTANCES, &text[..text.len() / 2]);
    let error = message(open_coco_object(&tree.path(""), None));
    assert!(error.contains("instances_val2017.json: EOF"), "{error}");
}

#[test]
fn photos_that_are_missing_are_named() {
    let tree = Tree::new();
    photo(&tree, "b.jpg");
    let mut file = instances(json!([]));
    tree.file(INSTANCES, file.to_string());
    let error = message(open_coco_object(&tree.path(""), None));
    assert!(error.contains("a.jpg, found b.jpg in "), "{error}");
    // One of the first is enough: the other may be missing on purpose.
    let there = json!({"id": 8, "file_name": "b.jpg", "height": 3, "width": 4});
    file["images"].as_array_mut().unwrap().push(there);
    tree.file(INSTANCES, file.to_string());
    assert_eq!(
        open_coco_object(&tree.path(""), None)
            .unwrap()
            .samples()
            .len(),
        2
    );
}

#[test]
fn each_layout_is_found_or_explained() {
    let file = instances(json!([])).to_string();
    for (above, photos) in [
        ("", "val2017"),
        ("", "images/val2017"),
        ("coco/", "val2017"),
        ("coco/", "images/val2017"),
    ] {
        let tree = Tree::new();
        tree.file(&format!("{above}{INSTANCES}"), &file)
            .file(&format!("{above}{photos}/a.jpg"), "a photo");
        let set = open_coco_object(&tree.path(""), None).unwrap();
        let image = tree.path(&format!("{above}{photos}/a.jpg"));
        assert_eq!(
            (set.samples()[0].id.as_str(), &set.samples()[0].image),
            ("a", &image)
        );
    }
    let tree = Tree::new();
    tree.file(&format!("data/coco/{INSTANCES}"), &file)
        .file("data/coco/val2017/a.jpg", "a photo")
        .file("elsewhere/x", "");
    for (given, meant) in [
        ("data/coco/annotations", "data/coco"),
        ("data/coco/val2017", "data/coco"),
        ("", "data"),
        ("elsewhere", "data"),
    ] {
        let hint = format!("; did you mean --data {}?", tree.path(meant).display());
        let error = message(open_coco_object(&tree.path(given), None));
        assert!(
            error.starts_with("expected ") && error.ends_with(&hint),
            "{error}"
        );
    }
    // Another split, and other annotations than are there.
    let coco = tree.path("data/coco");
    let error = message(open_coco_object(&coco, Some("train")));
    assert!(
        error.contains("train2017, found annotations, val2017 in "),
        "{error}"
    );
    let error = message(open_coco_captions(&coco, None));
    assert!(
        error.contains("captions_val2017.json, found instances_val2017.json in "),
        "{error}"
    );
    let error = message(open_coco_panoptic(&coco, None));
    assert!(error.contains("panoptic_val2017.json, found "), "{error}");
    assert!(matches!(
        open_coco_object(&coco, Some("../val")),
        Err(DataError::Setting(_))
    ));
}

/// A PNG of segment ids, a row of them.
fn segments(ids: &[u32]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut encoder = png::Encoder::new(&mut encoded, ids.len() as u32, 1);
    encoder.set_color(png::ColorType::Rgb);
    let data: Vec<u8> = ids
        .iter()
        .flat_map(|id| id.to_le_bytes()[..3].to_vec())
        .collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&data).unwrap();
    writer.finish().unwrap();
    encoded
}

/// A photo of 6 x 1 pixels with two persons, a crowd of them, and a wall.
fn panoptic() -> Value {
    json!({
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 1, "width": 6},
            {"id": 8, "file_name": "b.jpg", "height": 1, "width": 6},
        ],
        "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": [
            {"id": 70_000, "category_id": 1, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]},
            {"id": 256, "category_id": 1, "iscrowd": 0},
            {"id": 3, "category_id": 1, "iscrowd": 1},
            {"id": 4, "category_id": 199},
            {"id": 5, "category_id": 1, "iscrowd": 0},
        ]}],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 199, "name": "wall-other-merged", "isthing": 0},
        ],
    })
}

fn panoptic_tree(file: &Value, mask: &[u8]) -> Tree {
    let tree = Tree::new();
    photo(&tree, "a.jpg");
    tree.file(PANOPTIC, file.to_string())
        .file("annotations/panoptic_val2017/a.png", mask);
    tree
}

fn open_panoptic(file: &Value, mask: &[u8]) -> Result<(Tree, PanopticSet), DataError> {
    let tree = panoptic_tree(file, mask);
    let set = open_coco_panoptic(&tree.path(""), None)?;
    Ok((tree, set))
}

#[test]
fn panoptic_segments_are_classes_and_things() {
    let mask = segments(&[70_000, 256, 3, 4, 0, 4]);
    let (_tree, set) = open_panoptic(&panoptic(), &mask).unwrap();
    assert_eq!(
        (set.name(), set.split(), set.background()),
        ("coco", "val2017", None)
    );
    let names: Vec<_> = (set.classes().iter())
        .map(|class| (class.name.as_str(), class.synonyms.join(", ")))
        .collect();
    assert_eq!(
        names,
        [
            ("person", "person".to_owned()),
            ("wall-other-merged", "wall".to_owned())
        ]
    );
    // The second photo has no annotation.
    assert_eq!(set.samples().len(), 1);
    assert_eq!(set.truth(0).unwrap().data(), [0, 0, 0, 1, IGNORE, 1]);
    let regions = set.instances(0).unwrap().unwrap();
    let regions: Vec<_> = (regions.into_iter())
        .map(|region| (region.class, region.mask.counts))
        .collect();
    assert_eq!(regions, [(0, vec![0, 1, 5]), (0, vec![1, 1, 4])]);
    assert!(message(set.truth(1)).ends_with("coco has 1 photos, no number 1"));
}

#[test]
fn panoptic_masks_lie_in_either_place() {
    let tree = Tree::new();
    photo(&tree, "a.jpg");
    tree.file(PANOPTIC, panoptic().to_string())
        .file("panoptic_val2017/a.png", segments(&[4; 6]));
    let set = open_coco_panoptic(&tree.path(""), None).unwrap();
    assert_eq!(set.truth(0).unwrap().data(), [1; 6]);
}

#[test]
fn panoptic_masks_that_do_not_fit_are_refused_when_read() {
    for (mask, reason) in [
        (
            segments(&[4, 4, 4, 4, 4, 9]),
            "a.png: segment 9 is not listed in ",
        ),
        (
            segments(&[4, 4, 4, 4]),
            "a.png: 4 x 1 pixels, but the photo has 6 x 1",
        ),
        (b"GIF89a".to_vec(), "a.png: cannot decode as PNG"),
    ] {
        let (_tree, set) = open_panoptic(&panoptic(), &mask).unwrap();
        for error in [message(set.truth(0)), message(set.instances(0))] {
            assert!(error.contains(reason), "{error}");
        }
    }
    let (tree, set) = open_panoptic(&panoptic(), &segments(&[4; 6])).unwrap();
    fs::remove_file(tree.path("annotations/panoptic_val2017/a.png")).unwrap();
    assert!(matches!(set.truth(0), Err(DataError::Io { .. })));
}

#[test]
fn odd_panoptic_annotations_cost_only_themselves() {
    let changed = |pointer: &str, value: Value| {
        let mut file = panoptic();
        let mut second = file["annotations"][0].clone();
        second["image_id"] = json!(8);
        file["annotations"].as_array_mut().unwrap().push(second);
        *file.pointer_mut(pointer).unwrap() = value;
        file
    };
    let segment = "/annotations/0/segments_info/1";
    for (file, kind, left) in [
        (
            changed(&format!("{segment}/category_id"), json!(2)),
            "cannot be read, left out: 1 (image 7: segment 256: no category 2)",
            "b",
        ),
        (
            changed(&format!("{segment}/id"), json!(3)),
            "image 7: segment 3 is there twice",
            "b",
        ),
        (
            changed(&format!("{segment}/id"), json!(null)),
            "image 7: segment without an id",
            "b",
        ),
        (
            changed("/annotations/0/file_name", json!("../a.png")),
            "image 7: `../a.png` leads out of the masks",
            "b",
        ),
        (
            changed("/annotations/0/segments_info", json!(null)),
            "no list `segments_info`",
            "b",
        ),
        (
            changed("/annotations/0/image_id", json!(9)),
            "not listed, left out: 1 (one of image 9)",
            "b",
        ),
        (
            changed("/images/0/file_name", json!("../a.jpg")),
            "image 7: `../a.jpg`",
            "a,b",
        ),
        (
            changed("/annotations/1/image_id", json!(7)),
            "of which the last counts: 1 (image 7)",
            "a",
        ),
    ] {
        let tree = panoptic_tree(&file, &segments(&[4; 6]));
        photo(&tree, "b.jpg");
        let set = open_coco_panoptic(&tree.path(""), None).unwrap();
        let ids: Vec<&str> = set
            .samples()
            .iter()
            .map(|sample| sample.id.as_str())
            .collect();
        assert_eq!(ids.join(","), left, "{kind}");
        let odd = odd(set.omissions()).join("; ");
        assert!(odd.contains(kind), "expected {kind}: {odd}");
        assert_eq!(set.truth(0).unwrap().data(), [1; 6]);
    }
    // The other spellings of ids and answers.
    let mut file = panoptic();
    file["annotations"][0]["segments_info"][0]["id"] = json!(70_000.0);
    file["annotations"][0]["segments_info"][2]["iscrowd"] = json!(true);
    file["categories"][0]["isthing"] = json!(true);
    let (_tree, set) = open_panoptic(&file, &segments(&[70_000, 256, 3, 4, 0, 4])).unwrap();
    assert_eq!(set.instances(0).unwrap().unwrap().len(), 2);
    assert_eq!(
        odd(set.omissions()),
        ["photos without an annotation, left out: 1 (b)"]
    );
}

#[test]
fn panoptic_files_that_make_no_sense_are_refused_when_opened() {
    let with = |key: &str, value: Value| {
        let mut file = panoptic();
        file[key] = value;
        file
    };
    for (file, reason) in [
        (with("annotations", json!([])), "no photo is annotated here"),
        (with("annotations", json!(null)), "no list `annotations`"),
        (
            with("categories", json!([{"id": 1}])),
            "no category has an id and a name; categories",
        ),
        (with("images", json!([])), "no photo is listed here"),
    ] {
        let error = message(open_panoptic(&file, &segments(&[4; 6])).map(|(_, set)| set));
        assert!(
            error.contains("panoptic_val2017.json: ") && error.contains(reason),
            "expected {reason}: {error}"
        );
    }
}

#[test]
fn captions_are_trimmed_and_kept_in_order() {
    let tree = Tree::new();
    photo(&tree, "a.jpg");
    let file = |annotations: Value| {
        json!({
            "images": [
                {"id": 7, "file_name": "a.jpg"},
                {"id": 8, "file_name": "b.jpg"},
                {"id": 9, "file_name": "c.jpg"},
            ],
            "annotations": annotations,
        })
        .to_string()
    };
    let open = || open_coco_captions(&tree.path(""), None);
    tree.file(
        CAPTIONS,
        file(json!([
            {"id": 1, "image_id": 9, "caption": "A cow.\n"},
            {"id": 2, "image_id": 7, "caption": "A cat."},
            {"id": 3, "image_id": 9, "caption": " Two cows."},
            {"id": 4, "image_id": 8, "caption": " \n"},
        ])),
    );
    let set = open().unwrap();
    let captions: Vec<_> = (set.samples.iter())
        .map(|sample| (sample.id.as_str(), sample.captions.join("|")))
        .collect();
    assert_eq!(
        captions,
        [
            ("a", "A cat.".to_owned()),
            ("c", "A cow.|Two cows.".to_owned())
        ]
    );
    assert_eq!(set.samples[1].image, tree.path("val2017/c.jpg"));
    tree.file(CAPTIONS, file(json!([{"image_id": 6, "caption": "x"}])));
    assert!(message(open()).contains("no photo has a caption here; annotations of images"));
    tree.file(CAPTIONS, file(json!([{"image_id": 7, "caption": " "}])));
    assert!(message(open()).contains("no photo has a caption here; empty captions"));
    // One odd caption costs itself only.
    tree.file(
        CAPTIONS,
        file(json!([
            {"id": 1, "image_id": "7", "caption": "A cat."},
            {"id": 2, "image_id": 7, "caption": null},
            {"id": 3, "image_id": 7, "caption": ["x"]},
            {"id": 4, "image_id": 6, "caption": "x"},
            null,
        ])),
    );
    let set = open().unwrap();
    assert_eq!((set.samples.len(), set.captions()), (1, 1));
    let odd = odd(&set.omissions).join("; ");
    for kind in [
        "annotations whose image_id is text",
        "captions that are no text, left out: 2 (annotation 2, annotation 3)",
        "images that are not listed, left out: 1 (annotation 4 of image 6)",
        "items of `annotations` that are no objects, left out: 1 (number ",
        "photos without a caption, left out: 2 (b, c)",
    ] {
        assert!(odd.contains(kind), "expected {kind}: {odd}");
    }
    tree.file(CAPTIONS, "{\"images\": [");
    assert!(message(open()).contains("captions_val2017.json: EOF while parsing"));
}

#[test]
fn categories_that_say_background_or_nothing_are_no_classes() {
    let square = |x: u32| json!([[x, 0, x + 1, 0, x + 1, 3, x, 3]]);
    let annotation = |id: u32, category: Value| json!({"id": id, "image_id": 7, "category_id": category, "segmentation": square(id)});
    for (background, ignored) in [("_background_", "__ignore__"), ("BACKGROUND", "void")] {
        let mut file = instances(json!([
            annotation(0, json!(0)),
            annotation(1, json!(2)),
            annotation(2, json!(55)),
            annotation(3, json!(1)),
        ]));
        file["categories"] = json!([
            {"id": 0, "name": background},
            {"id": 1, "name": "traffic_light"},
            {"id": 2, "name": ignored},
            {"id": 3, "name": "Traffic light"},
        ]);
        let set = open_instances(&file).unwrap();
        let names: Vec<&str> = set
            .classes()
            .iter()
            .map(|class| class.name.as_str())
            .collect();
        assert_eq!(names, ["background", "traffic_light"]);
        let truth = set.truth(0).unwrap();
        assert_eq!(truth.data().get(..4).unwrap(), [0, IGNORE, IGNORE, 1]);
        assert_eq!(objects(&set, 0).len(), 1);
        assert_eq!(set.omissions().count(), 4);
    }
}

#[test]
fn files_without_annotations_are_told() {
    let set = open_instances(&instances(json!([]))).unwrap();
    let kinds: Vec<String> = set
        .omissions()
        .kinds()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(kinds.len(), 1);
    assert!(
        kinds[0].starts_with("files without any annotation"),
        "{kinds:?}"
    );
}
