//! The key log: what a protocol analyser needs to decrypt captured sessions.
//!
//! `swugate keylog start DIR` makes DIR (mode 0700) and writes `ikev2_decryption_table` and `esp_sa` into
//! it, the files of a Wireshark profile of the same names: copy them into the profile, or make DIR the
//! profile. Keys exist here only while `debug.keylog` is set; they are zeroized when they leave the ring.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use codec::crypto::IkeSuite;
use codec::esp::{EspCipher, EspInteg, EspSuite};

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::control::responder::{EspKeyLog, IkeKeyLog, KeyLog};
use crate::control::stats::hex;

/// Keys kept for a log that starts later: about 20,000 sessions. Memory: 300 octets each.
const KEPT_MAX: usize = 65_536;

/// Batches of lines on their way to the files.
const BATCHES_MAX: usize = 256;

/// The latest keys, and how many of them no log has seen.
#[derive(Default)]
pub struct KeyRing {
    kept: VecDeque<KeyLog>,
    unseen: usize,
}

impl KeyRing {
    /// Adds the keys of one SA; the oldest leave beyond a bound.
    pub fn push(&mut self, key: KeyLog) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(key);
        self.unseen = (self.unseen + 1).min(KEPT_MAX);
    }

    /// Whether keys came in since the last [`KeyRing::unseen_lines`].
    pub fn has_unseen(&self) -> bool {
        self.unseen > 0
    }

    /// Lines of all keys kept.
    pub fn all_lines(&mut self) -> Lines {
        self.unseen = self.kept.len();
        self.unseen_lines()
    }

    /// Lines of the keys that came in since the last call.
    pub fn unseen_lines(&mut self) -> Lines {
        let mut lines = Lines::default();
        let seen = self.kept.len() - std::mem::take(&mut self.unseen);
        for key in self.kept.iter().skip(seen) {
            match key {
                KeyLog::Ike(key) => ike_line(&mut lines.ike, key),
                KeyLog::Esp(key) => esp_line(&mut lines.esp, key),
            }
        }
        lines
    }
}

/// Lines for the two files.
#[derive(Default)]
pub struct Lines {
    /// For `ikev2_decryption_table`.
    pub ike: Zeroizing<String>,
    /// For `esp_sa`.
    pub esp: Zeroizing<String>,
}

/// The open files of a running key log. It ends when this is dropped.
pub struct KeyFiles {
    lines: mpsc::Sender<Lines>,
}

impl KeyFiles {
    /// Makes the directory and both files, and starts writing.
    ///
    /// # Errors
    /// When the directory or a file cannot be made, or holds a key log already.
    pub fn create(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = |name| OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(name));
        let ike = file("ikev2_decryption_table")?;
        let esp = file("esp_sa")?;
        let (lines, incoming) = mpsc::channel(BATCHES_MAX);
        tokio_uring::spawn(write(
            incoming,
            tokio_uring::fs::File::from_std(ike),
            tokio_uring::fs::File::from_std(esp),
        ));
        Ok(Self { lines })
    }

    /// Queues lines for writing; `false` when the disk does not keep up or failed.
    pub fn append(&self, lines: Lines) -> bool {
        self.lines.try_send(lines).is_ok()
    }
}

async fn write(mut incoming: mpsc::Receiver<Lines>, ike: tokio_uring::fs::File, esp: tokio_uring::fs::File) {
    let (mut ike_at, mut esp_at) = (0, 0);
    while let Some(lines) = incoming.recv().await {
        for (file, at, text) in [(&ike, &mut ike_at, lines.ike), (&esp, &mut esp_at, lines.esp)] {
            let octets = text.as_bytes().to_vec();
            let len = octets.len() as u64;
            let (result, octets) = file.write_all_at(octets, *at).await;
            drop(Zeroizing::new(octets));
            if let Err(error) = result {
                tracing::error!("key log: {error}");
                return;
            }
            *at += len;
        }
    }
    for file in [ike, esp] {
        if let Err(error) = file.close().await {
            tracing::error!("key log: {error}");
        }
    }
}

