//! Post-quantum pre-shared keys (RFC 8784): which one an IKE_AUTH is to be checked with.

use codec::ike::NotifyType;

use super::authenticate::Cause;
use super::config::{Profile, Psk};
use super::inner::Payloads;
use super::sa::HalfOpen;
use super::{Core, ResponderConfig};

/// Type of a PPK_ID whose data names a key that both ends were given; the other one is for keys made in some other
/// protocol (RFC 8784 §5.1).
const PPK_ID_FIXED: u8 = 2;

/// What the AUTH of a peer is checked with.
pub(super) enum Chosen<'a> {
    /// Keys that this one is mixed into.
    Mixed(&'a Psk),
    /// The keys as they are, and the AUTH payload.
    Plain,
    /// The keys as they are, and this in the place of the AUTH payload's data: the peer has a key that we have not, and
    /// does without.
    Without(&'a [u8]),
}

/// Whether USE_PPK is to be answered: IKE_SA_INIT comes before any identity.
pub(super) fn is_configured(config: &ResponderConfig) -> bool {
    config.profiles.iter().any(|profile| profile.ppk.is_some())
}

impl Core {
    /// Which key an IKE_AUTH has, if the profile lets it in with that.
    pub(super) fn choose_ppk<'a>(
        &self,
        half: &HalfOpen,
        profile: &'a Profile,
        payloads: &Payloads<'a>,
    ) -> Result<Chosen<'a>, Cause> {
        let none: Cause = |drops| &mut drops.auth_ppk;
        let required = profile.ppk.as_ref().is_some_and(|policy| policy.required);
        let named = payloads.notify(NotifyType::PPK_IDENTITY).filter(|_| half.ppk);
        let Some(named) = named else {
            return if required { Err(none) } else { Ok(Chosen::Plain) };
        };
        let id = named.data.strip_prefix(&[PPK_ID_FIXED]);
        let known = profile.ppk.as_ref().zip(id).and_then(|(policy, id)| policy.keys.get(id));
        match (known, payloads.notify(NotifyType::NO_PPK_AUTH)) {
            (Some(ppk), _) => Ok(Chosen::Mixed(ppk)),
            (None, Some(auth)) if !required => Ok(Chosen::Without(auth.data)),
            (None, _) => Err(none),
        }
    }
}
