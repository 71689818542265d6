//! Full authentication: the challenge and its answers (RFC 4187 §9.4 to §9.6, RFC 9048 §3).

use std::sync::Arc;

use codec::eap::aka::{
    AkaBuilder, AkaMessage, Checkcode, Encrypted, FullKeys, IdentityRound, KDF_CK_IK_PRIME, Subtype, Variant,
    prime_ck_ik,
};
use codec::eap::usim::AuthVector;
use zeroize::Zeroizing;

use super::identity::{new_pseudonym, new_reauth_name};
use super::server::{Outside, Proven, State};
use super::{AkaServer, Authenticated, MethodChoice, Reauth, Verdict, msk_of};
use crate::control::responder::RejectCause;

/// A challenge that waits for its answer.
pub(super) struct Challenge {
    imsi: Arc<str>,
    vector: AuthVector,
    keys: FullKeys,
    given: Given,
    /// We would tell success under keys.
    result_ind: bool,
}

/// Names that the peer takes over once it has accepted the challenge.
struct Given {
    pseudonym: Option<String>,
    reauth: Option<String>,
}

impl AkaServer {
    /// Sends a challenge to a subscriber.
    pub(super) fn challenge(&mut self, imsi: Arc<str>, outside: &mut Outside<'_>) -> Verdict {
        let vector = match outside.centre.vector(&imsi, self.variant) {
            Ok(vector) => vector,
            Err(RejectCause::UserUnknown) => {
                return self.refuse(RejectCause::UserUnknown, "no such subscriber");
            }
            Err(cause) => return self.refuse(cause, "no authentication vector"),
        };
        let keys = self.full_keys(&vector);
        let given = Given {
            pseudonym: self.policy.pseudonyms.then(|| new_pseudonym(self.variant, outside.random)),
            reauth: (self.policy.reauth_max > 0).then(|| new_reauth_name(self.variant, outside.random)),
        };
        let Some(builder) = self.request(Subtype::Challenge) else {
            return self.fail(RejectCause::PeerProtocol, "too many rounds");
        };
        let mut inner = Encrypted::default();
        if let Some(pseudonym) = &given.pseudonym {
            inner = inner.next_pseudonym(pseudonym);
        }
        if let Some(reauth) = &given.reauth {
            inner = inner.next_reauth_id(&self.with_realm(reauth));
        }
        let mut builder = builder.rand(&vector.rand).autn(&vector.autn);
        match self.variant {
            Variant::AkaPrime => {
                builder = builder.kdf_input(self.policy.network_name.as_bytes()).kdf(KDF_CK_IK_PRIME);
            }
            // RFC 9048 §4: a peer that could have had EAP-AKA' learns that it was kept from it.
            Variant::Aka if self.policy.method == MethodChoice::Prefer(Variant::AkaPrime) => {
                builder = builder.bidding(true);
            }
            Variant::Aka => {}
        }
        builder = builder.encrypted(inner, keys.keys.k_encr.as_bytes(), outside.random);
        let packet = self.indicated(builder).finish_with_mac(keys.keys.k_aut.as_bytes(), b"");
        let result_ind = self.policy.protected_success;
        self.ask(packet, State::Challenge(Box::new(Challenge { imsi, vector, keys, given, result_ind })))
    }

    /// Takes what answers a challenge.
    pub(super) fn handle_challenge(
        &mut self,
        challenge: Challenge,
        message: &AkaMessage<'_>,
        outside: &mut Outside<'_>,
    ) -> Verdict {
        match message.subtype {
            Subtype::Challenge => self.handle_response(challenge, message, outside),
            Subtype::AuthenticationReject => {
                self.fail(RejectCause::AuthenticationFailed, "USIM rejects AUTN: another K, or OP")
            }
            Subtype::SynchronizationFailure => self.handle_resync(challenge, message, outside),
            _ => self.refuse(RejectCause::PeerProtocol, "message out of place"),
        }
    }

