//! Payloads of the log's records: one file a kind, with its layout, encoder, decoder and tests.
