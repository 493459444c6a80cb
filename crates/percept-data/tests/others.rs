//! Image folders, captions in a CSV, Waterbirds, and sets like it made from others.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Tree, message, shared};
use percept_data::spurious::{Place, SpuriousReport, SpuriousSettings, build};
use percept_data::{
    CaptionSet, Competing, DataError, EmptyClasses, FolderOptions, ImageFolder, MaskSet, Omissions,
    Waterbirds, open_custom, open_voc,
};
use percept_image::{Rgb, RgbImage, png_rgb};

/// Folder and class of each class's first photo.
fn classes_of(set: &ImageFolder) -> Vec<(&str, &str)> {
    let mut seen = BTreeMap::new();
    for sample in &set.samples {
        let folder = sample.image.parent().unwrap().file_name().unwrap();
        seen.entry(sample.class).or_insert(folder.to_str().unwrap());
    }
    (seen.into_iter())
        .map(|(class, folder)| (folder, set.classes[usize::from(class)].name.as_str()))
        .collect()
}

/// What was left out or odd, a line a kind.
fn odd(omissions: &Omissions) -> Vec<String> {
    omissions.kinds().iter().map(ToString::to_string).collect()
}

fn open(tree: &Tree, competing: Competing) -> Result<ImageFolder, DataError> {
    ImageFolder::open(&tree.path(""), None, competing)
}

#[test]
fn imagenette_has_imagenets_names() {
    let Some(root) = shared("imagenette") else {
        return;
    };
    let expected = [
        ("n01440764", "tench"),
        ("n02102040", "English Springer Spaniel"),
        ("n02979186", "cassette player"),
        ("n03000684", "chainsaw"),
        ("n03028079", "church"),
        ("n03394916", "French horn"),
        ("n03417042", "garbage truck"),
        ("n03425413", "gas pump"),
        ("n03445777", "golf ball"),
        ("n03888257", "parachute"),
    ];
    for root in [root.clone(), root.join("val")] {
        let set = ImageFolder::open(&root, None, Competing::Present).unwrap();
        assert_eq!((set.classes.len(), set.samples.len()), (10, 300));
        assert_eq!(classes_of(&set), expected);
        let first = &set.samples[0];
        assert_eq!(first.id, "n01440764/ILSVRC2012_val_00009111");
        assert!(first.image.is_file());
        assert!(set.samples.is_sorted_by_key(|sample| sample.class));

        let set = ImageFolder::open(&root, None, Competing::ImageNet).unwrap();
        assert_eq!((set.classes.len(), set.samples.len()), (1000, 300));
        assert_eq!(classes_of(&set), expected);
        let last = set.samples.last().unwrap();
        assert_eq!(last.class, 701);
    }
}

#[test]
fn folders_are_named_after_their_classes() {
    let tree = Tree::new();
    tree.file("b_c/2.jpg", "")
        .file("b_c/1.PNG", "")
        .file("b_c/1.jpg", "")
        .file("b_c/notes.txt", "")
        .file("b_c/.1.jpg", "")
        .file("b_c/more/3.jpg", "")
        .file("a-d/1.webp", "")
        .file("a-d/._1.webp", "")
        .file("a-d/Thumbs.db", "")
        .file("__MACOSX/a-d/._1.webp", "")
        .file(".git/1.jpg", "")
        .file("5.jpg", "");
    let set = open(&tree, Competing::Present).unwrap();
    assert_eq!(classes_of(&set), [("a-d", "a d"), ("b_c", "b c")]);
    let ids: Vec<&str> = set.samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["a-d/1", "b_c/1", "b_c/1.jpg", "b_c/2"]);
    assert_eq!(set.samples[1].image, tree.path("b_c/1.PNG"));
    assert_eq!(
        odd(&set.omissions),
        [
            "copies that macOS makes (._*), passed over: 1 (a-d/._1.webp)",
            "files and folders of the system, passed over: 2 (a-d/Thumbs.db, __MACOSX)",
            "hidden files and folders, passed over: 2 (b_c/.1.jpg, .git)",
            "files passed over for the ending .txt: 1 (b_c/notes.txt)",
            "folders within class folders, passed over: 1 (b_c/more)",
            "photos beside the class folders, passed over: 1 (5.jpg)",
        ]
    );

    let error = message(open(&tree, Competing::ImageNet));
    assert!(error.contains("are not named as ImageNet's"), "{error}");
    // A folder `val` is the set, whatever is beside it.
    tree.file("val/x/1.jpg", "").file("train/y/1.jpg", "");
    let set = open(&tree, Competing::Present).unwrap();
    assert_eq!(classes_of(&set), [("x", "x")]);
}

