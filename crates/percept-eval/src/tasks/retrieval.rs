//! Retrieval: the captions of a photo among all captions, the photo of a caption among all photos.

use std::path::PathBuf;

use percept::{Pooling, TokenGrid};
use percept_data::CaptionSet;
use percept_image::ChwImage;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Encoder, Run, if_turned, read_photo, say_what_is_missing};
use crate::EvalError;
use crate::metrics::recall;
use crate::protocol::Protocol;
use crate::result::{EvalResult, Task};
use crate::run::{Benchmark, Event, Loaded, run};

/// Recall is given at these.
const KS: [usize; 3] = [1, 5, 10];

/// Captions embedded at once.
const TEXTS: usize = 1024;

/// Embeds every photo and caption of a set and gives the recall both ways.
///
/// # Errors
/// Settings, model and set do not fit together, or records cannot be written.
pub fn retrieval(
    set: &CaptionSet,
    dataset: &str,
    split: &str,
    how: Run<'_>,
) -> Result<EvalResult, EvalError> {
    let benchmark = Retrieval {
        set,
        encoder: how.whole_encoder()?,
        pooling: how.model().image_config()?.pooling,
        protocol: how.protocol,
    };
    let settings = how.settings(Task::ZeroshotRetrieval, dataset, split, json!({}));
    let mut found: Vec<(usize, Vec<f32>)> = Vec::new();
    let tally = run(
        &benchmark,
        &settings,
        how.options,
        how.progress,
        |sample, record: &Record| {
            found.push((sample, record.embedding.clone()));
            Ok(())
        },
    )?;
    // The order must not depend on what was resumed.
    found.sort_by_key(|(sample, _)| *sample);
    let mut captions = Vec::new();
    let mut owners = Vec::new();
    for (row, (sample, _)) in found.iter().enumerate() {
        let own = &set.samples[*sample].captions;
        captions.extend(own.iter().cloned());
        owners.extend(std::iter::repeat_n(row, own.len()));
    }
    let mut texts = Vec::new();
    let mut truncated = 0;
    for chunk in captions.chunks(TEXTS) {
        let encoded = how
            .model()
            .encode_texts(chunk)
            .map_err(percept::Error::from)?;
        truncated += encoded.truncated.len();
        texts.extend(encoded.embeddings.into_iter().flatten());
    }
    if truncated > 0 {
        (how.progress)(Event::Note(&format!(
            "{truncated} captions are longer than the text encoder reads and were cut"
        )));
    }
    let dim = found.first().map_or(1, |(_, embedding)| embedding.len());
    let images: Vec<f32> = found.iter().flat_map(|(_, e)| e.iter().copied()).collect();
    let recall = recall(&images, &texts, dim, &owners, &KS)
        .map_err(|e| EvalError::Setting(e.to_string()))?;

    let tally = (&set.omissions, tally);
    let mut result = how.result(Task::ZeroshotRetrieval, dataset, split, settings, tally);
    for at in recall.at {
        let both = [
            ("image_to_text", at.image_to_text),
            ("text_to_image", at.text_to_image),
        ];
        for (way, value) in both {
            if let Some(value) = value {
                let name = format!("{way}_recall@{}", at.k);
                result.metrics.insert(name, value);
            }
        }
    }
    result
        .metrics
        .insert("captions".into(), captions.len() as f64);
    say_what_is_missing(&mut result);
    Ok(result)
}

struct Retrieval<'a> {
    set: &'a CaptionSet,
    encoder: Encoder<'a>,
    pooling: Pooling,
    protocol: &'a Protocol,
}

/// What is kept of a photo.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Its embedding, of unit length.
    embedding: Vec<f32>,
}

impl Benchmark for Retrieval<'_> {
    type Extra = ();
    type Record = Record;

    fn len(&self) -> usize {
        self.set.samples.len()
    }

    fn id(&self, sample: usize) -> &str {
        &self.set.samples[sample].id
    }

    fn files(&self, sample: usize) -> Vec<PathBuf> {
        vec![self.set.samples[sample].image.clone()]
    }

    fn load(&self, sample: usize) -> Result<Loaded<()>, String> {
        let (photo, about) = read_photo(&self.set.samples[sample].image, self.protocol)?;
        Ok(Loaded {
            extra: (),
            image: self.encoder.prepare(&photo),
            about,
        })
    }

    fn if_turned(&self) -> &'static str {
        if_turned(self.protocol)
    }

    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> {
        self.encoder.encode(images)
    }

    fn judge(&self, _: usize, (): (), grid: TokenGrid) -> Result<Record, String> {
        Ok(Record {
            embedding: grid.pool(self.pooling),
        })
    }
}
