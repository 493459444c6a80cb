//! The calls under `/v1`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use percept::image::{Decoded, Note, RgbImage, decode_noted, jpeg_rgb, resize};
use percept::{
    Background, Centering, Classifier, Embedder, GroupOptions, Grouper, SegmentOptions, Segmenter,
    Size, TokenGrid, View,
};
use serde_json::json;

use crate::app::App;
use crate::config::{DEFAULT_SIZE, IMAGE_LIMITS, MAX_PATCHES};
use crate::output::{HEAT_SCALE, Map, Output, Rendered, SimilarityJson, heat_colours, heat_png};
use crate::params::{
    self, ClassifyParams, EmbedParams, GroupParams, PhotoParams, SegmentParams, SessionParams,
};
use crate::problem::{Kind, Problem};
use crate::sessions::Session;
use crate::upload::{Params, Photo};

/// Quality of the photos that are sent back to be looked at.
const JPEG_QUALITY: u8 = 90;

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A photo that came with it.
    Upload(Photo),
    /// One that is kept.
    Kept(Arc<Session>),
}

impl Source {
    fn photo(&self) -> &Photo {
        match self {
            Source::Upload(photo) => photo,
            Source::Kept(session) => &session.photo,
        }
    }

    fn decoded(&self) -> Result<Decoded, Problem> {
        Ok(decode_noted(&self.photo().bytes, &IMAGE_LIMITS)?)
    }
}

/// A photo's tokens.
struct Tokens {
    grid: Arc<TokenGrid>,
    /// Width and height of the upright photo, in pixels.
    size: [u32; 2],
    /// What is odd about its file.
    notes: Vec<Note>,
}

impl App {
    /// The photo of a request: its own, or that of a session.
    fn source(&self, photo: Option<Photo>, session: Option<&str>) -> Result<Source, Problem> {
        match (photo, session) {
            (Some(photo), None) => Ok(Source::Upload(photo)),
            (None, Some(id)) => Ok(Source::Kept(self.session(id)?)),
            (None, None) => Err(Problem::invalid(
                "there is no photo: send `image` or `session`",
            )),
            (Some(_), Some(_)) => Err(Problem::invalid("send `image` or `session`, not both")),
        }
    }

    fn session(&self, id: &str) -> Result<Arc<Session>, Problem> {
        self.sessions.get(id).ok_or_else(|| {
            Problem::new(
                Kind::NoSession,
                "there is no such session, or it was not used for too long; upload the photo again",
            )
        })
    }

    /// The size at which a photo is encoded: a kept one is looked at as it was, unless the request says
    /// otherwise.
    fn encoding_size(&self, size: Option<u32>, session: Option<&str>) -> Result<Size, Problem> {
        let kept = || Some(self.sessions.get(session?)?.encoded_at);
        params::size(size.or_else(kept)).map(Size::ShortSide)
    }

    /// Tokens of a photo encoded at `size`. Decoded pixels never leave the worker: what waits is small.
    async fn tokens(self: &Arc<Self>, source: &Source, size: Size) -> Result<Tokens, Problem> {
        if let Source::Kept(session) = source
            && size == Size::ShortSide(session.encoded_at)
        {
            return Ok(Tokens {
                grid: Arc::clone(&session.grid),
                size: session.size,
                notes: session.notes.clone(),
            });
        }
        let (app, source) = (Arc::clone(self), source.clone());
        let prepare = move || {
            let view = View::new(&app.model, size, None)?.with_max_patches(MAX_PATCHES);
            let Decoded { image, notes } = source.decoded()?;
            let size = [image.width(), image.height()];
            Ok((view.prepare(&image), size, notes))
        };
        let (image, size, notes) = self.engine.run(prepare).await?;
        let grid = Arc::new(self.engine.encode(image).await?);
        Ok(Tokens { grid, size, notes })
    }
}

pub(crate) async fn models(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let config = app.model.config();
    let image = config.image.as_ref().map(|image| {
        json!({
            "patch_size": image.vit.patch_size,
            "dim": image.vit.dim,
            "pooling": image.pooling.name(),
            "image_size": image.image_size,
        })
    });
    let text = config
        .text
        .as_ref()
        .map(|text| json!({ "dim": text.dim() }));
    Ok(Json(json!({
        "models": [{
            "name": app.config.model_name,
            "image": image,
            "text": text,
            "templates": config.templates,
            "default_size": DEFAULT_SIZE,
        }],
        "percept": env!("CARGO_PKG_VERSION"),
        "max_upload": app.config.max_upload,
    }))
    .into_response())
}