#[test]
fn a_class_does_not_vanish_without_a_word() {
    for (file, instead) in [
        ("dog/images/1.jpg", "only folders, such as images"),
        ("dog/1.jfif", "only files of other endings (.jfif)"),
        ("dog/.gitkeep", "nothing"),
    ] {
        let tree = Tree::new();
        tree.file("cat/1.jpg", "").file(file, "");
        let error = message(open(&tree, Competing::Present));
        let reason = format!("dog: a class folder without photos; it holds {instead}");
        assert!(error.ends_with(&reason), "{error}");
        // It competes all the same, so that accuracy does not rise.
        let options = FolderOptions {
            empty: EmptyClasses::Keep,
            ..FolderOptions::default()
        };
        let set = ImageFolder::open_as(&tree.path(""), &options).unwrap();
        assert_eq!((set.classes.len(), set.samples.len()), (2, 1));
        assert_eq!(set.classes[1].name, "dog");
        let kind = "class folders without photos, whose classes compete all the same: 1 (dog: ";
        assert!(odd(&set.omissions).join("; ").contains(kind));
    }
    let tree = Tree::new();
    tree.file("cat/1.jpg", "")
        .file("a/x", "")
        .file("b/x.txt", "");
    let error = message(open(&tree, Competing::Present));
    assert!(
        error.ends_with("without an ending, and 1 more such folders")
            || error.contains("more such folders"),
        "{error}"
    );
}

#[test]
fn wnids_are_known_in_every_spelling_and_among_other_folders() {
    let tree = Tree::new();
    tree.file("n01440764-tench/1.jpg", "")
        .file("N02102040/1.jpg", "")
        .file("n02979186_cassette player/1.jpg", "")
        .file("n99999999-unknown_thing/1.jpg", "")
        .file("unsorted/1.jpg", "");
    let set = open(&tree, Competing::Present).unwrap();
    let names: Vec<&str> = set
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "English Springer Spaniel",
            "tench",
            "cassette player",
            "unknown thing",
            "unsorted"
        ]
    );
    assert_eq!(
        odd(&set.omissions),
        ["folders named otherwise among wnids, prompted by their own names: 1 (unsorted)"]
    );
    let set = open(&tree, Competing::ImageNet).unwrap();
    assert_eq!((set.classes.len(), set.samples.len()), (1000, 3));
    let classes: Vec<u16> = set.samples.iter().map(|sample| sample.class).collect();
    assert_eq!(classes, [0, 217, 482]);
    assert_eq!(
        odd(&set.omissions),
        [
            "folders that are none of ImageNet's 1,000 classes, left out: 2 (n99999999-unknown_thing (1 photos), unsorted (1 photos))"
        ]
    );
}

#[test]
fn folders_of_one_class_are_put_together() {
    let tree = Tree::new();
    tree.file("Golden_Retriever/1.jpg", "")
        .file("cat/1.jpg", "")
        .file("golden retriever/2.jpg", "");
    let set = open(&tree, Competing::Present).unwrap();
    assert_eq!(set.classes.len(), 2);
    let classes: Vec<u16> = set.samples.iter().map(|sample| sample.class).collect();
    assert_eq!(classes, [0, 0, 1]);
    assert_eq!(
        odd(&set.omissions),
        ["folders of the same class as another, put together with it: 1 (golden retriever)"]
    );
    let tree = Tree::new();
    tree.file("n01440764/1.jpg", "").file("N01440764/2.jpg", "");
    assert_eq!(open(&tree, Competing::Present).unwrap().classes.len(), 1);
}

#[test]
fn numbers_before_names_are_no_part_of_them_and_alone_are_told() {
    let tree = Tree::new();
    tree.file("001.ak47/1.jpg", "")
        .file("002.Black_footed_Albatross/1.jpg", "");
    let set = open(&tree, Competing::Present).unwrap();
    assert_eq!(set.classes[0].name, "ak47");
    assert_eq!(set.classes[1].name, "Black footed Albatross");
    let tree = Tree::new();
    tree.file("0/1.jpg", "").file("1/1.jpg", "");
    let set = open(&tree, Competing::Present).unwrap();
    assert_eq!(set.classes[1].name, "1");
    assert!(odd(&set.omissions)[0].starts_with("folders named by a number, prompted by it"));
}

#[test]
fn a_folder_without_classes_is_explained() {
    let tree = Tree::new();
    tree.file("photos/1.jpg", "").file("notes.txt", "");
    for (below, found) in [
        ("photos", "found 1.jpg in "),
        ("nowhere", "found notes.txt, photos in "),
        ("notes.txt", "notes.txt is a file"),
    ] {
        let root = tree.path(below);
        let error = message(ImageFolder::open(&root, None, Competing::Present));
        assert!(
            error.starts_with("expected ") && error.contains(found),
            "{below}: {error}"
        );
    }
}

