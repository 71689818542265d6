//! Fast re-authentication: new keys from the last full authentication, without the USIM (RFC 4187 §5).

use codec::eap::aka::{AkaMessage, Attributes, Encrypted, Subtype};

use super::challenge::checkcode_holds;
use super::identity::new_reauth_name;
use super::server::{Outside, Proven, State};
use super::{AkaServer, Authenticated, Reauth, Verdict, msk_of};
use crate::control::responder::RejectCause;

/// A fast re-authentication that waits for its answer.
pub(super) struct Reauthentication {
    reauth: Reauth,
    nonce_s: [u8; 16],
    /// The identity of the next one.
    next: Option<String>,
    result_ind: bool,
}

impl AkaServer {
    /// Asks a returning peer to show its keys; a full authentication when they have served long enough.
    pub(super) fn reauthenticate(&mut self, reauth: Reauth, outside: &mut Outside<'_>) -> Verdict {
        if reauth.counter > self.policy.reauth_max {
            return self.challenge(reauth.imsi, outside);
        }
        let mut nonce_s = [0; 16];
        outside.random.fill(&mut nonce_s);
        // The last one that counts gives no identity for another: the peer asks its USIM then (RFC 4187 §5.1).
        let next =
            (reauth.counter < self.policy.reauth_max).then(|| new_reauth_name(self.variant, outside.random));
        let Some(builder) = self.request(Subtype::Reauthentication) else {
            return self.fail(RejectCause::PeerProtocol, "too many rounds");
        };
        let mut inner = Encrypted::default().counter(reauth.counter).nonce_s(&nonce_s);
        if let Some(next) = &next {
            inner = inner.next_reauth_id(&self.with_realm(next));
        }
        let keys = &reauth.keys;
        let builder = builder.encrypted(inner, keys.k_encr.as_bytes(), outside.random);
        let packet = self.indicated(builder).finish_with_mac(keys.k_aut.as_bytes(), b"");
        let result_ind = self.policy.protected_success;
        self.ask(packet, State::Reauth(Box::new(Reauthentication { reauth, nonce_s, next, result_ind })))
    }

    /// Takes the answer: its MAC covers our nonce, its counter is ours, or the peer says that it was too small.
    pub(super) fn handle_reauth(
        &mut self,
        pending: Reauthentication,
        message: &AkaMessage<'_>,
        outside: &mut Outside<'_>,
    ) -> Verdict {
        let Reauthentication { reauth, nonce_s, next, result_ind } = pending;
        let Reauth { imsi, keys, counter } = reauth;
        if message.verify_mac(keys.k_aut.as_bytes(), &nonce_s).is_err() {
            return self.refuse(RejectCause::AuthenticationFailed, "AT_MAC is wrong");
        }
        if !checkcode_holds(&self.round, message.attributes.checkcode) {
            return self
                .refuse(RejectCause::AuthenticationFailed, "AT_CHECKCODE: identity round was changed");
        }
        let Ok(Some(text)) = message.decrypt(keys.k_encr.as_bytes()) else {
            return self.refuse(RejectCause::PeerProtocol, "AT_ENCR_DATA is missing or wrong");
        };
        let inner = match Attributes::decode(&text) {
            Ok(inner) if inner.counter == Some(counter) => inner,
            _ => return self.refuse(RejectCause::AuthenticationFailed, "AT_COUNTER is wrong"),
        };
        // RFC 4187 §5.3: the peer has seen a greater one; its USIM settles it.
        if inner.counter_too_small {
            return self.challenge(imsi, outside);
        }
        if let Some(next) = &next {
            let reauth = Reauth { imsi: imsi.clone(), keys: keys.clone(), counter: counter + 1 };
            outside.centre.keep_reauth(next, reauth);
        }
        let made = keys.derive(&self.identity, counter, &nonce_s);
        let done = Box::new(Authenticated {
            packet: Vec::new(),
            msk: msk_of(&made.msk),
            imsi,
            variant: self.variant,
            fast: true,
        });
        let proven = Proven { keys, counter: Some(counter) };
        self.proved(done, proven, result_ind && message.attributes.result_ind, outside)
    }
}
