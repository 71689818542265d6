//! Managers: the library's functions for one kind of vectors, and its lanes.

use std::cell::OnceCell;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::Vectors;
use super::ffi::{RawManager, mb_manager_free, mb_manager_new};

/// Proof that the library works on this machine, and its functions.
#[derive(Clone, Copy)]
pub struct IpsecMb {
    functions: &'static Functions,
}

/// The process-wide manager, of which only the table of functions is used: direct calls keep no state in it.
struct Functions {
    manager: Manager,
    wide: bool,
}

// SAFETY: nothing writes to the manager after it was made; all threads only read function pointers from it.
unsafe impl Send for Functions {}
// SAFETY: as above.
unsafe impl Sync for Functions {}

/// The library, when it is linked and the processor has what it needs.
pub fn available() -> Option<IpsecMb> {
    static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
    let functions = FUNCTIONS.get_or_init(|| {
        let wide = has_avx512();
        let manager = if wide || has_avx2() { Manager::new(wide) } else { None };
        manager.map(|manager| Functions { manager, wide })
    });
    functions.as_ref().map(|functions| IpsecMb { functions })
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
}

fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

impl IpsecMb {
    /// Tells whether [`Vectors::Wide`] differs from [`Vectors::Narrow`].
    pub fn is_wide(self) -> bool {
        self.functions.wide
    }

    pub(super) fn functions(self) -> *const RawManager {
        self.functions.manager.0.as_ptr()
    }

    /// Runs `burst` on this thread's lanes.
    pub(super) fn with_lanes<R>(self, vectors: Vectors, burst: impl FnOnce(*mut RawManager) -> R) -> R {
        thread_local! {
            static NARROW: Lanes = const { Lanes(OnceCell::new()) };
            static WIDE: Lanes = const { Lanes(OnceCell::new()) };
        }
        let wide = self.functions.wide && vectors == Vectors::Wide;
        let lanes = if wide { &WIDE } else { &NARROW };
        lanes.with(|lanes| burst(lanes.get(wide)))
    }
}

/// A thread's manager of one kind, made at first use: 200 KB.
struct Lanes(OnceCell<Manager>);

impl Lanes {
    fn get(&self, wide: bool) -> *mut RawManager {
        let manager = self.0.get_or_init(|| Manager::new(wide).expect("memory for 200 KB of lanes"));
        manager.0.as_ptr()
    }
}

/// An owned manager.
struct Manager(NonNull<RawManager>);

impl Manager {
    /// `None` when memory is short or the library fails its own test.
    fn new(wide: bool) -> Option<Self> {
        // SAFETY: the caller has asked the processor for the vectors; the result is the caller's, or null.
        NonNull::new(unsafe { mb_manager_new(wide.into()) }).map(Self)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // SAFETY: owned by this value and freed once; no job outlives the burst that submitted it.
        unsafe { mb_manager_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_library_exactly_where_the_processor_has_vectors() {
        assert_eq!(available().is_some(), has_avx2());
        assert_eq!(available().is_some_and(IpsecMb::is_wide), has_avx512());
    }
}
