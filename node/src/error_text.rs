//! Texts of errors of libraries that leave their causes out of them, as reqwest and object_store do.

/// An error's text and those of its causes, joined by colons.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
