//! The members of a tar archive, by their headers.
//!
//! What decides where a member's bytes are is read here, rather than by the crate `tar`: an extended header may
//! give another size than the header (node-tar writes both), and of a damaged archive all is wanted that comes
//! before the damage.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::num::NonZeroU64;

use tar::{EntryType, Header};

/// Headers and bytes come in blocks of this size.
pub(super) const BLOCK: u64 = 512;

/// Most bytes of a member's name, which tar keeps in a member of its own. Systems allow 4,096.
const MAX_NAME_BYTES: u64 = 1 << 16;

/// Most bytes of an extended header, which may hold attributes beside the name.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// Most headers without a member of their own before one: a name, a link's name, an extended header.
const MAX_HEADERS: usize = 16;

/// Most bytes of nothing after the end mark that are looked through for more. Writers fill up to 10 kB.
const MAX_PADDING: u64 = 1 << 20;

/// Where a member's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Never zero: a header comes first.
    pub(super) offset: NonZeroU64,
    /// `u32::MAX` stands for that or more, which is over any limit.
    pub(super) length: u32,
}

/// What a member is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A file whose bytes stand in the archive as they are.
    File(Span),
    /// A file that is stored without its zeros (`tar --sparse`).
    Sparse,
    /// A file that ends behind the archive.
    Cut,
    /// A second name of a file that comes before.
    HardLink(String),
    /// A name that stands for another.
    SymbolicLink,
    /// A folder, a device and the like.
    Other,
}

/// A member of an archive.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) content: Content,
    /// Whether it stands behind the end mark, where archives end that others were appended to.
    pub(super) after_end: bool,
}

/// Why an archive has no more members.
#[derive(Debug)]
pub(super) enum End {
    /// It has ended as it should.
    Mark,
    /// It is damaged, or cut short, as is said.
    Damage(String),
}

/// Reads an archive from its first header to its last.
pub(super) struct Tape {
    file: BufReader<File>,
    length: u64,
    at: u64,
    after_end: bool,
}

/// What the headers before a member say about it.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

/// The next step of a walk.
enum Step {
    Member(Member),
    End(End),
}

