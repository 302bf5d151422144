//! The leaf types of a document's canonical JSON and schema: names, durations, sizes, data.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::units;
use crate::json::Json;

/// The application's own JSON, in the form that is kept: programs compare digests of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Data<'a>(pub(super) Option<&'a Json>);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Data<'_> {
    fn schema_name() -> Cow<'static, str> {
        "Data".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}

/// A text with a pattern.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? ($inner:ty), $schema:tt, $text:expr) => {
        $(#[$doc])*
        pub(super) struct $name $(<$life>)? (pub(super) $inner);

        impl $(<$life>)? Serialize for $name $(<$life>)? {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&$text(self.0))
            }
        }

        impl $(<$life>)? JsonSchema for $name $(<$life>)? {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text! {
    /// The name of a task, queue or tenant.
    Name<'a>(&'a str),
    { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,100}$" },
    str::to_owned
}

text! {
    /// A duration: numbers with units.
    DurationText(Duration),
    {
        "type": "string",
        "pattern": "^\\s*([0-9][0-9.\\s]*[A-Za-zµ]+\\s*)+$",
        "description": "A duration like `30s`, `5m` or `1h 30m`, in whole milliseconds.",
    },
    units::format_duration
}

text! {
    /// A size: a whole number with its unit.
    SizeText(u64),
    {
        "type": "string",
        "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$",
        "description": "A size like `1MiB` or `512KiB`.",
    },
    units::format_size
}
