//! EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2) over MS-CHAPv2 (RFC 2759) with its keys (RFC 3079): what laptops do
//! with user names and passwords. MD4, DES and SHA-1 are what they are; inside IKEv2 an eavesdropper sees none of it, and the
//! peer has verified our certificate before it sends a response.

use des::Des;
use des::cipher::{BlockEncrypt, KeyInit};
use md4::{Digest, Md4};
use sha1::Sha1;
use zeroize::Zeroizing;

use crate::ike::DecodeError;

/// Octets of a challenge.
pub const CHALLENGE_LEN: usize = 16;

/// Octets of the response to one.
const NT_RESPONSE_LEN: usize = 24;

/// Octets in the value of a Response: peer challenge, reserved, NT response, flags.
const VALUE_LEN: usize = CHALLENGE_LEN + 8 + NT_RESPONSE_LEN + 1;

/// Octets of code, identifier and length that begin a packet.
const HEADER_LEN: usize = 4;

/// Octets of the Master Session Key.
pub const MSK_LEN: usize = 64;

const SIGNING: &[u8] = b"Magic server to client signing constant";
const PAD: &[u8] = b"Pad to make it do more than one iteration";
const MASTER: &[u8] = b"This is the MPPE Master Key";
const CLIENT_SENDS: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
const SERVER_SENDS: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

/// The data of an EAP packet of type 26.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// From the server: prove that you know the password.
    Challenge {
        /// Its number.
        id: u8,
        /// The challenge.
        challenge: [u8; CHALLENGE_LEN],
        /// What the server calls itself.
        name: &'a [u8],
    },
    /// From the peer.
    Response {
        /// The number of the challenge.
        id: u8,
        /// The peer's own challenge.
        peer_challenge: [u8; CHALLENGE_LEN],
        /// The proof.
        nt_response: [u8; NT_RESPONSE_LEN],
        /// Who it is, perhaps with a domain in front.
        name: &'a [u8],
    },
    /// From the server: its own proof; from the peer: that it has seen it.
    Success {
        /// `S=…` and a message; empty from the peer.
        message: &'a [u8],
    },
    /// From the server: the proof is wrong; from the peer: that it has seen that.
    Failure,
}

impl<'a> Packet<'a> {
    /// Reads the data behind the EAP type.
    ///
    /// # Errors
    /// Unknown codes, and lengths that do not fit.
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let short = || DecodeError::BadLength { field: "MSCHAPv2", length: data.len() };
        match data {
            [3] => return Ok(Self::Success { message: &[] }),
            [4] => return Ok(Self::Failure),
            _ => {}
        }
        let (header, rest) = data.split_first_chunk::<HEADER_LEN>().ok_or_else(short)?;
        let [code, id, len @ ..] = *header;
        if usize::from(u16::from_be_bytes(len)) != data.len() {
            return Err(short());
        }
        match code {
            1 => {
                let (&size, rest) = rest.split_first().ok_or_else(short)?;
                let (challenge, name) = rest.split_first_chunk().ok_or_else(short)?;
                let fits = usize::from(size) == CHALLENGE_LEN;
                if fits { Ok(Self::Challenge { id, challenge: *challenge, name }) } else { Err(short()) }
            }
            2 => {
                let (&size, rest) = rest.split_first().ok_or_else(short)?;
                let (peer_challenge, rest) = rest.split_first_chunk().ok_or_else(short)?;
                let (_, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
                let (nt_response, rest) = rest.split_first_chunk().ok_or_else(short)?;
                let (_, name) = rest.split_first().ok_or_else(short)?;
                if usize::from(size) != VALUE_LEN {
                    return Err(short());
                }
                let (peer_challenge, nt_response) = (*peer_challenge, *nt_response);
                Ok(Self::Response { id, peer_challenge, nt_response, name })
            }
            3 => Ok(Self::Success { message: rest }),
            4 => Ok(Self::Failure),
            _ => Err(DecodeError::BadLength { field: "MSCHAPv2 code", length: code.into() }),
        }
    }
}

