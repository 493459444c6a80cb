//! JSON as annotation tools write it, which is often more than JSON.
//!
//! Python writes `NaN` and `Infinity`, editors put a mark before the first byte, and exporters write
//! numbers as text, `null` for 0 and keys twice. None of this may cost a whole file: [`read_json`]
//! reads past the first two, and [`Scalar`], [`List`] and the structs of [`loose`] take any value
//! that stands where they do, so that what is odd is found one annotation at a time, with its id.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::marker::PhantomData;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, IgnoredAny};
use serde::de::{MapAccess, SeqAccess, Visitor};

use crate::files::{invalid, open};
use crate::{DataError, Omissions};

/// Whole numbers beyond are not exact as floats.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// In a visitor: what simple values are taken for.
macro_rules! others_are {
    ($value:expr) => {
        fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Ok($value)
        }
    };
}
pub(crate) use others_are;

/// Declares a struct that reads from any JSON value: of a key that is there twice the last counts, as
/// in Python, unknown keys are passed over, missing ones keep the default, and what is no object has
/// all defaults.
macro_rules! loose {
    ($(#[$meta:meta])* struct $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        struct $name {
            $($field: $type,)*
        }

        impl<'de> serde::de::Deserialize<'de> for $name {
            fn deserialize<D: serde::de::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$name, A::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($field) => object.$field = map.next_value()?,)*
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(object)
                    }

                    fn visit_seq<A: serde::de::SeqAccess<'de>>(
                        self,
                        sequence: A,
                    ) -> Result<$name, A::Error> {
                        $crate::json::drain(sequence)?;
                        Ok($name::default())
                    }

                    fn visit_unit<E: serde::de::Error>(self) -> Result<$name, E> {
                        Ok($name::default())
                    }

                    $crate::json::others_are!($name::default());
                }

                deserializer.deserialize_any(Fields)
            }
        }
    };
}
pub(crate) use loose;

/// Reads a JSON file of at most `max_bytes` without holding its text. `NaN` and infinities are read
/// as `null`, and a byte order mark is passed over.
///
/// # Errors
/// As [`open`], and [`DataError::Invalid`] with line and column where it is not what `T` needs.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> Result<T, DataError> {
    let io_error = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = open(path, max_bytes)?;
    let head = file.fill_buf().map_err(io_error)?;
    match head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] => {
            return Err(invalid(path, "UTF-16 or binary, not JSON in UTF-8"));
        }
        [0x1f, 0x8b, ..] => return Err(invalid(path, "compressed with gzip; unpack it first")),
        [0xef, 0xbb, 0xbf, ..] => file.consume(3),
        _ => {}
    }
    from_reader(file).map_err(|error| match error.is_io() {
        true => io_error(error.into()),
        false => invalid(path, error.to_string()),
    })
}

/// Reads JSON as [`read_json`] does.
pub(crate) fn from_reader<T: DeserializeOwned>(reader: impl BufRead) -> serde_json::Result<T> {
    serde_json::from_reader(Strict::new(reader))
}

/// A reader that makes what Python writes into JSON: `null` for `NaN`, `Infinity` and `-Infinity`.
struct Strict<R> {
    inner: R,
    words: Words,
    /// How much of what is ready has been read.
    read: usize,
}