pub(crate) async fn create_session(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let mut received = app.uploads.receive::<SessionParams>(request).await?;
    let encoded_at = params::size(received.params.size)?;
    let photo = received.params.photo().take();
    let source = app.source(photo, None)?;
    let _place = app.engine.enter()?;
    let tokens = app.tokens(&source, Size::ShortSide(encoded_at)).await?;
    let [width, height] = tokens.size;
    let notes: Vec<_> = tokens.notes.iter().map(Note::to_string).collect();
    let grid = [tokens.grid.rows, tokens.grid.columns];
    let photo = source.photo();
    let session = Session {
        // A copy: what was uploaded beside the photo is not kept with it.
        photo: Photo {
            bytes: Bytes::copy_from_slice(&photo.bytes),
            name: photo.name.clone(),
        },
        size: tokens.size,
        grid: tokens.grid,
        encoded_at,
        notes: tokens.notes,
    };
    let id = app
        .sessions
        .insert(session)
        .map_err(|e| Problem::internal(e.to_string()))?;
    let body = json!({
        "session": id,
        "width": width,
        "height": height,
        "grid": grid,
        "notes": notes,
        "expires_in": app.config.sessions.idle.as_secs(),
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

pub(crate) async fn delete_session(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    match app.sessions.remove(&id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::new(Kind::NoSession, "there is no such session")),
    }
}

/// The photo upright, as results line up with it, in a format that every browser shows.
pub(crate) async fn session_photo(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<PhotoParams>, axum::extract::rejection::QueryRejection>,
) -> Result<Rendered, Problem> {
    let Query(params) = query.map_err(|e| Problem::invalid(e.body_text()))?;
    let session = app.session(&id)?;
    let out = params::result_size(session.size, params.max_side)?;
    let source = Source::Kept(session);
    let _place = app.engine.enter()?;
    app.engine
        .run(move || {
            let shown = scaled(&source, out)?;
            Ok(Rendered::jpeg(jpeg_rgb(&shown, JPEG_QUALITY)?))
        })
        .await
}

pub(crate) async fn segment(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Rendered, Problem> {
    let mut received = app.uploads.receive::<SegmentParams>(request).await?;
    let photo = received.params.photo().take();
    let params = received.params;
    let output = Output::choose(params.output, &received.headers)?;
    let templates = app.texts.templates(params.templates)?;
    let labels = params::labels(&params.labels)?;
    let background = params::background(params.background.as_deref())?;
    params::check_prompts(&labels, &background, &templates)?;
    let size = app.encoding_size(params.size, params.session.as_deref())?;
    let heat = match output {
        Output::Heatmap | Output::Similarity => Some(heat_label(&labels, params.label.as_deref())?),
        _ => None,
    };
    let source = app.source(photo, params.session.as_deref())?;
    let _place = app.engine.enter()?;
    let tokens = app.tokens(&source, size).await?;
    let out = params::result_size(tokens.size, params.max_side)?;
    let worker = Arc::clone(&app);
    app.engine
        .run(move || {
            let [width, height] = out;
            let bank = worker.texts.bank(&labels, params.templates, &background)?;
            let options = SegmentOptions { size, window: None };
            let segmenter = Segmenter::new(&worker.model, &bank, &options)?;
            if let Some(row) = heat {
                let maps = segmenter.similarity(&tokens.grid);
                if output == Output::Similarity {
                    let (rows, columns) = (tokens.grid.rows, tokens.grid.columns);
                    return Rendered::json(&SimilarityJson {
                        label: labels[row].name.clone(),
                        rows,
                        columns,
                        values: maps.upsample(row, columns, rows),
                        scale: HEAT_SCALE,
                        colours: heat_colours(),
                    });
                }
                return heat_png(maps.upsample(row, width as usize, height as usize), out);
            }
            let result = segmenter.assign(&tokens.grid, width, height)?;
            let map = Map {
                regions: result.regions(),
                labels: result.labels,
                truncated: bank.truncated().to_vec(),
                notes: tokens.notes,
                name: source.photo().name.clone(),
            };
            map.render(output, || scaled(&source, out))
        })
        .await
}

pub(crate) async fn group(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Rendered, Problem> {
    let mut received = app.uploads.receive::<GroupParams>(request).await?;
    let photo = received.params.photo().take();
    let params = received.params;
    let output = Output::choose(params.output, &received.headers)?;
    if matches!(output, Output::Heatmap | Output::Similarity) {
        return Err(Problem::invalid("output: groups have no heat map"));
    }
    let size = app.encoding_size(params.size, params.session.as_deref())?;
    let options = GroupOptions {
        groups: params::groups(params.groups)?,
        centering: match params.centered {
            true => Centering::Centered,
            false => Centering::Raw,
        },
        size,
        window: None,
    };
    let source = app.source(photo, params.session.as_deref())?;
    let _place = app.engine.enter()?;
    let tokens = app.tokens(&source, size).await?;
    let out = params::result_size(tokens.size, params.max_side)?;
    let worker = Arc::clone(&app);
    app.engine
        .run(move || {
            let grouper = Grouper::new(&worker.model, &options)?;
            let result = grouper.assign(&tokens.grid, out[0], out[1])?;
            let map = Map {
                regions: result.regions(),
                labels: result.labels,
                truncated: Vec::new(),
                notes: tokens.notes,
                name: source.photo().name.clone(),
            };
            map.render(output, || scaled(&source, out))
        })
        .await
}

pub(crate) async fn classify(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Rendered, Problem> {
    let mut received = app.uploads.receive::<ClassifyParams>(request).await?;
    let photo = received.params.photo().take();
    let params = received.params;
    Output::choose(Some(Output::Json), &received.headers)?;
    let templates = app.texts.templates(params.templates)?;
    let labels = params::labels(&params.labels)?;
    params::check_prompts(&labels, &Background::None, &templates)?;
    let top = params.top.map_or(usize::MAX, |top| top as usize);
    if top == 0 {
        return Err(Problem::invalid("top: 0 labels"));
    }
    let source = app.source(photo, params.session.as_deref())?;
    let _place = app.engine.enter()?;
    let size = Size::CenterCrop(app.image_size()?);
    let tokens = app.tokens(&source, size).await?;
    let worker = Arc::clone(&app);
    app.engine
        .run(move || {
            let bank = worker
                .texts
                .bank(&labels, params.templates, &Background::None)?;
            let scores = Classifier::new(&worker.model, &bank)?.score(&tokens.grid);
            let best: Vec<_> = scores.iter().take(top).collect();
            Rendered::json(&json!({ "labels": best, "truncated": bank.truncated() }))
        })
        .await
}

pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Rendered, Problem> {
    let mut received = app.uploads.receive::<EmbedParams>(request).await?;
    let photo = received.params.photo().take();
    let params = received.params;
    Output::choose(Some(Output::Json), &received.headers)?;
    if let Some(texts) = params.texts {
        if photo.is_some() || params.session.is_some() {
            return Err(Problem::invalid("send a photo or `texts`, not both"));
        }
        params::check_names("texts", &texts.0)?;
        let _place = app.engine.enter()?;
        let worker = Arc::clone(&app);
        let embed = move || {
            let encoded = worker.model.encode_texts(&texts.0);
            let encoded = encoded.map_err(percept::Error::from)?;
            Rendered::json(&json!({
                "dim": encoded.embeddings.first().map_or(0, Vec::len),
                "embeddings": encoded.embeddings,
                "truncated": encoded.truncated,
            }))
        };
        return app.engine.run(embed).await;
    }
    let source = app.source(photo, params.session.as_deref())?;
    let _place = app.engine.enter()?;
    let size = Size::CenterCrop(app.image_size()?);
    let tokens = app.tokens(&source, size).await?;
    let embedding = Embedder::new(&app.model, None, None)?.pool(&tokens.grid);
    let dim = embedding.len();
    Rendered::json(&json!({ "dim": dim, "embeddings": [embedding], "truncated": [] }))
}

/// The row of the label whose heat map is wanted: the one named, or the only one.
fn heat_label(labels: &[percept::Label], wanted: Option<&str>) -> Result<usize, Problem> {
    match wanted {
        None if labels.len() == 1 => Ok(0),
        None => Err(Problem::invalid(
            "label: say which label's heat map is wanted",
        )),
        Some(name) => labels
            .iter()
            .position(|label| label.name == name.trim())
            .ok_or_else(|| Problem::invalid("label: not one of the labels")),
    }
}

/// The photo at the size of a result.
fn scaled(source: &Source, [width, height]: [u32; 2]) -> Result<RgbImage, Problem> {
    let pixels = source.decoded()?.image;
    if (width, height) == pixels.dimensions() {
        return Ok(pixels);
    }
    Ok(resize(
        &pixels,
        width,
        height,
        percept::image::Filter::Bicubic,
    ))
}