/// The data of a Challenge.
pub fn challenge(id: u8, challenge: &[u8; CHALLENGE_LEN], name: &[u8]) -> Vec<u8> {
    let mut data = packet(1, id, 1 + CHALLENGE_LEN + name.len());
    data.push(CHALLENGE_LEN as u8);
    data.extend_from_slice(challenge);
    data.extend_from_slice(name);
    data
}

/// The data of a Response.
pub fn response(
    id: u8,
    peer_challenge: &[u8; CHALLENGE_LEN],
    nt_response: &[u8; NT_RESPONSE_LEN],
    name: &[u8],
) -> Vec<u8> {
    let mut data = packet(2, id, 1 + VALUE_LEN + name.len());
    data.push(VALUE_LEN as u8);
    data.extend_from_slice(peer_challenge);
    data.extend_from_slice(&[0; 8]);
    data.extend_from_slice(nt_response);
    data.push(0);
    data.extend_from_slice(name);
    data
}

/// The data of the server's Success.
pub fn success(id: u8, proof: &str) -> Vec<u8> {
    let message = format!("{proof} M=welcome");
    let mut data = packet(3, id, message.len());
    data.extend_from_slice(message.as_bytes());
    data
}

/// The data of the server's Failure: wrong name or password, no further try (RFC 2759 §6).
pub fn failure(id: u8, challenge: &[u8; CHALLENGE_LEN]) -> Vec<u8> {
    let message = format!("E=691 R=0 C={} V=3 M=wrong name or password", hex(challenge));
    let mut data = packet(4, id, message.len());
    data.extend_from_slice(message.as_bytes());
    data
}

fn packet(code: u8, id: u8, len: usize) -> Vec<u8> {
    let len = u16::try_from(HEADER_LEN + len).unwrap_or(u16::MAX).to_be_bytes();
    vec![code, id, len[0], len[1]]
}

/// What both ends compute of a password and an exchange of challenges. Zeroized when dropped.
pub struct Exchange {
    password_hash: Zeroizing<[u8; 16]>,
    challenge: [u8; 8],
}

impl Exchange {
    /// Of `name` without any domain in front.
    pub fn new(
        name: &[u8],
        password: &str,
        server_challenge: &[u8; CHALLENGE_LEN],
        peer_challenge: &[u8; CHALLENGE_LEN],
    ) -> Self {
        let mut utf16 = Zeroizing::new(Vec::with_capacity(2 * password.len()));
        utf16.extend(password.encode_utf16().flat_map(u16::to_le_bytes));
        let password_hash = Zeroizing::new(Md4::digest(&utf16).into());
        let digest = sha1(&[peer_challenge, server_challenge, name]);
        let [challenge @ .., _, _, _, _, _, _, _, _, _, _, _, _] = digest;
        Self { password_hash, challenge }
    }

    /// The peer's proof (RFC 2759 §8.1).
    pub fn nt_response(&self) -> [u8; NT_RESPONSE_LEN] {
        let mut keys = Zeroizing::new([0; 21]);
        keys[..16].copy_from_slice(&*self.password_hash);
        let mut response = [0; NT_RESPONSE_LEN];
        for (key, out) in keys.chunks_exact(7).zip(response.chunks_exact_mut(8)) {
            let mut block = self.challenge.into();
            Des::new(&spread(key).into()).encrypt_block(&mut block);
            out.copy_from_slice(&block);
        }
        response
    }

    /// The server's proof, as text (RFC 2759 §8.7).
    pub fn authenticator_response(&self, nt_response: &[u8; NT_RESPONSE_LEN]) -> String {
        let digest = sha1(&[&*self.hash_of_hash(), nt_response, SIGNING]);
        format!("S={}", hex(&sha1(&[&digest, &self.challenge, PAD])))
    }

