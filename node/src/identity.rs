//! Which store this is: an id made with the data folder, and a number that grows with each start.

use tsdb::{Error, Result};

use crate::env::Ledger;

const STORE_ID: &str = "store/id";
const INCARNATION: &str = "store/incarnation";

/// Who this store is among all that ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random, made with the data folder.
    pub store_id: u128,
    /// 1 at the first start; grows by one at each.
    pub incarnation: u64,
}

impl Identity {
    /// Reads who this store is, makes it a store if it is none yet, and counts this start; durable on return.
    ///
    /// # Errors
    /// When the ledger fails, or holds something else than what was put there.
    pub fn begin(ledger: &dyn Ledger, fresh_id: u128) -> Result<Self> {
        let store_id = match ledger.get(STORE_ID)? {
            Some(bytes) => u128::from_be_bytes(number(STORE_ID, &bytes)?),
            None => {
                ledger.put(STORE_ID, &fresh_id.to_be_bytes())?;
                fresh_id
            }
        };
        let previous = match ledger.get(INCARNATION)? {
            Some(bytes) => u64::from_be_bytes(number(INCARNATION, &bytes)?),
            None => 0,
        };
        let incarnation = previous + 1;
        ledger.put(INCARNATION, &incarnation.to_be_bytes())?;
        Ok(Self { store_id, incarnation })
    }
}

fn number<const N: usize>(name: &'static str, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::corrupt(name, 0, format!("{} bytes instead of {N}", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SledLedger;

    #[test]
    fn the_id_stays_and_the_incarnation_grows() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |fresh| Identity::begin(&SledLedger::open(dir.path()).unwrap(), fresh).unwrap();
        assert_eq!(begin(7), Identity { store_id: 7, incarnation: 1 });
        assert_eq!(begin(8), Identity { store_id: 7, incarnation: 2 });
    }
}