/// `SPIi,SPIr,SK_ei,SK_er,"ENCR",SK_ai,SK_ar,"INTEG"` with the names of Wireshark's ISAKMP dissector.
fn ike_line(out: &mut String, key: &IkeKeyLog) {
    let Some((encr, integ)) = ike_names(&key.suite) else { return };
    let quoted = |octets: &[u8]| if octets.is_empty() { "\"\"".to_owned() } else { hex(octets) };
    let _ = writeln!(
        out,
        "{},{},{},{},\"{encr}\",{},{},\"{integ}\"",
        hex(&key.spi_i.0),
        hex(&key.spi_r.0),
        hex(&key.sk_ei),
        hex(&key.sk_er),
        quoted(&key.sk_ai),
        quoted(&key.sk_ar),
    );
}

/// `"IPv4","SRC","DST","0xSPI","ENCR","0xKEY","INTEG","0xKEY","SN"` with the names of Wireshark's ESP
/// dissector; the ESN column exists since Wireshark 3.6.
fn esp_line(out: &mut String, key: &EspKeyLog) {
    let Some((encr, integ)) = esp_names(&key.suite) else { return };
    let family = if key.path.local.is_ipv4() { "IPv4" } else { "IPv6" };
    let integ_key = if key.integ.is_empty() { String::new() } else { format!("0x{}", hex(&key.integ)) };
    let sequence = if key.suite.esn { "64-bit" } else { "32-bit" };
    // A session changes its addresses with its connection; its SPI is what identifies an SA.
    let _ = writeln!(
        out,
        "\"{family}\",\"*\",\"*\",\"0x{:08x}\",\"{encr}\",\"0x{}\",\"{integ}\",\"{integ_key}\",\"{sequence}\"",
        key.spi.0,
        hex(&key.encr),
    );
}

/// Wireshark's names of an IKE suite; `None` for what it cannot decrypt.
fn ike_names(suite: &IkeSuite) -> Option<(&'static str, &'static str)> {
    let encr = match suite.cipher {
        EspCipher::Aes128Gcm16 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        EspCipher::Aes256Gcm16 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        EspCipher::Aes128Cbc => "AES-CBC-128 [RFC3602]",
        EspCipher::Aes192Cbc => "AES-CBC-192 [RFC3602]",
        EspCipher::Aes256Cbc => "AES-CBC-256 [RFC3602]",
        EspCipher::TripleDesCbc => "3DES [RFC2451]",
        // One unknown name makes Wireshark refuse the whole table.
        EspCipher::ChaCha20Poly1305 => return None,
    };
    let integ = match suite.integ {
        None => "NONE [RFC4306]",
        Some(EspInteg::HmacSha1_96) => "HMAC_SHA1_96 [RFC2404]",
        Some(EspInteg::HmacSha2_256_128) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(EspInteg::HmacSha2_384_192) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(EspInteg::HmacSha2_512_256) => "HMAC_SHA2_512_256 [RFC4868]",
    };
    Some((encr, integ))
}

/// Wireshark's names of an ESP suite; `None` for what it cannot decrypt.
fn esp_names(suite: &EspSuite) -> Option<(&'static str, &'static str)> {
    let encr = match suite.cipher {
        EspCipher::Aes128Gcm16 | EspCipher::Aes256Gcm16 => "AES-GCM with 16 octet ICV [RFC4106]",
        EspCipher::Aes128Cbc | EspCipher::Aes192Cbc | EspCipher::Aes256Cbc => "AES-CBC [RFC3602]",
        EspCipher::TripleDesCbc => "TripleDES-CBC [RFC2451]",
        EspCipher::ChaCha20Poly1305 => return None,
    };
    let integ = match suite.integ {
        None => "NULL",
        Some(EspInteg::HmacSha1_96) => "HMAC-SHA-1-96 [RFC2404]",
        Some(EspInteg::HmacSha2_256_128) => "HMAC-SHA-256-128 [RFC4868]",
        Some(EspInteg::HmacSha2_384_192) => "HMAC-SHA-384-192 [RFC4868]",
        Some(EspInteg::HmacSha2_512_256) => "HMAC-SHA-512-256 [RFC4868]",
    };
    Some((encr, integ))
}

