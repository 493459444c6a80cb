//! The strip below an overlay that says which colour is which label.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use image::{Rgb, RgbImage, imageops};

use crate::render::{LegendEntry, OverlayStyle, mix};

/// Narrowest strip that has room for a swatch, a short word and a percentage at the smallest text.
const MIN_WIDTH: u32 = 160;

/// Text height as a part of the width, so that a legend looks the same on every screen-filling
/// photo, within what is legible on the smallest and sensible on the largest.
const TEXT_PER_WIDTH: f32 = 1.0 / 36.0;
const TEXT_RANGE: (f32, f32) = (13.0, 150.0);

/// Rows that are always allowed, and how high the strip may grow beyond them as a part of the
/// photo's height.
const MIN_ROWS: usize = 5;
const MAX_STRIP: f32 = 0.4;

/// More entries than this are a list, not a legend.
const MAX_ENTRIES: usize = 60;

/// Widest name, in text heights.
const MAX_NAME: f32 = 14.0;

const PAPER: [u8; 3] = [250, 250, 248];
const INK: [u8; 3] = [28, 31, 36];
const FAINT_INK: [u8; 3] = [112, 118, 128];

/// `photo` with a legend below it; a plain copy if there are no entries.
pub(crate) fn attach(photo: &RgbImage, entries: &[LegendEntry], style: &OverlayStyle) -> RgbImage {
    let Some(font) = font().filter(|_| !entries.is_empty()) else {
        return photo.clone();
    };
    let width = photo.width().max(MIN_WIDTH);
    let type_setter = TypeSetter::new(font, width);
    let cells = cells(entries, style, &type_setter, width);
    let grid = Grid::new(&cells, entries.len(), &type_setter, width, photo.height());

    let mut canvas = RgbImage::from_pixel(width, photo.height() + grid.height(), Rgb(PAPER));
    imageops::replace(&mut canvas, photo, 0, 0);
    grid.draw(&cells, &type_setter, &mut canvas, photo.height());
    canvas
}

/// DejaVu Sans. Always there: `None` could only mean a damaged build, and costs the legend.
fn font() -> Option<&'static FontRef<'static>> {
    static FONT: OnceLock<Option<FontRef<'static>>> = OnceLock::new();
    FONT.get_or_init(|| FontRef::try_from_slice(dejavu::sans::regular()).ok())
        .as_ref()
}

/// What one entry looks like, ready to be placed.
struct Cell {
    swatch: [u8; 3],
    name: String,
    share: String,
    /// From the left of the swatch to the end of the share, in pixels.
    width: f32,
}

/// The entries that may be shown, largest share first.
fn cells(
    entries: &[LegendEntry],
    style: &OverlayStyle,
    type_setter: &TypeSetter,
    width: u32,
) -> Vec<Cell> {
    let mut order: Vec<_> = entries.iter().collect();
    // NaN last, whatever its sign.
    let key = |entry: &LegendEntry| entry.share.max(f32::NEG_INFINITY);
    order.sort_by(|a, b| key(b).total_cmp(&key(a)));
    let room = width as f32 - 2.0 * type_setter.margin();
    order
        .into_iter()
        .take(MAX_ENTRIES)
        .map(|entry| {
            let share = percentage(entry.share);
            let beside = type_setter.name_offset() + type_setter.gap() + type_setter.width(&share);
            let most = (room - beside).min(MAX_NAME * type_setter.size);
            let name = type_setter.shorten(&printable(entry), most);
            Cell {
                swatch: style.palette.colour(entry.index),
                width: beside + type_setter.width(&name),
                name,
                share,
            }
        })
        .collect()
}

/// The name on one line; the index where there is none.
fn printable(entry: &LegendEntry) -> String {
    if entry.name.trim().is_empty() {
        return format!("#{}", entry.index);
    }
    let spaced = |c: char| if c.is_control() { ' ' } else { c };
    entry.name.trim().chars().map(spaced).collect()
}