    /// The Master Session Key: what the client sends with, what the server sends with, zeros.
    pub fn msk(&self, nt_response: &[u8; NT_RESPONSE_LEN]) -> Zeroizing<Vec<u8>> {
        let master = Zeroizing::new(sha1(&[&*self.hash_of_hash(), nt_response, MASTER]));
        let mut msk = Zeroizing::new(vec![0; MSK_LEN]);
        for (magic, out) in [CLIENT_SENDS, SERVER_SENDS].into_iter().zip(msk.chunks_exact_mut(16)) {
            let key = Zeroizing::new(sha1(&[&master[..16], &[0; 40], magic, &[0xf2; 40]]));
            out.copy_from_slice(&key[..16]);
        }
        msk
    }

    fn hash_of_hash(&self) -> Zeroizing<[u8; 16]> {
        Zeroizing::new(Md4::digest(*self.password_hash).into())
    }
}

/// Seven octets as a DES key: seven bits in each of eight, the parity bits are not looked at.
fn spread(key: &[u8]) -> [u8; 8] {
    let bits = key.iter().fold(0u64, |bits, octet| bits << 8 | u64::from(*octet));
    let mut octets = [0; 8];
    for (index, octet) in octets.iter_mut().enumerate() {
        *octet = ((bits >> (49 - 7 * index)) as u8 & 0x7f) << 1;
    }
    octets
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(text: &str) -> [u8; N] {
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
        let octets: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect();
        octets.try_into().expect("as many")
    }

    fn example() -> Exchange {
        let server = octets("5B5D7C7D7B3F2F3E3C2C602132262628");
        let peer = octets("21402324255E262A28295F2B3A337C7E");
        Exchange::new(b"User", "clientPass", &server, &peer)
    }

    #[test]
    fn r2759_9_2_the_example_comes_out() {
        let exchange = example();
        assert_eq!(exchange.challenge, octets::<8>("D02E4386BCE91226"));
        assert_eq!(*exchange.password_hash, octets::<16>("44EBBA8D5312B8D611474411F56989AE"));
        let response = exchange.nt_response();
        assert_eq!(response, octets::<24>("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"));
        let proof = exchange.authenticator_response(&response);
        assert_eq!(proof, "S=407A5589115FD0D6209F510FE9C04566932CDA56");
    }

    #[test]
    fn r3079_3_5_3_keys_of_the_example_come_out() {
        let exchange = example();
        let msk = exchange.msk(&exchange.nt_response());
        assert_eq!(msk[16..32], octets::<16>("8B7CDC149B993A1BA118CB153F56DCCB"));
        assert_eq!(msk[32..], [0; 32]);
    }

    #[test]
    fn packets_are_read_back_and_cut_ones_are_not() {
        let built = [
            challenge(7, &[1; 16], b"gw"),
            response(7, &[2; 16], &[3; 24], b"alice"),
            success(7, "S=00"),
            failure(7, &[1; 16]),
        ];
        for data in &built {
            let read = Packet::decode(data).expect("ours");
            match read {
                Packet::Challenge { id, challenge, name } => {
                    assert_eq!((id, challenge, name), (7, [1; 16], &b"gw"[..]));
                }
                Packet::Response { id, peer_challenge, nt_response, name } => {
                    assert_eq!((id, peer_challenge, nt_response), (7, [2; 16], [3; 24]));
                    assert_eq!(name, b"alice");
                }
                Packet::Success { message } => assert!(message.starts_with(b"S=00")),
                Packet::Failure => {}
            }
            for cut in (0..data.len()).filter(|cut| *cut != 1) {
                assert!(Packet::decode(&data[..cut]).is_err(), "{cut} of {}", data.len());
            }
        }
        assert_eq!(Packet::decode(&[3]), Ok(Packet::Success { message: &[] }));
        assert_eq!(Packet::decode(&[4]), Ok(Packet::Failure));
        assert!(Packet::decode(&[9, 0, 0, 4]).is_err());
    }
}
