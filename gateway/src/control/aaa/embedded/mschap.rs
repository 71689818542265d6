//! The server of EAP-MSCHAPv2 for users with passwords, without I/O.

use codec::Random;
use codec::crypto::Secret;
use codec::eap::mschapv2::{self, CHALLENGE_LEN, Exchange, Packet};
use codec::eap::{Code, EapPacket, Method};
use zeroize::Zeroizing;

use super::subscribers::Subscribers;
use crate::control::responder::RejectCause;

/// One authentication.
pub(super) struct MsChap {
    challenge: [u8; CHALLENGE_LEN],
    identifier: u8,
    state: State,
}

enum State {
    /// The peer has said who it is.
    Begun,
    Challenged,
    /// The peer has proved itself and is shown our proof.
    Proved {
        msk: Zeroizing<Vec<u8>>,
    },
    /// It has not.
    Failed(RejectCause),
}

/// What comes of a packet.
pub(super) enum Outcome {
    Continue(Vec<u8>),
    Success { packet: Vec<u8>, msk: Zeroizing<Vec<u8>> },
    Failure { packet: Vec<u8>, cause: RejectCause },
}

impl MsChap {
    pub(super) fn new(random: &mut dyn Random) -> Self {
        let mut challenge = [0; CHALLENGE_LEN];
        random.fill(&mut challenge);
        Self { challenge, identifier: 0, state: State::Begun }
    }

    /// Takes a packet of the peer, the first of which is an EAP-Response/Identity.
    pub(super) fn handle(&mut self, packet: &[u8], users: &Subscribers) -> Outcome {
        let Ok(eap) = EapPacket::decode(packet) else { return self.fail(RejectCause::PeerProtocol) };
        let answers = eap.identifier == self.identifier && eap.method == Some(Method::MSCHAPV2);
        match (&mut self.state, Packet::decode(eap.data)) {
            (State::Begun, _) => {
                self.identifier = eap.identifier;
                self.state = State::Challenged;
                let challenge = self.challenge;
                self.ask(|id| mschapv2::challenge(id, &challenge, b"swugate"))
            }
            (State::Challenged, Ok(Packet::Response { peer_challenge, nt_response, name, .. }))
                if answers =>
            {
                self.prove(users, &peer_challenge, &nt_response, name)
            }
            (State::Proved { msk }, Ok(Packet::Success { .. })) if answers => {
                let msk = std::mem::take(msk);
                self.state = State::Failed(RejectCause::PeerProtocol);
                Outcome::Success { packet: EapPacket::success(self.identifier), msk }
            }
            (State::Failed(cause), Ok(Packet::Failure)) if answers => {
                let cause = *cause;
                self.fail(cause)
            }
            _ => self.fail(RejectCause::PeerProtocol),
        }
    }

    fn prove(
        &mut self,
        users: &Subscribers,
        peer_challenge: &[u8; CHALLENGE_LEN],
        nt_response: &[u8; 24],
        name: &[u8],
    ) -> Outcome {
        // DOMAIN\user: the domain takes no part in the proof (RFC 2759 §4).
        let user = name.iter().rposition(|octet| *octet == b'\\').map_or(name, |at| &name[at + 1..]);
        let known = std::str::from_utf8(user).ok().and_then(|user| users.password(user));
        let Some(password) = known else { return self.refuse(RejectCause::UserUnknown) };
        let exchange = Exchange::new(user, password, &self.challenge, peer_challenge);
        let expected = exchange.nt_response();
        if Secret::from(&expected[..]) != Secret::from(&nt_response[..]) {
            return self.refuse(RejectCause::AuthenticationFailed);
        }
        self.state = State::Proved { msk: exchange.msk(nt_response) };
        let proof = exchange.authenticator_response(nt_response);
        self.ask(|id| mschapv2::success(id, &proof))
    }

    /// Tells the peer by the method, which acknowledges it before EAP-Failure; the operator learns which it was, the peer
    /// does not.
    fn refuse(&mut self, cause: RejectCause) -> Outcome {
        self.state = State::Failed(cause);
        let challenge = self.challenge;
        self.ask(|id| mschapv2::failure(id, &challenge))
    }

    fn ask(&mut self, data: impl FnOnce(u8) -> Vec<u8>) -> Outcome {
        self.identifier = self.identifier.wrapping_add(1);
        let data = data(self.identifier);
        Outcome::Continue(EapPacket::build(Code::Request, self.identifier, Method::MSCHAPV2, &data))
    }

