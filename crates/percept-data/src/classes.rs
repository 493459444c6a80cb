//! The names of the classes of each set.
//!
//! One class a line in the order of their indices, synonyms after commas: the form of every
//! `cls_*.txt` file, those of custom sets included. The names of VOC are those of the CLIPpy
//! protocol; the others, and [`voc_mmseg`], are mmsegmentation's, which most published numbers use.

use unicode_normalization::UnicodeNormalization;

use crate::ClassName;

/// Reads names: one class a line, its synonyms separated by commas, the first being the one shown.
///
/// Empty lines are left out, and so are empty names between commas.
pub fn class_names(text: &str) -> Vec<ClassName> {
    text.lines().filter_map(class_name).collect()
}

/// The class of one line, unless the line holds no name.
pub(crate) fn class_name(line: &str) -> Option<ClassName> {
    let synonyms: Vec<String> = (line.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let name = synonyms.first()?.clone();
    Some(ClassName { name, synonyms })
}

/// PASCAL VOC, 21 with the background, under the names of the CLIPpy protocol.
pub fn voc() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_voc.txt"))
}

/// PASCAL VOC, 21 with the background, under mmsegmentation's names.
pub fn voc_mmseg() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_voc_mmseg.txt"))
}

/// The 80 objects of COCO, in the order of their category ids and without a background.
pub fn coco() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_coco.txt"))
}

/// The 171 classes of COCO-Stuff: the 80 of [`coco`], then 91 kinds of stuff.
pub fn coco_stuff() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_coco_stuff.txt"))
}

/// PASCAL Context, 60 with the background, in the order of the stored masks, which is alphabetical
/// after the background.
pub fn context60() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_context60.txt"))
}

/// PASCAL Context, 59 without the background.
pub fn context59() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_context59.txt"))
}

/// The 150 classes of ADE20K's scene parsing benchmark.
pub fn ade20k() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_ade20k.txt"))
}

/// The 19 classes of Cityscapes that its benchmark evaluates.
pub fn cityscapes() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_cityscapes.txt"))
}

/// All 27 annotated classes of Cityscapes, those of too few pixels for the benchmark included.
pub fn cityscapes27() -> Vec<ClassName> {
    class_names(include_str!("../data/classes/cls_cityscapes27.txt"))
}

/// What is equal for two spellings of a name: case, accents in one character or two, and what stands
/// between words do not count.
pub(crate) fn spelling(name: &str) -> String {
    let whole: String = name.nfc().flat_map(char::to_lowercase).collect();
    let words = whole.split(|c: char| c.is_whitespace() || c == '_' || c == '-');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(classes: &[ClassName], index: usize) -> &str {
        &classes[index].name
    }

    #[test]
    fn every_list_is_whole_and_in_order() {
        // Count, and a few classes whose indices the sets' own documents give.
        assert_eq!(
            (voc().len(), at(&voc(), 11), at(&voc(), 20)),
            (21, "table", "television monitor")
        );
        assert_eq!(
            (voc_mmseg().len(), at(&voc_mmseg(), 11)),
            (21, "diningtable")
        );
        assert_eq!((coco().len(), at(&coco(), 79)), (80, "toothbrush"));
        let stuff = coco_stuff();
        assert_eq!(
            (stuff.len(), at(&stuff, 80), at(&stuff, 170)),
            (171, "banner", "wood")
        );
        assert_eq!(stuff[..80], coco()[..]);
        assert_eq!((context60().len(), at(&context60(), 37)), (60, "person"));
        assert_eq!(context60()[1..], context59()[..]);
        assert_eq!(
            (ade20k().len(), at(&ade20k(), 12), at(&ade20k(), 149)),
            (150, "person", "flag")
        );
        assert_eq!((cityscapes().len(), at(&cityscapes(), 11)), (19, "person"));
        assert_eq!(
            (cityscapes27().len(), at(&cityscapes27(), 17)),
            (27, "person")
        );
    }

    #[test]
    fn no_list_has_a_name_twice() {
        let lists = [
            voc(),
            voc_mmseg(),
            coco(),
            coco_stuff(),
            context60(),
            ade20k(),
            cityscapes(),
            cityscapes27(),
        ];
        for list in lists {
            let names: std::collections::BTreeSet<_> =
                list.iter().map(|class| &class.name).collect();
            assert_eq!(names.len(), list.len());
        }
    }

    #[test]
    fn synonyms_follow_the_name() {
        let classes = class_names("sofa, couch ,\r\n\n  television\n,\n");
        assert_eq!(classes.len(), 2);
        assert_eq!(classes[0].name, "sofa");
        assert_eq!(classes[0].synonyms, ["sofa", "couch"]);
        assert_eq!(classes[1].synonyms, ["television"]);
    }
}