/// Bytes on their way through [`Strict`].
#[derive(Default)]
struct Words {
    within: Within,
    /// The beginning of what may be a word to replace.
    word: Vec<u8>,
    ready: Vec<u8>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Within {
    #[default]
    Values,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

impl Words {
    /// Longest word to replace, `-Infinity`.
    const LONGEST: usize = 9;

    fn take(&mut self, byte: u8) {
        match self.within {
            Within::Values => return self.take_value(byte),
            Within::Text if byte == b'"' => self.within = Within::Values,
            Within::Text if byte == b'\\' => self.within = Within::Escape,
            Within::Text => {}
            Within::Escape => self.within = Within::Text,
        }
        self.ready.push(byte);
    }

    fn take_value(&mut self, byte: u8) {
        let goes_on = match self.word.as_slice() {
            [] => matches!(byte, b'N' | b'I' | b'-'),
            [b'-'] => byte == b'I',
            word => byte.is_ascii_alphabetic() && word.len() < Self::LONGEST,
        };
        if goes_on {
            return self.word.push(byte);
        }
        self.end_word();
        if byte == b'"' {
            self.within = Within::Text;
        }
        self.ready.push(byte);
    }

    fn end_word(&mut self) {
        match self.word.as_slice() {
            b"NaN" | b"Infinity" | b"-Infinity" => self.ready.extend(b"null"),
            word => self.ready.extend(word),
        }
        self.word.clear();
    }
}

impl<R: BufRead> Strict<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            words: Words::default(),
            read: 0,
        }
    }

    /// Makes more bytes ready; none are at the end.
    fn refill(&mut self) -> io::Result<()> {
        self.read = 0;
        self.words.ready.clear();
        while self.words.ready.is_empty() {
            let raw = self.inner.fill_buf()?;
            let length = raw.len();
            if length == 0 {
                self.words.end_word();
                break;
            }
            for &byte in raw {
                self.words.take(byte);
            }
            self.inner.consume(length);
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Strict<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read == self.words.ready.len() {
            self.refill()?;
        }
        let ready = self.words.ready.get(self.read..).unwrap_or_default();
        let length = ready.len().min(out.len());
        for (to, from) in out.iter_mut().zip(ready) {
            *to = *from;
        }
        self.read += length;
        Ok(length)
    }
}

/// A value that should be a number, a text or a yes or no, and may be anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Scalar {
    /// `null`, or nothing at all.
    #[default]
    Null,
    Bool(bool),
    Whole(i64),
    Float(f64),
    Text(Box<str>),
    /// A list or an object.
    Other,
}

impl Scalar {
    /// What it names, if it can name anything. A whole number is the same id as a float and as
    /// text.
    pub(crate) fn id(&self) -> Option<Id> {
        let plain = |text: &str| {
            let number = text.parse::<i64>().ok();
            number.filter(|number| number.to_string() == text)
        };
        Some(match self {
            Self::Null | Self::Other => return None,
            Self::Bool(is) => Id::Number(i64::from(*is)),
            Self::Whole(number) => Id::Number(*number),
            Self::Float(number) => match exact(*number) {
                Some(number) => Id::Number(number),
                None => Id::Text(number.to_string().into()),
            },
            Self::Text(text) => match plain(text) {
                Some(number) => Id::Number(number),
                None => Id::Text(text.clone()),
            },
        })
    }

    /// A whole number from 0, also written as a float or as text.
    pub(crate) fn count(&self) -> Option<u32> {
        let number = match self {
            Self::Whole(number) => *number,
            Self::Float(number) => exact(*number)?,
            Self::Text(text) => exact(text.trim().parse().ok()?)?,
            Self::Null | Self::Bool(_) | Self::Other => return None,
        };
        u32::try_from(number).ok()
    }

    /// A number that is finite.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Float(number) => Some(*number).filter(|number| number.is_finite()),
            _ => None,
        }
    }

    /// Whether it means yes: anything but 0, `false`, `null` and their texts.
    pub(crate) fn is_yes(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(is) => *is,
            Self::Whole(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => {
                let no = ["", "0", "0.0", "false", "no", "none", "null"];
                !no.contains(&text.trim().to_ascii_lowercase().as_str())
            }
            Self::Other => true,
        }
    }

    /// The text, unless it is anything else.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is written as text.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// A float that is a whole number.
fn exact(number: f64) -> Option<i64> {
    (number.abs() < MAX_EXACT && number.trunc() == number).then_some(number as i64)
}

/// What an image, an annotation or a category is called in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Id {
    Number(i64),
    Text(Box<str>),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "`{text:.60}`"),
        }
    }
}

