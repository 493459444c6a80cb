//! What is where in a webdataset shard.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::bad::{Bad, BadKind, ReadError};
use super::tape::{self, Content, End, Member, Span, Tape};
use crate::files::invalid;
use crate::{DataError, Omissions};

/// Most samples of a shard, whose places are kept in memory (about 100 bytes each). Shards usually
/// have 1,000 to 10,000.
const MAX_SAMPLES: usize = 4 << 20;

/// The kind of shards that are not read to their end, among [`PairSource::omissions`](super::PairSource::omissions).
pub const DAMAGED: &str = "damaged shards, read up to the damage";

/// The kind of shards that are whole, as downloads leave them of which nothing came.
const EMPTY: &str = "shards without a sample";

/// The kind of members that webdataset does not come to either.
const AFTER_END: &str = "members behind a shard's end mark, where `cat` joined archives, not read";

/// The kind of samples that share a name.
const APART: &str = "samples of a name that comes twice in its shard, each read by itself";

/// The kind of samples with images to choose from.
const SEVERAL_IMAGES: &str =
    "samples of several images, of which the first of .jpg, .png, .jpeg, .webp is read";

/// The kind of members of which webdataset makes an ending of several dots.
const DOTTED: &str = "members not read since their key ends at their name's first dot";

/// Where a part of a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the shard.
    Bytes(Span),
    /// Stored in a way that is not read.
    Unread(Unread),
}

/// Why a member is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Sparse,
    Cut,
    /// A link to nothing that is read.
    Link,
}

impl Unread {
    fn reason(self) -> &'static str {
        match self {
            Self::Sparse => "is stored without its zeros (tar --sparse), which is not read",
            Self::Cut => "is cut off with the shard",
            Self::Link => "is a link to what is not in the shard",
        }
    }
}

/// The members of one base name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) image: Option<Place>,
    pub(super) text: Option<Place>,
    pub(super) json: Option<Place>,
    /// Whether other members of its name are not joined with it.
    pub(super) repeats: Repeats,
}

/// How a name stands to the others of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// It comes once, or its members are each there once.
    No,
    /// Members of it come twice; those that stand together are a sample.
    Apart,
    /// Members of it come twice, and it is not known which belong together.
    Mixed,
}

/// The samples of a shard.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// What is not among them, or not as it is written.
    pub(super) omissions: Omissions,
    /// Why the shard was not read to its end.
    pub(super) damage: Option<String>,
}

/// Lists the samples of a shard in the order of their first members, reading headers only.
///
/// A sample is what goes by the same name up to the first dot of the file name, folder kept, as in
/// webdataset, but wherever in the shard it stands. Where a member comes twice, only members that stand
/// together are joined. Only samples that `keep` wants are returned.
///
/// # Errors
/// [`DataError`]: the shard cannot be read, or is compressed. One that is damaged has what comes before.
pub(super) fn index(path: &Path, keep: impl Fn(&str) -> bool) -> Result<Listing, DataError> {
    let io_error = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io_error)?;
    refuse_compressed(path, &mut file)?;
    let shard = path.file_name().unwrap_or_default().to_string_lossy();
    let mut runs = Runs::default();
    let mut omissions = Omissions::new();
    let mut cut = None;
    let tape = Tape::new(file).map_err(io_error)?;
    let end = tape.walk(|member| {
        if member.content == Content::Cut {
            cut = Some(member.name.clone());
        }
        match runs.add(member) {
            Ok(()) => Ok(()),
            Err(Passed::Full) => Err(Failure::Full),
            Err(Passed::Over(kind, name)) => {
                omissions.add(kind, format!("{shard}: {name}"));
                Ok(())
            }
        }
    });
    let damage = match end {
        Ok(End::Mark) => None,
        Ok(End::Damage(reason)) => Some(match cut {
            Some(name) => format!("{reason} for `{name}`"),
            None => reason,
        }),
        Err(Failure::Io(source)) => return Err(io_error(source)),
        Err(Failure::Full) => {
            return Err(invalid(path, format!("more than {MAX_SAMPLES} samples")));
        }
    };
    if runs.runs.is_empty() && damage.is_none() {
        omissions.add(EMPTY, &shard);
    }
    let entries = runs.samples(&shard, keep, &mut omissions);
    if let Some(damage) = &damage {
        let found = entries.len();
        omissions.add(DAMAGED, format!("{shard}: {damage}; {found} samples"));
    }
    Ok(Listing {
        entries,
        omissions,
        damage,
    })
}

