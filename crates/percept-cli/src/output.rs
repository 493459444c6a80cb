//! Results as files: masks, overlays, run lengths, arrays.

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use percept::image::{
    LabelMap, OverlayStyle, Palette, RgbImage, is_result, mask_png_with, npy_f32, overlay_with,
    result_png, write_atomic,
};
use percept::{ImageId, Region, SimilarityMaps};
use serde_json::{Value, json};

use crate::Usage;
use crate::args::{Format, OutputArgs};
use crate::console::Console;
use crate::inputs::{self, Input};
use crate::pipeline::plural;
use crate::record::{Done, Record, Source, text_of};

/// Where results go unless another folder is named.
const FOLDER: &str = "percept-out";

/// Most folders that are tried when the usual ones hold other runs.
const MAX_FOLDERS: usize = 999;

/// Most bytes of the file of settings.
const MAX_SETTINGS: u64 = 256 << 20;

/// Prints one line to standard output.
///
/// # Errors
/// Nobody reads it.
pub fn print_line(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Writes a file of results, whole or not at all.
///
/// # Errors
/// What the system said, with the path.
pub fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomic(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file of JSON for people, whole or not at all.
///
/// # Errors
/// As [`write_file`].
pub fn write_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    write_file(path, pretty(value)?.as_bytes())
}

fn pretty(value: &Value) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Whose results they are. Each command has names of its own, so that both can write to one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Segment,
    Group,
}

impl Kind {
    /// The command's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Group => "group",
        }
    }

    /// What all photos have in common.
    fn settings(self) -> &'static str {
        match self {
            Self::Segment => "labels.json",
            Self::Group => "groups.json",
        }
    }

    /// What was done for each photo.
    fn record(self) -> &'static str {
        match self {
            Self::Segment => "segment.jsonl",
            Self::Group => "groups.jsonl",
        }
    }

    /// COCO results, and the photos that they are about.
    fn coco(self) -> [&'static str; 2] {
        match self {
            Self::Segment => ["results.json", "images.json"],
            Self::Group => ["groups.results.json", "groups.images.json"],
        }
    }

    /// How a photo's file in a format ends; `None` for one file of all photos.
    fn ending(self, format: Format) -> Option<&'static str> {
        Some(match (self, format) {
            (_, Format::Rle) => return None,
            (Self::Segment, Format::Overlay) => "overlay.png",
            (Self::Segment, Format::Mask) => "mask.png",
            (Self::Segment, Format::Npy) => "npy",
            (Self::Segment, Format::Json) => "json",
            (Self::Group, Format::Overlay) => "groups.overlay.png",
            (Self::Group, Format::Mask) => "groups.png",
            (Self::Group, Format::Npy) => "groups.npy",
            (Self::Group, Format::Json) => "groups.json",
        })
    }
}

/// Writes the results of a run into a folder.
pub struct Writer {
    kind: Kind,
    folder: PathBuf,
    formats: Vec<Format>,
    style: OverlayStyle,
    has_legend: bool,
    /// Numbers of the classes in COCO results, where they are not their indices.
    categories: Option<Vec<u64>>,
    record: Record,
    /// Files of an earlier run that were removed, and the photos that they were of.
    removed: [usize; 2],
    /// Whether this run wrote the settings.
    is_new: bool,
}

/// Why results cannot go to a folder without a loss.
struct Conflict(String);

