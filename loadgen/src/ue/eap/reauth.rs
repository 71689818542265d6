//! Fast re-authentication (RFC 4187 §5).

use super::challenge::Answered;
use super::{EapPeer, Names};
use codec::Random;
use codec::eap::aka::{AkaMessage, Attributes, Encrypted, Subtype};

impl EapPeer {
    /// Shows the keys of the last full authentication, over the server's nonce.
    pub(super) fn handle_reauth(
        &mut self,
        message: &AkaMessage<'_>,
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, &'static str> {
        let (keys, greatest) = {
            let sim = self.sim.borrow();
            let known = sim.reauth.as_ref().filter(|known| known.name.as_bytes() == self.identity);
            let known = known.ok_or("re-authentication of an identity that was not given")?;
            (known.keys.clone(), known.counter)
        };
        message.verify_mac(keys.k_aut.as_bytes(), b"").map_err(|_| "AT_MAC is wrong")?;
        self.check_round(message.attributes.checkcode)?;
        let text = message.decrypt(keys.k_encr.as_bytes()).map_err(|_| "AT_ENCR_DATA is wrong")?;
        let inner = Attributes::decode(text.as_deref().map_or(&[], Vec::as_slice))
            .map_err(|_| "AT_ENCR_DATA is wrong")?;
        let counter = inner.counter.ok_or("AT_COUNTER is missing")?;
        let nonce_s = inner.nonce_s.ok_or("AT_NONCE_S is missing")?;
        let fresh = counter > greatest;
        let mut sealed = Encrypted::default().counter(counter);
        if !fresh {
            // RFC 4187 §5.3: a full authentication follows.
            sealed = sealed.counter_too_small();
        }
        let result_ind = fresh && message.attributes.result_ind;
        let mut builder = self.response(message, Subtype::Reauthentication);
        builder = builder.encrypted(sealed, keys.k_encr.as_bytes(), random);
        if message.attributes.checkcode.is_some() {
            builder = builder.checkcode(self.round.expected().checkcode());
        }
        if result_ind {
            builder = builder.result_ind();
        }
        let packet = builder.finish_with_mac(keys.k_aut.as_bytes(), nonce_s);
        if fresh {
            let msk = keys.derive(&self.identity, counter, nonce_s).msk;
            let (names, counter) = (Names::of(&inner), Some(counter));
            self.answered = Some(Answered { keys, msk, names, counter, result_ind, success_told: false });
        }
        Ok(packet)
    }
}