/// A share to about two digits: `37 %`, `4.2 %`, `<0.1 %`; nothing for NaN.
fn percentage(share: f32) -> String {
    let percent = share * 100.0;
    match percent {
        _ if percent.is_nan() => String::new(),
        _ if percent <= 0.0 => "0 %".to_owned(),
        _ if percent < 0.1 => "<0.1 %".to_owned(),
        _ if percent < 9.95 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// Where the cells go: in rows, left to right, in columns of equal width.
struct Grid {
    columns: usize,
    /// Cells shown with a label.
    shown: usize,
    /// Labels that are not, summed up in one more cell.
    hidden: usize,
    column_width: f32,
    row_height: f32,
    margin: f32,
}

impl Grid {
    fn new(
        cells: &[Cell],
        entries: usize,
        type_setter: &TypeSetter,
        width: u32,
        photo_height: u32,
    ) -> Self {
        let margin = type_setter.margin();
        let between = 1.5 * type_setter.size;
        let widest = cells.iter().map(|cell| cell.width).fold(0.0, f32::max);
        let room = width as f32 - 2.0 * margin;
        // The last column needs no space after it.
        let columns = (((room + between) / (widest + between)) as usize).clamp(1, cells.len());

        let row_height = (1.6 * type_setter.size).round();
        let rows = (MAX_STRIP * photo_height as f32 / row_height) as usize;
        let capacity = columns * rows.max(MIN_ROWS);
        let shown = if entries <= capacity.min(cells.len()) {
            entries
        } else {
            // One place goes to "+N more".
            cells.len().min(capacity - 1)
        };
        Self {
            columns,
            shown,
            hidden: entries - shown,
            // Spread over the width, unless that would tear a few short entries far apart.
            column_width: ((room + between) / columns as f32).min(widest + 2.0 * between),
            row_height,
            margin,
        }
    }

    fn height(&self) -> u32 {
        let cells = self.shown + usize::from(self.hidden > 0);
        let rows = cells.div_ceil(self.columns) as f32;
        (rows * self.row_height + 2.0 * self.margin).round() as u32
    }

    fn draw(&self, cells: &[Cell], type_setter: &TypeSetter, canvas: &mut RgbImage, top: u32) {
        let place = |i: usize| {
            let (row, column) = (i / self.columns, i % self.columns);
            let x = self.margin + column as f32 * self.column_width;
            let y = top as f32 + self.margin + (row as f32 + 0.5) * self.row_height;
            (x.round(), y.round())
        };
        for (i, cell) in cells.iter().take(self.shown).enumerate() {
            let (x, y) = place(i);
            draw_swatch(canvas, x, y, type_setter.swatch(), cell.swatch);
            let x = x + type_setter.name_offset();
            let end = type_setter.draw(canvas, x, y, &cell.name, INK);
            type_setter.draw(canvas, end + type_setter.gap(), y, &cell.share, FAINT_INK);
        }
        if self.hidden > 0 {
            let (x, y) = place(self.shown);
            type_setter.draw(canvas, x, y, &format!("+{} more", self.hidden), FAINT_INK);
        }
    }
}

/// A filled square of `side` pixels with rounded corners, its left edge at `x` and its middle at
/// height `y`.
fn draw_swatch(canvas: &mut RgbImage, x: f32, y: f32, side: f32, colour: [u8; 3]) {
    let radius = side * 0.22;
    let half = side / 2.0;
    let straight = half - radius;
    for row in 0..side as u32 {
        for column in 0..side as u32 {
            // Distance beyond the straight part of the edge, on each axis.
            let dx = ((column as f32 + 0.5 - half).abs() - straight).max(0.0);
            let dy = ((row as f32 + 0.5 - half).abs() - straight).max(0.0);
            let coverage = (radius + 0.5 - dx.hypot(dy)).clamp(0.0, 1.0);
            let top = (y - half).round() as u32;
            blend(canvas, x as u32 + column, top + row, colour, coverage);
        }
    }
}

/// Paints over one pixel with `coverage` from 0 to 1, if the canvas has it.
fn blend(canvas: &mut RgbImage, x: u32, y: u32, colour: [u8; 3], coverage: f32) {
    if let Some(pixel) = canvas.get_pixel_mut_checked(x, y) {
        mix(pixel, colour, (coverage.clamp(0.0, 1.0) * 256.0) as u32);
    }
}

/// A font at the legend's size, and the distances that go with the size.
struct TypeSetter {
    font: &'static FontRef<'static>,
    /// Text height in pixels.
    size: f32,
}

impl TypeSetter {
    fn new(font: &'static FontRef<'static>, strip_width: u32) -> Self {
        let size = strip_width as f32 * TEXT_PER_WIDTH;
        Self {
            font,
            size: size.clamp(TEXT_RANGE.0, TEXT_RANGE.1).round(),
        }
    }

    /// Space around the whole legend.
    fn margin(&self) -> f32 {
        (0.7 * self.size).round()
    }

    /// Space between a name and its share.
    fn gap(&self) -> f32 {
        (0.55 * self.size).round()
    }

    /// Side of a swatch.
    fn swatch(&self) -> f32 {
        (0.9 * self.size).round()
    }

    /// From the left of the swatch to the name.
    fn name_offset(&self) -> f32 {
        (1.4 * self.size).round()
    }

    /// The glyphs of a line of text, each with its x position; the line starts at 0.
    fn glyphs(&self, text: &str) -> impl Iterator<Item = Glyph> {
        let font = self.font.as_scaled(PxScale::from(self.size));
        let mut x = 0.0;
        let mut previous = None;
        text.chars().map(move |c| {
            let id = font.glyph_id(c);
            if let Some(previous) = previous.replace(id) {
                x += font.kern(previous, id);
            }
            let glyph = id.with_scale_and_position(font.scale(), point(x, 0.0));
            x += font.h_advance(id);
            glyph
        })
    }

    /// Where a glyph ends, for the next one to start.
    fn end(&self, glyph: &Glyph) -> f32 {
        let font = self.font.as_scaled(PxScale::from(self.size));
        glyph.position.x + font.h_advance(glyph.id)
    }

    fn width(&self, text: &str) -> f32 {
        self.glyphs(text)
            .last()
            .map_or(0.0, |glyph| self.end(&glyph))
    }

    /// `text` if it is at most `room` pixels wide, else as much of it as fits with "…" after it.
    fn shorten(&self, text: &str, room: f32) -> String {
        const ELLIPSIS: &str = "…";
        let room_before_ellipsis = room - self.width(ELLIPSIS);
        let mut fitting = 0; // bytes of `text` that leave room for the ellipsis
        for ((start, c), glyph) in text.char_indices().zip(self.glyphs(text)) {
            let end = self.end(&glyph);
            if end > room {
                return format!("{}{ELLIPSIS}", text[..fitting].trim_end());
            }
            if end <= room_before_ellipsis {
                fitting = start + c.len_utf8();
            }
        }
        text.to_owned()
    }

    /// Writes a line of text whose middle is at height `y`, and returns the x where it ends.
    fn draw(&self, canvas: &mut RgbImage, x: f32, y: f32, text: &str, ink: [u8; 3]) -> f32 {
        // The middle between the baseline and the top of capitals, about 0.62 of the text height
        // in this font at this scale, looks like the middle of a line.
        let baseline = (y + 0.31 * self.size).round();
        let mut end = x;
        for mut glyph in self.glyphs(text) {
            end = x + self.end(&glyph);
            glyph.position.x += x;
            glyph.position.y = baseline;
            let Some(outline) = self.font.outline_glyph(glyph) else {
                continue; // a space
            };
            let corner = outline.px_bounds().min;
            outline.draw(|column, row, coverage| {
                let (x, y) = (corner.x + column as f32, corner.y + row as f32);
                if x >= 0.0 && y >= 0.0 {
                    blend(canvas, x as u32, y as u32, ink, coverage);
                }
            });
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_setter() -> TypeSetter {
        TypeSetter::new(font().unwrap(), 500)
    }

    #[test]
    fn percentages_have_about_two_digits() {
        let texts = [0.0, 0.0004, 0.042, 0.0994, 0.0996, 0.37, 1.0].map(percentage);
        assert_eq!(
            texts,
            ["0 %", "<0.1 %", "4.2 %", "9.9 %", "10 %", "37 %", "100 %"]
        );
        assert_eq!(percentage(f32::NAN), "");
    }

    #[test]
    fn text_is_shortened_to_the_room_there_is() {
        let type_setter = type_setter();
        assert_eq!(type_setter.shorten("dog", 100.0), "dog");
        let long = "a very long name for a label ".repeat(9);
        let short = type_setter.shorten(&long, 100.0);
        assert!(short.ends_with('…') && short.len() > 8, "{short}");
        assert!(type_setter.width(&short) <= 100.0);
        assert_eq!(type_setter.shorten("dog", 1.0), "…");
    }

    #[test]
    fn the_font_has_the_letters_of_many_languages() {
        let font = font().unwrap();
        for c in "aéßğłøžΩЖאبԱა…–".chars() {
            assert_ne!(font.glyph_id(c).0, 0, "{c}");
        }
    }

    #[test]
    fn names_are_one_printable_line() {
        let name = |name: &str| {
            printable(&LegendEntry {
                index: 4,
                name: name.to_owned(),
                share: 0.0,
            })
        };
        assert_eq!(name(" a\tb\n"), "a b");
        assert_eq!(name("  "), "#4");
    }
}
