//! Whether UDP passes to the gateway.
//!
//! RFC 9329 §5.1 wants UDP tried first, and a new IKE_SA_INIT with another SPI for TCP. An adapter cannot
//! make one: the client's IKE_SA_INIT is covered by its AUTH. So it finds out with one of its own, which no
//! responder takes for the start of anything: its only proposal is of a private algorithm, and the answer,
//! NO_PROPOSAL_CHOSEN as a rule, shows that UDP passes both ways. A client's IKE_SA_INIT then goes over one
//! transport only.

use std::time::{Duration, Instant};

use codec::Random;
use codec::ike::payload::{KeView, Proposal, Transform};
use codec::ike::{
    ExchangeType, Flags, IkeHeader, IkeSpi, KeGroup, MessageBuilder, MessageId, ProtocolId, TransformType,
};

/// The first transform ID for private use (RFC 7296 §3.3.2).
const PRIVATE_ENCR: u16 = 1024;

/// Octets of the nonce, and of the public value no one computes with.
const NONCE_LEN: usize = 32;
const PUBLIC_LEN: usize = 32;

/// Probes sent before UDP is given up: RFC 9329 §5.1 advises at least one retransmission.
const PROBES: u32 = 3;

/// How long what was found is believed.
const BELIEVED: Duration = Duration::from_secs(600);

/// What is known of the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Not known yet; the links wait.
    Asking,
    /// An answer came.
    Open,
    /// None came.
    Blocked,
}

/// Finds out, and remembers for a while.
pub(super) struct Probe {
    patience: Duration,
    state: State,
}

enum State {
    Unknown,
    Asking { since: Instant, sent: u32, spi_i: IkeSpi, message: Vec<u8> },
    Known { open: bool, until: Instant },
}

impl Probe {
    /// Gives UDP so much time to answer.
    pub fn new(patience: Duration) -> Self {
        Self { patience, state: State::Unknown }
    }

    /// What is known at `now`; begins to ask when nothing is.
    pub fn verdict(&mut self, now: Instant, random: &mut dyn Random) -> Verdict {
        match self.state {
            State::Known { open, until } if now < until => {
                return if open { Verdict::Open } else { Verdict::Blocked };
            }
            State::Asking { .. } => {}
            State::Unknown | State::Known { .. } => {
                let mut spi_i = IkeSpi([0; 8]);
                while spi_i.is_zero() {
                    random.fill(&mut spi_i.0);
                }
                let message = probe(spi_i, random);
                self.state = State::Asking { since: now, sent: 0, spi_i, message };
            }
        }
        Verdict::Asking
    }

    /// The probe, when one is to be sent; decides when it is time to.
    pub fn poll(&mut self, now: Instant) -> Option<&[u8]> {
        let State::Asking { since, sent, .. } = &mut self.state else { return None };
        if now >= *since + self.patience {
            self.state = State::Known { open: false, until: now + BELIEVED };
            return None;
        }
        if now < *since + self.patience * *sent / PROBES {
            return None;
        }
        *sent += 1;
        match &self.state {
            State::Asking { message, .. } => Some(message),
            _ => None,
        }
    }

    /// Takes an IKE message that came back.
    pub fn answered(&mut self, now: Instant, message: &[u8]) {
        if let (State::Asking { spi_i, .. }, Ok(header)) = (&self.state, IkeHeader::decode(message))
            && header.spi_i == *spi_i
            && header.flags.is_response()
        {
            self.state = State::Known { open: true, until: now + BELIEVED };
        }
    }
}

/// An IKE_SA_INIT request nobody can accept.
fn probe(spi_i: IkeSpi, random: &mut dyn Random) -> Vec<u8> {
    let (mut nonce, mut public) = ([0; NONCE_LEN], [0; PUBLIC_LEN]);
    random.fill(&mut nonce);
    random.fill(&mut public);
    let transforms = [
        Transform::new(TransformType::ENCR, PRIVATE_ENCR),
        Transform::new(TransformType::PRF, PRIVATE_ENCR),
        Transform::new(TransformType::INTEG, PRIVATE_ENCR),
        Transform::new(TransformType::KE, KeGroup::CURVE25519.0),
    ];
    let flags = Flags::new(true, false);
    let mut builder =
        MessageBuilder::new(spi_i, IkeSpi::ZERO, ExchangeType::IKE_SA_INIT, flags, MessageId(0));
    builder.sa(&[Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms: &transforms }]);
    builder.ke(&KeView { group: KeGroup::CURVE25519, data: &public }).nonce(&nonce);
    // Some two hundred octets: it fits.
    builder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use codec::SeededRandom;
    use codec::ike::Message;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    #[test]
    fn r9329_5_1_o1_udp_is_asked_more_than_once_before_it_is_given_up() {
        let (mut probe, start) = (Probe::new(PATIENCE), Instant::now());
        assert_eq!(probe.verdict(start, &mut SeededRandom::new(1)), Verdict::Asking);
        let mut sent = Vec::new();
        for ms in 0..2999 {
            if let Some(message) = probe.poll(start + Duration::from_millis(ms)) {
                sent.push((ms, message.to_vec()));
            }
        }
        assert_eq!(sent.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(), [0, 1000, 2000]);
        assert!(sent.iter().all(|(_, message)| *message == sent[0].1), "octet for octet");
        assert_eq!(probe.poll(start + PATIENCE), None);
        assert_eq!(probe.verdict(start + PATIENCE, &mut SeededRandom::new(1)), Verdict::Blocked);
        // RFC 9329 §5.1: known once, it is not asked with every IKE SA, but again some day.
        let later = start + PATIENCE + BELIEVED;
        assert_eq!(probe.verdict(later, &mut SeededRandom::new(1)), Verdict::Asking);
    }

    #[test]
    fn any_answer_of_the_gateway_will_do_and_nobody_elses() {
        let (mut probe, start) = (Probe::new(PATIENCE), Instant::now());
        probe.verdict(start, &mut SeededRandom::new(1));
        let request = probe.poll(start).expect("due").to_vec();
        Message::decode(&request).expect("well-formed");
        probe.answered(start, &request);
        assert_eq!(probe.verdict(start, &mut SeededRandom::new(1)), Verdict::Asking, "an echo");
        let mut answer = request.clone();
        answer[19] = Flags::new(false, true).0;
        let mut foreign = answer.clone();
        foreign[0] ^= 1;
        probe.answered(start, &foreign);
        assert_eq!(probe.verdict(start, &mut SeededRandom::new(1)), Verdict::Asking);
        probe.answered(start, &answer);
        assert_eq!(probe.verdict(start, &mut SeededRandom::new(1)), Verdict::Open);
    }
}
