//! Zero-shot classification: a class for every photo, as CLIP does it.

use std::path::PathBuf;

use percept::{Pooling, TokenGrid};
use percept_data::ImageFolder;
use percept_image::ChwImage;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Encoder, Picture, Pictured, Run, confusion, if_turned, named, read_photo, say_what_is_missing,
};
use crate::metrics::Classification as Scores;
use crate::protocol::Protocol;
use crate::result::{ClassResult, EvalResult, Task};
use crate::run::{Benchmark, Loaded, run};
use crate::{EvalError, Vocabulary};

/// Guesses kept of a photo: what top-5 needs.
const GUESSES: usize = 5;

/// Classifies every photo of a folder of folders by the text that its pooled tokens resemble most.
///
/// # Errors
/// Settings, model and set do not fit together, or records cannot be written.
pub fn classification(
    set: &ImageFolder,
    dataset: &str,
    split: &str,
    how: Run<'_>,
) -> Result<EvalResult, EvalError> {
    let classes = &set.classes;
    let vocabulary = Vocabulary::plain(how.model(), classes, &how.protocol.text)?;
    how.tell_truncated(&vocabulary);
    let benchmark = Classification {
        set,
        encoder: how.whole_encoder()?,
        pooling: how.model().image_config()?.pooling,
        vocabulary,
        protocol: how.protocol,
    };
    let settings = how.settings(
        Task::ZeroshotClassification,
        dataset,
        split,
        json!({ "texts": benchmark.vocabulary.texts }),
    );
    let refuse = |e: crate::metrics::MetricError| EvalError::Setting(e.to_string());
    let mut whole = Scores::new(classes.len()).map_err(refuse)?;
    let mut scores = Vec::new();
    let tally = run(
        &benchmark,
        &settings,
        how.options,
        how.progress,
        |sample, record: &Record| {
            let truth = set.samples[sample].class;
            whole
                .add_ranked(usize::from(truth), &record.guesses)
                .map_err(|e| e.to_string())?;
            scores.push((sample, f64::from(record.truth_probability)));
            Ok(())
        },
    )?;
    let mut result = how.result(
        Task::ZeroshotClassification,
        dataset,
        split,
        settings,
        (&set.omissions, tally),
    );
    // Of five classes, every photo's is among the best five.
    let top5 = whole.top5().filter(|_| classes.len() > GUESSES);
    result.metrics = named([
        ("acc1", whole.top1()),
        ("acc5", top5),
        ("mean_per_class_recall", whole.mean_per_class()),
    ]);
    if classes.len() <= GUESSES {
        let reason = "of five classes or fewer, the right one is always among the best five";
        result.missing.insert("acc5".to_owned(), reason.to_owned());
    }
    say_what_is_missing(&mut result);
    result.per_class = classes
        .iter()
        .zip(whole.per_class())
        .map(|(class, found)| ClassResult {
            name: class.name.clone(),
            iou: None,
            accuracy: found.accuracy(),
            count: found.samples,
        })
        .collect();
    result.confusion = whole
        .confusion()
        .map(|found| confusion(classes, |truth, p| found.get(truth, p)));
    result.gallery = how.gallery(&benchmark, scores, "probability");
    Ok(result)
}

struct Classification<'a> {
    set: &'a ImageFolder,
    encoder: Encoder<'a>,
    pooling: Pooling,
    vocabulary: Vocabulary,
    protocol: &'a Protocol,
}

/// The best classes of a photo.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Indices of the best classes, the best first.
    guesses: Vec<usize>,
    /// Probability of the true class: softmax of 100 times the cosines, as CLIP.
    truth_probability: f32,
}

/// CLIP's factor on cosines before the softmax.
const LOGIT_SCALE: f32 = 100.0;

impl Benchmark for Classification<'_> {
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

    fn judge(&self, sample: usize, (): (), grid: TokenGrid) -> Result<Record, String> {
        let embedding = grid.pool(self.pooling);
        let cosines = self.vocabulary.cosines(&embedding);
        let mut order: Vec<usize> = (0..cosines.len()).collect();
        order.sort_by(|a, b| cosines[*b].total_cmp(&cosines[*a]).then(a.cmp(b)));
        order.truncate(GUESSES);
        let truth = *cosines
            .get(usize::from(self.set.samples[sample].class))
            .ok_or("its class has no text")?;
        let sum: f32 = cosines
            .iter()
            .map(|cosine| (LOGIT_SCALE * (cosine - truth)).exp())
            .sum();
        Ok(Record {
            guesses: order,
            truth_probability: 1.0 / sum,
        })
    }
}

impl Pictured for Classification<'_> {
    fn picture(&self, sample: usize) -> Result<Picture, String> {
        let ((), grid) = self.again(sample)?;
        let record = self.judge(sample, (), grid)?;
        let item = &self.set.samples[sample];
        let name = |class: usize| {
            self.vocabulary
                .texts
                .get(class)
                .map_or("?", String::as_str)
                .to_owned()
        };
        let guess = record
            .guesses
            .first()
            .map_or_else(String::new, |g| name(*g));
        Ok(Picture {
            photo: read_photo(&item.image, self.protocol)?.0,
            note: format!("truth: {}, guess: {guess}", name(usize::from(item.class))),
            ..Picture::default()
        })
    }
}
