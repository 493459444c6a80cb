//! Which pixels of a mask are one object, and whether all of the object is in the photo.

use std::collections::BTreeMap;

use percept_image::Rle;

/// Parts with less than this share of the largest one's pixels are what something in front left of
/// an object, or slips of the annotator.
const SPECK: f64 = 0.1;

/// Share of a photo's short side that counts as its edge. VOC leaves as much between the edge and the
/// objects that end there.
const EDGE: f64 = 0.01;

/// The connected parts of a mask, specks left out, in the order of their first pixels. Pixels that
/// touch at a corner are connected.
pub(super) fn parts(mask: &Rle) -> Vec<Rle> {
    let runs: Vec<Run> = runs(mask).collect();
    let roots = connect(&runs);
    let mut found: BTreeMap<usize, Vec<Run>> = BTreeMap::new();
    for (run, root) in runs.into_iter().zip(roots) {
        found.entry(root).or_default().push(run);
    }
    let mut parts: Vec<Rle> = (found.values())
        .map(|runs| from_runs(runs, mask.height, mask.width))
        .collect();
    let largest = parts.iter().map(Rle::area).max().unwrap_or_default();
    parts.retain(|part| part.area() as f64 >= SPECK * largest as f64);
    parts
}

/// How much of an object's width lies at the upper or lower edge of its photo, or of its height at
/// the left or right one, from 0 to 1; the largest of the four. An object that is cut off has a
/// straight end there, one that only touches the edge has little of it.
pub(super) fn cut_share(mask: &Rle) -> f64 {
    let (height, width) = (mask.height, mask.width);
    let edge = (EDGE * f64::from(height.min(width))).round().max(1.0) as u32;
    let [upper, lower] = [edge, height.saturating_sub(edge)];
    let mut columns = [vec![false; width as usize], vec![false; width as usize]];
    let mut rows = [vec![false; height as usize], vec![false; height as usize]];
    let mark = |line: &mut Vec<bool>, from: u32, to: u32| {
        if let Some(line) = line.get_mut(from as usize..to as usize) {
            line.fill(true);
        }
    };
    let [above, below] = &mut columns;
    let [left, right] = &mut rows;
    for Run {
        column,
        top,
        bottom,
    } in runs(mask)
    {
        if top < upper {
            mark(above, column, column + 1);
        }
        if bottom > lower {
            mark(below, column, column + 1);
        }
        if column < edge {
            mark(left, top, bottom);
        }
        if column >= width.saturating_sub(edge) {
            mark(right, top, bottom);
        }
    }
    let [_, _, object_width, object_height] = mask.bbox().map(f64::from);
    let share = |line: &Vec<bool>, whole: f64| {
        let marked = line.iter().filter(|&&marked| marked).count();
        marked as f64 / whole.max(1.0)
    };
    let of_width = columns.iter().map(|line| share(line, object_width));
    let of_height = rows.iter().map(|line| share(line, object_height));
    of_width.chain(of_height).fold(0.0, f64::max)
}

/// Pixels below each other, from `top` to before `bottom`.
#[derive(Debug, Clone, Copy)]
struct Run {
    column: u32,
    top: u32,
    bottom: u32,
}

/// The runs of a mask, column by column.
fn runs(mask: &Rle) -> impl Iterator<Item = Run> {
    let height = mask.height.max(1);
    let mut end = 0;
    let inside = mask.counts.chunks(2).filter_map(move |pair| {
        let &[outside, inside] = pair else {
            return None; // a last run outside
        };
        let start = end + outside;
        end = start + inside;
        (inside > 0).then_some((start, end))
    });
    inside.flat_map(move |(start, end)| {
        (start / height..=(end - 1) / height).map(move |column| Run {
            column,
            top: start.max(column * height) - column * height,
            bottom: end.min((column + 1) * height) - column * height,
        })
    })
}

/// For each run, the first one that it is connected with.
fn connect(runs: &[Run]) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..runs.len()).collect();
    // The first run of the column before that may touch the next.
    let mut first = 0;
    for (at, run) in runs.iter().enumerate() {
        let beside = |other: &Run| other.column + 1 == run.column;
        while let Some(other) = runs.get(first)
            && (other.column + 1 < run.column || beside(other) && other.bottom < run.top)
        {
            first += 1;
        }
        let touching = runs.iter().enumerate().skip(first);
        for (other, _) in touching.take_while(|(_, other)| beside(other) && other.top <= run.bottom)
        {
            let [a, b] = [root(&mut parents, at), root(&mut parents, other)];
            parents[a.max(b)] = a.min(b);
        }
    }
    (0..runs.len()).map(|at| root(&mut parents, at)).collect()
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]]; // halves the way for the next
        at = parents[at];
    }
    at
}

