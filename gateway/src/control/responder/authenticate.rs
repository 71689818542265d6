//! Authentication of IKE_AUTH, both ways: profile, proof of the peer, proof of ours (RFC 7296 §2.15).

use std::sync::Arc;

use codec::crypto::{
    AuthSignature, IkeKeys, PublicKey, RsaScheme, SignaturePolicy, psk_auth, signed_octets, verify_psk_auth,
};
use codec::ike::payload::{AuthView, IdView};
use codec::ike::{AuthMethod, CertEncoding, MessageId};

use super::aaa::{Accepted, AttemptId, Subject};
use super::config::{AuthKind, Profile};
use super::counters::DropCounters;
use super::identity::Identity;
use super::inner::Payloads;
use super::ppk::Chosen;
use super::sa::HalfOpen;
use super::{Arrived, Core};
use crate::control::pki::{CertificateStore, VerifyError};

/// Why authentication failed, as the counter it goes to. The peer learns AUTHENTICATION_FAILED and no more.
pub(super) type Cause = fn(&mut DropCounters) -> &mut u64;

/// A peer that proved its identity.
pub(super) struct Authenticated {
    pub(super) profile: Arc<Profile>,
    pub(super) idi: Identity,
    /// What the peer asked for, or ours.
    pub(super) idr: Identity,
    pub(super) proof: Proof,
    /// The keys of the IKE SA, if a post-quantum pre-shared key went into them.
    pub(super) mixed: Option<IkeKeys>,
    /// When it authenticated in full, in seconds since 1970.
    pub(super) since: u64,
    /// What an AAA back end grants.
    pub(super) granted: Option<Box<Granted>>,
}

/// What a back end has to say about a peer that it let in.
pub(super) struct Granted {
    pub(super) attempt: AttemptId,
    pub(super) accepted: Box<Accepted>,
    pub(super) subject: Subject,
}

/// The way in which a peer authenticates, as its first IKE_AUTH request shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Psk,
    Signature,
    Eap,
}

impl Way {
    fn is_of(self, kind: &AuthKind) -> bool {
        match kind {
            AuthKind::Psk(_) => self == Self::Psk,
            AuthKind::Certificate => self == Self::Signature,
            AuthKind::Eap(_) => self == Self::Eap,
        }
    }
}

/// Our own proof.
pub(super) struct Proof {
    /// DER certificates, leaf first; none with a pre-shared key.
    pub(super) certificates: Vec<Vec<u8>>,
    signature: AuthSignature,
}

impl Proof {
    /// A proof that is no signature.
    pub(super) fn of(signature: AuthSignature) -> Self {
        Self { certificates: Vec::new(), signature }
    }

    /// The AUTH payload.
    pub(super) fn auth(&self) -> AuthView<'_> {
        AuthView { method: self.signature.method, data: &self.signature.data }
    }
}

impl Core {
    /// Finds the profile, verifies the peer and makes our proof.
    pub(super) fn authenticate(
        &self,
        at: &Arrived,
        half: &HalfOpen,
        auth_id: MessageId,
        keys: &IkeKeys,
        payloads: &Payloads<'_>,
    ) -> Result<Authenticated, Cause> {
        if let Some(ticket) = &half.resumed {
            return self.authenticate_resumed(at, half, ticket, auth_id, keys, payloads);
        }
        let id_i_body = payloads.id_i.ok_or(no_profile as Cause)?;
        let idi = identity(id_i_body).ok_or(no_profile as Cause)?;
        let asked = match payloads.id_r {
            Some(body) => Some(identity(body).ok_or(no_profile as Cause)?),
            None => None,
        };
        let mut auth = payloads.auth.ok_or((|drops| &mut drops.auth_profile_kind) as Cause)?;
        let way = if auth.method == AuthMethod::SHARED_KEY { Way::Psk } else { Way::Signature };
        let profile = self.find_profile(at, half, &idi, asked.as_ref(), way)?.clone();
        let prf = half.suite.prf;
        let mixed = match self.choose_ppk(half, &profile, payloads)? {
            Chosen::Mixed(ppk) => Some(keys.with_ppk(prf, ppk.octets())),
            Chosen::Plain => None,
            Chosen::Without(data) => {
                auth.data = data;
                None
            }
        };
        let keys = mixed.as_ref().unwrap_or(keys);
        let int_auth = half.int_auth(auth_id);
        let mut octets_i = signed_octets(prf, &half.request, &half.nonce_r, &keys.sk_pi, id_i_body);
        let id_r_body = self.config.identity.payload_body();
        let mut octets_r = signed_octets(prf, &half.response, &half.nonce_i, &keys.sk_pr, &id_r_body);
        // RFC 9242 §3.3.2: both AUTH values cover the exchanges between IKE_SA_INIT and here.
        octets_i.extend_from_slice(&int_auth);
        octets_r.extend_from_slice(&int_auth);
        let proof = match &profile.auth {
            AuthKind::Psk(secrets) => {
                let secret = secrets
                    .find(&idi.to_string())
                    .ok_or((|drops| &mut drops.auth_no_secret) as Cause)?
                    .octets();
                if !verify_psk_auth(prf, secret, &octets_i, auth.data) {
                    return Err(|drops| &mut drops.auth_psk_mismatch);
                }
                let data = psk_auth(prf, secret, &octets_r).as_bytes().to_vec();
                let signature = AuthSignature { method: AuthMethod::SHARED_KEY, data };
                Proof::of(signature)
            }
            AuthKind::Certificate => {
                let store = self.config.certificates.as_deref().ok_or(own_failed as Cause)?;
                self.verify_certificate(at, store, &idi, payloads, &auth, &octets_i)?;
                prove(store, half, &octets_r)?
            }
            // Such a profile is not found for a request with AUTH.
            AuthKind::Eap(_) => return Err(|drops| &mut drops.auth_profile_kind),
        };
        let idr = asked.unwrap_or_else(|| self.config.identity.clone());
        Ok(Authenticated { profile, idi, idr, proof, mixed, since: self.unix_time(at.now), granted: None })
    }

