//! Who owns what, and who is alive.
