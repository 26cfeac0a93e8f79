//! Texts that come from outside, such as labels, queries and answers of other servers, as they are put into errors that
//! are kept, logged or sent.

/// Most bytes of such a text.
pub(crate) const TEXT_BYTES_MAX: usize = 2048;

/// The text, or its beginning where it has more than [`TEXT_BYTES_MAX`], and how long it was.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let bytes = text.len();
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.shrink_to_fit();
        text.push_str(&format!("… ({bytes} bytes)"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_says_how_long_it_was() {
        let just = "a".repeat(TEXT_BYTES_MAX);
        assert_eq!(shortened(just.clone()), just);
        for long in ["a".repeat(100_000), "ä".repeat(50_000), format!("a{}", "\u{1F514}".repeat(30_000))] {
            let text = shortened(long.clone());
            assert!(text.len() < TEXT_BYTES_MAX + 40, "{}", text.len());
            let (start, rest) = text.split_once('…').unwrap();
            assert!(long.starts_with(start) && start.len() + 4 > TEXT_BYTES_MAX);
            assert_eq!(rest, format!(" ({} bytes)", long.len()));
        }
    }
}
