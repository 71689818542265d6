//! A gateway that attaches UEs and does one thing wrong then.

use crate::script::tcp::script;
use crate::servers::{framed, listen, next_message};
use codec::ike::{ExchangeType, IkeHeader, MessageId};
use std::io::{Read, Write};
use std::net::TcpStream;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It dies of an IKE_AUTH without proof: the script asks for one.
    NoEap,
    /// It closes every connection on which a session is to go on.
    NoWayBack,
    /// It has a request of its own instead of an answer to the first one of the UE in its second connection.
    AsksInstead,
}

/// Starts one; returns its address. It ends with the test.
pub fn scripted(fault: Fault) -> String {
    let mut count = 0;
    listen(move |mut stream| {
        // A connection that says nothing is not counted: nobody attaches on it.
        if stream.read_exact(&mut [0; 6]).is_ok() {
            count += 1;
            let number = count;
            std::thread::spawn(move || session(fault, number, stream));
        }
    })
}

fn session(fault: Fault, number: u32, mut stream: TcpStream) -> Option<()> {
    let mut script = script();
    loop {
        let message = next_message(&mut stream)?;
        let header = IkeHeader::decode(&message).ok()?;
        let first = header.exchange == ExchangeType::IKE_SA_INIT;
        let answer = match fault {
            Fault::NoWayBack if !first && script.seen.is_empty() => return None,
            Fault::AsksInstead if number == 2 && header.message_id == MessageId(2) => {
                Some(script.request(ExchangeType::INFORMATIONAL, |_| {}))
            }
            _ => script.answer(&message),
        };
        if let Some(answer) = answer {
            stream.write_all(&framed(&answer)).ok()?;
        }
    }
}
