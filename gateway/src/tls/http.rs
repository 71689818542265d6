//! The HTTP CONNECT request that may precede TLS on a port for FTT.

/// Most octets of the request's head.
pub(super) const HEAD_MAX: usize = 4096;

/// Most header fields in it.
const FIELDS_MAX: usize = 32;

/// The answer (RFC 9110 §9.3.6): what follows it belongs to the tunnel.
pub(super) const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What a piece of a request's head is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Not whole yet.
    Partial,
    /// A CONNECT whose head takes so many octets.
    Connect(usize),
    /// Anything else.
    Wrong,
}

/// Looks at what has come so far. The target is not compared with anything: whoever sent the request here means
/// this port, by whichever name.
pub(super) fn parse(octets: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(octets);
    if request.method.is_some_and(|method| method != "CONNECT") {
        return Head::Wrong;
    }
    match parsed {
        Ok(httparse::Status::Complete(len)) => Head::Connect(len),
        Ok(httparse::Status::Partial) if octets.len() < HEAD_MAX => Head::Partial,
        _ => Head::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connect_is_known_when_its_head_is_whole() {
        let request = b"CONNECT gw.test:443 HTTP/1.1\r\nHost: gw.test:443\r\n\r\n\x16\x03\x01";
        let len = request.len() - 3;
        for end in 0..len {
            assert_eq!(parse(&request[..end]), Head::Partial, "{end}");
        }
        assert_eq!(parse(request), Head::Connect(len));
    }

    #[test]
    fn other_requests_and_endless_heads_are_wrong() {
        for wrong in ["GET / HTTP/1.1\r\n", "CONNECT gw:443 HTTP/9\r\n\r\n", "\x16\x03", "CONNECT a b c\r\n"]
        {
            assert_eq!(parse(wrong.as_bytes()), Head::Wrong, "{wrong}");
        }
        let endless = [b"CONNECT gw:443 HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; HEAD_MAX]].concat();
        assert_eq!(parse(&endless), Head::Wrong);
        let crowded = format!("CONNECT gw:443 HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(parse(crowded.as_bytes()), Head::Wrong);
    }

    proptest! {
        #[test]
        fn any_octets_have_an_answer(octets in prop::collection::vec(any::<u8>(), 0..5000)) {
            if let Head::Connect(len) = parse(&octets) {
                prop_assert!(len <= octets.len());
            }
        }
    }
}