#[test]
fn a_file_can_name_the_classes() {
    let tree = Tree::new();
    tree.file("photos/n1/1.jpg", "")
        .file("photos/cows/1.jpg", "")
        .file("names.txt", "folder,class\nn1\tsofa, couch\ncows,cow\n");
    let open = |competing| {
        let names = tree.path("names.txt");
        ImageFolder::open(&tree.path("photos"), Some(&names), competing)
    };
    let set = open(Competing::Present).unwrap();
    assert_eq!(classes_of(&set), [("cows", "cow"), ("n1", "sofa")]);
    assert_eq!(set.classes[1].synonyms, ["sofa", "couch"]);
    assert!(open(Competing::ImageNet).is_err());
    // A folder that was not unpacked: its class would not compete.
    tree.file("names.txt", "n1,sofa\ncows,cow\nplane,plane\n");
    let error = message(open(Competing::Present));
    assert!(error.contains("there is no folder for `plane`"), "{error}");
    let names = tree.path("names.txt");
    let options = FolderOptions {
        names: Some(&names),
        empty: EmptyClasses::Keep,
        ..FolderOptions::default()
    };
    let set = ImageFolder::open_as(&tree.path("photos"), &options).unwrap();
    assert_eq!(set.classes.len(), 2);
    assert_eq!(set.omissions.count(), 1);
    // Two folders of one class.
    tree.file("names.txt", "n1\tPet\ncows,pet\n");
    let set = open(Competing::Present).unwrap();
    assert_eq!((set.classes.len(), set.samples.len()), (1, 2));
    assert_eq!(set.omissions.count(), 1);
    tree.file("names.txt", "n1\tsofa\n");
    let error = message(open(Competing::Present));
    let file = tree.path("names.txt").display().to_string();
    assert!(error.starts_with(&file), "{error}");
    let folder = tree.path("photos/cows").display().to_string();
    assert!(
        error.ends_with(&format!(": has no line for the class folder {folder}")),
        "{error}"
    );
    fs::remove_file(tree.path("names.txt")).unwrap();
    assert!(matches!(
        open(Competing::Present),
        Err(DataError::Io { .. })
    ));
}

#[test]
fn imagenet_v2_numbers_its_folders() {
    let tree = Tree::new();
    for folder in ["0", "10", "9", "701"] {
        tree.file(&format!("{folder}/{folder}.jpeg"), "");
    }
    let set = open(&tree, Competing::ImageNet).unwrap();
    assert_eq!(set.classes.len(), 1000);
    let samples: Vec<_> = (set.samples.iter())
        .map(|sample| (sample.id.as_str(), sample.class))
        .collect();
    assert_eq!(
        samples,
        [("0/0", 0), ("9/9", 9), ("10/10", 10), ("701/701", 701)]
    );
    // A few numbers alone may be anything, digits say.
    let set = open(&tree, Competing::Present).unwrap();
    assert_eq!(classes_of(&set)[1], ("10", "10"));
    for number in 0..1000 {
        tree.file(&format!("{number}/a.jpeg"), "");
    }
    let set = open(&tree, Competing::Present).unwrap();
    assert_eq!(classes_of(&set)[10], ("10", "brambling"));
    assert_eq!(classes_of(&set)[701], ("701", "parachute"));
}

#[test]
fn unknown_wnids_are_refused() {
    let tree = Tree::new();
    tree.file("n01440764/1.jpg", "").file("n99999999/1.jpg", "");
    let error = message(open(&tree, Competing::Present));
    assert!(
        error.contains("n99999999: none of ImageNet's 1,000 classes"),
        "{error}"
    );
}

#[test]
fn rows_of_a_photo_are_its_captions() {
    let tree = Tree::new();
    let csv = tree.path("set/flickr.csv");
    for text in [
        "filepath\ttitle\nb/2.jpg\tA cow, lying.\n1.jpg\t\"A \"\"cat\"\"\"\nb/2.jpg\tTwo cows.\n",
        "\u{feff}n,title,filepath\r\n1,\"A cow, lying. \",b/2.jpg\r\n2,\"A \"\"cat\"\"\",1.jpg\r\n\
         3,Two cows.,./b/2.jpg\r\n",
    ] {
        tree.file("set/flickr.csv", text);
        let set = CaptionSet::from_csv(&csv, None).unwrap();
        assert_eq!((set.name.as_str(), set.captions()), ("flickr", 3));
        let samples: Vec<_> = (set.samples.iter())
            .map(|sample| (sample.id.as_str(), sample.captions.join("|")))
            .collect();
        let expected = [("b/2", "A cow, lying.|Two cows."), ("1", "A \"cat\"")];
        assert_eq!(samples, expected.map(|(id, said)| (id, said.to_owned())));
        assert_eq!(set.samples[0].image, tree.path("set/b/2.jpg"));
        let elsewhere = CaptionSet::from_csv(&csv, Some(Path::new("photos"))).unwrap();
        assert_eq!(elsewhere.samples[1].image, PathBuf::from("photos/1.jpg"));
    }
}

