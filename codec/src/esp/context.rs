//! Expanded keys: what an SA needs to seal and open packets.
//!
//! They are built from [`EspKeys`] and can be dropped and built again at any time; they hold no state of the
//! SA. An SA in use keeps its own, as long as the process has room for them: rebuilding costs 0.2 to 0.9
//! microseconds, but expanded keys of a million SAs would fill a gigabyte and be cold in every cache.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use codec_native::cbc::{BLOCK_LEN, CbcDecryptKey};

use super::EspError;
use super::aead::Aead;
use super::cbc::{CbcHmac, CbcSeal};
use super::suite::EspKeys;
use super::triple_des::{TripleDesHmac, TripleDesSeal};

/// Contexts that SAs of a process keep unless [`keep_contexts`] says otherwise: both directions of 4,096 SAs,
/// about 10 MB.
pub const KEPT_CONTEXTS_DEFAULT: usize = 2 * 4096;

static KEPT: AtomicUsize = AtomicUsize::new(0);
static KEPT_MAX: AtomicUsize = AtomicUsize::new(KEPT_CONTEXTS_DEFAULT);

/// Bounds how many SAs of this process keep expanded keys between packets, each direction for itself; others
/// expand theirs for every packet. To be called before there are SAs.
///
/// A context takes about 1.2 KB.
pub fn keep_contexts(contexts_max: usize) {
    KEPT_MAX.store(contexts_max, Ordering::Relaxed);
}

/// Expanded keys that an SA keeps.
pub(super) struct Kept<Context>(Arc<Context>);

impl<Context> Kept<Context> {
    /// `None` when as many are kept as may be.
    fn new(context: impl FnOnce() -> Context) -> Option<Self> {
        let more = |kept| (kept < KEPT_MAX.load(Ordering::Relaxed)).then_some(kept + 1);
        // A full house is found out by reading alone, so that SAs beyond it share a clean cache line.
        KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::new(context())))
    }
}

impl<Context> Drop for Kept<Context> {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Expanded keys for one packet or more: the SA's own, or made for the occasion.
pub(super) enum Lent<'a, Context> {
    Kept(&'a Arc<Context>),
    Made(Context),
}

impl<'a, Context> Lent<'a, Context> {
    /// What `place` keeps, or keeps from now on if there is room.
    pub(super) fn of(place: &'a mut Option<Kept<Context>>, expand: impl Fn() -> Context) -> Self {
        if place.is_none() {
            *place = Kept::new(&expand);
        }
        match place {
            Some(Kept(context)) => Self::Kept(context),
            None => Self::Made(expand()),
        }
    }

    pub(super) fn get(&self) -> &Context {
        match self {
            Self::Kept(context) => context,
            Self::Made(context) => context,
        }
    }
}

/// Opens packets of one SA.
#[expect(clippy::large_enum_variant, reason = "contexts are few, and a box would cost every packet a miss")]
pub(super) enum OpenContext {
    Aead(Aead),
    CbcHmac(CbcHmac<CbcDecryptKey>),
    TripleDes(TripleDesHmac),
}

/// Seals packets of one SA.
pub(super) enum SealContext {
    Aead(Aead),
    CbcHmac(CbcSeal),
    TripleDes(TripleDesSeal),
}

impl OpenContext {
    pub(super) fn new(keys: &EspKeys) -> Self {
        match (Aead::new(keys), TripleDesHmac::new(keys)) {
            (Some(aead), _) => Self::Aead(aead),
            (None, Some(cipher)) => Self::TripleDes(cipher),
            (None, None) => Self::CbcHmac(CbcHmac::to_open(keys)),
        }
    }

    /// Verifies and decrypts `packet` in place; `high` is the unsent half of an extended sequence number.
    /// Returns where the text (inner packet, padding, trailer) lies.
    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Result<Range<usize>, EspError> {
        match self {
            Self::Aead(aead) => aead.open(packet, high),
            Self::CbcHmac(cipher) => cipher.open(packet, high),
            Self::TripleDes(cipher) => cipher.open(packet, high),
        }
    }
}

impl SealContext {
    /// `iv_key` is there exactly for CBC.
    pub(super) fn new(keys: &EspKeys, iv_key: Option<&[u8; BLOCK_LEN]>) -> Self {
        let iv_key = || iv_key.expect("CBC has an IV key");
        match (Aead::new(keys), TripleDesHmac::new(keys)) {
            (Some(aead), _) => Self::Aead(aead),
            (None, Some(cipher)) => Self::TripleDes(TripleDesSeal::new(cipher, iv_key())),
            (None, None) => Self::CbcHmac(CbcSeal::new(keys, iv_key())),
        }
    }

    /// Fills `packet`, whose SPI and low sequence half are in place, with IV, encrypted `inner` and `trailer`
    /// and ICV. Its length is that of the parts.
    pub(super) fn seal(
        &self,
        packet: &mut [u8],
        sequence: u64,
        high: Option<u32>,
        inner: &[u8],
        trailer: &[u8],
    ) {
        match self {
            Self::Aead(aead) => aead.seal(packet, sequence, high, inner, trailer),
            Self::CbcHmac(cbc) => cbc.seal(packet, sequence, high, inner, trailer),
            Self::TripleDes(cipher) => cipher.seal(packet, sequence, high, inner, trailer),
        }
    }

    /// As [`Self::seal`] for a packet whose text (inner packet and trailer) is in its place already.
    pub(super) fn seal_in_place(&self, packet: &mut [u8], sequence: u64, high: Option<u32>) {
        match self {
            Self::Aead(aead) => aead.seal_in_place(packet, sequence, high),
            Self::CbcHmac(cbc) => {
                cbc.put_iv(packet, sequence);
                cbc.encrypt(packet);
                cbc.sign(packet, high);
            }
            Self::TripleDes(cipher) => cipher.seal_in_place(packet, sequence, high),
        }
    }
}
