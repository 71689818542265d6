//! The challenge of a full authentication (RFC 4187 §9.4, RFC 9048 §3).

use super::sim::Declined;
use super::{EapPeer, Names};
use codec::crypto::Secret;
use codec::eap::aka::{
    AkaMessage, Attributes, FullKeys, KDF_CK_IK_PRIME, ReauthKeys, Subtype, Variant, network_name_matches,
    prime_ck_ik,
};
use codec::eap::usim::{Answer, Autn};

/// The separation bit of AMF, without which a quintet is not for EAP-AKA' (TS 33.402 §6.2).
const AMF_SEPARATION: u8 = 0x80;

/// A challenge, or fast re-authentication, that we have answered.
pub(super) struct Answered {
    pub(super) keys: ReauthKeys,
    pub(super) msk: Secret,
    pub(super) names: Names,
    /// Of a fast re-authentication.
    pub(super) counter: Option<u16>,
    /// Both ends want success to be told under keys.
    pub(super) result_ind: bool,
    pub(super) success_told: bool,
}

/// What becomes of the offered KDFs.
enum Kdf {
    /// The first is ours.
    Go,
    /// Another of them is: ask for it.
    AskFor(u16),
    /// None is, or the server did not do as asked.
    None,
}

impl EapPeer {
    /// Runs the USIM and answers; every refusal has a message of its own.
    pub(super) fn handle_challenge(&mut self, message: &AkaMessage<'_>) -> Result<Vec<u8>, &'static str> {
        let attributes = &message.attributes;
        let (rand, autn) =
            (attributes.rand.ok_or("AT_RAND is missing")?, attributes.autn.ok_or("AT_AUTN is missing")?);
        if self.variant == Variant::AkaPrime {
            match self.choose_kdf(&attributes.kdfs) {
                Kdf::Go => {}
                Kdf::AskFor(kdf) => return Ok(self.response(message, Subtype::Challenge).kdf(kdf).finish()),
                Kdf::None => return Ok(self.reject(message, "no KDF in common")),
            }
            let name = attributes.kdf_input.ok_or("AT_KDF_INPUT is missing")?;
            if !network_name_matches(name, self.network_name.as_bytes()) {
                return Ok(self.reject(message, "another network name"));
            }
        }
        let answered = self.sim.borrow_mut().answer(rand, autn);
        let answer = match answered {
            Ok(answer) => answer,
            Err(Declined::Stale(auts)) => {
                let mut builder = self.response(message, Subtype::SynchronizationFailure).auts(&auts);
                // RFC 9048 §3.2: the KDFs come back as they were offered.
                for kdf in &attributes.kdfs {
                    builder = builder.kdf(*kdf);
                }
                return Ok(builder.finish());
            }
            Err(Declined::WrongMac) => {
                return Ok(self.reject(message, "network does not know K or OPc"));
            }
        };
        if self.variant == Variant::AkaPrime && answer.amf[0] & AMF_SEPARATION == 0 {
            return Ok(self.reject(message, "AMF without separation bit"));
        }
        let full = self.keys(attributes, &answer, autn);
        self.accept(message, &answer, full)
    }

    /// The server has shown that it knows K; its MAC must hold, too.
    fn accept(
        &mut self,
        message: &AkaMessage<'_>,
        answer: &Answer,
        full: FullKeys,
    ) -> Result<Vec<u8>, &'static str> {
        let FullKeys { msk, keys, .. } = full;
        message.verify_mac(keys.k_aut.as_bytes(), b"").map_err(|_| "AT_MAC is wrong")?;
        self.check_round(message.attributes.checkcode)?;
        let text = message.decrypt(keys.k_encr.as_bytes()).map_err(|_| "AT_ENCR_DATA is wrong")?;
        let inner = Attributes::decode(text.as_deref().map_or(&[], Vec::as_slice))
            .map_err(|_| "AT_ENCR_DATA is wrong")?;
        let result_ind = message.attributes.result_ind;
        let mut builder = self.response(message, Subtype::Challenge).res(answer.res.as_bytes());
        if message.attributes.checkcode.is_some() {
            builder = builder.checkcode(self.round.expected().checkcode());
        }
        if result_ind {
            builder = builder.result_ind();
        }
        let packet = builder.finish_with_mac(keys.k_aut.as_bytes(), b"");
        let names = Names::of(&inner);
        self.answered = Some(Answered { keys, msk, names, counter: None, result_ind, success_told: false });
        Ok(packet)
    }

    fn keys(&self, attributes: &Attributes<'_>, answer: &Answer, autn: &Autn) -> FullKeys {
        let (ck, ik) = (answer.ck.as_bytes(), answer.ik.as_bytes());
        match self.variant {
            Variant::Aka => FullKeys::aka(&self.identity, ck, ik),
            Variant::AkaPrime => {
                let name = attributes.kdf_input.unwrap_or_default();
                let (ck, ik) = prime_ck_ik(ck, ik, name, autn);
                FullKeys::aka_prime(&self.identity, ck.as_bytes(), ik.as_bytes())
            }
        }
    }

    /// RFC 9048 §3.2: takes the first KDF if it is ours, asks once for ours if it comes later, and then expects the same
    /// list with it in front.
    fn choose_kdf(&mut self, offered: &[u16]) -> Kdf {
        if let Some(before) = &self.kdf_wish {
            let as_asked = offered
                .split_first()
                .is_some_and(|(first, rest)| *first == KDF_CK_IK_PRIME && rest == before);
            return if as_asked { Kdf::Go } else { Kdf::None };
        }
        match offered.iter().position(|kdf| *kdf == KDF_CK_IK_PRIME) {
            // A KDF that comes twice without having been asked for is an attack.
            Some(0) if !offered[1..].contains(&KDF_CK_IK_PRIME) => Kdf::Go,
            Some(1..) => {
                self.kdf_wish = Some(offered.to_vec());
                Kdf::AskFor(KDF_CK_IK_PRIME)
            }
            _ => Kdf::None,
        }
    }

    /// RFC 4187 §9.5: the network is not ours.
    fn reject(&mut self, message: &AkaMessage<'_>, why: &str) -> Vec<u8> {
        self.told = Some(why.to_owned());
        self.response(message, Subtype::AuthenticationReject).finish()
    }
}
