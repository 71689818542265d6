//! Sequence numbers of authentication vectors, which are never used twice, restarts included (TS 33.102 Annex C).
//!
//! All subscribers count on one global counter, each with an offset of its own (Annex C.1.1.2). Only how far the counter
//! may go is kept on disk before it goes there, for many vectors at once; an offset is kept when a SIM has said that it is
//! further on. A store that is lost begins at the time of day, which a gateway with less than 32 vectors per second on
//! average never overtakes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use codec::eap::usim::Sqn;
use redb::{Database, Durability, ReadableTable, TableDefinition};
use thiserror::Error;

/// Vectors that one write to disk allows for.
const BLOCK: u64 = 1 << 16;

/// Bits of the index at the end of an SQN (TS 33.102 Annex C.3.2).
const IND_BITS: u32 = 5;

/// SQNs have 48 bits.
const SQN_MASK: u64 = (1 << 48) - 1;

const COUNTER: TableDefinition<'_, &str, u64> = TableDefinition::new("counter");
const OFFSETS: TableDefinition<'_, &str, u64> = TableDefinition::new("offsets");

/// The key of the counter's bound.
const BOUND: &str = "bound";

/// Why the store cannot be used.
#[derive(Debug, Error)]
#[error("{}: {source}", file.display())]
pub struct StoreError {
    file: PathBuf,
    source: redb::Error,
}

/// The counter, its bound on disk, and the offsets.
pub struct Sequence {
    database: Arc<Database>,
    next: u64,
    /// The counter stays below this, which is on disk.
    bound: Arc<AtomicU64>,
    /// Whether the next block is being written.
    extending: u64,
    offsets: AHashMap<Box<str>, u64>,
}

impl Sequence {
    /// Opens or makes the store.
    ///
    /// # Errors
    /// A file that cannot be made, read or locked: another gateway may be using it.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        Self::try_open(file).map_err(|source| StoreError { file: file.to_owned(), source })
    }

    fn try_open(file: &Path) -> Result<Self, redb::Error> {
        let database = Arc::new(Database::create(file)?);
        let write = database.begin_write()?;
        let mut offsets = AHashMap::new();
        let next = {
            let counter = write.open_table(COUNTER)?;
            for entry in write.open_table(OFFSETS)?.iter()? {
                let (imsi, offset) = entry?;
                offsets.insert(imsi.value().into(), offset.value());
            }
            let kept = counter.get(BOUND)?.map(|bound| bound.value());
            kept.unwrap_or_else(|| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                now << IND_BITS
            })
        };
        write.commit()?;
        extend(&database, next + BLOCK)?;
        let bound = Arc::new(AtomicU64::new(next + BLOCK));
        Ok(Self { database, next, bound, extending: next + BLOCK, offsets })
    }

    /// The next SQN of a subscriber; `first` is where one begins that has no offset. `None` while the disk is behind.
    pub fn next(&mut self, imsi: &str, first: Option<u64>) -> Option<Sqn> {
        let bound = self.bound.load(Ordering::Acquire);
        if bound == self.extending && bound - self.next < BLOCK / 2 {
            self.extend_ahead(bound + BLOCK);
        }
        if self.next >= bound {
            return None;
        }
        if let (None, Some(first)) = (self.offsets.get(imsi), first) {
            let offset = first.wrapping_sub(self.next) & SQN_MASK;
            self.keep_offset(imsi, offset);
        }
        let offset = self.offsets.get(imsi).copied().unwrap_or(0);
        let sqn = self.next.wrapping_add(offset) & SQN_MASK;
        self.next += 1;
        Some(Sqn::new(sqn))
    }

    /// Takes note that a SIM has seen `seen`, which is authentic: it goes on behind that.
    pub fn resynchronise(&mut self, imsi: &str, seen: Sqn) {
        // The sequence part must be greater, whatever the index.
        let first = ((seen.seq() + 1) << IND_BITS) & SQN_MASK;
        self.keep_offset(imsi, first.wrapping_sub(self.next) & SQN_MASK);
    }

    /// Keeps an offset. It reaches the disk with the next block at the latest: a SIM whose offset is lost says again how
    /// far it is, and no SQN is used twice for that, since the counter never goes back.
    fn keep_offset(&mut self, imsi: &str, offset: u64) {
        self.offsets.insert(imsi.into(), offset);
        let kept = || -> Result<(), redb::Error> {
            let mut write = self.database.begin_write()?;
            write.set_durability(Durability::None)?;
            write.open_table(OFFSETS)?.insert(imsi, offset)?;
            write.commit()?;
            Ok(())
        };
        if let Err(error) = kept() {
            tracing::warn!("subscriber store: {error}; the offset of a SIM is kept in memory only");
        }
    }

    /// Writes the next block to disk beside the control thread.
    fn extend_ahead(&mut self, to: u64) {
        self.extending = to;
        let (database, bound) = (self.database.clone(), self.bound.clone());
        let write = move || match extend(&database, to) {
            Ok(()) => bound.store(to, Ordering::Release),
            Err(error) => tracing::error!("subscriber store: {error}; no more vectors soon"),
        };
        if let Err(error) = std::thread::Builder::new().name("sqn".into()).spawn(write) {
            tracing::error!("subscriber store: no thread to write it: {error}");
            self.extending = self.bound.load(Ordering::Acquire);
        }
    }
}

