//! What requests say, and what of it can be carried out.

use percept::{Background, Label, Templates, labels_of};
use serde::Deserialize;

use crate::config::{DEFAULT_SIZE, MAX_GROUPS, MAX_LABEL_CHARS, MAX_LABELS, MAX_PROMPTS, SIZES};
use crate::output::Output;
use crate::problem::{Kind, Problem};
use crate::texts::TemplateSet;
use crate::upload::{MAX_FIELD_BYTES, Params, Photo};
use crate::values::{Labels, Names};

/// `POST /v1/sessions`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionParams {
    image: Option<Photo>,
    pub(crate) size: Option<u32>,
}

/// `POST /v1/segment`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentParams {
    image: Option<Photo>,
    pub(crate) session: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) background: Option<String>,
    #[serde(default)]
    pub(crate) templates: TemplateSet,
    pub(crate) size: Option<u32>,
    pub(crate) output: Option<Output>,
    /// The label of a heat map.
    pub(crate) label: Option<String>,
    pub(crate) max_side: Option<u32>,
}

/// `POST /v1/group`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupParams {
    image: Option<Photo>,
    pub(crate) session: Option<String>,
    pub(crate) groups: Option<u32>,
    #[serde(default)]
    pub(crate) centered: bool,
    pub(crate) size: Option<u32>,
    pub(crate) output: Option<Output>,
    pub(crate) max_side: Option<u32>,
}

/// `POST /v1/classify`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyParams {
    image: Option<Photo>,
    pub(crate) session: Option<String>,
    pub(crate) labels: Labels,
    #[serde(default)]
    pub(crate) templates: TemplateSet,
    pub(crate) top: Option<u32>,
}

/// `POST /v1/embed`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedParams {
    image: Option<Photo>,
    pub(crate) session: Option<String>,
    pub(crate) texts: Option<Names>,
}

/// `GET /v1/sessions/{id}/photo`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhotoParams {
    pub(crate) max_side: Option<u32>,
}

macro_rules! takes_a_photo {
    ($($name:ty),+) => {
        $(impl Params for $name {
            fn photo(&mut self) -> &mut Option<Photo> {
                &mut self.image
            }
        })+
    };
}

takes_a_photo!(
    SessionParams,
    SegmentParams,
    GroupParams,
    ClassifyParams,
    EmbedParams
);

/// The labels of a request.
///
/// # Errors
/// There are none, too many, one is empty, too long, or there twice.
pub(crate) fn labels(Labels(names): &Labels) -> Result<Vec<Label>, Problem> {
    check_names("labels", &names.0)?;
    Ok(labels_of(&names.0)?)
}

/// No more sentences than are taken: what labels and background words become with templates.
///
/// # Errors
/// There are more.
pub(crate) fn check_prompts(
    labels: &[Label],
    background: &Background,
    templates: &Templates,
) -> Result<(), Problem> {
    let words = match background {
        Background::Words(words) => words.len(),
        _ => 0,
    };
    let prompts = (labels.len() + words) * templates.as_slice().len();
    if prompts <= MAX_PROMPTS {
        return Ok(());
    }
    Err(Problem::invalid(format!(
        "labels: {prompts} sentences with these templates, the limit is {MAX_PROMPTS}"
    )))
}

/// No more names, and none longer, than are taken.
///
/// # Errors
/// There are none or too many, or one is too long.
pub(crate) fn check_names(what: &str, names: &[String]) -> Result<(), Problem> {
    if names.is_empty() {
        return Err(Problem::invalid(format!("{what}: none given")));
    }
    if names.len() > MAX_LABELS {
        let count = names.len();
        let detail = format!("{what}: {count} or more are too many, the limit is {MAX_LABELS}");
        return Err(Problem::invalid(detail));
    }
    if names
        .iter()
        .any(|name| name.chars().count() > MAX_LABEL_CHARS)
    {
        let detail = format!("{what}: one is longer than {MAX_LABEL_CHARS} characters");
        return Err(Problem::invalid(detail));
    }
    Ok(())
}