/// Why a walk ends early.
enum Failure {
    Io(io::Error),
    Full,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn refuse_compressed(path: &Path, file: &mut File) -> Result<(), DataError> {
    let io_error = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let mut first = Vec::new();
    let read = file.by_ref().take(tape::BLOCK).read_to_end(&mut first);
    read.and_then(|_| file.rewind()).map_err(io_error)?;
    // A tar archive begins with a name, which may be anything.
    let how = tape::compressed(&first).filter(|_| !tape::is_header(&first));
    match how {
        None => Ok(()),
        Some(how) => Err(invalid(
            path,
            format!("a compressed archive ({how}): shards are read in place and must be plain tar"),
        )),
    }
}

/// Why a member is not taken.
enum Passed {
    /// It is of a kind that is not read.
    Over(String, String),
    /// There are too many.
    Full,
}

/// Places by [`Ending`].
type Parts = [Option<Place>; Ending::COUNT];

/// Members of one name that stand together, each of another ending.
#[derive(Debug)]
struct Run {
    key: Box<str>,
    parts: Parts,
    /// Whether it follows a run of the same name at once.
    continues: bool,
    /// The next run of the same name.
    next: Option<usize>,
    repeats: Repeats,
}

impl Run {
    /// The endings that are there, as bits.
    fn mask(&self) -> u8 {
        let bits = self.parts.iter().enumerate();
        bits.fold(0, |mask, (at, part)| mask | u8::from(part.is_some()) << at)
    }

    fn entry(self) -> Entry {
        let [jpg, png, jpeg, webp, text, json] = self.parts;
        Entry {
            key: self.key,
            image: jpg.or(png).or(jpeg).or(webp),
            text,
            json,
            repeats: self.repeats,
        }
    }
}

/// All runs of a shard.
#[derive(Debug, Default)]
struct Runs {
    runs: Vec<Run>,
    names: HashMap<Box<str>, Chain>,
    /// The name of the member before.
    last: Option<Box<str>>,
}

/// The runs of a name.
#[derive(Debug)]
struct Chain {
    first: usize,
    last: usize,
    /// Of each [`Ending`] the member that came last, where there are several runs.
    latest: Option<Box<Parts>>,
}

impl Runs {
    fn add(&mut self, member: Member) -> Result<(), Passed> {
        let over = |kind: &str| Err(Passed::Over(kind.to_owned(), member.name.clone()));
        if member.content == Content::Other {
            return Ok(());
        }
        if member.after_end {
            return over(AFTER_END);
        }
        let name = member.name.trim_start_matches("./");
        let (key, ending) = match Name::of(name) {
            Name::Part(key, ending) => (key, ending),
            Name::Passed(why) => return over(why),
            Name::Unread(key, ending) => {
                self.last = Some(key.into());
                return over(&format!("members passed over for the ending .{ending}"));
            }
        };
        let place = match &member.content {
            Content::File(span) => Place::Bytes(*span),
            Content::Sparse => Place::Unread(Unread::Sparse),
            Content::Cut => Place::Unread(Unread::Cut),
            Content::HardLink(to) => self.linked(to),
            Content::SymbolicLink | Content::Other => Place::Unread(Unread::Link),
        };
        let follows = self.last.as_deref() == Some(key);
        let of_name = self
            .runs
            .last_mut()
            .filter(|run| follows && *run.key == *key);
        let continues = of_name.is_some();
        match of_name.filter(|run| run.parts[ending as usize].is_none()) {
            Some(run) => run.parts[ending as usize] = Some(place),
            None => self.begin(key, ending, place, continues)?,
        }
        let chain = self.names.get_mut(key);
        if let Some(latest) = chain.and_then(|chain| chain.latest.as_mut()) {
            latest[ending as usize] = Some(place);
        }
        if !follows {
            self.last = Some(key.into());
        }
        Ok(())
    }

    fn begin(
        &mut self,
        key: &str,
        ending: Ending,
        place: Place,
        continues: bool,
    ) -> Result<(), Passed> {
        let at = self.runs.len();
        if at == MAX_SAMPLES {
            return Err(Passed::Full);
        }
        let mut parts = [None; Ending::COUNT];
        parts[ending as usize] = Some(place);
        self.runs.push(Run {
            key: key.into(),
            parts,
            continues,
            next: None,
            repeats: Repeats::No,
        });
        match self.names.get_mut(key) {
            None => {
                let chain = Chain {
                    first: at,
                    last: at,
                    latest: None,
                };
                self.names.insert(key.into(), chain);
            }
            Some(chain) => {
                let first = &self.runs[chain.first].parts;
                chain.latest.get_or_insert_with(|| Box::new(*first));
                self.runs[chain.last].next = Some(at);
                chain.last = at;
            }
        }
        Ok(())
    }

