//! Finds numbers in a result that JSON can't represent: NaN and the infinities.
//!
//! `serde_json` writes them as `null` before any formatter sees them, so that a wrong result would
//! read like a missing one. This serializer writes nothing, and fails at the first such number.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Serializer};

/// The first number in the value that is not finite, as text.
pub(super) fn first_not_finite(value: &impl Serialize) -> Option<String> {
    value.serialize(Finite).err().and_then(|error| error.0)
}

/// The number that was found; `None` where the value's own serializer failed.
#[derive(Debug)]
struct Found(Option<String>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("no number"))
    }
}

impl std::error::Error for Found {}

impl ser::Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(None)
    }
}

/// Visits a value with its lists, maps and structs.
struct Finite;

macro_rules! ignore {
    ($($name:ident: $type:ty,)*) => {
        $(fn $name(self, _: $type) -> Result<(), Found> {
            Ok(())
        })*
    };
}

impl Serializer for Finite {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    ignore! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_f32(self, value: f32) -> Result<(), Found> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Found> {
        if value.is_finite() {
            return Ok(());
        }
        let name = if value.is_nan() { "NaN" } else { "Infinity" };
        let sign = if value == f64::NEG_INFINITY { "-" } else { "" };
        Err(Found(Some(format!("{sign}{name}"))))
    }

    fn serialize_none(self) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Found> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Found> {
        Ok(self)
    }
}

macro_rules! go_through {
    ($($kind:ident: $each:ident($($name:ident: $type:ty)?);)*) => {
        $(impl ser::$kind for Finite {
            type Ok = ();
            type Error = Found;

            fn $each<T: Serialize + ?Sized>(
                &mut self,
                $($name: $type,)?
                value: &T,
            ) -> Result<(), Found> {
                $(let _ = $name;)?
                value.serialize(Finite)
            }

            fn end(self) -> Result<(), Found> {
                Ok(())
            }
        })*
    };
}

go_through! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(name: &'static str);
    SerializeStructVariant: serialize_field(name: &'static str);
}

impl ser::SerializeMap for Finite {
    type Ok = ();
    type Error = Found;

    /// A key that is not finite is an error of `serde_json` itself.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
        value.serialize(Finite)
    }

    fn end(self) -> Result<(), Found> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{json, value::RawValue};

    use super::*;

    #[derive(Serialize)]
    enum Shape {
        Point,
        Circle(f32),
        Box(f64, f64),
        Named { side: Option<f64> },
    }

    #[derive(Serialize)]
    struct Wrapped(f64);

    #[test]
    fn a_number_that_is_not_finite_is_found_wherever_it_stands() {
        let (nan, infinite) = (f64::NAN, f64::INFINITY);
        assert_eq!(first_not_finite(&nan).as_deref(), Some("NaN"));
        assert_eq!(first_not_finite(&-nan).as_deref(), Some("NaN"));
        assert_eq!(first_not_finite(&vec![1.0, -infinite, nan]).as_deref(), Some("-Infinity"));
        assert_eq!(first_not_finite(&(1, "x", Some(infinite))).as_deref(), Some("Infinity"));
        assert_eq!(first_not_finite(&Shape::Circle(f32::NAN)).as_deref(), Some("NaN"));
        assert_eq!(first_not_finite(&Shape::Box(1.0, nan)).as_deref(), Some("NaN"));
        assert_eq!(first_not_finite(&Shape::Named { side: Some(nan) }).as_deref(), Some("NaN"));
        let map = BTreeMap::from([("a", vec![Wrapped(0.0)]), ("b", vec![Wrapped(infinite)])]);
        assert_eq!(first_not_finite(&map).as_deref(), Some("Infinity"));
    }

    #[test]
    fn what_is_null_and_finite_is_left_alone() {
        assert_eq!(first_not_finite(&()), None);
        assert_eq!(first_not_finite(&Shape::Named { side: None }), None);
        assert_eq!(first_not_finite(&(Shape::Point, f64::MAX, "NaN", b"x")), None);
        assert_eq!(first_not_finite(&json!({"a": [null, 1.5, true]})), None);
        let raw = RawValue::from_string("[null]".into()).expect("JSON");
        assert_eq!(first_not_finite(&raw), None);
    }
}