/// The background of a request: `auto` unless given.
///
/// # Errors
/// It is none, or has too many words.
pub(crate) fn background(text: Option<&str>) -> Result<Background, Problem> {
    let text = text.unwrap_or("auto");
    // Before it is taken apart: in JSON it may be as long as the body.
    if text.len() > MAX_FIELD_BYTES {
        let detail = format!("background: over {MAX_FIELD_BYTES} bytes");
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    let background = text.parse()?;
    if let Background::Words(words) = &background {
        check_names("background", words)?;
    }
    Ok(background)
}

/// Short side at which a photo is encoded, in pixels.
///
/// # Errors
/// It is out of range.
pub(crate) fn size(size: Option<u32>) -> Result<u32, Problem> {
    let size = size.unwrap_or(DEFAULT_SIZE);
    if SIZES.contains(&size) {
        return Ok(size);
    }
    let (low, high) = SIZES.into_inner();
    let detail = format!("size: {size} is not between {low} and {high} pixels");
    Err(Problem::invalid(detail))
}

/// Number of groups.
///
/// # Errors
/// It is out of range.
pub(crate) fn groups(groups: Option<u32>) -> Result<usize, Problem> {
    match groups.unwrap_or(8) as usize {
        groups @ 1..=MAX_GROUPS => Ok(groups),
        groups => Err(Problem::invalid(format!(
            "groups: {groups} is not between 1 and {MAX_GROUPS}"
        ))),
    }
}

/// The size of a result for a photo of this width and height: no side above `max_side`, the aspect kept.
///
/// # Errors
/// `max_side` is 0.
pub(crate) fn result_size(
    [width, height]: [u32; 2],
    max_side: Option<u32>,
) -> Result<[u32; 2], Problem> {
    let longest = width.max(height).max(1);
    match max_side {
        Some(0) => Err(Problem::invalid("max_side: 0 pixels")),
        Some(most) if most < longest => Ok([width, height].map(|side| {
            // At most `most`, so it fits; halves round up.
            let scaled = (2 * u64::from(side) * u64::from(most) + u64::from(longest))
                / (2 * u64::from(longest));
            u32::try_from(scaled).unwrap_or(most).max(1)
        })),
        _ => Ok([width, height]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_aspect_and_never_vanish() {
        assert_eq!(result_size([1000, 750], None).unwrap(), [1000, 750]);
        assert_eq!(result_size([1000, 750], Some(2000)).unwrap(), [1000, 750]);
        assert_eq!(result_size([1000, 750], Some(500)).unwrap(), [500, 375]);
        assert_eq!(result_size([3, 20_000], Some(100)).unwrap(), [1, 100]);
        assert!(result_size([3, 4], Some(0)).is_err());
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let labelled = |names| Labels(Names(names));
        let names = |count: usize| labelled((0..count).map(|i| format!("thing {i}")).collect());
        assert_eq!(labels(&names(1000)).unwrap().len(), 1000);
        assert!(labels(&names(1001)).is_err() && labels(&names(0)).is_err());
        assert!(labels(&labelled(vec!["é".repeat(1000)])).is_ok());
        assert!(labels(&labelled(vec!["x".repeat(1001)])).is_err());
        let (labels, templates) = (labels(&names(20)).unwrap(), Templates::imagenet80());
        let check = |background| check_prompts(&labels, &background, &templates);
        assert!(check(Background::Auto).is_ok());
        assert!(check(Background::Words(names(6).0.0)).is_err());
        assert!(super::background(Some(&"a,".repeat(40_000))).is_err());
        assert!(size(Some(31)).is_err() && size(Some(u32::MAX)).is_err());
        assert!(groups(Some(0)).is_err() && groups(Some(65)).is_err());
    }
}
