//! A home network with one subscriber, and the scripted end of a peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use codec::SeededRandom;
use codec::crypto::Secret;
use codec::eap::aka::{
    AkaBuilder, AkaMessage, Attributes, Encrypted, FullKeys, IdentityRound, ReauthKeys, Subtype, Variant,
    prime_ck_ik,
};
use codec::eap::usim::{AuthVector, Auts, Milenage, Rand, Sqn, Usim};
use codec::eap::{Code, EapPacket, Method};

use super::super::*;

pub(super) const IMSI: &str = "001010000000001";
pub(super) const REALM: &str = "nai.epc.mnc001.mcc001.3gppnetwork.org";

pub(super) fn usim() -> Usim {
    Usim::Milenage(Milenage::with_op(&[0x46; 16], &[0xcd; 16]))
}

pub(super) fn permanent(digit: char) -> String {
    format!("{digit}{IMSI}@{REALM}")
}

/// Knows [`IMSI`] and nobody else.
pub(super) struct Home {
    pub(super) sqn: u64,
    pub(super) vectors: u32,
    pub(super) barred: Option<RejectCause>,
    pub(super) pseudonyms: BTreeMap<String, Arc<str>>,
    pub(super) reauths: BTreeMap<String, Reauth>,
}

impl Home {
    pub(super) fn new() -> Self {
        Self { sqn: 32, vectors: 0, barred: None, pseudonyms: BTreeMap::new(), reauths: BTreeMap::new() }
    }
}

impl AuthCentre for Home {
    fn vector(&mut self, imsi: &str, variant: Variant) -> Result<AuthVector, RejectCause> {
        if imsi != IMSI {
            return Err(RejectCause::UserUnknown);
        }
        self.sqn += 32;
        self.vectors += 1;
        let amf = if variant == Variant::AkaPrime { [0x80, 0] } else { [0, 0] };
        Ok(usim().vector(&[self.vectors as u8; 16], Sqn::new(self.sqn), amf))
    }

    fn resynchronise(&mut self, _: &str, rand: &Rand, auts: &Auts) -> Result<(), RejectCause> {
        let sqn_ms = usim().resynchronise(rand, auts).map_err(|_| RejectCause::AuthenticationFailed)?;
        self.sqn = sqn_ms.value();
        Ok(())
    }

    fn admit(&mut self, _: &str) -> Result<(), RejectCause> {
        self.barred.map_or(Ok(()), Err)
    }

    fn of_pseudonym(&mut self, name: &str) -> Option<Arc<str>> {
        self.pseudonyms.get(name).cloned()
    }

    fn keep_pseudonym(&mut self, imsi: &str, name: &str) {
        self.pseudonyms.insert(name.to_owned(), imsi.into());
    }

    fn take_reauth(&mut self, name: &str) -> Option<Reauth> {
        self.reauths.remove(name)
    }

    fn keep_reauth(&mut self, name: &str, reauth: Reauth) {
        self.reauths.insert(name.to_owned(), reauth);
    }
}

/// A server, its home network, and what the peer remembers of the conversation.
pub(super) struct Talk {
    pub(super) home: Home,
    pub(super) server: AkaServer,
    random: SeededRandom,
    /// The last request.
    pub(super) request: Vec<u8>,
    /// What the peer called itself last.
    pub(super) identity: Vec<u8>,
    round: Option<IdentityRound>,
}

/// What the peer makes of a challenge.
pub(super) struct Made {
    pub(super) res: Secret,
    pub(super) keys: ReauthKeys,
    pub(super) msk: Secret,
    pub(super) pseudonym: Option<String>,
    pub(super) reauth: Option<String>,
}

impl Talk {
    pub(super) fn new(policy: AkaPolicy) -> Self {
        Self::with(policy, Home::new())
    }

    pub(super) fn with(policy: AkaPolicy, home: Home) -> Self {
        let server = AkaServer::new(Arc::new(policy));
        let random = SeededRandom::new(home.vectors.into());
        Self { home, server, random, request: Vec::new(), identity: Vec::new(), round: None }
    }

    /// Begins with EAP-Response/Identity.
    pub(super) fn begin(&mut self, identity: &str) -> Verdict {
        self.identity = identity.into();
        self.send(EapPacket::build(Code::Response, 0, Method::IDENTITY, identity.as_bytes()))
    }

    pub(super) fn send(&mut self, packet: Vec<u8>) -> Verdict {
        let verdict = self.server.handle(&packet, &mut self.home, &mut self.random);
        if let Verdict::Continue(request) = &verdict {
            self.request = request.clone();
        }
        verdict
    }

