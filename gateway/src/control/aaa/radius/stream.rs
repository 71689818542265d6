//! One RadSec connection (RFC 6614): packets one after the other inside TLS, each as long as its header says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::packet::{HEADER_LEN, Packet};
use super::shell::{Arrival, Opened};
use crate::tls::TlsClient;

/// Longest time for TCP and TLS together.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Connects, says so, carries packets both ways, and says when it has ended, for whichever reason.
pub async fn run(
    addr: SocketAddr,
    tls: TlsClient,
    opened: Opened,
    mut packets: mpsc::Receiver<Arc<[u8]>>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let connected = tokio::time::timeout(CONNECT_MAX, connect(addr, &tls)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(%addr, %error, "no TLS connection to a RADIUS server");
            let _ = arrivals.send(Arrival::Link(opened, false)).await;
            return;
        }
        Err(_) => {
            tracing::warn!(%addr, "no TLS connection to a RADIUS server in time");
            let _ = arrivals.send(Arrival::Link(opened, false)).await;
            return;
        }
    };
    if arrivals.send(Arrival::Link(opened, true)).await.is_err() {
        return;
    }
    let (mut reader, mut writer) = split(stream);
    let write = async {
        while let Some(packet) = packets.recv().await {
            if writer.write_all(&packet).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    let read = async {
        loop {
            let mut packet = vec![0; HEADER_LEN];
            if reader.read_exact(&mut packet).await.is_err() {
                return;
            }
            // Where the next packet begins is lost with a length that cannot be (RFC 6613 §2.6.4).
            let Some(len) = Packet::announced_len(&packet) else { return };
            packet.resize(len, 0);
            if reader.read_exact(&mut packet[HEADER_LEN..]).await.is_err() {
                return;
            }
            if arrivals.send(Arrival::Packet(opened, packet.into())).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    let _ = arrivals.send(Arrival::Link(opened, false)).await;
}

async fn connect(
    addr: SocketAddr,
    tls: &TlsClient,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(tls.config()).connect(tls.name(), tcp).await
}