fn from_runs(runs: &[Run], height: u32, width: u32) -> Rle {
    let mut counts = Vec::new();
    let mut last = 0;
    for run in runs {
        let start = run.column * height + run.top;
        let length = run.bottom - run.top;
        match counts.last_mut() {
            // On from the bottom of a column to the top of the next.
            Some(count) if start == last => *count += length,
            _ => counts.extend([start - last, length]),
        }
        last = start + length;
    }
    if last < height * width {
        counts.push(height * width - last);
    }
    Rle {
        height,
        width,
        counts,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(rows: &[&str]) -> Rle {
        let pixels: Vec<bool> = rows
            .iter()
            .flat_map(|row| row.chars())
            .map(|c| c == '#')
            .collect();
        Rle::from_mask(&pixels, rows.len() as u32, rows[0].len() as u32).unwrap()
    }

    #[test]
    fn parts_are_told_apart() {
        let both = mask(&[
            "##.....#", //
            "#..##..#", "..#..#.#", ".....#.#",
        ]);
        let found = parts(&both);
        assert_eq!(
            found,
            [
                mask(&["##......", "#.......", "........", "........"]),
                mask(&["........", "...##...", "..#..#..", ".....#.."]),
                mask(&[".......#", ".......#", ".......#", ".......#"]),
            ]
        );
        // Joined only at the end, and over the columns' ends.
        let comb = mask(&["####", "#...", "####", "...#", "####"]);
        assert_eq!(parts(&comb), std::slice::from_ref(&comb));
        assert_eq!(parts(&mask(&["...", "..."])), []);
        assert_eq!(parts(&mask(&["##", "##"])), [mask(&["##", "##"])]);
        // A speck is none.
        let speck = mask(&["#..########", "...########"]);
        assert_eq!(parts(&speck), [mask(&["...########", "...########"])]);
    }

    #[test]
    fn objects_that_are_cut_off_have_straight_ends() {
        let share = |rows: &[&str]| cut_share(&mask(rows));
        assert_eq!(share(&["....", ".##.", "...."]), 0.0);
        assert_eq!(share(&["..#.", ".##.", "...."]), 0.5);
        assert_eq!(share(&["....", ".#.#", ".###"]), 1.0);
        assert_eq!(share(&["#....", "####.", ".###.", "...#.", "....."]), 0.5);
        assert_eq!(
            share(&[".....", ".####", ".###.", "...#.", "....."]),
            1.0 / 3.0
        );
        assert_eq!(share(&["....", "...."]), 0.0);
        // An edge has some thickness: here two pixels of 200.
        let near = |left: usize| {
            let row =
                |y: usize| (0..300).map(move |x| (50..90).contains(&y) && x >= left && x < 200);
            let pixels: Vec<bool> = (0..200).flat_map(row).collect();
            cut_share(&Rle::from_mask(&pixels, 200, 300).unwrap())
        };
        assert_eq!((near(1), near(2)), (1.0, 0.0));
    }

    proptest! {
        #[test]
        fn parts_make_up_the_whole_and_do_not_touch(
            pixels in proptest::collection::vec(proptest::bool::weighted(0.35), 12 * 9),
        ) {
            let whole = Rle::from_mask(&pixels, 9, 12).unwrap();
            let all: Vec<Run> = runs(&whole).collect();
            let roots = connect(&all);
            prop_assert_eq!(&from_runs(&all, 9, 12), &whole);
            // Against filling from pixel to pixel.
            let mut labels = vec![0; 12 * 9];
            let mut count = 0;
            for start in 0..12 * 9 {
                if !pixels[start] || labels[start] != 0 {
                    continue;
                }
                count += 1;
                let mut stack = vec![start];
                while let Some(at) = stack.pop() {
                    if labels[at] != 0 || !pixels[at] {
                        continue;
                    }
                    labels[at] = count;
                    let (x, y) = (at % 12, at / 12);
                    for y in y.saturating_sub(1)..=(y + 1).min(8) {
                        stack.extend((x.saturating_sub(1)..=(x + 1).min(11)).map(|x| y * 12 + x));
                    }
                }
            }
            let mut labels_of_roots = BTreeMap::new();
            for (run, root) in all.iter().zip(&roots) {
                let label = labels[(run.top * 12 + run.column) as usize];
                prop_assert_eq!(*labels_of_roots.entry(root).or_insert(label), label);
            }
            prop_assert_eq!(labels_of_roots.len(), count);
        }
    }
}