#[test]
fn odd_rows_of_captions_cost_only_themselves() {
    let tree = Tree::new();
    let absolute = tree.path("a.jpg").display().to_string();
    for (row, kind) in [
        (
            "b.jpg,",
            "rows without a caption, left out: 1 (line 3: `b.jpg`)",
        ),
        (",x", "rows without a photo, left out: 1 (line 3: `x`)"),
        (
            "../a.jpg,x",
            "not below the folder of the set, left out: 1 (line 3: `../a.jpg`)",
        ),
        (
            "b.jpg,x,y",
            "more or fewer values than the header, left out: 1 (line 3)",
        ),
        (
            "b.jpg",
            "more or fewer values than the header, left out: 1 (line 3)",
        ),
        (&format!("{absolute},x"), ""),
    ] {
        tree.file(
            "set.csv",
            format!("filepath,title\na.jpg,one\n{row}\nc.jpg,two\n"),
        );
        let set = CaptionSet::from_csv(&tree.path("set.csv"), None).unwrap();
        let expected = if kind.is_empty() { 3 } else { 2 };
        assert_eq!(set.captions(), expected, "{row}");
        let odd = odd(&set.omissions).join("; ");
        assert!(
            odd.contains(kind) && odd.is_empty() == kind.is_empty(),
            "{row}: {odd}"
        );
    }
    tree.file("set.csv", b"filepath,title\na.jpg,\xff\nb.jpg,x\n");
    let set = CaptionSet::from_csv(&tree.path("set.csv"), None).unwrap();
    assert_eq!(
        odd(&set.omissions),
        ["rows that are not UTF-8, left out: 1 (line 2)"]
    );
}

#[test]
fn captions_are_read_in_the_forms_of_other_tools() {
    let tree = Tree::new();
    for text in [
        "image,caption\na.jpg,\"a cat, lying\"\n",
        "image_name| comment_number| comment\na.jpg| 0| a cat, lying\n",
        "\u{feff}\"filepath\",\"title\"\n\"a.jpg\",\"a cat, lying\"\n",
        "file_name;text\r\na.jpg;a cat, lying\r\n",
        "image_path\tsentence\na.jpg\ta cat, lying\n",
    ] {
        tree.file("set.csv", text);
        let set = CaptionSet::from_csv(&tree.path("set.csv"), None).unwrap();
        assert_eq!(set.samples[0].captions, ["a cat, lying"], "{text}");
        assert_eq!(set.samples[0].image, tree.path("a.jpg"));
        assert!(set.omissions.is_empty());
    }
}

#[test]
fn captions_that_make_no_sense_are_refused() {
    let tree = Tree::new();
    for (text, reason) in [
        ("filepath\ttitle\n", "no rows"),
        ("", "no column `filepath`, only "),
        (
            "photo,words\na.jpg,x\n",
            "no column `filepath`, only photo, words",
        ),
        ("filepath,words\na.jpg,x\n", "no column `title`"),
        (
            "filepath,title\na.jpg,\n",
            "no rows; rows without a caption, left out: 1",
        ),
        (
            "filepath,title\na.jpg,x\nb.jpg,\"y\nc.jpg,z\n",
            "line 3: a quote that is never closed",
        ),
    ] {
        tree.file("set.csv", text);
        let error = message(CaptionSet::from_csv(&tree.path("set.csv"), None));
        assert!(
            error.contains("set.csv: ") && error.contains(reason),
            "expected {reason}: {error}"
        );
    }
    let error = CaptionSet::from_csv(&tree.path("none.csv"), None);
    assert!(matches!(error, Err(DataError::Io { .. })));
}

const HEADER: &str = "img_id,img_filename,y,split,place,place_filename\n";

