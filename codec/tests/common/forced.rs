//! One cipher library made to do all the work.

use std::sync::{Mutex, MutexGuard, PoisonError};

use codec::esp::backend::{self, Backend};

/// The libraries, the one that is everywhere first.
pub const BOTH: [Backend; 2] = [Backend::AwsLc, Backend::IpsecMb];

/// Makes a library do all the work of this process until dropped, for one test at a time.
pub struct Forced(MutexGuard<'static, ()>);

impl Forced {
    /// `None` where the library is not available.
    pub fn new(backend: Backend) -> Option<Self> {
        static ONE: Mutex<()> = Mutex::new(());
        let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        backend::force(Some(backend)).ok().map(|()| Self(guard))
    }
}

impl Drop for Forced {
    fn drop(&mut self) {
        backend::force(None).unwrap();
    }
}
