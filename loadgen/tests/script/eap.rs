//! The scripted gateway's end of EAP: a list of moves, each answered as it should be or not at all.

use codec::SeededRandom;
use codec::crypto::{PrivateKey, Secret};
use codec::eap::aka::{
    AkaBuilder, AkaMessage, Attributes, Checkcode, Encrypted, FullKeys, IdentityRequest, IdentityRound,
    Notification, ReauthKeys, Subtype, Variant, prime_ck_ik,
};
use codec::eap::usim::{Milenage, Sqn, Usim};
use codec::eap::{Code, EapPacket, Method};

pub const IMSI: &str = "001010000000001";

pub fn usim(k: u8) -> Usim {
    Usim::Milenage(Milenage::with_opc(&[k; 16], &[2; 16]))
}

/// One request of the server, or its end.
#[derive(Clone, PartialEq, Debug)]
pub enum Move {
    /// EAP-Request/Identity.
    Who,
    /// Another method than the UE's.
    Tls,
    Identity(IdentityRequest),
    Challenge,
    Reauth,
    Notify(Notification),
    Success,
    Failure,
}

/// What the server does wrong.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct EapFaults {
    pub other_k: bool,
    pub wrong_mac: bool,
    pub wrong_checkcode: bool,
    pub no_separation: bool,
    pub other_network: bool,
    /// Counter of the re-authentication.
    pub counter: Option<u16>,
    /// The gateway proves itself by nothing in the first response.
    pub no_auth: bool,
    /// AUTH of the first response is somebody else's.
    pub wrong_signature: bool,
    /// AUTH of the last response is made with another key.
    pub wrong_msk: bool,
}

/// What the server says to a response.
pub enum Said {
    Packet(Vec<u8>),
    /// With EAP-Success.
    Done(Vec<u8>),
    /// With EAP-Failure.
    Over(Vec<u8>),
}

pub struct EapServer {
    pub variant: Variant,
    /// What is left to do.
    pub moves: Vec<Move>,
    pub faults: EapFaults,
    pub sqn: u64,
    pub kdfs: Vec<u16>,
    pub result_ind: bool,
    pub ask_device: Option<u8>,
    /// DEVICE_IDENTITY as the UE answered it.
    pub device: Option<Vec<u8>>,
    /// Certificate and key of the gateway.
    pub certificate: Option<(Vec<u8>, PrivateKey)>,
    /// Identities as the UE gave them.
    pub identities: Vec<String>,
    pub msk: Option<Secret>,
    /// Keys of the last challenge, for re-authentication.
    pub keys: Option<ReauthKeys>,
    /// Responses seen, by subtype or type.
    pub seen: Vec<String>,
    round: Option<IdentityRound>,
    expected: Option<Secret>,
    nonce_s: [u8; 16],
    counter: Option<u16>,
    random: SeededRandom,
    identifier: u8,
    current: Option<Move>,
    last: Vec<u8>,
}

impl EapServer {
    pub fn new(variant: Variant, moves: &[Move]) -> Self {
        Self {
            variant,
            moves: moves.to_vec(),
            faults: EapFaults::default(),
            sqn: 64,
            kdfs: vec![1],
            result_ind: false,
            ask_device: None,
            device: None,
            certificate: None,
            identities: Vec::new(),
            msk: None,
            keys: None,
            seen: Vec::new(),
            round: None,
            expected: None,
            nonce_s: [0x5a; 16],
            counter: None,
            random: SeededRandom::new(5),
            identifier: 0x40,
            current: None,
            last: Vec::new(),
        }
    }

    /// Begins, with the name of IDi.
    pub fn begin(&mut self, name: &[u8]) -> Said {
        self.identities.push(String::from_utf8(name.to_vec()).unwrap());
        self.next()
    }

    /// Takes a response to the last request.
    pub fn respond(&mut self, octets: &[u8]) -> Said {
        let packet = EapPacket::decode(octets).expect("a UE speaks EAP");
        assert_eq!((packet.code, packet.identifier), (Code::Response, self.identifier));
        match packet.method {
            Some(Method::IDENTITY) => {
                self.seen.push("Identity".into());
                self.identities.push(String::from_utf8(packet.data.to_vec()).unwrap());
                return self.next();
            }
            Some(method) if method != self.variant.method() => {
                self.seen.push(format!("{method} {:?}", packet.data));
                return self.next();
            }
            _ => {}
        }
        let message = AkaMessage::decode(packet).expect("a UE speaks EAP-AKA");
        self.seen.push(format!("{:?}", message.subtype));
        match message.subtype {
            Subtype::Identity => {
                let name = message.attributes.identity.unwrap().to_vec();
                let round = self.round.get_or_insert_with(|| IdentityRound::new(self.variant));
                round.add(&self.last);
                round.add(octets);
                self.identities.push(String::from_utf8(name).unwrap());
                self.next()
            }
            Subtype::Challenge if message.attributes.res.is_none() => {
                let chosen = message.attributes.kdfs[0];
                self.kdfs.insert(0, chosen);
                let packet = self.challenge();
                self.sent(packet)
            }
            Subtype::Challenge => {
                let keys = self.keys.clone().unwrap();
                assert_eq!(message.verify_mac(keys.k_aut.as_bytes(), b""), Ok(()));
                assert!(Secret::from(message.attributes.res.unwrap()) == *self.expected.as_ref().unwrap());
                assert_eq!(message.attributes.result_ind, self.result_ind);
                self.next()
            }
            Subtype::Reauthentication => {
                let keys = self.keys.clone().unwrap();
                assert_eq!(message.verify_mac(keys.k_aut.as_bytes(), &self.nonce_s), Ok(()));
                let text = message.decrypt(keys.k_encr.as_bytes()).unwrap().unwrap();
                let inner = Attributes::decode(&text).unwrap();
                assert_eq!(inner.counter, self.counter);
                if inner.counter_too_small {
                    self.seen.push("too small".into());
                }
                self.next()
            }
            Subtype::SynchronizationFailure => {
                let rand = [0x11; 16];
                let sqn = usim(1).resynchronise(&rand, message.attributes.auts.unwrap()).unwrap();
                self.sqn = sqn.value() + 32;
                let packet = self.challenge();
                self.sent(packet)
            }
            Subtype::Notification => {
                if message.has_mac() {
                    let keys = self.keys.clone().unwrap();
                    assert_eq!(message.verify_mac(keys.k_aut.as_bytes(), b""), Ok(()));
                }
                self.next()
            }
            // RFC 4187 §6.3.3.
            Subtype::ClientError | Subtype::AuthenticationReject => Said::Over(self.failure()),
        }
    }

