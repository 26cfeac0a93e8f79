//! What a store means to upload: written to the ledger before the first byte goes out, removed once it is listed.
//!
//! Resuming with the same intent writes the same bytes under the same keys, so an upload can be cut anywhere and any
//! number of times. A name of the ledger is `ship/TENANT/ULID`, its value JSON: `{"format":1,"nonce":"…","began_ms":…}`.

use serde::{Deserialize, Serialize};
use tsdb::model::TenantId;
use tsdb::{Error, Result};
use ulid::Ulid;

use crate::env::Ledger;

const FORMAT: u32 = 1;

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    format: u32,
    /// Told apart by this from every other upload.
    pub(super) nonce: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub(super) began_ms: i64,
}

impl Intent {
    /// The intent that is in the ledger, or this new one, which is then; and whether it was there.
    pub(super) fn begin(
        ledger: &dyn Ledger,
        tenant: &TenantId,
        ulid: Ulid,
        nonce: u128,
        now_ms: i64,
    ) -> Result<(Self, bool)> {
        let name = name(tenant, ulid);
        if let Some(bytes) = ledger.get(&name)? {
            let damaged = |e: serde_json::Error| Error::corrupt("intent", 0, e.to_string()).in_file(&*name);
            let intent: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
            if intent.format == FORMAT {
                return Ok((intent, true));
            }
            tracing::info!(%tenant, block = %ulid, format = intent.format, "an upload of another version begins anew");
        }
        let intent = Self { format: FORMAT, nonce: format!("{nonce:032x}"), began_ms: now_ms };
        ledger.put(&name, &serde_json::to_vec(&intent).expect("an intent is JSON"))?;
        Ok((intent, false))
    }

    /// Forgets an upload that is listed.
    pub(super) fn end(ledger: &dyn Ledger, tenant: &TenantId, ulid: Ulid) -> Result<()> {
        let name = name(tenant, ulid);
        if ledger.get(&name)?.is_some() { ledger.remove(&name) } else { Ok(()) }
    }
}

fn name(tenant: &TenantId, ulid: Ulid) -> String {
    format!("ship/{tenant}/{ulid}")
}
