//! Results as files: masks, overlays, run lengths, arrays.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use percept::image::{
    LabelMap, OVERLAY_OPACITY, RgbImage, colour, mask_png, npy_f32, overlay, png_rgb, write_atomic,
};
use percept::{ImageId, Region, SimilarityMaps};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::args::{Format, OutputArgs};
use crate::inputs::Input;

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

/// Writes the results of a run into a folder.
pub struct Writer {
    folder: PathBuf,
    formats: Vec<Format>,
    results: Option<ResultsFile>,
}

impl Writer {
    /// Makes the folder and writes what all photos have in common to `labels.json`, so that a
    /// folder that cannot be written to is known before any work is done.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn new(args: &OutputArgs, common: &Value) -> anyhow::Result<Self> {
        let folder = args.out.clone();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("{}: cannot make the output folder", folder.display()))?;
        write_file(&folder.join("labels.json"), pretty(common).as_bytes())?;
        let results = args
            .format
            .contains(&Format::Rle)
            .then(|| ResultsFile::create(&folder))
            .transpose()?;
        Ok(Self {
            folder,
            formats: args.format.clone(),
            results,
        })
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
    ) -> anyhow::Result<Value> {
        let mut described = json!({
            "image": input.path.display().to_string(),
            "width": labels.width(),
            "height": labels.height(),
            "regions": regions,
        });
        let mut files = serde_json::Map::new();
        for format in self.formats.clone() {
            let (key, ending, bytes) = match format {
                Format::Overlay => {
                    let legend: Vec<_> = regions.iter().map(Region::legend_entry).collect();
                    let picture = overlay(photo, labels, &legend, OVERLAY_OPACITY, Some(0));
                    ("overlay", "overlay.png", png_rgb(&picture)?)
                }
                Format::Mask => ("mask", "mask.png", mask_png(labels)?),
                Format::Npy => {
                    let shape = [similarity.count, similarity.height, similarity.width];
                    ("npy", "npy", npy_f32(&shape, &similarity.values))
                }
                // Written last, when the other files are known.
                Format::Json => continue,
                Format::Rle => {
                    if let Some(results) = &mut self.results {
                        results.append(input, labels, regions)?;
                        files.insert("rle".into(), json!(results.path.display().to_string()));
                    }
                    continue;
                }
            };
            let path = self.path(input, ending);
            write_file(&path, &bytes)?;
            files.insert(key.into(), json!(path.display().to_string()));
        }
        described["files"] = Value::Object(files);
        if self.formats.contains(&Format::Json) {
            let path = self.path(input, "json");
            described["files"]["json"] = json!(path.display().to_string());
            write_file(&path, pretty(&described).as_bytes())?;
        }
        Ok(described)
    }

    /// Puts `results.json` into place.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        self.results.map_or(Ok(()), ResultsFile::finish)
    }

    fn path(&self, input: &Input, ending: &str) -> PathBuf {
        let mut name = input.name.clone().into_os_string();
        name.push(".");
        name.push(ending);
        self.folder.join(name)
    }
}

/// COCO results, written as they come and named when complete.
struct ResultsFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
    is_first: bool,
}

impl ResultsFile {
    fn create(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("results.json");
        let mut file = BufWriter::new(
            NamedTempFile::new_in(folder).with_context(|| path.display().to_string())?,
        );
        file.write_all(b"[")?;
        Ok(Self {
            file,
            path,
            is_first: true,
        })
    }

    fn append(
        &mut self,
        input: &Input,
        labels: &LabelMap,
        regions: &[Region],
    ) -> anyhow::Result<()> {
        let stem = input.path.file_stem().unwrap_or_default().to_string_lossy();
        let image_id = ImageId::new(&stem, &input.name.to_string_lossy());
        let file_name = input.path.file_name().unwrap_or_default().to_string_lossy();
        for result in percept::coco_results(&image_id, &file_name, labels, regions) {
            let value = serde_json::to_string(&result)?;
            let separator = if self.is_first { "\n" } else { ",\n" };
            self.is_first = false;
            write!(self.file, "{separator}{value}")
                .with_context(|| self.path.display().to_string())?;
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let place = || self.path.display().to_string();
        self.file.write_all(b"\n]\n").with_context(place)?;
        let file = self.file.into_inner().map_err(|e| e.into_error())?;
        share_as_usual(file.as_file());
        file.persist(&self.path)
            .with_context(|| self.path.display().to_string())?;
        Ok(())
    }
}

/// Temporary files are their owner's alone; results are for whom any new file is.
fn share_as_usual(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Not worth failing for.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

/// A class of `labels.json`.
pub fn class_json(index: u16, name: &str) -> Value {
    json!({ "index": index, "name": name, "colour": colour(index) })
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
