//! The HTTP listener for machines: `/metrics`, `/healthz`, `/readyz`, and a status page for people.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use super::api::{Answer, Call, Request, Stats};
use super::metrics;

/// A connection on which nothing arrives for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Serves `listener` with at most `connections` connections at a time, until the control loop is gone.
pub fn serve(listener: std::net::TcpListener, calls: mpsc::Sender<Call>, connections: u32) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = Bounded {
        listener: TcpListener::from_std(listener)?,
        permits: Arc::new(Semaphore::new(connections as usize)),
    };
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/", get(status_page))
        .with_state(calls);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn stats(calls: &mpsc::Sender<Call>) -> Option<Box<Stats>> {
    let (reply, answer) = oneshot::channel();
    calls.send(Call { request: Request::Stats, reply }).await.ok()?;
    match answer.await {
        Ok(Answer::Stats(stats)) => Some(stats),
        _ => None,
    }
}

fn gone() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping\n").into_response()
}

async fn show_metrics(State(calls): State<mpsc::Sender<Call>>) -> Response {
    let Some(stats) = stats(&calls).await else { return gone() };
    match metrics::render(*stats) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Alive: the control loop answers.
async fn healthz(State(calls): State<mpsc::Sender<Call>>) -> Response {
    if stats(&calls).await.is_some() { "ok\n".into_response() } else { gone() }
}

/// Ready: new sessions are taken.
async fn readyz(State(calls): State<mpsc::Sender<Call>>) -> Response {
    match stats(&calls).await {
        Some(stats) if stats.ready => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
    }
}

async fn status_page(State(calls): State<mpsc::Sender<Call>>) -> Response {
    match stats(&calls).await {
        Some(stats) => Html(page(&stats)).into_response(),
        None => gone(),
    }
}

/// A page without scripts. It shows counters only: no name or address of a subscriber.
fn page(stats: &Stats) -> String {
    let row = |name: &str, value: String| format!("<tr><th>{name}</th><td>{value}</td></tr>\n");
    let mut rows = [
        row("state", if stats.ready { "ready" } else { "draining" }.into()),
        row("uptime", format!("{} s", stats.uptime_s)),
        row("sessions", stats.sessions.to_string()),
        row("half-open", stats.half_open.to_string()),
        row("connections", stats.connections.to_string()),
        row("attaches per second", format!("{:.1}", stats.attach_per_s)),
        row("uplink", format!("{} packets, {} octets", stats.uplink.packets, stats.uplink.bytes)),
        row("downlink", format!("{} packets, {} octets", stats.downlink.packets, stats.downlink.bytes)),
    ]
    .concat();
    for (reason, n) in stats.drops.iter().filter(|(_, n)| **n > 0) {
        rows += &row(&format!("dropped: {reason}"), n.to_string());
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
         <title>swugate</title><style>body{{font:15px system-ui;margin:2em}}th{{text-align:left;\
         padding-right:2em;font-weight:normal}}td{{text-align:right;font-variant-numeric:tabular-nums}}</style>\
         </head><body><h1>swugate</h1><table>\n{rows}</table>\
         <p><a href=\"/metrics\">metrics</a> <a href=\"/healthz\">healthz</a> <a href=\"/readyz\">readyz</a></p>\
         </body></html>\n"
    )
}

/// A listener that leaves connections beyond a bound in the kernel's queue.
struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let permit = match self.permits.clone().acquire_owned().await {
            Ok(permit) => permit,
            // Nobody closes this semaphore; waiting for ever is what a closed listener does.
            Err(_) => std::future::pending().await,
        };
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        let idle = Box::pin(tokio::time::sleep(IDLE_MAX));
        (BoundedStream { stream, idle, _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that gives its place back when dropped, and ends when idle for too long.
struct BoundedStream {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
            return read;
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