    fn handle_response(
        &mut self,
        challenge: Challenge,
        message: &AkaMessage<'_>,
        outside: &mut Outside<'_>,
    ) -> Verdict {
        let Challenge { imsi, vector, keys, given, result_ind } = challenge;
        let attributes = &message.attributes;
        let Some(res) = attributes.res else {
            // RFC 9048 §3.2: the peer asks for another KDF, but we have offered the only one there is.
            let why =
                if attributes.kdfs.is_empty() { "AT_RES is missing" } else { "peer wants another AT_KDF" };
            return self.refuse(RejectCause::PeerProtocol, why);
        };
        if message.verify_mac(keys.keys.k_aut.as_bytes(), b"").is_err() {
            return self.refuse(RejectCause::AuthenticationFailed, "AT_MAC is wrong");
        }
        if codec::crypto::Secret::from(res) != vector.xres {
            return self.refuse(RejectCause::AuthenticationFailed, "AT_RES is wrong");
        }
        if !checkcode_holds(&self.round, attributes.checkcode) {
            return self
                .refuse(RejectCause::AuthenticationFailed, "AT_CHECKCODE: identity round was changed");
        }
        if let Some(pseudonym) = &given.pseudonym {
            outside.centre.keep_pseudonym(&imsi, pseudonym);
        }
        if let Some(name) = &given.reauth {
            let reauth = Reauth { imsi: imsi.clone(), keys: keys.keys.clone(), counter: 1 };
            outside.centre.keep_reauth(name, reauth);
        }
        let done = Box::new(Authenticated {
            packet: Vec::new(),
            msk: msk_of(&keys.msk),
            imsi,
            variant: self.variant,
            fast: false,
        });
        let proven = Proven { keys: keys.keys, counter: None };
        self.proved(done, proven, result_ind && attributes.result_ind, outside)
    }

    /// RFC 4187 §9.6: once per authentication the sequence number is set to the USIM's.
    fn handle_resync(
        &mut self,
        challenge: Challenge,
        message: &AkaMessage<'_>,
        outside: &mut Outside<'_>,
    ) -> Verdict {
        let Some(auts) = message.attributes.auts else {
            return self.refuse(RejectCause::PeerProtocol, "AT_AUTS is missing");
        };
        if std::mem::replace(&mut self.resynchronised, true) {
            return self.refuse(RejectCause::AuthenticationFailed, "USIM is out of step again");
        }
        match outside.centre.resynchronise(&challenge.imsi, &challenge.vector.rand, auts) {
            Ok(()) => self.challenge(challenge.imsi, outside),
            Err(cause) => self.refuse(cause, "AT_AUTS is wrong"),
        }
    }

    fn full_keys(&self, vector: &AuthVector) -> FullKeys {
        let (ck, ik) = (vector.ck.as_bytes(), vector.ik.as_bytes());
        match self.variant {
            Variant::Aka => FullKeys::aka(&self.identity, ck, ik),
            Variant::AkaPrime => {
                let (ck, ik) = prime_ck_ik(ck, ik, self.policy.network_name.as_bytes(), &vector.autn);
                FullKeys::aka_prime(&self.identity, ck.as_bytes(), ik.as_bytes())
            }
        }
    }

    /// AT_CHECKCODE, and AT_RESULT_IND where success is to be protected.
    pub(super) fn indicated(&self, builder: AkaBuilder) -> AkaBuilder {
        let builder = builder.checkcode(self.round.expected().checkcode());
        if self.policy.protected_success { builder.result_ind() } else { builder }
    }

    /// A fast re-authentication identity as the peer is to send it (TS 23.003 §19.3.4).
    pub(super) fn with_realm(&self, name: &str) -> Zeroizing<String> {
        let realm = &self.realm;
        Zeroizing::new(if realm.is_empty() { name.to_owned() } else { format!("{name}@{realm}") })
    }
}

/// RFC 4187 §10.13: a peer may leave it out; what it says must be right.
pub(super) fn checkcode_holds(round: &IdentityRound, received: Option<Checkcode<'_>>) -> bool {
    received.is_none_or(|received| received == round.expected().checkcode())
}
