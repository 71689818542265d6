//! The UE's side of EAP inside IKE_AUTH (RFC 7296 §2.16).

use super::*;

/// What the first response told.
pub struct Eap {
    id_r: Vec<u8>,
    auth_id: u32,
}

impl Ue {
    /// Takes the first response: the gateway's identity, and its proof unless the UE does without. Returns the EAP packet.
    pub fn on_eap_begun(&mut self, response: &[u8]) -> Option<Vec<u8>> {
        let decoded = self.open(response).expect("authentic");
        let id_r = decoded.body(PayloadType::ID_R)?.to_vec();
        let auth_id = decoded.header.message_id.0;
        if !matches!(self.config.auth, UeAuth::Eap { alone: true }) {
            let (init, derived) = (self.init.as_ref().expect("sent"), self.derived.as_ref().expect("known"));
            let prf = self.sa.as_ref().expect("an IKE SA").suite.prf;
            let mut octets = signed_octets(prf, &derived.response, &init.nonce, &derived.keys.sk_pr, &id_r);
            octets.extend(Self::int_auth(derived, auth_id));
            let auth = AuthView::decode(decoded.body(PayloadType::AUTH).expect("AUTH")).expect("AUTH");
            let cert = CertView::decode(decoded.body(PayloadType::CERT).expect("CERT")).expect("CERT");
            let key = PublicKey::from_certificate(cert.data).expect("a key");
            key.verify(auth.method, auth.data, &octets, SignaturePolicy::default()).expect("verifies");
        }
        self.eap = Some(Eap { id_r, auth_id });
        decoded.body(PayloadType::EAP).map(<[u8]>::to_vec)
    }

    /// An IKE_AUTH request with an EAP packet.
    pub fn eap(&mut self, packet: &[u8]) -> Vec<u8> {
        self.eap_with(packet, |_| {})
    }

    /// [`Self::eap`] with further payloads.
    pub fn eap_with(&mut self, packet: &[u8], more: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        self.request(ExchangeType::IKE_AUTH, |builder| {
            builder.payload(PayloadType::EAP, |out| out.extend_from_slice(packet));
            more(builder);
        })
    }

    /// The EAP packet of a response.
    pub fn on_eap(&mut self, response: &[u8]) -> Option<Vec<u8>> {
        self.open(response).expect("authentic").body(PayloadType::EAP).map(<[u8]>::to_vec)
    }

    /// The last IKE_AUTH request: AUTH made with the Master Session Key.
    pub fn eap_auth(&mut self, msk: &[u8]) -> Vec<u8> {
        let (kind, data) = self.config.id.clone();
        let mut id_body = Vec::new();
        IdView { kind, data: &data }.encode(&mut id_body);
        let (init, derived) = (self.init.as_ref().expect("sent"), self.derived.as_ref().expect("known"));
        let prf = self.sa.as_ref().expect("an IKE SA").suite.prf;
        let mut octets = signed_octets(prf, &init.request, &derived.nonce_r, &derived.keys.sk_pi, &id_body);
        let auth_id = self.eap.as_ref().expect("begun").auth_id;
        octets.extend(Self::int_auth(derived, auth_id));
        let auth = psk_auth(prf, msk, &octets);
        self.request(ExchangeType::IKE_AUTH, |builder| {
            builder.auth(&AuthView { method: AuthMethod::SHARED_KEY, data: auth.as_bytes() });
        })
    }

    /// Takes the last response: the gateway has the same key, and gives what the first request asked for.
    pub fn on_eap_auth(&mut self, msk: &[u8], response: &[u8]) -> Decoded {
        let decoded = self.open(response).expect("authentic");
        let Some(auth) = decoded.body(PayloadType::AUTH) else { return decoded };
        let auth = AuthView::decode(auth).expect("AUTH");
        let derived = self.derived.take().expect("IKE_SA_INIT first");
        let (init, eap) = (self.init.as_ref().expect("sent"), self.eap.take().expect("begun"));
        let prf = self.sa.as_ref().expect("an IKE SA").suite.prf;
        let mut octets = signed_octets(prf, &derived.response, &init.nonce, &derived.keys.sk_pr, &eap.id_r);
        octets.extend(Self::int_auth(&derived, eap.auth_id));
        assert!(verify_psk_auth(prf, msk, &octets, auth.data), "made with the same key");
        for (kind, value) in decoded.config() {
            if kind == CfgAttrType::INTERNAL_IP4_ADDRESS {
                let octets: [u8; 4] = value.try_into().expect("an address");
                self.addresses.push(Ipv4Addr::from(octets).into());
            }
        }
        self.learn_child(&decoded, &derived.nonce_r);
        decoded
    }
}
