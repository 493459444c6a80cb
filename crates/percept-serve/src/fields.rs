//! Fields of a form as parameters: the same types that JSON is read into.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use crate::values::place;

/// The value of a field: text, which is read as what the parameter is.
#[derive(Debug)]
pub(crate) enum Field {
    /// A field that is there once.
    One(String),
    /// The values of one that is repeated.
    Many(Vec<String>),
}

/// Parameters from the fields of a form. Fields of one name make a list.
///
/// # Errors
/// A field is unknown, missing, or no such value.
pub(crate) fn from_fields<P: DeserializeOwned>(fields: Vec<(String, Field)>) -> Result<P, String> {
    let mut merged: Vec<(String, Field)> = Vec::new();
    for (name, field) in fields {
        let Some((_, before)) = merged.iter_mut().find(|(known, _)| *known == name) else {
            merged.push((name, field));
            continue;
        };
        let mut values = std::mem::replace(before, Field::Many(Vec::new())).into_values();
        values.extend(field.into_values());
        *before = Field::Many(values);
    }
    let fields = MapDeserializer::new(merged.into_iter());
    serde_path_to_error::deserialize(fields).map_err(|error: serde_path_to_error::Error<Error>| {
        place(error.path()) + &error.inner().to_string()
    })
}

impl Field {
    fn into_values(self) -> Vec<String> {
        match self {
            Field::One(text) => vec![text],
            Field::Many(values) => values,
        }
    }

    fn into_text(self) -> Result<String, Error> {
        match self {
            Field::One(text) => Ok(text),
            Field::Many(_) => Err(Error::custom("a field is there twice")),
        }
    }
}

impl IntoDeserializer<'_> for Field {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Field {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Field::One(text) => visitor.visit_string(text),
            Field::Many(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.into_text()?;
        match text.trim().parse() {
            Ok(number) => visitor.visit_u32(number),
            Err(_) => Err(Error::custom(format!("{text:.40}: not a whole number"))),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.into_text()?.trim() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            text => Err(Error::custom(format!("{text:.40}: neither true nor false"))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text: StringDeserializer<Error> = self.into_text()?.into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        size: Option<u32>,
        #[serde(default)]
        centered: bool,
        labels: Option<crate::values::Names>,
    }

    fn read(fields: &[(&str, &str)]) -> Result<Params, String> {
        let field = |(name, text): &(&str, &str)| ((*name).into(), Field::One((*text).into()));
        from_fields(fields.iter().map(field).collect())
    }

    #[test]
    fn text_becomes_what_the_parameter_is() {
        let params = read(&[("size", " 224"), ("centered", "true"), ("labels", "a, b")]).unwrap();
        assert_eq!((params.size, params.centered), (Some(224), true));
        assert_eq!(params.labels.unwrap().0, ["a", "b"]);
        let params = read(&[("labels", "a, b"), ("labels", "c")]).unwrap();
        assert_eq!(params.size, None);
        assert_eq!(params.labels.unwrap().0, ["a, b", "c"]);
    }

    #[test]
    fn lists_in_json_are_labels_too() {
        let params = read(&[("labels", r#"["cat", "a, b"]"#)]).unwrap();
        assert_eq!(params.labels.unwrap().0, ["cat", "a, b"]);
        let error = read(&[("labels", r#"["cat"]"#), ("labels", "dog")]).unwrap_err();
        assert_eq!(error, "labels[0]: a list or an object inside of a list");
    }

    #[test]
    fn the_field_at_fault_is_named() {
        for (fields, expected) in [
            (vec![("size", "big")], "size: big: not a whole number"),
            (
                vec![("size", "1"), ("size", "2")],
                "size: a field is there twice",
            ),
            (
                vec![("labels", "{}")],
                "labels: an object where a list of texts is meant",
            ),
        ] {
            assert_eq!(read(&fields).unwrap_err(), expected);
        }
        let unknown = read(&[("colour", "red")]).unwrap_err();
        assert!(unknown.contains("unknown field `colour`"), "{unknown}");
    }

    proptest::proptest! {
        #[test]
        fn any_fields_are_parameters_or_an_error(
            fields in proptest::collection::vec(("size|centered|labels|\\PC{0,9}", "[\\[\\]{}\",a0-9]{0,20}|\\PC{0,20}"), 0..5),
        ) {
            let fields: Vec<_> = fields.iter().map(|(n, t): &(String, String)| (n.as_str(), t.as_str())).collect();
            let _ = read(&fields);
        }

        /// A list in JSON means the same as the field repeated.
        #[test]
        fn a_list_is_the_field_repeated(names in proptest::collection::vec("[a-z ,\"\\\\é]{1,9}", 2..6)) {
            let json = serde_json::to_string(&names).unwrap();
            let list = read(&[("labels", &json)]).unwrap().labels.unwrap().0;
            let repeated: Vec<_> = names.iter().map(|name| ("labels", name.as_str())).collect();
            let repeated = read(&repeated).unwrap().labels.unwrap().0;
            proptest::prop_assert_eq!(&list, &names);
            proptest::prop_assert_eq!(list, repeated);
        }
    }

    #[test]
    fn other_fields_and_values_are_refused() {
        for wrong in [
            vec![("size", "big")],
            vec![("size", "-1")],
            vec![("size", "")],
            vec![("size", "1"), ("size", "2")],
            vec![("centered", "yes")],
            vec![("colour", "red")],
        ] {
            assert!(read(&wrong).is_err(), "{wrong:?}");
        }
    }
}