impl Writer {
    /// Makes the folder and writes what all photos have in common, so that a folder that cannot be
    /// written to is known before any work is done. With it come the photos that are to be done: with
    /// `--resume` not those that an earlier run did with the same settings.
    ///
    /// Nothing is overwritten but results of the same photo with the same settings. Where the usual
    /// folder has others, the next free one is taken; a folder that was named is refused.
    ///
    /// # Errors
    /// [`Usage`] if results are in the way; or a file cannot be read or written.
    pub fn new<'a>(
        args: &OutputArgs,
        kind: Kind,
        settings: &Value,
        inputs: &'a [Input],
    ) -> anyhow::Result<(Self, Vec<&'a Input>)> {
        if let Some(out) = args.out.as_ref().filter(|out| out.is_file()) {
            let reason = format!("--out {}: is a file; results go to a folder", out.display());
            return Err(Usage(reason).into());
        }
        let folders: Vec<PathBuf> = match &args.out {
            Some(folder) => vec![folder.clone()],
            None if args.force => vec![FOLDER.into()],
            None => std::iter::once(FOLDER.to_owned())
                .chain((2..=MAX_FOLDERS).map(|number| format!("{FOLDER}-{number}")))
                .map(PathBuf::from)
                .collect(),
        };
        let mut first = None;
        for folder in folders {
            match Self::in_folder(args, kind, settings, inputs, folder)? {
                Ok(found) => return Ok(found),
                Err(conflict) => first = first.or(Some(conflict)),
            }
        }
        let Conflict(reason) = first.unwrap_or(Conflict("no folder for results".into()));
        Err(Usage(reason).into())
    }

    fn in_folder<'a>(
        args: &OutputArgs,
        kind: Kind,
        settings: &Value,
        inputs: &'a [Input],
        folder: PathBuf,
    ) -> anyhow::Result<Result<(Self, Vec<&'a Input>), Conflict>> {
        let record = Record::read(folder.join(kind.record()))?;
        let settings_path = folder.join(kind.settings());
        let earlier = match inputs::read_file(&settings_path, MAX_SETTINGS) {
            Ok(text) => Some(text),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => None,
            Err(error) => {
                let path = settings_path.display();
                return Err(error).with_context(|| format!("cannot read {path}"));
            }
        };
        // As text, since not every number comes back from JSON to the bit.
        let wanted = pretty(settings)?;
        let is_other = earlier
            .as_ref()
            .is_some_and(|text| text != wanted.as_bytes());
        let is_new = earlier.is_none();
        if let Some(text) = earlier.filter(|_| is_other) {
            let path = settings_path.display();
            let earlier: Value = serde_json::from_slice(&text).unwrap_or_default();
            if !earlier["percept"].is_string() {
                return Ok(Err(Conflict(format!(
                    "{path} is no file of percept's; name another folder with --out"
                ))));
            }
            if !args.force {
                return Ok(Err(Conflict(format!(
                    "{path} is of a run with other settings ({}); --out names another folder, --force \
                     removes its results, those of {}",
                    differences(&earlier, settings).join("; "),
                    plural(record.photos().count(), "photo")
                ))));
            }
        }
        let mut writer = Self {
            kind,
            folder,
            formats: args.formats(),
            style: OverlayStyle {
                opacity: args.opacity,
                background: Some(0),
                palette: args.palette.into(),
                max_side: args.overlay_size.0,
            },
            has_legend: !args.no_legend,
            categories: None,
            record,
            removed: [0, 0],
            is_new: is_new || is_other,
        };
        if let Some(conflict) = writer.conflict(inputs, args.force) {
            return Ok(Err(conflict));
        }
        // Last, when nothing is refused any more.
        if is_other {
            let photos = writer.record.photos().count();
            let files = remove_results(&writer.folder, kind, &writer.record)?;
            writer.removed = [files, photos];
            writer.record = Record::read(writer.folder.join(kind.record()))?;
        }
        let to_do = inputs
            .iter()
            .filter(|input| !args.resume || !writer.has_done(input))
            .collect();
        let folder = &writer.folder;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot make the output folder", folder.display()))?;
        write_file(&settings_path, wanted.as_bytes())?;
        Ok(Ok((writer, to_do)))
    }

    /// Says what of an earlier run was removed, which may be of other photos than those of this one.
    pub fn tell_removed(&self, console: &Console) {
        let [files, photos] = self.removed;
        if files > 0 {
            console.note(&format!(
                "--force: removed {} of {}, of a run with other settings, from {}",
                plural(files, "result"),
                plural(photos, "photo"),
                self.folder.display()
            ));
        }
    }

    /// Gives classes other numbers in COCO results.
    pub fn number_classes(&mut self, categories: Vec<u64>) {
        self.categories = Some(categories);
    }

    /// The folder of results.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file that is there and would be lost.
    fn conflict(&self, inputs: &[Input], force: bool) -> Option<Conflict> {
        let of_all = self.kind.coco().map(|name| self.folder.join(name));
        let has_coco = self.record.photos().any(|photo| photo.coco.is_some());
        let is_written = self.formats.contains(&Format::Rle) && !has_coco;
        let mut of_all = of_all.into_iter().filter(|_| is_written);
        let foreign = of_all.find(|path| path.is_file()).or_else(|| {
            let of_photo = |input| {
                let mut paths = self.paths(input);
                paths.find(|path| path.is_file() && !self.is_result(input, path))
            };
            inputs.iter().find_map(of_photo)
        });
        if let Some(path) = foreign {
            return Some(Conflict(format!(
                "{} is no result of percept's, and would be lost; name another folder with --out",
                path.display()
            )));
        }
        let mut in_the_way = inputs.iter().filter(|_| !force);
        let (path, whose) = in_the_way.find_map(|input| self.in_the_way(input))?;
        Some(Conflict(format!(
            "{} {whose}; --out names another folder, --force replaces it",
            path.display()
        )))
    }

    /// A result of another photo, or of nobody knows which, that one of `input` would replace, and whose
    /// it is.
    fn in_the_way(&self, input: &Input) -> Option<(PathBuf, String)> {
        let mut there = self.paths(input).filter(|path| path.is_file());
        match self.record.get(&input.name) {
            Some(done) if !is_of(done, input) => {
                // Where no file is, its masks are in the one of all photos.
                let [results, _] = self.kind.coco();
                let path = there.next().unwrap_or_else(|| self.folder.join(results));
                let whose = match input.is_stdin() {
                    true => "is of an earlier photo from standard input".into(),
                    false => format!("is of {}", done.image),
                };
                Some((path, whose))
            }
            _ => {
                let path = there.find(|path| !self.is_recorded(input, path))?;
                Some((path, "is there already".into()))
            }
        }
    }

    /// Whether percept wrote a file: its pictures say so, of others the record knows.
    fn is_result(&self, input: &Input, path: &Path) -> bool {
        let is_picture = path.extension().is_some_and(|ending| ending == "png");
        self.is_recorded(input, path) || is_picture && starts_as_result(path)
    }

    /// Whether a file with the name of `input` is one that a run wrote.
    fn is_recorded(&self, input: &Input, path: &Path) -> bool {
        let files = self.record.get(&input.name).map(|done| &done.files);
        let below = path.strip_prefix(&self.folder).map(text_of);
        files
            .zip(below.ok())
            .is_some_and(|(files, below)| files.contains(&below))
    }

    /// Whether all that is wanted of a photo is there, of the photo as it is.
    fn has_done(&self, input: &Input) -> bool {
        let Some(done) = self.record.get(&input.name) else {
            return false;
        };
        let mut files = self.paths(input);
        !done.is_begun
            && Source::of(&input.path).is_some_and(|source| source == done.source)
            && (done.coco.is_some() || !self.formats.contains(&Format::Rle))
            && files.all(|path| path.is_file())
    }

    /// Writes one photo's results and describes them.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(
        &mut self,
        input: &Input,
        photo: &RgbImage,
        labels: &LabelMap,
        similarity: &SimilarityMaps,
        regions: &[Region],
        more: Value,
    ) -> anyhow::Result<Value> {
        let mut described = json!({
            "image": input.path.display().to_string(),
            "width": labels.width(),
            "height": labels.height(),
            "regions": regions,
        });
        if let (Value::Object(described), Value::Object(more)) = (&mut described, more) {
            described.extend(more);
        }
        let mut done = self.about(input, [labels.width(), labels.height()]);
        // A run that is killed from here on leaves files, which are known to be percept's then.
        let earlier = self.record.get(&input.name);
        let is_known = earlier.is_some_and(|earlier| {
            earlier.source == done.source && done.files.iter().all(|f| earlier.files.contains(f))
        });
        if !is_known {
            self.record.add(Done {
                is_begun: true,
                ..done.clone()
            })?;
        }
        let mut files = serde_json::Map::new();
        for format in self.formats.clone() {
            let bytes = match format {
                Format::Overlay => {
                    let entries = regions.iter().map(Region::legend_entry);
                    let legend: Vec<_> = entries.filter(|_| self.has_legend).collect();
                    result_png(&overlay_with(photo, labels, &legend, &self.style))?
                }
                Format::Mask => mask_png_with(labels, self.style.palette)?,
                Format::Npy => {
                    let shape = [similarity.count, similarity.height, similarity.width];
                    npy_f32(&shape, &similarity.values)
                }
                // Written last, when the other files are known.
                Format::Json => continue,
                Format::Rle => {
                    done.coco = Some(self.coco(input, labels, regions));
                    let [results, _] = self.kind.coco().map(|name| self.folder.join(name));
                    files.insert("rle".into(), json!(results.display().to_string()));
                    continue;
                }
            };
            if let Some(path) = self.path(input, format) {
                write_file(&path, &bytes)?;
                files.insert(format.name().into(), json!(path.display().to_string()));
            }
        }
        described["files"] = Value::Object(files);
        if let Some(path) = self.path(input, Format::Json)
            && self.formats.contains(&Format::Json)
        {
            described["files"]["json"] = json!(path.display().to_string());
            write_json(&path, &described)?;
        }
        self.record.add(done)?;
        Ok(described)
    }

    /// What is recorded of a photo.
    fn about(&self, input: &Input, size: [u32; 2]) -> Done {
        let below = |path: PathBuf| path.strip_prefix(&self.folder).map(text_of);
        Done {
            image: input.path.display().to_string(),
            file: text_of(&input.file),
            name: text_of(&input.name),
            source: Source::of(&input.path).unwrap_or_else(|| Source::once(&input.path)),
            size,
            files: self.paths(input).flat_map(below).collect(),
            is_begun: false,
            coco: None,
        }
    }

    fn coco(
        &self,
        input: &Input,
        labels: &LabelMap,
        regions: &[Region],
    ) -> Vec<percept::CocoResult> {
        let file = text_of(&input.file);
        // Photos get their numbers when all are known.
        let mut results = percept::coco_results(ImageId(0), &file, labels, regions);
        for result in &mut results {
            let number = |numbers: &Vec<u64>| numbers.get(result.category_id as usize).copied();
            result.category_id = self
                .categories
                .as_ref()
                .and_then(number)
                .unwrap_or(result.category_id);
        }
        results
    }

    /// Writes the files that are about all photos: those that were done, where a run was stopped.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(self, console: &Console) -> anyhow::Result<()> {
        if self.is_new && self.record.photos().next().is_none() {
            // Settings of nothing would be in the way of the next run.
            let _ = std::fs::remove_file(self.folder.join(self.kind.settings()));
            let _ = std::fs::remove_file(self.folder.join(self.kind.record()));
            // Where it is empty.
            let _ = std::fs::remove_dir(&self.folder);
            return Ok(());
        }
        if !self.formats.contains(&Format::Rle) {
            return Ok(());
        }
        let [results, images] = self.kind.coco().map(|name| self.folder.join(name));
        let contested = self.record.write_coco(&results, &images)?;
        if contested > 0 {
            console.note(&format!(
                "{contested} photos share a number with another; their ids are made up, see {}",
                images.display()
            ));
        }
        Ok(())
    }

    /// The files of one photo.
    fn paths(&self, input: &Input) -> impl Iterator<Item = PathBuf> {
        self.formats
            .iter()
            .filter_map(|format| self.path(input, *format))
    }

    fn path(&self, input: &Input, format: Format) -> Option<PathBuf> {
        let mut name = input.name.clone().into_os_string();
        name.push(".");
        name.push(self.kind.ending(format)?);
        Some(self.folder.join(name))
    }
}

