//! Who the peer is: its first identity, and the rounds that ask for a more telling one (RFC 4187 §4.1).

use std::sync::Arc;

use codec::Random;
use codec::eap::aka::{AkaMessage, IdentityRequest, IdentityRound, Subtype, Variant};
use codec::eap::identity::{Nai, UserName};

use super::server::{Outside, State};
use super::{AkaServer, MethodChoice, Reauth, Verdict};
use crate::control::responder::RejectCause;

/// Whom an identity names.
enum Who {
    Subscriber(Arc<str>),
    Returning(Reauth),
    /// Nobody we know; ask for this.
    Ask(IdentityRequest),
}

impl AkaServer {
    /// Takes EAP-Response/Identity.
    pub(super) fn begin(&mut self, identity: &[u8], outside: &mut Outside<'_>) -> Verdict {
        if self.policy.method == MethodChoice::ByIdentity
            && let Some(variant) = Nai::parse(identity).and_then(|nai| nai.variant())
        {
            self.variant = variant;
            self.round = IdentityRound::new(variant);
        }
        if self.policy.always_ask_identity {
            self.identity = identity.to_vec();
            return self.ask_identity(IdentityRequest::Any);
        }
        self.identified(identity, None, outside)
    }

    /// Takes AT_IDENTITY, the answer to a request for `asked`.
    pub(super) fn handle_identity(
        &mut self,
        asked: IdentityRequest,
        message: &AkaMessage<'_>,
        outside: &mut Outside<'_>,
    ) -> Verdict {
        self.round.add(message.packet.octets);
        match message.attributes.identity {
            Some(identity) => self.identified(identity, Some(asked), outside),
            None => self.refuse(RejectCause::PeerProtocol, "AT_IDENTITY is missing"),
        }
    }

    /// Goes on with an identity that answers a request for `asked`, or that came unasked.
    pub(super) fn identified(
        &mut self,
        identity: &[u8],
        asked: Option<IdentityRequest>,
        outside: &mut Outside<'_>,
    ) -> Verdict {
        self.identity = identity.to_vec();
        let nai = Nai::parse(identity);
        self.realm = nai.as_ref().map(|nai| nai.realm.clone()).unwrap_or_default();
        match self.who(nai.as_ref(), outside) {
            Who::Subscriber(imsi) => self.challenge(imsi, outside),
            Who::Returning(reauth) => self.reauthenticate(reauth, outside),
            // RFC 4187 §4.1.2: each request reveals more than the one before; after the permanent identity there is none.
            Who::Ask(request) => {
                let stricter = match asked {
                    None => Some(request),
                    Some(asked) if request > asked => Some(request),
                    Some(IdentityRequest::Any) => Some(IdentityRequest::FullAuth),
                    Some(IdentityRequest::FullAuth) => Some(IdentityRequest::Permanent),
                    Some(IdentityRequest::Permanent) => None,
                };
                match stricter {
                    Some(request) => self.ask_identity(request),
                    None => self.refuse(RejectCause::UserUnknown, "peer gives no permanent identity"),
                }
            }
        }
    }

    fn ask_identity(&mut self, request: IdentityRequest) -> Verdict {
        let Some(builder) = self.request(Subtype::Identity) else {
            return self.fail(RejectCause::PeerProtocol, "too many rounds");
        };
        let packet = builder.identity_request(request).finish();
        self.round.add(&packet);
        self.ask(packet, State::Identity(request))
    }

    fn who(&self, nai: Option<&Nai>, outside: &mut Outside<'_>) -> Who {
        match nai.map(|nai| &nai.user) {
            Some(UserName::Permanent(_, imsi)) => Who::Subscriber(imsi.as_str().into()),
            Some(UserName::Pseudonym(_, name)) => match outside.centre.of_pseudonym(name) {
                Some(imsi) => Who::Subscriber(imsi),
                None => Who::Ask(IdentityRequest::Permanent),
            },
            Some(UserName::Reauth(variant, name)) if *variant == self.variant => {
                match outside.centre.take_reauth(name) {
                    Some(reauth) if reauth.keys.variant == self.variant => Who::Returning(reauth),
                    _ => Who::Ask(IdentityRequest::FullAuth),
                }
            }
            // Keys of the other method must not be used here (RFC 9048 §3.3).
            Some(UserName::Reauth(..)) => Who::Ask(IdentityRequest::FullAuth),
            Some(UserName::Imei(_) | UserName::Other(_)) | None => Who::Ask(IdentityRequest::Any),
        }
    }
}

/// Octets of randomness in a name: nobody guesses another's.
const NAME_RANDOM_LEN: usize = 16;

/// A pseudonym: the digit of TS 23.003 §19.3.5 and random hexadecimal digits.
pub(super) fn new_pseudonym(variant: Variant, random: &mut dyn Random) -> String {
    new_name(if variant == Variant::Aka { '2' } else { '7' }, random)
}

/// A fast re-authentication identity: the digit of TS 23.003 §19.3.4 and random hexadecimal digits.
pub(super) fn new_reauth_name(variant: Variant, random: &mut dyn Random) -> String {
    new_name(if variant == Variant::Aka { '4' } else { '8' }, random)
}

fn new_name(digit: char, random: &mut dyn Random) -> String {
    let mut octets = [0; NAME_RANDOM_LEN];
    random.fill(&mut octets);
    format!("{digit}{:032x}", u128::from_be_bytes(octets))
}
