//! Messages on the wire: `.proto` files and the code made from them; no logic.
//!
//! The code is committed, so that a build needs no protobuf compiler; `cargo test -p proto` makes it anew and
//! compares, and `CARILLON_REGENERATE=1 cargo test -p proto` writes it.

/// Prometheus's remote write 1.0.
#[allow(missing_docs, clippy::all, reason = "generated; the .proto file has the comments")]
#[rustfmt::skip]
pub mod prometheus {
    include!("generated/prometheus.rs");
}

/// Prometheus's remote write 2.0.
#[allow(missing_docs, clippy::all, reason = "generated; the .proto file has the comments")]
#[rustfmt::skip]
pub mod prometheus_v2 {
    include!("generated/io.prometheus.write.v2.rs");
}

/// What nodes say to each other on the peer port.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated; the .proto files have the comments")]
#[allow(clippy::needless_pass_by_value, clippy::semicolon_if_nothing_returned, reason = "generated")]
#[rustfmt::skip]
pub mod peer {
    /// Who is there, and which ring document holds.
    pub mod membership {
        include!("generated/carillon.peer.membership.v1.rs");
    }

    /// What replicas lack.
    pub mod repair {
        include!("generated/carillon.peer.repair.v1.rs");
    }

    /// Samples on their way to the nodes that keep them.
    pub mod write {
        include!("generated/carillon.peer.write.v1.rs");
    }

    /// What a node that answers a question asks the others.
    pub mod read {
        include!("generated/carillon.peer.read.v1.rs");
    }
}