#[cfg(test)]
mod tests {
    use codec::crypto::Prf;
    use codec::esp::EspSpi;
    use codec::ike::{IkeSpi, KeGroup};

    use super::*;
    use crate::types::{Path as ConnPath, Transport};

    fn ike(cipher: EspCipher, integ: Option<EspInteg>) -> KeyLog {
        let suite = IkeSuite { cipher, integ, prf: Prf::HmacSha2_256, group: KeGroup::CURVE25519 };
        let key = |octet| Zeroizing::new(vec![octet; 2]);
        let sk_a = |octet| if integ.is_some() { key(octet) } else { Zeroizing::default() };
        KeyLog::Ike(Box::new(IkeKeyLog {
            spi_i: IkeSpi([1; 8]),
            spi_r: IkeSpi([2; 8]),
            suite,
            sk_ei: key(3),
            sk_er: key(4),
            sk_ai: sk_a(5),
            sk_ar: sk_a(6),
        }))
    }

    fn esp(cipher: EspCipher, integ: Option<EspInteg>, esn: bool) -> KeyLog {
        let addr = |text: &str| text.parse().expect("an address");
        let (local, remote) = (addr("192.0.2.1:4500"), addr("198.51.100.7:40000"));
        KeyLog::Esp(Box::new(EspKeyLog {
            spi: EspSpi(0x100),
            uplink: true,
            path: ConnPath { transport: Transport::Tcp, local, remote },
            suite: EspSuite { cipher, integ, esn },
            encr: Zeroizing::new(vec![7; 2]),
            integ: integ.map(|_| Zeroizing::new(vec![8; 2])).unwrap_or_default(),
        }))
    }

    #[test]
    fn lines_are_those_of_wireshark() {
        let mut ring = KeyRing::default();
        ring.push(ike(EspCipher::Aes128Gcm16, None));
        ring.push(ike(EspCipher::Aes256Cbc, Some(EspInteg::HmacSha2_256_128)));
        ring.push(esp(EspCipher::Aes256Gcm16, None, true));
        ring.push(esp(EspCipher::Aes128Cbc, Some(EspInteg::HmacSha1_96), false));
        let lines = ring.all_lines();
        let ike = "0101010101010101,0202020202020202,0303,0404,\"AES-GCM-128 with 16 octet ICV [RFC5282]\",\"\",\"\",\"NONE [RFC4306]\"\n\
                   0101010101010101,0202020202020202,0303,0404,\"AES-CBC-256 [RFC3602]\",0505,0606,\"HMAC_SHA2_256_128 [RFC4868]\"\n";
        assert_eq!(*lines.ike, ike);
        let esp = "\"IPv4\",\"*\",\"*\",\"0x00000100\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x0707\",\"NULL\",\"\",\"64-bit\"\n\
                   \"IPv4\",\"*\",\"*\",\"0x00000100\",\"AES-CBC [RFC3602]\",\"0x0707\",\"HMAC-SHA-1-96 [RFC2404]\",\"0x0808\",\"32-bit\"\n";
        assert_eq!(*lines.esp, esp);
    }

    #[test]
    fn a_suite_that_would_spoil_the_table_is_left_out() {
        let mut ring = KeyRing::default();
        ring.push(ike(EspCipher::ChaCha20Poly1305, None));
        ring.push(esp(EspCipher::ChaCha20Poly1305, None, true));
        let lines = ring.all_lines();
        assert!(lines.ike.is_empty() && lines.esp.is_empty());
    }

    #[test]
    fn the_ring_is_bounded_and_knows_what_is_new() {
        let mut ring = KeyRing::default();
        for _ in 0..KEPT_MAX + 3 {
            ring.push(esp(EspCipher::Aes128Gcm16, None, true));
        }
        assert_eq!(ring.unseen_lines().esp.lines().count(), KEPT_MAX);
        assert!(!ring.has_unseen());
        ring.push(esp(EspCipher::Aes128Gcm16, None, true));
        assert!(ring.has_unseen());
        assert_eq!(ring.unseen_lines().esp.lines().count(), 1);
        assert_eq!(ring.all_lines().esp.lines().count(), KEPT_MAX);
    }
}