    fn next(&mut self) -> Said {
        let step = if self.moves.is_empty() { Move::Failure } else { self.moves.remove(0) };
        self.current = Some(step.clone());
        let packet = match step {
            Move::Success => return Said::Done(EapPacket::success(self.identifier)),
            Move::Failure => return Said::Over(self.failure()),
            Move::Who => self.plain(Method::IDENTITY, &[]),
            Move::Tls => self.plain(Method::TLS, &[0x20]),
            Move::Identity(request) => self.builder(Subtype::Identity).identity_request(request).finish(),
            Move::Challenge => self.challenge(),
            Move::Reauth => self.reauth(),
            Move::Notify(code) => self.notification(code),
        };
        self.sent(packet)
    }

    fn sent(&mut self, packet: Vec<u8>) -> Said {
        self.last.clone_from(&packet);
        Said::Packet(packet)
    }

    fn failure(&self) -> Vec<u8> {
        EapPacket::failure(self.identifier)
    }

    fn plain(&mut self, method: Method, data: &[u8]) -> Vec<u8> {
        self.identifier += 1;
        EapPacket::build(Code::Request, self.identifier, method, data)
    }

    fn builder(&mut self, subtype: Subtype) -> AkaBuilder {
        self.identifier += 1;
        AkaBuilder::new(self.variant, Code::Request, self.identifier, subtype)
    }

    fn identity(&self) -> &[u8] {
        self.identities.last().unwrap().as_bytes()
    }

    fn challenge(&mut self) -> Vec<u8> {
        let prime = self.variant == Variant::AkaPrime;
        let amf = if prime && !self.faults.no_separation { [0x80, 0] } else { [0, 0] };
        let card = usim(if self.faults.other_k { 9 } else { 1 });
        let vector = card.vector(&[0x11; 16], Sqn::new(self.sqn), amf);
        let name: &[u8] = if self.faults.other_network { b"HRPD" } else { b"WLAN" };
        let (ck, ik) = (vector.ck.as_bytes(), vector.ik.as_bytes());
        let full = if prime {
            let (ck, ik) = prime_ck_ik(ck, ik, name, &vector.autn);
            FullKeys::aka_prime(self.identity(), ck.as_bytes(), ik.as_bytes())
        } else {
            FullKeys::aka(self.identity(), ck, ik)
        };
        let FullKeys { msk, keys, .. } = full;
        let mut builder = self.builder(Subtype::Challenge).rand(&vector.rand).autn(&vector.autn);
        if prime {
            builder = builder.kdf_input(name);
            for kdf in &self.kdfs {
                builder = builder.kdf(*kdf);
            }
        }
        let inner = Encrypted::default().next_pseudonym("2given").next_reauth_id("4given@realm.test");
        builder = builder.encrypted(inner, keys.k_encr.as_bytes(), &mut self.random);
        let empty = IdentityRound::new(self.variant);
        let expected = self.round.as_ref().unwrap_or(&empty).expected();
        let wrong = vec![7; if prime { 32 } else { 20 }];
        builder = builder.checkcode(match self.faults.wrong_checkcode {
            true => Checkcode::Hash(&wrong),
            false => expected.checkcode(),
        });
        if self.result_ind {
            builder = builder.result_ind();
        }
        let k_aut = if self.faults.wrong_mac { vec![0; 16] } else { keys.k_aut.as_bytes().to_vec() };
        (self.msk, self.keys, self.expected) = (Some(msk), Some(keys), Some(vector.xres));
        builder.finish_with_mac(&k_aut, b"")
    }

    fn reauth(&mut self) -> Vec<u8> {
        let keys = self.keys.clone().unwrap();
        let counter = self.faults.counter.unwrap_or(1);
        self.counter = Some(counter);
        self.msk = Some(keys.derive(self.identity(), counter, &self.nonce_s).msk);
        let inner =
            Encrypted::default().counter(counter).nonce_s(&self.nonce_s).next_reauth_id("4next@realm.test");
        self.builder(Subtype::Reauthentication)
            .encrypted(inner, keys.k_encr.as_bytes(), &mut SeededRandom::new(6))
            .finish_with_mac(keys.k_aut.as_bytes(), b"")
    }

    fn notification(&mut self, code: Notification) -> Vec<u8> {
        let builder = self.builder(Subtype::Notification).notification(code);
        if code.before_authentication() {
            return builder.finish();
        }
        let keys = self.keys.clone().unwrap();
        builder.finish_with_mac(keys.k_aut.as_bytes(), b"")
    }
}