/// An id that may be missing, for messages.
pub(crate) fn shown(id: &Scalar) -> String {
    id.id()
        .map_or_else(|| "without an id".to_owned(), |id| id.to_string())
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar::Null)
            }

            fn visit_bool<E: Error>(self, is: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(is))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(match i64::try_from(number) {
                    Ok(number) => Scalar::Whole(number),
                    Err(_) => Scalar::Text(number.to_string().into()),
                })
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Scalar, A::Error> {
                drain(sequence)?;
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Passes over the rest of a list.
pub(crate) fn drain<'de, A: SeqAccess<'de>>(mut sequence: A) -> Result<(), A::Error> {
    while sequence.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// The objects of a list of at most `MAX` items. What is no object is counted, not kept: two bytes of a
/// file would become a hundred and more.
#[derive(Debug, Default)]
pub(crate) enum List<T, const MAX: usize> {
    /// Nothing, or something else than a list.
    #[default]
    Missing,
    /// More than `MAX` items.
    Long,
    Items(Items<T>),
}

/// What a list holds.
#[derive(Debug)]
pub(crate) struct Items<T> {
    pub(crate) objects: Vec<T>,
    /// The first item that is no object, from 1, and how many are none.
    pub(crate) other: Option<(usize, u64)>,
}

impl<T, const MAX: usize> List<T, MAX> {
    /// What the list of that name holds.
    ///
    /// # Errors
    /// A text that names the list if it is missing or too long.
    pub(crate) fn items(self, name: &str) -> Result<Items<T>, String> {
        match self {
            Self::Missing => Err(format!("no list `{name}`")),
            Self::Long => Err(format!("more than {MAX} items in `{name}`")),
            Self::Items(items) => Ok(items),
        }
    }

    /// The objects in the list of that name. Items that are none are counted in `omissions`.
    ///
    /// # Errors
    /// As [`Self::items`].
    pub(crate) fn objects(self, name: &str, omissions: &mut Omissions) -> Result<Vec<T>, String> {
        let Items { objects, other } = self.items(name)?;
        if let Some((first, count)) = other {
            let kind = format!("items of `{name}` that are no objects, left out");
            omissions.add_many(kind, count, format!("number {first}"));
        }
        Ok(objects)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Any<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> Result<Self::Value, A::Error> {
                let mut items = Items {
                    objects: Vec::new(),
                    other: None,
                };
                let mut count = 0;
                while let Some(item) = sequence.next_element::<Item<T>>()? {
                    if count == MAX {
                        drain(sequence)?;
                        return Ok(List::Long);
                    }
                    count += 1;
                    match item {
                        Item::Object(object) => items.objects.push(object),
                        Item::Other => items.other.get_or_insert((count, 0)).1 += 1,
                    }
                }
                Ok(List::Items(items))
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(List::Missing)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(List::Missing)
            }

            others_are!(List::Missing);
        }

        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// A value that should be an object.
pub(crate) enum Item<T> {
    Object(T),
    Other,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = Item<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Item::Object)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Item<T>, A::Error> {
                drain(sequence)?;
                Ok(Item::Other)
            }

            fn visit_unit<E: Error>(self) -> Result<Item<T>, E> {
                Ok(Item::Other)
            }

            others_are!(Item::Other);
        }

        deserializer.deserialize_any(Any(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    loose! {
        struct Entry {
            id: Scalar,
            list: List<Entry, 3>,
        }
    }

    fn scalar(json: &str) -> Scalar {
        from_reader(json.as_bytes()).unwrap()
    }

    #[test]
    fn what_python_writes_is_read() {
        for json in ["NaN", "Infinity", "-Infinity", " NaN "] {
            assert_eq!(scalar(json), Scalar::Null, "{json}");
        }
        let list: Vec<Scalar> =
            from_reader(r#"[NaN,-1,-Infinity,"NaN \"Infinity\" \\",-0.5]"#.as_bytes()).unwrap();
        assert_eq!(
            list,
            [
                Scalar::Null,
                Scalar::Whole(-1),
                Scalar::Null,
                Scalar::Text("NaN \"Infinity\" \\".into()),
                Scalar::Float(-0.5)
            ]
        );
        for json in [
            "Nan",
            "nan",
            "NaNN",
            "-NaN",
            "Infinit",
            "InfinityInfinity",
            "-",
        ] {
            assert!(from_reader::<Scalar>(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn ids_are_equal_where_they_mean_the_same() {
        for json in ["7", "7.0", "\"7\"", "7e0"] {
            assert_eq!(scalar(json).id(), Some(Id::Number(7)), "{json}");
        }
        assert_eq!(scalar("true").id(), Some(Id::Number(1)));
        for (json, text) in [
            ("\"007\"", "007"),
            ("\" 7\"", " 7"),
            ("\"a\"", "a"),
            ("7.5", "7.5"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(scalar(json).id(), Some(Id::Text(text.into())), "{json}");
        }
        for json in ["null", "[7]", "{\"id\": 7}"] {
            assert_eq!(scalar(json).id(), None, "{json}");
        }
    }

    #[test]
    fn numbers_and_answers_are_read_in_any_spelling() {
        for json in ["3", "3.0", "\"3\"", "\" 3.0\""] {
            assert_eq!(scalar(json).count(), Some(3), "{json}");
        }
        for json in ["-3", "3.5", "null", "\"x\"", "true", "1e300", "[3]"] {
            assert_eq!(scalar(json).count(), None, "{json}");
        }
        for json in ["0", "0.0", "false", "null", "\"0\"", "\"False\"", "\"\""] {
            assert!(!scalar(json).is_yes(), "{json}");
        }
        for json in ["1", "true", "\"1\"", "2.0"] {
            assert!(scalar(json).is_yes(), "{json}");
        }
    }

    #[test]
    fn objects_take_what_is_there() {
        let read = |json: &str| from_reader::<Entry>(json.as_bytes()).unwrap();
        let entry = read(r#"{"id": 1, "other": {"a": [1]}, "id": 2, "list": [{"id": 3}]}"#);
        assert_eq!(entry.id, Scalar::Whole(2));
        let list = entry.list.items("list").unwrap();
        assert_eq!(list.objects[0].id, Scalar::Whole(3));
        for json in [
            "null",
            "7",
            "\"x\"",
            "[1, [2]]",
            "true",
            r#"{"list": {"a": 1}}"#,
        ] {
            let entry = read(json);
            assert!(entry.id == Scalar::Null, "{json}");
            assert_eq!(entry.list.items("list").unwrap_err(), "no list `list`");
        }
    }

    #[test]
    fn lists_count_what_is_no_object_and_end_somewhere() {
        let read = |items: &str| {
            let json = format!("{{\"list\": [{items}], \"id\": 5}}");
            let entry: Entry = from_reader(json.as_bytes()).unwrap();
            assert_eq!(entry.id, Scalar::Whole(5));
            let mut omissions = Omissions::new();
            let objects = entry.list.objects("list", &mut omissions);
            objects.map(|objects| (objects.len(), omissions))
        };
        let (objects, omissions) = read("{\"id\": 1}, null, [{}]").unwrap();
        assert_eq!(objects, 1);
        assert_eq!(
            omissions.kinds()[0].to_string(),
            "items of `list` that are no objects, left out: 2 (number 2 and 1 more)"
        );
        assert_eq!(read("{}, {}, {}").unwrap(), (3, Omissions::new()));
        for items in ["{}, {}, {}, {}", "0, 0, 0, 0, 0, [0]"] {
            assert_eq!(read(items).unwrap_err(), "more than 3 items in `list`");
        }
    }

    #[test]
    fn files_that_are_not_utf_8_json_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_json::<Vec<u8>>(&path, 99).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xef\xbb\xbf[1]").unwrap(), [1]);
        for bytes in [
            b"\xff\xfe[\0]\0".as_slice(),
            b"\xfe\xff\0[\0]",
            b"[\0]\0",
            b"\0[\0]",
        ] {
            assert!(read(bytes).unwrap_err().contains("UTF-16"));
        }
        assert!(read(b"\x1f\x8b\x08").unwrap_err().contains("gzip"));
        assert!(read(b"").unwrap_err().contains("a.json: EOF"));
    }

    proptest! {
        #[test]
        fn strict_json_passes_unchanged(text in ".{0,40}", number in any::<f64>(), size in 1_usize..9) {
            let value = serde_json::json!([text, {"NaN": number, "-": [-1, text]}]);
            let json = value.to_string();
            let reader = io::BufReader::with_capacity(size, json.as_bytes());
            let mut read = String::new();
            Strict::new(reader).read_to_string(&mut read).unwrap();
            prop_assert_eq!(read, json);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_reader::<Entry>(bytes.as_slice());
        }
    }
}