    fn fail(&mut self, cause: RejectCause) -> Outcome {
        self.state = State::Failed(RejectCause::PeerProtocol);
        Outcome::Failure { packet: EapPacket::failure(self.identifier), cause }
    }
}

#[cfg(test)]
mod tests {
    use codec::SeededRandom;

    use super::*;

    fn users() -> Subscribers {
        let mut users = Subscribers::default();
        users.add_user("alice", Zeroizing::new("interop-password".into()));
        users
    }

    fn identity() -> Vec<u8> {
        EapPacket::build(Code::Response, 0, Method::IDENTITY, b"alice")
    }

    fn request(outcome: Outcome) -> Vec<u8> {
        match outcome {
            Outcome::Continue(packet) => packet,
            _ => panic!("the end"),
        }
    }

    /// The server with its challenge sent, and the response of a peer with this name and password.
    fn challenged(name: &[u8], password: &str) -> (MsChap, Vec<u8>, Exchange) {
        let mut server = MsChap::new(&mut SeededRandom::new(1));
        let packet = request(server.handle(&identity(), &users()));
        let eap = EapPacket::decode(&packet).expect("ours");
        let Ok(Packet::Challenge { id, challenge, .. }) = Packet::decode(eap.data) else {
            panic!("no challenge")
        };
        let user = name.rsplit(|octet| *octet == b'\\').next().expect("a name");
        let exchange = Exchange::new(user, password, &challenge, &[7; 16]);
        let data = mschapv2::response(id, &[7; 16], &exchange.nt_response(), name);
        let response = EapPacket::build(Code::Response, eap.identifier, Method::MSCHAPV2, &data);
        (server, response, exchange)
    }

    #[test]
    fn a_user_with_its_password_gets_in_with_the_key_of_both() {
        for name in [&b"alice"[..], b"ALICE", b"CORP\\alice"] {
            let (mut server, response, exchange) = challenged(name, "interop-password");
            let packet = request(server.handle(&response, &users()));
            let eap = EapPacket::decode(&packet).expect("ours");
            let Ok(Packet::Success { message }) = Packet::decode(eap.data) else { panic!("refused") };
            let proof = exchange.authenticator_response(&exchange.nt_response());
            assert!(message.starts_with(proof.as_bytes()));
            let seen = EapPacket::build(Code::Response, eap.identifier, Method::MSCHAPV2, &[3]);
            let Outcome::Success { packet, msk } = server.handle(&seen, &users()) else { panic!("refused") };
            assert_eq!(packet[0], 3);
            assert_eq!(msk, exchange.msk(&exchange.nt_response()));
        }
    }

    #[test]
    fn wrong_names_and_passwords_are_told_alike_and_counted_apart() {
        let mut told = Vec::new();
        for (name, password, cause) in [
            (&b"alice"[..], "wrong", RejectCause::AuthenticationFailed),
            (b"mallory", "interop-password", RejectCause::UserUnknown),
            (b"\xff\xfe", "interop-password", RejectCause::UserUnknown),
        ] {
            let (mut server, response, _) = challenged(name, password);
            let packet = request(server.handle(&response, &users()));
            let eap = EapPacket::decode(&packet).expect("ours");
            assert_eq!(Packet::decode(eap.data), Ok(Packet::Failure));
            let seen = EapPacket::build(Code::Response, eap.identifier, Method::MSCHAPV2, &[4]);
            let Outcome::Failure { packet: failure, cause: found } = server.handle(&seen, &users()) else {
                panic!("let in")
            };
            assert_eq!((failure[0], found), (4, cause));
            told.push(packet);
        }
        assert!(told.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn answers_out_of_turn_end_it() {
        let (mut server, mut response, _) = challenged(b"alice", "interop-password");
        response[1] ^= 1;
        assert!(matches!(server.handle(&response, &users()), Outcome::Failure { .. }), "another identifier");
        let (mut server, response, _) = challenged(b"alice", "interop-password");
        let id = response[1];
        let early = EapPacket::build(Code::Response, id, Method::MSCHAPV2, &[3]);
        assert!(
            matches!(server.handle(&early, &users()), Outcome::Failure { .. }),
            "success before its time"
        );
        assert!(
            matches!(server.handle(&response, &users()), Outcome::Failure { .. }),
            "and nothing after it"
        );
    }
}
