//! The models that have a name of their own.
//!
//! Sizes and digests are given only where a source publishes them; elsewhere `None`, and the hub's
//! own digest of each large file is what gets verified.

/// A model that can be pulled by name.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownModel {
    /// The name.
    pub name: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// Which part of a vision-language model it provides.
    pub part: Part,
    /// The licence of the weights, as SPDX, or what there is to say instead.
    pub licence: &'static str,
    /// Where its files are.
    pub source: Source,
}

/// Which part of a vision-language model a set of weights is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// An image tower alone: bottom-up grouping, or a start for training.
    Image,
    /// A text tower alone: a start for training.
    Text,
    /// Both towers in one space: segmentation and classification by words.
    Both,
}

/// Where a known model's files are.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// All in one Hugging Face repository, of which percept takes what it reads.
    Repository(&'static str),
    /// A list, possibly from several places.
    Files(&'static [KnownFile]),
}

/// One file of a known model.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownFile {
    /// Its name in the model's folder.
    pub path: &'static str,
    /// Where it comes from.
    pub origin: Origin,
    /// Its size in bytes, where published.
    pub size: Option<u64>,
    /// Its SHA-256 in lower-case hexadecimal, where published.
    pub sha256: Option<&'static str>,
}

/// Where one file comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    /// A plain address.
    Url(&'static str),
    /// A file of a Hugging Face repository, from its `main` branch.
    Repository {
        /// The repository.
        repo: &'static str,
        /// The file's path in it.
        path: &'static str,
    },
}

/// All known models, those with both towers first.
#[must_use]
pub fn known_models() -> &'static [KnownModel] {
    KNOWN
}

const KNOWN: &[KnownModel] = &[
    KnownModel {
        name: "clippy",
        summary: "CLIPpy ViT-B/16 + Sentence-T5, the public reimplementation trained for 5000 steps",
        part: Part::Both,
        // The repository has no licence file.
        licence: "none stated",
        source: Source::Files(&[
            KnownFile {
                path: "tokenizer.json",
                origin: Origin::Repository {
                    repo: "google-t5/t5-base",
                    path: "tokenizer.json",
                },
                size: None,
                sha256: None,
            },
            // The address that README.md of github.com/kahnchana/clippy gives.
            KnownFile {
                path: "clippy_5k.pt",
                origin: Origin::Url(
                    "https://github.com/kahnchana/clippy/releases/download/v1.0/clippy_5k.pt",
                ),
                size: None,
                sha256: None,
            },
        ]),
    },
    KnownModel {
        name: "dino-vitb16",
        summary: "DINO ViT-B/16, self-supervised on ImageNet-1k: the paper's image initialisation",
        part: Part::Image,
        licence: "Apache-2.0",
        source: Source::Repository("facebook/dino-vitb16"),
    },
    KnownModel {
        name: "dino-vits16",
        summary: "DINO ViT-S/16, self-supervised on ImageNet-1k",
        part: Part::Image,
        licence: "Apache-2.0",
        source: Source::Repository("facebook/dino-vits16"),
    },
    KnownModel {
        name: "dinov2-small",
        summary: "DINOv2 ViT-S/14, self-supervised on LVD-142M",
        part: Part::Image,
        licence: "Apache-2.0",
        source: Source::Repository("facebook/dinov2-small"),
    },
    KnownModel {
        name: "dinov2-base",
        summary: "DINOv2 ViT-B/14, self-supervised on LVD-142M",
        part: Part::Image,
        licence: "Apache-2.0",
        source: Source::Repository("facebook/dinov2-base"),
    },
    KnownModel {
        name: "dinov2-small-reg",
        summary: "DINOv2 ViT-S/14 with four register tokens, timm layout",
        part: Part::Image,
        licence: "Apache-2.0",
        source: Source::Repository("timm/vit_small_patch14_reg4_dinov2.lvd142m"),
    },
    KnownModel {
        name: "dinov2-base-reg",
        summary: "DINOv2 ViT-B/14 with four register tokens, timm layout",
        part: Part::Image,
        licence: "Apache-2.0",
        source: Source::Repository("timm/vit_base_patch14_reg4_dinov2.lvd142m"),
    },
    KnownModel {
        name: "sentence-t5-base",
        summary: "Sentence-T5 base encoder: the paper's text initialisation",
        part: Part::Text,
        licence: "Apache-2.0",
        source: Source::Repository("sentence-transformers/sentence-t5-base"),
    },
    KnownModel {
        name: "all-MiniLM-L6-v2",
        summary: "MiniLM sentence encoder, six layers, 384 dimensions",
        part: Part::Text,
        licence: "Apache-2.0",
        source: Source::Repository("sentence-transformers/all-MiniLM-L6-v2"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        for (i, model) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..i].iter().all(|m| m.name != model.name));
            let Source::Files(files) = &model.source else {
                continue;
            };
            for file in *files {
                assert!(crate::cache::is_safe_path(file.path));
                if let Some(digest) = file.sha256 {
                    assert!(crate::cache::is_sha256(digest));
                }
            }
        }
    }
}