    /// The first profile that fits identities, algorithms, transport and kind of authentication. When none
    /// does, the cause is what kept out the first profile whose identities fit.
    pub(super) fn find_profile(
        &self,
        at: &Arrived,
        half: &HalfOpen,
        idi: &Identity,
        asked: Option<&Identity>,
        way: Way,
    ) -> Result<&Arc<Profile>, Cause> {
        let idi = idi.to_string();
        let idr = asked.map(Identity::to_string);
        let mut cause: Option<Cause> = None;
        for profile in &self.config.profiles {
            let fits = profile.idi.matches(&idi)
                && idr.as_ref().map_or(profile.idr.matches_absent(), |idr| profile.idr.matches(idr));
            if !fits {
                continue;
            }
            let obstacle: Cause = if !profile
                .ike
                .iter()
                .any(|ike| ike.allows(&half.suite) && ike.allows_additional(&half.additional))
            {
                |drops| &mut drops.auth_profile_suite
            } else if !profile.transports.contains(&at.path.of_session().transport) {
                |drops| &mut drops.auth_profile_transport
            } else if !way.is_of(&profile.auth) {
                |drops| &mut drops.auth_profile_kind
            } else {
                return Ok(profile);
            };
            cause.get_or_insert(obstacle);
        }
        Err(cause.unwrap_or(no_profile))
    }

    /// Verifies the peer's certificate, that it carries the identity, and the signature made with its key.
    fn verify_certificate(
        &self,
        at: &Arrived,
        store: &CertificateStore,
        idi: &Identity,
        payloads: &Payloads<'_>,
        auth: &AuthView<'_>,
        octets: &[u8],
    ) -> Result<(), Cause> {
        // RFC 7296 §3.6: the first certificate holds the key, others help to build its path.
        let certificates: Vec<&[u8]> = payloads
            .certs
            .iter()
            .filter(|cert| cert.encoding == CertEncoding::X509_SIGNATURE)
            .map(|cert| cert.data)
            .take(self.config.limits.certificates_max)
            .collect();
        let (leaf, intermediates) =
            certificates.split_first().ok_or((|drops| &mut drops.auth_no_certificate) as Cause)?;
        let certificate =
            store.verify(leaf, intermediates, self.unix_time(at.now)).map_err(|error| -> Cause {
                match error {
                    VerifyError::Untrusted => |drops| &mut drops.auth_certificate_untrusted,
                    VerifyError::Revoked => |drops| &mut drops.auth_certificate_revoked,
                }
            })?;
        if !certificate.carries(idi.kind(), idi.data()) {
            return Err(|drops| &mut drops.auth_identity_mismatch);
        }
        let verified = PublicKey::from_spki(certificate.public_key())
            .and_then(|key| key.verify(auth.method, auth.data, octets, SignaturePolicy::default()));
        verified.map_err(|_| (|drops| &mut drops.auth_bad_signature) as Cause)
    }
}

/// Signs for ourselves: method 14 to a peer that announced hashes, else the older method of the key.
pub(super) fn prove(store: &CertificateStore, half: &HalfOpen, octets: &[u8]) -> Result<Proof, Cause> {
    let signature = store.key().sign(half.peer_hashes, RsaScheme::Pss, octets);
    let signature = signature.map_err(|_| own_failed as Cause)?;
    Ok(Proof { certificates: store.chain().map(<[u8]>::to_vec).collect(), signature })
}

/// Reads the body of an ID payload.
pub(super) fn identity(body: &[u8]) -> Option<Identity> {
    let view = IdView::decode(body).ok()?;
    Identity::new(view.kind, view.data)
}

fn no_profile(drops: &mut DropCounters) -> &mut u64 {
    &mut drops.auth_no_profile
}

fn own_failed(drops: &mut DropCounters) -> &mut u64 {
    &mut drops.auth_own_failed
}