#[test]
fn waterbirds_are_read_by_split() {
    let tree = Tree::new();
    let rows = "1,002.Laysan/L_1.jpg,1,0,1,/o/ocean/00000248.jpg\n\
                2,001.Crow/C_1.jpg,0,2,1,/o/ocean/00000249.jpg\n\
                3,002.Laysan/L_2.jpg,1,2,0,/b/forest/00000250.jpg\n\
                4,001.Crow/C_2.png,0,1,0,/b/forest/00000251.jpg\n\
                5,001.Crow/C_2.jpg,0,2,0,/b/forest/00000251.jpg\n";
    let folder = "waterbird_complete95_forest2water2";
    tree.file(
        &format!("data/{folder}/metadata.csv"),
        HEADER.to_owned() + rows,
    );
    let samples = |below: &str, split| {
        let set = Waterbirds::open(&tree.path(below), split).unwrap();
        let samples = set.samples.into_iter();
        samples
            .map(|sample| (sample.id, sample.label, sample.place))
            .collect::<Vec<_>>()
    };
    let id = |id: &str| id.to_owned();
    for below in ["data", &format!("data/{folder}")] {
        assert_eq!(
            samples(below, None),
            [
                (id("001.Crow/C_1"), 0, 1),
                (id("002.Laysan/L_2"), 1, 0),
                (id("001.Crow/C_2"), 0, 0)
            ]
        );
        assert_eq!(
            samples(below, Some("train")),
            [(id("002.Laysan/L_1"), 1, 1)]
        );
        assert_eq!(samples(below, Some("val")), [(id("001.Crow/C_2"), 0, 0)]);
    }
    let set = Waterbirds::open(&tree.path("data"), Some("test")).unwrap();
    let names = set.labels.each_ref().map(|label| label.name.as_str());
    assert_eq!(names, ["landbird", "waterbird"]);
    assert_eq!(set.places, ["land", "water"]);
    assert_eq!(
        (set.background.name.as_str(), set.made),
        ("background", None)
    );
    assert_eq!(
        set.samples[0].image,
        tree.path(&format!("data/{folder}/001.Crow/C_1.jpg"))
    );

    for split in ["all", "2", ""] {
        let error = message(Waterbirds::open(&tree.path("data"), Some(split)));
        assert!(error.contains("there are train, val and test"), "{error}");
    }
    let error = message(Waterbirds::open(&tree.path(""), None));
    let hint = format!("did you mean --data {}?", tree.path("data").display());
    assert!(error.contains("metadata.csv, found data in ") && error.ends_with(&hint));
}

#[test]
fn odd_rows_of_waterbirds_cost_only_themselves() {
    let tree = Tree::new();
    for (row, kind) in [
        (
            "1,b.jpg,2,2,0,x",
            "none of the set's, left out: 1 (line 3: y is `2`, not 0 to 1)",
        ),
        ("1,b.jpg,0,2,-1,x", "line 3: place is `-1`, not 0 to 1"),
        ("1,b.jpg,0,3,0,x", "line 3: split is `3`, not 0 to 2"),
        ("1,b.jpg,,2,0,x", "line 3: y is ``, not 0 to 1"),
        (
            "1,../b.jpg,0,2,0,x",
            "not in the set, left out: 1 (line 3: `../b.jpg`)",
        ),
        (
            "2,./a.jpg,1,2,0,x",
            "that was there before, left out: 1 (line 3: `./a.jpg`)",
        ),
        (
            "1,b.jpg,0,2",
            "more or fewer values than the header, left out: 1 (line 3)",
        ),
        ("1,b.jpg,0.0,2.0,1.0,x", ""),
    ] {
        tree.file("metadata.csv", format!("{HEADER}1,a.jpg,0,2,0,x\n{row}\n"));
        let set = Waterbirds::open(&tree.path(""), None).unwrap();
        assert_eq!(
            set.samples.len(),
            if kind.is_empty() { 2 } else { 1 },
            "{row}"
        );
        let odd = odd(&set.omissions).join("; ");
        assert!(
            odd.contains(kind) && odd.is_empty() == kind.is_empty(),
            "{row}: {odd}"
        );
    }
}

