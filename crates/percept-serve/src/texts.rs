//! Labels to class banks, with the embeddings of labels kept.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use percept::{
    Background, ClassBank, EmbeddedLabels, Error, Label, Model, Templates, embed_labels,
};
use serde::Deserialize;

/// Embeddings that are kept, about 3 kB each.
const KEPT: usize = 8192;

/// Which sentences labels are put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TemplateSet {
    /// The model's own.
    #[default]
    Simple,
    /// Seven of CLIP's.
    Imagenet7,
    /// All 80.
    Imagenet80,
}

/// A label's embedding, and whether it was cut.
#[derive(Debug, Clone)]
struct Embedded {
    values: Arc<[f32]>,
    is_cut: bool,
}

/// The text side of a model.
#[derive(Debug)]
pub(crate) struct Texts {
    model: Arc<Model>,
    kept: Mutex<LruCache<(TemplateSet, String), Embedded>>,
}

impl Texts {
    pub(crate) fn new(model: Arc<Model>) -> Self {
        Self {
            model,
            kept: Mutex::new(LruCache::new(
                NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN),
            )),
        }
    }

    /// The sentences of a set.
    ///
    /// # Errors
    /// The model's own make no sense.
    pub(crate) fn templates(&self, set: TemplateSet) -> Result<Templates, Error> {
        match set {
            TemplateSet::Simple => Templates::new(self.model.config().templates.clone()),
            TemplateSet::Imagenet7 => Ok(Templates::imagenet7()),
            TemplateSet::Imagenet80 => Ok(Templates::imagenet80()),
        }
    }

    /// A bank of `labels`. Only what was not asked for before goes through the text encoder.
    ///
    /// # Errors
    /// The model has no text tower.
    pub(crate) fn bank(
        &self,
        labels: &[Label],
        set: TemplateSet,
        background: &Background,
    ) -> Result<ClassBank, Error> {
        ClassBank::from_embedded(labels, background, |labels| self.embed(labels, set))
    }

    fn embed(&self, labels: &[&Label], set: TemplateSet) -> Result<EmbeddedLabels, Error> {
        let key = |label: &Label| (set, label.name.clone());
        let mut found: Vec<Option<Embedded>> = {
            let mut kept = self.lock();
            let known = |label: &&Label| kept.get(&key(label)).cloned();
            labels.iter().map(known).collect()
        };
        let missing: Vec<&Label> = labels
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none())
            .map(|(label, _)| *label)
            .collect();
        if !missing.is_empty() {
            // Not under the lock: others need not wait for this text encoder's pass.
            let fresh = embed_labels(&self.model, &missing, &self.templates(set)?)?;
            let mut kept = self.lock();
            let holes = found.iter_mut().filter(|found| found.is_none());
            for (i, ((hole, label), values)) in holes.zip(missing).zip(fresh.embeddings).enumerate()
            {
                let embedded = Embedded {
                    values: values.into(),
                    is_cut: fresh.truncated.contains(&i),
                };
                kept.put(key(label), embedded.clone());
                *hole = Some(embedded);
            }
        }
        let found: Vec<Embedded> = found.into_iter().flatten().collect();
        Ok(EmbeddedLabels {
            truncated: (0..)
                .zip(&found)
                .filter(|(_, e)| e.is_cut)
                .map(|(i, _)| i)
                .collect(),
            embeddings: found.into_iter().map(|e| e.values.to_vec()).collect(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<(TemplateSet, String), Embedded>> {
        // Nothing that is done under the lock leaves it half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
