//! The macro by which an option is declared once: field, default, help, and with them flag, environment name,
//! YAML key, reference page and schema.

use super::values::Kind;

/// What is known of an option besides its value.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// The YAML key, with dots between levels: `wal.sync`.
    pub key: &'static str,
    /// What it does, in full sentences.
    pub help: &'static str,
    /// What text it takes.
    pub kind: Kind,
    /// Whether `/-/reload` takes a change while the node runs.
    pub reload: bool,
}

/// Declares a struct of options: `"yaml.key" field: Type = default, restart|reload;` each with its help above.
macro_rules! options {
    ($(#[$doc:meta])* $name:ident {
        $($(#[doc = $help:literal])+ $key:literal $field:ident: $type:ty = $default:expr, $change:ident;)+
    } $($(#[$extra_doc:meta])* + $extra:ident: $extra_type:ty;)*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $help])+ pub $field: $type,)+
            $($(#[$extra_doc])* pub $extra: $extra_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ $($extra: Default::default(),)* }
            }
        }

        impl $name {
            /// The options, in the order of the reference page.
            pub const DECLARED: &'static [$crate::config::Declared] = &[
                $($crate::config::Declared {
                    key: $key,
                    help: concat!($($help, "\n"),+),
                    kind: <$type as $crate::config::Setting>::KIND,
                    reload: $crate::config::declare::options!(@ $change),
                },)+
            ];

            /// Sets the option at `key` from text; `None` when there is no such key.
            pub(super) fn set(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
                match key {
                    $($key => Some(<$type as $crate::config::Setting>::parse(text).map(|v| self.$field = v)),)+
                    _ => None,
                }
            }

            /// The option at `key` as text; `None` when there is no such key.
            pub fn show(&self, key: &str) -> Option<String> {
                match key {
                    $($key => Some(self.$field.to_string()),)+
                    _ => None,
                }
            }
        }
    };
    (@ reload) => { true };
    (@ restart) => { false };
}

pub(crate) use options;