#[test]
fn waterbirds_that_make_no_sense_are_refused() {
    let tree = Tree::new();
    for (rows, reason) in [
        ("1,a.jpg,0,1,0,x\n", "no photo of the split test"),
        (
            "1,a.jpg,7,2,0,x\n",
            "no photo of the split test; rows with a value",
        ),
        ("", "no photo of the split test"),
        (
            "1,\"a.jpg,0,2,0,x\n",
            "line 2: a quote that is never closed",
        ),
    ] {
        tree.file("metadata.csv", HEADER.to_owned() + rows);
        let error = message(Waterbirds::open(&tree.path(""), None));
        assert!(
            error.contains("metadata.csv: ") && error.contains(reason),
            "expected {reason}: {error}"
        );
    }
    tree.file("metadata.csv", "img_filename,y,place\na.jpg,0,0\n");
    let error = message(Waterbirds::open(&tree.path(""), None));
    assert!(error.ends_with("no column `split`, only img_filename, y, place"));
    tree.file("metadata.csv", HEADER.to_owned() + "1,a.jpg,0,2,0,x\n");
    for (json, reason) in [
        ("{", "EOF"),
        (r#"{"labels": ["a"]}"#, "invalid length 1"),
        (
            r#"{"labels": ["a", " ,"]}"#,
            "a label or background has no name",
        ),
    ] {
        tree.file("set.json", json);
        let error = message(Waterbirds::open(&tree.path(""), None));
        assert!(
            error.contains("set.json: ") && error.contains(reason),
            "{error}"
        );
    }
    tree.file(
        "set.json",
        r#"{"labels": ["cow, cattle", "cat"], "other": 1}"#,
    );
    let set = Waterbirds::open(&tree.path(""), None).unwrap();
    assert_eq!(set.labels[0].synonyms, ["cow", "cattle"]);
    assert_eq!(set.places, ["land", "water"]);
}

const GREY: [u8; 3] = [128, 128, 128];
const RED: [u8; 3] = [220, 20, 30];
const BLUE: [u8; 3] = [20, 40, 220];
const GREEN: [u8; 3] = [20, 180, 40];
const YELLOW: [u8; 3] = [230, 220, 40];

/// Objects on grey: red cows, blue cats, and photos with which something is wrong.
struct Objects(Tree);

impl Objects {
    fn new() -> Self {
        let objects = Self(Tree::new());
        objects
            .0
            .file("classes.txt", "background\ncow, cattle\ncat\n");
        for (name, colour, class) in [
            ("cow1", RED, 1),
            ("cow2", RED, 1),
            ("cat1", BLUE, 2),
            ("cat2", BLUE, 2),
            ("cat3", BLUE, 2),
        ] {
            // Away from the middle, so that it shows if an object stays where it was.
            objects.add(name, &[(class, [4, 2, 24, 22])], |x, y| {
                let inside = (4..24).contains(&x) && (2..22).contains(&y);
                if inside { colour } else { GREY }
            });
        }
        objects.add(
            "both",
            &[(1, [1, 1, 20, 20]), (2, [20, 0, 40, 20])],
            |_, _| GREY,
        );
        objects.add("small", &[(1, [0, 0, 3, 3])], |_, _| GREY);
        objects.add("cut-off", &[(2, [0, 5, 20, 35])], |_, _| GREY);
        objects.add("empty", &[], |_, _| GREY);
        objects.add("broken", &[(1, [1, 1, 20, 20])], |_, _| GREY);
        objects.0.file("photos/broken.png", "no photo");
        objects.add("other-size", &[(1, [1, 1, 20, 20])], |_, _| GREY);
        let other = RgbImage::from_pixel(40, 60, Rgb(GREY));
        objects
            .0
            .file("photos/other-size.png", png_rgb(&other).unwrap());
        objects.add("no-mask", &[(1, [1, 1, 20, 20])], |_, _| GREY);
        objects.0.file("masks/no-mask.png", "no mask");

        for (file, size, colour) in [
            ("meadow/1.png", (100, 80), GREEN),
            ("meadow/2.png", (800, 600), GREEN),
            ("room/1.png", (100, 80), YELLOW),
            ("room/icon.png", (16, 16), YELLOW),
        ] {
            let photo = RgbImage::from_pixel(size.0, size.1, Rgb(colour));
            objects.0.file(file, png_rgb(&photo).unwrap());
        }
        (objects.0)
            .file("meadow/broken.jpg", "no photo")
            .file("meadow/notes.txt", "")
            .file("nothing/broken.jpg", "no photo");
        objects
    }

    /// A photo of 60 x 40 pixels and its mask, objects as left, top, right and bottom.
    fn add(&self, name: &str, objects: &[(u8, [u32; 4])], colour: impl Fn(u32, u32) -> [u8; 3]) {
        let photo = RgbImage::from_fn(60, 40, |x, y| Rgb(colour(x, y)));
        let mut mask = vec![0; 60 * 40];
        for &(class, [left, top, right, bottom]) in objects {
            for y in top..bottom {
                for x in left..right {
                    mask[(y * 60 + x) as usize] = class;
                }
            }
        }
        let mut encoded = Vec::new();
        let mut encoder = png::Encoder::new(&mut encoded, 60, 40);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&mask).unwrap();
        writer.finish().unwrap();
        (self.0)
            .file(&format!("photos/{name}.png"), png_rgb(&photo).unwrap())
            .file(&format!("masks/{name}.png"), encoded);
    }

    fn set(&self) -> MaskSet {
        let classes = self.0.path("classes.txt");
        open_custom(&self.0.path("photos"), &self.0.path("masks"), &classes).unwrap()
    }

    fn settings(&self) -> SpuriousSettings {
        let place = |name: &str, folder| Place {
            name: name.to_owned(),
            folder: self.0.path(folder),
        };
        SpuriousSettings::new(
            ["Cattle".to_owned(), "cat".to_owned()],
            [place("a meadow", "meadow"), place("a room", "room")],
        )
    }

    fn build(&self, settings: &SpuriousSettings, out: &str) -> Result<SpuriousReport, DataError> {
        build(&self.set(), settings, &self.0.path(out), &mut |_| ())
    }

    /// What stands in the folder above all.
    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path("")).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Whether a colour came through the JPEG.