/// Whether what is recorded is of the photo of `input`. Standard input never is what it was.
fn is_of(done: &Done, input: &Input) -> bool {
    // One that cannot be read fails by itself.
    let is_same = |source: Source| source.path == done.source.path;
    !input.is_stdin() && Source::of(&input.path).is_none_or(is_same)
}

/// The settings in which two runs differ.
fn differences(one: &Value, other: &Value) -> Vec<String> {
    let (Value::Object(one), Value::Object(other)) = (one, other) else {
        return Vec::new();
    };
    let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| one.get(*name) != other.get(*name));
    // The texts of the classes.
    if names.iter().any(|name| *name == "classes") {
        names.retain(|name| *name != "rows");
    }
    let difference = |name: &String| {
        let [one, other] = [one, other].map(|settings| shown(settings.get(name)));
        let name = flag(name);
        // What differs may be too far behind to be shown, and a digest tells nobody anything.
        match one == other || name == "weights" {
            true => name.to_owned(),
            false => format!("{name}: {one} there, {other} here"),
        }
    };
    names.into_iter().map(difference).collect()
}

/// What sets a setting.
fn flag(name: &str) -> &str {
    match name {
        "classes" | "rows" => "--labels",
        "model" => "--model",
        "templates" => "--templates",
        "background" => "--background",
        "size" => "--size",
        "window" => "--window and --stride",
        "precision" => "--precision",
        "palette" => "--palette",
        "overlay" => "--opacity, --overlay-size and --no-legend",
        "centered" => "--centered",
        "percept" => "percept's version",
        name => name,
    }
}