impl Tape {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            // Little more than a header: the next one is behind the member's bytes.
            file: BufReader::with_capacity(1024, file),
            length,
            at: 0,
            after_end: false,
        })
    }

    /// Hands every member to `take`, and says how the archive ends.
    ///
    /// # Errors
    /// The archive cannot be read, or `take` has enough.
    pub(super) fn walk<E: From<io::Error>>(
        mut self,
        mut take: impl FnMut(Member) -> Result<(), E>,
    ) -> Result<End, E> {
        loop {
            match self.next()? {
                Step::Member(member) => take(member)?,
                Step::End(end) => return Ok(end),
            }
        }
    }

    fn next(&mut self) -> io::Result<Step> {
        let mut about = Extended::default();
        for _ in 0..MAX_HEADERS {
            let start = self.at;
            let header = match self.header()? {
                Ok(header) => header,
                // What stands behind an end mark need not be an archive.
                Err(_) if self.after_end => return Ok(Step::End(End::Mark)),
                Err(end) => return Ok(Step::End(end)),
            };
            let kind = header.entry_type();
            let Some(stated) = size_of(&header) else {
                return Ok(self.damaged(format!("damaged at byte {start}: no size")));
            };
            match kind {
                EntryType::GNULongName => match self.text(stated, MAX_NAME_BYTES)? {
                    Ok(name) => about.name = Some(until_nul(name)),
                    Err(reason) => return Ok(self.damaged(format!("a name of {reason}"))),
                },
                EntryType::GNULongLink => match self.text(stated, MAX_NAME_BYTES)? {
                    Ok(name) => about.link = Some(until_nul(name)),
                    Err(reason) => return Ok(self.damaged(format!("a name of {reason}"))),
                },
                // `X` is how Solaris had it before the standard.
                kind if kind == EntryType::XHeader || kind.as_byte() == b'X' => {
                    let read = self.text(stated, MAX_EXTENDED_BYTES)?;
                    let read = read.and_then(|bytes| about.take(&bytes).ok_or("bad form".into()));
                    if let Err(reason) = read {
                        let reason = format!("an extended header of {reason} at byte {start}");
                        return Ok(self.damaged(reason));
                    }
                }
                // It is about the archive, not about a member.
                EntryType::XGlobalHeader => self.skip(stated),
                _ => return self.member(&header, about, stated),
            }
        }
        Ok(self.damaged(format!("damaged before byte {}: headers alone", self.at)))
    }

    fn member(&mut self, header: &Header, about: Extended, stated: u64) -> io::Result<Step> {
        let name = about
            .name
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let name = String::from_utf8_lossy(&name).into_owned();
        let kind = header.entry_type();
        if kind == EntryType::GNUSparse && !self.sparse_blocks(header)? {
            return Ok(self.damaged(format!("cut short in `{name}`")));
        }
        let size = match kind {
            // Links state the size of what they stand for, but have no bytes.
            EntryType::Link | EntryType::Symlink | EntryType::Directory => 0,
            EntryType::Char | EntryType::Block | EntryType::Fifo => 0,
            _ => about.size.unwrap_or(stated),
        };
        let offset = self.at;
        self.skip(size);
        let is_cut = offset.saturating_add(size) > self.length;
        let content = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if is_cut => {
                Content::Cut
            }
            EntryType::GNUSparse => Content::Sparse,
            EntryType::Regular | EntryType::Continuous if about.sparse => Content::Sparse,
            EntryType::Regular | EntryType::Continuous => {
                NonZeroU64::new(offset).map_or(Content::Other, |offset| {
                    let length = u32::try_from(size).unwrap_or(u32::MAX);
                    Content::File(Span { offset, length })
                })
            }
            EntryType::Link => {
                let link = about
                    .link
                    .or_else(|| Some(header.link_name_bytes()?.into_owned()));
                let link = link.unwrap_or_default();
                Content::HardLink(String::from_utf8_lossy(&link).into_owned())
            }
            EntryType::Symlink => Content::SymbolicLink,
            _ => Content::Other,
        };
        Ok(Step::Member(Member {
            name,
            content,
            after_end: self.after_end,
        }))
    }

    /// The header that comes next, behind an end mark as well.
    fn header(&mut self) -> io::Result<Result<Header, End>> {
        let mut empty = 0;
        loop {
            if self.at >= self.length {
                let damage = match self.at {
                    _ if self.length == 0 => "the file is empty".to_owned(),
                    at if at == self.length => {
                        format!("no end mark at byte {at}: the shard may be cut short")
                    }
                    at => format!(
                        "the shard is cut short: it has {} bytes, and should go on to byte {at}",
                        self.length
                    ),
                };
                return Ok(Err(End::Damage(damage)));
            }
            if self.length - self.at < BLOCK {
                let reason = format!(
                    "the shard is cut short at byte {}, in a header",
                    self.length
                );
                return Ok(Err(End::Damage(reason)));
            }
            let mut bytes = [0; BLOCK as usize];
            self.seek()?;
            self.file.read_exact(&mut bytes)?;
            if bytes.iter().all(|&byte| byte == 0) {
                self.after_end = true;
                self.at += BLOCK;
                empty += BLOCK;
                if empty > MAX_PADDING {
                    return Ok(Err(End::Mark));
                }
                continue;
            }
            if !is_header(&bytes) {
                return Ok(Err(End::Damage(self.no_header(&bytes))));
            }
            self.at += BLOCK;
            return Ok(Ok(Header::from_byte_slice(&bytes).clone()));
        }
    }

    fn no_header(&self, bytes: &[u8]) -> String {
        match self.at {
            0 if compressed(bytes).is_some() => "compressed".to_owned(),
            0 => "no tar archive".to_owned(),
            at => format!("damaged at byte {at}: no header where one should be"),
        }
    }

    /// The blocks that say where a sparse file's bytes belong; whether they are there.
    fn sparse_blocks(&mut self, header: &Header) -> io::Result<bool> {
        /// Where a header, and a block after it, says that a block follows.
        const HEADER_MORE: usize = 482;
        const BLOCK_MORE: usize = 504;
        let mut more = header.as_bytes()[HEADER_MORE] != 0;
        while more {
            if self.length.saturating_sub(self.at) < BLOCK {
                return Ok(false);
            }
            let mut bytes = [0; BLOCK as usize];
            self.seek()?;
            self.file.read_exact(&mut bytes)?;
            self.at += BLOCK;
            more = bytes[BLOCK_MORE] != 0;
        }
        Ok(true)
    }

    /// The bytes of a header that is a member of its own, or what is wrong with them.
    fn text(&mut self, size: u64, most: u64) -> io::Result<Result<Vec<u8>, String>> {
        if size > most {
            return Ok(Err(format!("{size} bytes")));
        }
        if self.at.saturating_add(size) > self.length {
            let reason = format!("{size} bytes, where the shard is cut short");
            return Ok(Err(reason));
        }
        let mut bytes = vec![0; size as usize];
        self.seek()?;
        self.file.read_exact(&mut bytes)?;
        self.skip(size);
        Ok(Ok(bytes))
    }

    fn seek(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.at)).map(|_| ())
    }

    /// Past a member's bytes, which end with a block.
    fn skip(&mut self, size: u64) {
        let blocks = size.div_ceil(BLOCK).saturating_mul(BLOCK);
        self.at = self.at.saturating_add(blocks);
    }

    fn damaged(&self, reason: String) -> Step {
        match self.after_end {
            true => Step::End(End::Mark),
            false => Step::End(End::Damage(reason)),
        }
    }
}

impl Extended {
    /// Takes the records of an extended header, `LENGTH KEY=VALUE` and a line end each; `None` if they are none.
    fn take(&mut self, mut bytes: &[u8]) -> Option<()> {
        // GNU tar ends at a zero, others fill up with them.
        while bytes.first().is_some_and(|&byte| byte != 0) {
            let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" if !self.sparse => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.trim().parse().ok()?),
                b"GNU.sparse.name" => {
                    (self.name, self.sparse) = (Some(value.to_vec()), true);
                }
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            bytes = &bytes[length..];
        }
        Some(())
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(
        bytes
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(bytes.len()),
    );
    bytes
}

/// Whether a block has a header's checksum: the sum of all bytes, those of the sum counted as spaces. Old
/// writers took the bytes as signed.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    if bytes.len() as u64 != BLOCK {
        return false;
    }
    let Ok(stated) = Header::from_byte_slice(bytes).cksum() else {
        return false;
    };
    let mut with_spaces = bytes.to_vec();
    with_spaces[SUM].fill(b' ');
    let unsigned: u32 = with_spaces.iter().map(|&byte| u32::from(byte)).sum();
    let signed: i64 = with_spaces.iter().map(|&byte| i64::from(byte as i8)).sum();
    stated == unsigned || i64::from(stated) == signed
}

/// The size in a header; `None` if it is no number that a file may have.
fn size_of(header: &Header) -> Option<u64> {
    header.entry_size().ok().filter(|&size| size < 1 << 62)
}

/// How a file is compressed, by its first bytes.
pub(super) fn compressed(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
        [b'P', b'K', 3, 4, ..] => Some("zip"),
        _ => None,
    }
}