    /// What a hard link stands for: the member of that name that came last.
    fn linked(&self, to: &str) -> Place {
        let nothing = Place::Unread(Unread::Link);
        let Name::Part(key, ending) = Name::of(to.trim_start_matches("./")) else {
            return nothing;
        };
        let parts = (self.names.get(key)).map(|chain| match &chain.latest {
            Some(latest) => latest.as_ref(),
            None => &self.runs[chain.first].parts,
        });
        parts
            .and_then(|parts| parts[ending as usize])
            .unwrap_or(nothing)
    }

    /// The runs of a name, from one on.
    fn chain(&self, first: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(first), |&at| self.runs[at].next)
    }

    /// The samples that the runs are, or are parts of.
    fn samples(
        mut self,
        shard: &str,
        keep: impl Fn(&str) -> bool,
        omissions: &mut Omissions,
    ) -> Vec<Entry> {
        let repeated: Vec<usize> = (self.names.values())
            .filter_map(|chain| (chain.first != chain.last).then_some(chain.first))
            .collect();
        for first in repeated {
            self.settle(first);
        }
        let mut entries = Vec::with_capacity(self.names.len());
        for run in self.runs {
            let mask = run.mask();
            if mask == 0 || !keep(&run.key) {
                continue;
            }
            if run.repeats == Repeats::Apart {
                omissions.add(APART, format!("{shard}: {}", run.key));
            }
            if (mask & Ending::IMAGES).count_ones() > 1 {
                omissions.add(SEVERAL_IMAGES, format!("{shard}: {}", run.key));
            }
            entries.push(run.entry());
        }
        entries.shrink_to_fit();
        entries
    }

    /// Joins the runs of a name that has several, or says how they stand to each other.
    fn settle(&mut self, first: usize) {
        let chain: Vec<usize> = self.chain(first).collect();
        let all = chain
            .iter()
            .map(|&at| self.runs[at].mask().count_ones())
            .sum::<u32>();
        let different = chain
            .iter()
            .fold(0, |mask, &at| mask | self.runs[at].mask());
        if all == different.count_ones() {
            for &at in &chain[1..] {
                let parts = std::mem::take(&mut self.runs[at].parts);
                let joined = self.runs[first].parts.iter_mut().zip(parts);
                joined.for_each(|(part, more)| *part = part.or(more));
            }
            return;
        }
        // Those that follow each other are known apart only where all have the same members.
        let mut rest = chain.as_slice();
        while let Some(&begin) = rest.first() {
            let more = rest[1..].iter().take_while(|&&at| self.runs[at].continues);
            let (group, after) = rest.split_at(1 + more.count());
            let mask = self.runs[begin].mask();
            let repeats = match group.iter().all(|&at| self.runs[at].mask() == mask) {
                true => Repeats::Apart,
                false => Repeats::Mixed,
            };
            group.iter().for_each(|&at| self.runs[at].repeats = repeats);
            rest = after;
        }
    }
}

/// What a member is to its sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    // In the order in which open_clip looks for an image.
    Jpg,
    Png,
    Jpeg,
    Webp,
    Text,
    Json,
}

impl Ending {
    const COUNT: usize = 6;
    /// The bits of images.
    const IMAGES: u8 = 0b1111;

    fn of(ending: &str) -> Option<Self> {
        Some(match ending {
            "jpg" => Self::Jpg,
            "png" => Self::Png,
            "jpeg" => Self::Jpeg,
            "webp" => Self::Webp,
            "txt" => Self::Text,
            "json" => Self::Json,
            _ => return None,
        })
    }
}