fn extend(database: &Database, to: u64) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(COUNTER)?.insert(BOUND, to)?;
    write.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("subscribers.redb");
        (dir, file)
    }

    fn next(sequence: &mut Sequence, imsi: &str) -> u64 {
        loop {
            if let Some(sqn) = sequence.next(imsi, None) {
                return sqn.value();
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn ts33102_c_numbers_grow_over_restarts_and_are_never_used_twice() {
        let (_dir, file) = file();
        let mut seen = HashSet::new();
        let mut last = 0;
        for _ in 0..4 {
            let mut sequence = Sequence::open(&file).expect("opens");
            for _ in 0..100 {
                let sqn = next(&mut sequence, "001010000000001");
                assert!(sqn > last && seen.insert(sqn));
                last = sqn;
            }
        }
    }

    #[test]
    fn ts33102_6_3_5_a_sim_that_is_further_on_is_caught_up_with() {
        let (_dir, file) = file();
        let mut sequence = Sequence::open(&file).expect("opens");
        let before = next(&mut sequence, "1");
        let ahead = Sqn::new(before + (1 << 30) + 7);
        sequence.resynchronise("1", ahead);
        let after = Sqn::new(next(&mut sequence, "1"));
        assert!(after.seq() > ahead.seq() && after.seq() - ahead.seq() < 4);
        assert!(next(&mut sequence, "2") < ahead.value(), "another subscriber is not concerned");
        // A SIM that is behind because its store was lost: it goes back to where the SIM is.
        let behind = Sqn::new(1 << 20);
        sequence.resynchronise("3", behind);
        assert!(next(&mut sequence, "3") - behind.value() < 128);
        drop(sequence);
        let mut sequence = Sequence::open(&file).expect("opens");
        assert!(next(&mut sequence, "1") > after.value());
    }

    #[test]
    fn a_subscriber_begins_where_the_file_says() {
        let (_dir, file) = file();
        let mut sequence = Sequence::open(&file).expect("opens");
        assert_eq!(sequence.next("1", Some(0x20)).map(Sqn::value), Some(0x20));
        assert_eq!(sequence.next("1", Some(0x20)).map(Sqn::value), Some(0x21));
    }

    #[test]
    fn more_than_a_block_of_numbers_waits_for_nothing_but_the_disk() {
        let (_dir, file) = file();
        let mut sequence = Sequence::open(&file).expect("opens");
        let first = next(&mut sequence, "1");
        for index in 1..BLOCK * 3 {
            assert_eq!(next(&mut sequence, "1"), first + index);
        }
    }

    #[test]
    fn a_store_in_use_names_its_file() {
        let (_dir, file) = file();
        let _first = Sequence::open(&file).expect("opens");
        let error = Sequence::open(&file).err().expect("locked").to_string();
        assert!(error.contains("subscribers.redb"), "{error}");
    }
}