    pub(super) fn message(&self) -> AkaMessage<'_> {
        AkaMessage::decode(EapPacket::decode(&self.request).expect("a packet")).expect("a message")
    }

    pub(super) fn response(&self, subtype: Subtype) -> AkaBuilder {
        let message = self.message();
        AkaBuilder::new(message.variant, Code::Response, message.packet.identifier, subtype)
    }

    /// Answers an identity request.
    pub(super) fn identify(&mut self, identity: &str) -> Verdict {
        assert_eq!(self.message().subtype, Subtype::Identity);
        self.identity = identity.into();
        let answer = self.response(Subtype::Identity).identity(identity.as_bytes()).finish();
        let variant = self.message().variant;
        let round = self.round.get_or_insert_with(|| IdentityRound::new(variant));
        round.add(&self.request);
        round.add(&answer);
        self.send(answer)
    }

    /// Runs the USIM and checks everything the challenge says.
    pub(super) fn made(&self) -> Made {
        let message = self.message();
        assert_eq!(message.subtype, Subtype::Challenge);
        let attributes = &message.attributes;
        let (rand, autn) = (attributes.rand.expect("AT_RAND"), attributes.autn.expect("AT_AUTN"));
        let answer = usim().answer(rand, autn).expect("from home");
        let full = match message.variant {
            Variant::Aka => FullKeys::aka(&self.identity, answer.ck.as_bytes(), answer.ik.as_bytes()),
            Variant::AkaPrime => {
                assert_eq!(answer.amf[0] & 0x80, 0x80, "the separation bit");
                let name = attributes.kdf_input.expect("AT_KDF_INPUT");
                let (ck, ik) = prime_ck_ik(answer.ck.as_bytes(), answer.ik.as_bytes(), name, autn);
                FullKeys::aka_prime(&self.identity, ck.as_bytes(), ik.as_bytes())
            }
        };
        let keys = full.keys;
        assert_eq!(message.verify_mac(keys.k_aut.as_bytes(), b""), Ok(()));
        let expected = self.round.as_ref().map(IdentityRound::expected);
        let empty = IdentityRound::new(message.variant).expected();
        assert_eq!(attributes.checkcode, Some(expected.as_ref().unwrap_or(&empty).checkcode()));
        let text = message.decrypt(keys.k_encr.as_bytes()).expect("sound").unwrap_or_default();
        let inner = Attributes::decode(&text).expect("sound");
        let owned = |name: Option<&[u8]>| name.map(|name| String::from_utf8(name.to_vec()).expect("text"));
        let (pseudonym, reauth) = (owned(inner.next_pseudonym), owned(inner.next_reauth_id));
        Made { res: answer.res, keys, msk: full.msk, pseudonym, reauth }
    }

    /// Accepts the challenge.
    pub(super) fn accept(&mut self) -> (Made, Verdict) {
        let made = self.made();
        let mut builder = self.response(Subtype::Challenge).res(made.res.as_bytes());
        if let Some(round) = &self.round {
            builder = builder.checkcode(round.expected().checkcode());
        }
        if self.message().attributes.result_ind {
            builder = builder.result_ind();
        }
        let packet = builder.finish_with_mac(made.keys.k_aut.as_bytes(), b"");
        let verdict = self.send(packet);
        (made, verdict)
    }

    /// Reads counter, nonce and next identity of a fast re-authentication.
    pub(super) fn reauth_request(&self, keys: &ReauthKeys) -> (u16, [u8; 16], Option<String>) {
        let message = self.message();
        assert_eq!(message.subtype, Subtype::Reauthentication);
        assert_eq!(message.verify_mac(keys.k_aut.as_bytes(), b""), Ok(()));
        let text = message.decrypt(keys.k_encr.as_bytes()).expect("sound").expect("there is one");
        let inner = Attributes::decode(&text).expect("sound");
        let next = inner.next_reauth_id.map(|name| String::from_utf8(name.to_vec()).expect("text"));
        (inner.counter.expect("AT_COUNTER"), *inner.nonce_s.expect("AT_NONCE_S"), next)
    }

    /// Answers a fast re-authentication with `inner`.
    pub(super) fn reauth_answer(&mut self, keys: &ReauthKeys, inner: Encrypted, nonce_s: &[u8]) -> Verdict {
        let packet = self
            .response(Subtype::Reauthentication)
            .encrypted(inner, keys.k_encr.as_bytes(), &mut self.random)
            .finish_with_mac(keys.k_aut.as_bytes(), nonce_s);
        self.send(packet)
    }
}

pub(super) fn success(verdict: Verdict) -> Box<Authenticated> {
    match verdict {
        Verdict::Success(done) => done,
        Verdict::Continue(_) => panic!("another round"),
        Verdict::Failure(refused) => panic!("{}", refused.why),
    }
}

pub(super) fn failure(verdict: Verdict) -> Refused {
    match verdict {
        Verdict::Failure(refused) => refused,
        _ => panic!("no failure"),
    }
}