/// A member's name, as webdataset takes it apart.
#[derive(Debug, PartialEq, Eq)]
enum Name<'a> {
    /// Of a part of a sample: its key and ending.
    Part(&'a str, Ending),
    /// Of something else of a sample: its key and ending.
    Unread(&'a str, String),
    /// Of nothing that belongs to a sample, as is said.
    Passed(&'static str),
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Self {
        // Whatever is in a folder of webdataset's own, or is called as one.
        let top = name.split('/').next().unwrap_or_default();
        if top.len() >= 4 && top.starts_with("__") && top.ends_with("__") {
            return Self::Passed("members of webdataset's own (__…__), not read");
        }
        let file = name.rfind('/').map_or(0, |slash| slash + 1);
        let dot = match name[file..].find('.') {
            None => return Self::Passed("members whose name has no ending, not read"),
            Some(0) => return Self::Passed("members whose name begins with a dot, not read"),
            Some(dot) => file + dot,
        };
        let (key, ending) = (&name[..dot], name[dot + 1..].to_ascii_lowercase());
        if let Some(ending) = Ending::of(&ending) {
            return Self::Part(key, ending);
        }
        let last = ending
            .rsplit_once('.')
            .and_then(|(_, last)| Ending::of(last));
        match last {
            // Such as `d.seg.png`, which is no photo, and `www.example.com_1.jpg`, which is.
            Some(_) => Self::Passed(DOTTED),
            None => Self::Unread(key, ending),
        }
    }
}

/// Reads a member of at most `max_bytes`; `what` it is to its sample is said in errors.
pub(super) fn read(
    file: &mut File,
    what: &str,
    place: Place,
    max_bytes: u32,
) -> Result<Vec<u8>, ReadError> {
    let bad = |reason: String| ReadError::Bad(Bad::new(BadKind::Member, reason));
    let span = match place {
        Place::Bytes(span) => span,
        Place::Unread(why) => return Err(bad(format!("{what} {}", why.reason()))),
    };
    if span.length > max_bytes {
        let size = match span.length {
            u32::MAX => "4 GiB or more".to_owned(),
            length => format!("{length} bytes"),
        };
        return Err(bad(format!(
            "{what} has {size}, over the limit of {max_bytes}"
        )));
    }
    let mut bytes = vec![0; span.length as usize];
    file.seek(SeekFrom::Start(span.offset.get()))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn hard_links_are_the_member_that_came_last() {
        let mut runs = Runs::default();
        let mut offset = 0;
        let mut add = |name: &str, content: Option<&str>| {
            offset += 1;
            let span = Span {
                offset: NonZeroU64::new(offset).unwrap(),
                length: 1,
            };
            let content = match content {
                None => Content::File(span),
                Some(to) => Content::HardLink(to.to_owned()),
            };
            let member = Member {
                name: name.to_owned(),
                content,
                after_end: false,
            };
            assert!(runs.add(member).is_ok());
            let Name::Part(_, ending) = Name::of(name) else {
                panic!("{name} is no part of a sample");
            };
            runs.runs.last().unwrap().parts[ending as usize].unwrap()
        };
        let text = add("a.txt", None);
        let image = add("a.jpg", None);
        assert_eq!(add("b.txt", Some("./a.txt")), text);
        assert_eq!(add("c.jpg", Some("a.jpg")), image);
        // A second run of the name has the image alone.
        let image = add("a.jpg", None);
        assert_eq!(add("d.jpg", Some("a.jpg")), image);
        assert_eq!(add("e.txt", Some("a.txt")), text);
        // As many runs as links to them.
        for at in 0..20_000 {
            let image = add("a.jpg", None);
            assert_eq!(add(&format!("{at}.jpg"), Some("a.jpg")), image);
        }
        assert_eq!(add("f.txt", Some("a.txt")), text);
        assert_eq!(add("g.txt", Some("a.json")), Place::Unread(Unread::Link));
    }

    #[test]
    fn names_split_at_the_first_dot_of_the_file() {
        for (name, key, ending) in [
            ("a/b.c/d.JPG", "a/b.c/d", Ending::Jpg),
            ("d.json", "d", Ending::Json),
            ("d.txt", "d", Ending::Text),
            ("_d.WebP", "_d", Ending::Webp),
        ] {
            assert_eq!(Name::of(name), Name::Part(key, ending));
        }
        assert_eq!(Name::of("d.GIF"), Name::Unread("d", "gif".into()));
        assert_eq!(Name::of("d.tar.gz"), Name::Unread("d", "tar.gz".into()));
        // `d.seg.png` is a member `seg.png` of `d`; hidden files have no base name.
        for name in ["d.seg.png", "www.a.org_1.jpg"] {
            assert_eq!(Name::of(name), Name::Passed(DOTTED));
        }
        for name in ["d", ".txt", "a/._d.jpg", "", "__a__/d.jpg", "__a__"] {
            assert!(matches!(Name::of(name), Name::Passed(_)), "{name}");
        }
    }
}
