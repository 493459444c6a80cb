//! Ends of GIF and BMP files, which Pillow can do without.

/// Whether a GIF has its end mark.
pub(super) fn has_gif_end(file: &[u8]) -> bool {
    walk_gif(file).is_some()
}

/// Goes over the blocks of a GIF; `None` where they stop before the end mark.
fn walk_gif(file: &[u8]) -> Option<()> {
    const HEADER: usize = 13;
    let mut rest = file.get(HEADER..)?;
    let flags = file[10];
    rest = rest.get(colour_table(flags)..)?;
    loop {
        let (&kind, behind) = rest.split_first()?;
        rest = match kind {
            b';' => return Some(()),
            // An extension: its label, then pieces.
            b'!' => after_pieces(behind.get(1..)?)?,
            // A frame: its place (8 bytes), flags, colours, the width of codes, then pieces.
            b',' => {
                let flags = *behind.get(8)?;
                after_pieces(behind.get(9 + colour_table(flags) + 1..)?)?
            }
            // Readers look for the next block.
            _ => behind,
        };
    }
}

/// Bytes of the table of colours that flags announce.
fn colour_table(flags: u8) -> usize {
    match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    }
}

/// What follows pieces, each behind its length, up to the empty one.
fn after_pieces(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, behind) = rest.split_first()?;
        rest = behind.get(usize::from(length)..)?;
        if length == 0 {
            return Some(rest);
        }
    }
}

/// A BMP with the bytes that fill up its last row, where only these are missing.
pub(super) fn filled_bmp(file: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| {
        let bytes = file.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let start = u64::from(number(10)?);
    // Older headers have sides of 16 bits; compressed rows are not filled up.
    if number(14)? < 40 || !matches!(number(30)?, 0 | 3) {
        return None;
    }
    let width = u64::from(number(18)?);
    // Negative where the first row is on top.
    let height = u64::from(number(22)?.cast_signed().unsigned_abs());
    let bits = u64::from(number(28)? & 0xFFFF);
    let used = width.checked_mul(bits)?.div_ceil(8);
    let row = used.next_multiple_of(4);
    let whole = row.checked_mul(height)?.checked_add(start)?;
    let missing = whole.checked_sub(file.len() as u64)?;
    // At most three bytes, so that no more is allocated than there is.
    (missing > 0 && missing <= row - used).then(|| {
        let mut filled = file.to_vec();
        filled.extend([0, 0, 0].iter().take(missing as usize));
        filled
    })
}
