//! Declarations of shim/ipsec_mb.c.

use std::ffi::c_int;

/// The library's state and table of functions, opaque here.
#[repr(C)]
pub(super) struct RawManager {
    _private: [u8; 0],
}

/// `struct gcm_key_data`: round keys and powers of the hash key.
#[repr(C, align(64))]
pub(super) struct RawGcmKey(pub(super) [u8; 1024]);

/// `struct hash_job`.
#[repr(C)]
pub(super) struct RawHashJob {
    pub(super) inner: *const u8,
    pub(super) outer: *const u8,
    pub(super) text: *const u8,
    pub(super) text_len: usize,
    pub(super) icv: *mut u8,
}

/// `struct cipher_job`.
#[repr(C)]
pub(super) struct RawCipherJob {
    pub(super) schedule: *const u8,
    pub(super) iv: *const u8,
    pub(super) text: *mut u8,
    pub(super) text_len: usize,
}

unsafe extern "C" {
    pub(super) fn mb_manager_new(wide: c_int) -> *mut RawManager;
    pub(super) fn mb_manager_free(manager: *mut RawManager);
    pub(super) fn mb_gcm_expand(
        manager: *const RawManager,
        key_len: usize,
        key: *const u8,
        expanded: *mut RawGcmKey,
    );
    pub(super) fn mb_gcm(
        manager: *const RawManager,
        encrypt: c_int,
        key_len: usize,
        key: *const RawGcmKey,
        nonce: *const u8,
        aad: *const u8,
        aad_len: usize,
        text: *mut u8,
        text_len: usize,
        tag: *mut u8,
    );
    pub(super) fn mb_aes_expand(
        manager: *const RawManager,
        key_len: usize,
        key: *const u8,
        encrypt: *mut u8,
        decrypt: *mut u8,
    );
    pub(super) fn mb_hash(
        manager: *mut RawManager,
        icv_len: usize,
        jobs: *const RawHashJob,
        count: usize,
    ) -> usize;
    pub(super) fn mb_cipher(
        manager: *mut RawManager,
        encrypt: c_int,
        key_len: usize,
        jobs: *const RawCipherJob,
        count: usize,
    ) -> usize;
}
