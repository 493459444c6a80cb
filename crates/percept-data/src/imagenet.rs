//! The 1,000 classes of ImageNet's challenge.

use crate::ClassName;
use crate::classes::class_name;

/// Number of classes.
pub(crate) const COUNT: usize = 1000;

/// A class of ImageNet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageNetClass {
    /// Its id in WordNet, which is the name of its folder: `n`, then eight digits.
    pub wnid: String,
    /// Its name.
    pub name: ClassName,
}

/// ImageNet's classes in the order of their ids, which is that of all models' outputs.
///
/// The names are those that OpenAI chose for CLIP and that zero-shot numbers are usually given for.
/// Two of them stand for two classes each, as there: `missile` (657 and 744) and `sunglasses` (836
/// and 837).
pub fn imagenet_classes() -> Vec<ImageNetClass> {
    let lines = include_str!("../data/imagenet_classes.txt").lines();
    let class = |line: &str| {
        let (wnid, names) = line.split_once('\t')?;
        Some(ImageNetClass {
            wnid: wnid.to_owned(),
            name: class_name(names)?,
        })
    };
    lines.filter_map(class).collect()
}

/// The wnid that a folder's name begins with, in lower case, and what stands behind it: `n01440764`,
/// also `N01440764` and `n01440764-tench`.
pub(crate) fn wnid(name: &str) -> Option<(String, &str)> {
    const LENGTH: usize = 9;
    let (wnid, rest) = name.split_at_checked(LENGTH)?;
    let digits = wnid.strip_prefix(['n', 'N'])?;
    let ends = rest.is_empty() || rest.starts_with(['-', '_', ' ', '.', ',']);
    (ends && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| (wnid.to_ascii_lowercase(), rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_in_order() {
        let classes = imagenet_classes();
        assert_eq!(classes.len(), COUNT);
        assert!(classes.is_sorted_by(|a, b| a.wnid < b.wnid));
        assert!(classes.iter().all(|class| wnid(&class.wnid).is_some()));
        // Indices that every list of ImageNet agrees on.
        for (index, wnid, name) in [
            (0, "n01440764", "tench"),
            (134, "n02012849", "crane bird"),
            (281, "n02123045", "tabby cat"),
            (491, "n03000684", "chainsaw"),
            (517, "n03126707", "construction crane"),
            (569, "n03417042", "garbage truck"),
            (701, "n03888257", "parachute"),
            (999, "n15075141", "toilet paper"),
        ] {
            let class = &classes[index];
            assert_eq!(
                (class.wnid.as_str(), class.name.name.as_str()),
                (wnid, name)
            );
        }
    }

    #[test]
    fn wnids_are_told_from_other_names() {
        for (name, rest) in [
            ("n01440764", ""),
            ("N01440764", ""),
            ("n01440764-tench", "tench"),
            ("n01440764_tench, Tinca", "tench, Tinca"),
            ("n01440764 tench", "tench"),
        ] {
            assert_eq!(wnid(name), Some(("n01440764".to_owned(), rest)));
        }
        for name in [
            "",
            "n",
            "n0144076",
            "n014407640",
            "01440764",
            "nabcdefgh",
            "n0144076é",
            "n01440764x",
        ] {
            assert_eq!(wnid(name), None, "{name}");
        }
    }
}