fn is(pixel: &Rgb<u8>, colour: [u8; 3]) -> bool {
    (pixel.0.iter().zip(colour)).all(|(&a, b)| a.abs_diff(b) < 25)
}

#[test]
fn a_spurious_set_has_four_equal_groups() {
    let objects = Objects::new();
    let report = objects.build(&objects.settings(), "new/out").unwrap();
    // Two of the four cows are usable; the cats are more.
    assert_eq!(report.per_group, 2);
    assert_eq!(report.looked_at, 12);
    assert_eq!(
        (report.too_small, report.cut_off, report.both_classes),
        (1, 1, 1)
    );
    let mut unusable: Vec<_> = (report.unusable.iter())
        .map(|one| (one.photo.as_str(), one.reason.as_str()))
        .collect();
    unusable.sort();
    assert_eq!(report.unusable_in_all, unusable.len());
    let photos: Vec<_> = unusable.iter().map(|(photo, _)| *photo).collect();
    assert_eq!(
        photos,
        [
            "a meadow/broken.jpg",
            "a room/icon.png",
            "broken",
            "no-mask",
            "other-size"
        ]
    );
    assert_eq!(unusable[1].1, "16 x 16 pixels are too few");
    assert!(
        unusable[3]
            .1
            .starts_with("no-mask.png: cannot decode as PNG")
    );
    assert_eq!(unusable[4].1, "40 x 60 pixels, but annotated as 60 x 40");

    let out = objects.0.path("new/out");
    let set = Waterbirds::open(&out, None).unwrap();
    assert_eq!(set.labels[0].synonyms, ["cow", "cattle"]);
    assert_eq!(set.labels[1].name, "cat");
    assert_eq!(set.places, ["a meadow", "a room"]);
    let mut groups = BTreeMap::new();
    for sample in &set.samples {
        *groups.entry((sample.label, sample.place)).or_insert(0) += 1;
        let photo = percept_image::open(&sample.image, &Default::default()).unwrap();
        let (width, height) = photo.dimensions();
        // The large one is shrunk.
        assert!(matches!((width, height), (100, 80) | (683, 512)));
        let colour = [RED, BLUE][usize::from(sample.label)];
        let place = [GREEN, YELLOW][usize::from(sample.place)];
        assert!(is(photo.get_pixel(width / 2, height / 2), colour));
        let side = (0.2 * f64::from(width * height)).sqrt() / 2.0;
        for (x, y) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
            let at = |of: f64| {
                let x = f64::from(width) / 2.0 + f64::from(x) * side * of;
                let y = f64::from(height) / 2.0 + f64::from(y) * side * of;
                photo.get_pixel(x as u32, y as u32)
            };
            assert!(is(at(0.85), colour) && is(at(1.15), place), "{}", sample.id);
        }
        for (x, y) in [(0, 0), (width - 1, 0), (0, height - 1)] {
            assert!(is(photo.get_pixel(x, y), place));
        }
        let share = photo.pixels().filter(|pixel| is(pixel, colour)).count() as f64
            / f64::from(width * height);
        assert!((0.17..0.21).contains(&share), "{share}");
    }
    let groups: Vec<_> = groups.into_iter().collect();
    assert_eq!(groups, [((0, 0), 2), ((0, 1), 2), ((1, 0), 2), ((1, 1), 2)]);
    assert_eq!(files(&out).len(), 8 + 2);

    let metadata = fs::read_to_string(out.join("metadata.csv")).unwrap();
    assert!(metadata.starts_with(HEADER), "{metadata}");
    assert!(metadata.contains("1,images/00000_y0_place0.jpg,0,2,0,a meadow/"));
    let text = fs::read_to_string(out.join("set.json")).unwrap();
    let here = objects.0.path("").display().to_string();
    assert!(!text.contains(&here) && !metadata.contains(&here), "{text}");
    let made = set.made.unwrap();
    assert_eq!(made["objects_from"]["set"], "custom");
    assert_eq!(made["counts"]["per_group"], 2);
    assert_eq!(made["objects"].as_array().unwrap().len(), 2);
    assert!(text.contains("\"min_share\": 0.05,") && text.contains("\"share\": 0.2"));
}

#[test]
fn a_seed_makes_the_same_set_anywhere() {
    let objects = Objects::new();
    let settings = objects.settings();
    let again = Objects::new();
    objects.build(&settings, "a").unwrap();
    again.build(&again.settings(), "b").unwrap();
    assert!(files(&objects.0.path("a")) == files(&again.0.path("b")));
    let seeds: Vec<_> = (1..6)
        .map(|seed| {
            let settings = SpuriousSettings {
                seed,
                per_group: 1,
                ..settings.clone()
            };
            let out = format!("seed{seed}");
            assert_eq!(objects.build(&settings, &out).unwrap().per_group, 1);
            let set = Waterbirds::open(&objects.0.path(&out), None).unwrap();
            assert_eq!(set.samples.len(), 4);
            set.made.unwrap()["objects"].to_string()
        })
        .collect();
    assert!(
        seeds.iter().any(|objects| *objects != seeds[0]),
        "{seeds:?}"
    );
}