/// A setting in a message.
fn shown(setting: Option<&Value>) -> String {
    let name = |item: &Value| match &item["name"] {
        Value::String(name) => name.clone(),
        _ => shown(Some(item)),
    };
    let long = match setting {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let is_named = |item: &&Value| item["name"] != "background";
            let names: Vec<String> = items.iter().filter(is_named).map(name).collect();
            names.join(", ")
        }
        Some(other) => other.to_string(),
    };
    percept::abbreviate(&long)
}

/// Removes what an earlier run of a command wrote, which its record names; how many of the photos' files were
/// there.
fn remove_results(folder: &Path, kind: Kind, record: &Record) -> anyhow::Result<usize> {
    let is_below = |file: &PathBuf| {
        let mut parts = file.components();
        parts.all(|part| matches!(part, Component::Normal(_)))
    };
    let of_all = kind.coco().into_iter().chain([kind.record()]);
    let of_all = of_all.map(|name| (PathBuf::from(name), 0));
    let of_photos = record.files().filter(is_below).map(|name| (name, 1));
    let mut removed = 0;
    for (name, counted) in of_photos.chain(of_all) {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => removed += counted,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            Err(_) => {}
        }
    }
    Ok(removed)
}

/// Whether a PNG says that percept made it.
fn starts_as_result(path: &Path) -> bool {
    inputs::start_of(path).is_ok_and(|start| is_result(&start))
}

/// A class of the settings.
pub fn class_json(index: u16, name: &str, palette: Palette) -> Value {
    json!({ "index": index, "name": name, "colour": palette.colour(index) })
}
