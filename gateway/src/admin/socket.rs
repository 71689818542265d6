//! The control socket `RUN_DIR/control.sock`: one line of JSON in, one line of JSON out, then it closes.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::User;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_uring::net::UnixStream;

use super::api::{Answer, Call, Reply, Request};
use crate::error::Failure;
use crate::process::make_directory;

/// Longest request, octets.
const REQUEST_LEN_MAX: usize = 4096;

/// Time a client has to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The path of the socket in a run directory.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// Makes the run directory for `owner`, refuses to go on beside a running instance, and clears a dead
/// one's socket.
///
/// # Errors
/// [`Failure::Environment`] when another instance answers, or the directory cannot be made.
pub fn prepare(run_dir: &Path, owner: Option<&User>) -> Result<(), Failure> {
    let socket = path(run_dir);
    if StdUnixStream::connect(&socket).is_ok() {
        return Err(Failure::Environment(format!("{}: another swugate answers there", socket.display())));
    }
    make_directory(run_dir, owner)?;
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::system(socket.display(), &error))
        }
        _ => Ok(()),
    }
}

/// Removes the socket's file, when the gateway ends.
pub fn clean_up(run_dir: &Path) {
    let _ = fs::remove_file(path(run_dir));
}

/// The listening control socket.
pub struct ControlSocket {
    listener: UnixListener,
}

impl ControlSocket {
    /// Opens the socket in a [`prepare`]d directory; only its owner may use it.
    ///
    /// # Errors
    /// [`Failure::Environment`] when it cannot be made.
    pub fn open(run_dir: &Path) -> Result<Self, Failure> {
        let path = path(run_dir);
        let failed = |error: io::Error| Failure::system(path.display(), &error);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener })
    }

    /// Serves at most `connections` clients at a time, for as long as the control loop takes calls.
    pub async fn serve(self, calls: mpsc::Sender<Call>, connections: u32) {
        let permits = Arc::new(Semaphore::new(connections as usize));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    tokio_uring::spawn(async move {
                        if let Err(error) = answer(stream, calls).await {
                            tracing::debug!("control socket: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let stream = stream.into_std()?;
    // The ring waits for readiness itself; a non-blocking socket would only answer EAGAIN.
    stream.set_nonblocking(false)?;
    let stream = UnixStream::from_std(stream);
    let line = tokio::time::timeout(REQUEST_TIMEOUT, read_line(&stream)).await??;
    let answer = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => call(&calls, request).await,
        Err(error) => Answer::Refused(format!("not a request: {error}")),
    };
    // A hundred thousand sessions take a while to print: not on the thread of the control loop.
    let line = tokio::task::spawn_blocking(move || answer.to_line()).await?;
    stream.write_all(line.into_bytes()).await.0
}

/// Hands a request to the control loop and waits for its answer.
pub async fn call(calls: &mpsc::Sender<Call>, request: Request) -> Answer {
    let (reply, answer) = oneshot::channel();
    let stopping = || Answer::Refused("the gateway is stopping".into());
    if calls.send(Call { request, reply }).await.is_err() {
        return stopping();
    }
    answer.await.unwrap_or_else(|_| stopping())
}

async fn read_line(stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let (result, chunk) = stream.read(Vec::with_capacity(REQUEST_LEN_MAX)).await;
        let chunk = &chunk[..result?];
        let end = chunk.iter().position(|&octet| octet == b'\n');
        line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
        if line.len() > REQUEST_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "request too long"));
        }
        if end.is_some() || chunk.is_empty() {
            return Ok(line);
        }
    }
}

/// Asks the gateway behind `run_dir`, waiting for at most `timeout`: the client's side, for the commands.
///
/// # Errors
/// [`Failure::Failed`] when nobody answers or the request is refused.
pub fn ask(run_dir: &Path, request: &Request, timeout: Duration) -> Result<serde_json::Value, Failure> {
    let socket = path(run_dir);
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", socket.display()));
    let mut stream = StdUnixStream::connect(&socket)
        .map_err(|error| Failure::Failed(format!("no swugate answers at {}: {error}", socket.display())))?;
    stream.set_read_timeout(Some(timeout)).map_err(|error| failed(&error))?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(&error))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|error| failed(&error))?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(|error| failed(&error))?;
    let reply: Reply = serde_json::from_str(&answer).map_err(|error| failed(&error))?;
    if !reply.ok {
        return Err(Failure::Failed(reply.error.unwrap_or_default()));
    }
    Ok(reply.result.unwrap_or_default())
}