#[test]
fn what_is_there_stays_and_what_fails_leaves_nothing() {
    let objects = Objects::new();
    let settings = objects.settings();
    objects.0.file("mine/images/00000_y0_place0.jpg", "mine");
    objects.0.file("file", "mine");
    let before = objects.entries();
    for out in ["mine", "file"] {
        let error = message(objects.build(&settings, out));
        assert!(
            error.ends_with(&format!(
                "{out} is there already and is not an empty folder"
            )),
            "{error}"
        );
    }
    assert_eq!(files(&objects.0.path("mine")).len(), 1);

    // Nothing at the second place can be read, which shows when half of a group is made.
    let mut broken = settings.clone();
    broken.places[1].folder = objects.0.path("nothing");
    let error = message(objects.build(&broken, "out"));
    assert!(
        error.ends_with("nothing: no photo here can be read"),
        "{error}"
    );
    broken.places[1].folder = objects.0.path("nowhere");
    assert!(message(objects.build(&broken, "out")).contains("nowhere"));
    let mut none = settings.clone();
    none.min_share = 0.9;
    let error = message(objects.build(&none, "out"));
    assert!(
        error.contains("no pair of objects of `Cattle` and `cat` can be used: of 12 photos"),
        "{error}"
    );
    assert_eq!(objects.entries(), before);

    fs::create_dir(objects.0.path("empty")).unwrap();
    objects.build(&settings, "empty").unwrap();
    assert!(Waterbirds::open(&objects.0.path("empty"), None).is_ok());
    let error = message(objects.build(&settings, "empty"));
    assert!(error.contains("is there already"), "{error}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let objects = Objects::new();
    let before = objects.entries();
    type Change = fn(&mut SpuriousSettings);
    let changes: [(Change, &str); 13] = [
        (|s| s.classes[1] = "Cattle".into(), "two classes are needed"),
        (
            |s| s.classes[1] = "cow".into(),
            "`Cattle` and `cow` are one class",
        ),
        (|s| s.classes[1] = "".into(), "two classes are needed"),
        (
            |s| s.classes[0] = "dog".into(),
            "custom has no objects called `dog`; it has cow, cat",
        ),
        (
            |s| s.classes[0] = "background".into(),
            "no objects called `background`",
        ),
        (
            |s| s.places[0].name = "a room".into(),
            "two places are needed",
        ),
        (
            |s| s.max_cut = 1.5,
            "the share of an object at an edge is 1.5, not 0 to 1",
        ),
        (|s| s.per_group = 0, "0 objects per group, not 1 to 100000"),
        (
            |s| s.min_share = f32::NAN,
            "the least share of an object is NaN",
        ),
        (
            |s| s.share = 0.0,
            "the share of the object is 0, not 0.001 to 1",
        ),
        (|s| s.margin = 0.5, "the margin is 0.5, not 0 to 0.45"),
        (|s| s.max_short_side = 31, "a short side of 31 pixels"),
        (
            |s| s.share = f32::INFINITY,
            "the share of the object is inf",
        ),
    ];
    for (change, reason) in changes {
        let mut settings = objects.settings();
        change(&mut settings);
        let error = objects.build(&settings, "out").unwrap_err();
        assert!(matches!(error, DataError::Setting(_)));
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
    assert_eq!(objects.entries(), before);
}

/// Cows and cats of VOC before churches and parachutes. The set stays in the folder for temporary
/// files of the build, to be looked at.
#[test]
fn a_real_spurious_set_is_made() {
    let (Some(data), Some(places)) = (shared("VOCdevkit"), shared("imagenette/val")) else {
        return;
    };
    let place = |name: &str, wnid| Place {
        name: name.to_owned(),
        folder: places.join(wnid),
    };
    let settings = SpuriousSettings {
        per_group: 6,
        ..SpuriousSettings::new(
            ["cow".to_owned(), "cat".to_owned()],
            [
                place("a church", "n03028079"),
                place("a parachute", "n03888257"),
            ],
        )
    };
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cows-and-cats");
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    let report = build(
        &open_voc(&data, None).unwrap(),
        &settings,
        &out,
        &mut |_| (),
    )
    .unwrap();
    assert_eq!((report.per_group, report.unusable_in_all), (6, 0));
    let set = Waterbirds::open(&out, None).unwrap();
    assert_eq!(set.samples.len(), 24);
    for sample in &set.samples {
        let photo = percept_image::open(&sample.image, &Default::default()).unwrap();
        assert_eq!(photo.dimensions(), (224, 224));
    }
}
