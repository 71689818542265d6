//! One peer: its connection (RFC 6733 §5.6) and its watchdog (RFC 3539 §3.4.1). Sans-IO.
//!
//! We always connect and never listen, so the states of an election do not exist. A peer carries requests while its
//! watchdog says OKAY, and in REOPEN when no other does; what becomes of its requests is up to [`super::node`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::capabilities::{self, Refused};
use super::ids::Ids;
use super::message::{Header, Message, MessageWriter};
use super::names::{self, application, command, result, value};
use super::settings::{Server, Settings};

/// How long a connection may take until it is there, and until its CEA is.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long a DPA is waited for.
const DISCONNECT_MAX: Duration = Duration::from_secs(1);

/// Tc of RFC 6733 §2.1, at first; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);

/// See [`RETRY_MIN`]. RFC 6733 §12 recommends 30 s.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long a peer is left alone that said it is busy or does not want us (RFC 6733 §5.4.3).
const UNWANTED: Duration = Duration::from_secs(300);

/// RFC 3539 §3.4.1: the spread of Tw.
const JITTER: Duration = Duration::from_secs(2);

/// RFC 3539 §3.4.1: watchdogs a reopened connection must have answered.
const REOPEN_ANSWERS: i8 = 3;

/// What a peer wants done with its connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open one.
    Connect,
    /// Send a message on it.
    Send(Vec<u8>),
    /// Close it.
    Close,
}

/// Whether a peer can be given requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Usable {
    /// It has no connection.
    No,
    /// It has one that has not answered lately: what it had is asked of others too.
    Suspect,
    /// It has one that has yet to prove itself.
    Reopened,
    /// It has one.
    Yes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    /// No connection; the next is due.
    Down {
        retry: Instant,
    },
    Connecting {
        until: Instant,
    },
    AwaitCea {
        until: Instant,
        hop_by_hop: u32,
    },
    Open(Watch),
    /// The peer has announced its end, or we have announced ours.
    Closing {
        until: Instant,
        retry: Option<Duration>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Watch {
    state: WatchState,
    /// A watchdog is unanswered.
    pending: bool,
    due: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WatchState {
    Okay,
    Suspect,
    /// Watchdogs answered so far; -1 after one that was not.
    Reopen(i8),
}

/// One peer.
pub struct Peer {
    server: Server,
    link: Link,
    retry: Duration,
    /// Its last connection failed: the next has to prove itself.
    has_failed: bool,
}

/// What every call needs.
pub struct Env<'e> {
    /// The time.
    pub now: Instant,
    /// The settings of the back end.
    pub settings: &'e Settings,
    /// Identifiers.
    pub ids: &'e mut Ids,
    /// What is to be done, in this order.
    pub actions: &'e mut Vec<Action>,
}

impl Peer {
    /// A peer that is connected to at once.
    pub fn new(server: Server, now: Instant) -> Self {
        Self { server, link: Link::Down { retry: now }, retry: RETRY_MIN, has_failed: false }
    }

    /// Skips the exchange of capabilities.
    pub(super) fn open_for_fuzzing(&mut self, now: Instant) {
        self.link = Link::Open(Watch { state: WatchState::Okay, pending: false, due: now + UNWANTED });
    }

    /// Whether it can be given requests.
    pub fn usable(&self) -> Usable {
        match self.link {
            Link::Open(Watch { state: WatchState::Okay, .. }) => Usable::Yes,
            Link::Open(Watch { state: WatchState::Reopen(_), .. }) => Usable::Reopened,
            Link::Open(Watch { state: WatchState::Suspect, .. }) => Usable::Suspect,
            // What it still has to say is listened to until it closes.
            Link::Closing { .. } => Usable::Suspect,
            _ => Usable::No,
        }
    }

    /// Whether its messages are looked at.
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_) | Link::Closing { .. })
    }

    /// When [`Self::on_timeout`] has something to do.
    pub fn timer(&self) -> Instant {
        match self.link {
            Link::Down { retry } => retry,
            Link::Connecting { until } | Link::AwaitCea { until, .. } | Link::Closing { until, .. } => until,
            Link::Open(watch) => watch.due,
        }
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, env: &mut Env<'_>) {
        if self.timer() > env.now {
            return;
        }
        match self.link {
            Link::Down { .. } => {
                self.link = Link::Connecting { until: env.now + CONNECT_MAX };
                env.actions.push(Action::Connect);
            }
            Link::Connecting { .. } | Link::AwaitCea { .. } => self.fail(env),
            Link::Closing { retry, .. } => self.close(env, retry),
            Link::Open(watch) => self.on_watchdog(env, watch),
        }
    }

    /// RFC 3539 §3.4.1, expiry of the timer.
    fn on_watchdog(&mut self, env: &mut Env<'_>, watch: Watch) {
        let due = tw(env);
        let (state, send) = match (watch.state, watch.pending) {
            (WatchState::Okay | WatchState::Reopen(_), false) => (watch.state, true),
            (WatchState::Okay, true) => (WatchState::Suspect, false),
            (WatchState::Reopen(0..), true) => (WatchState::Reopen(-1), false),
            (WatchState::Suspect | WatchState::Reopen(_), _) => return self.fail(env),
        };
        if send {
            let mut writer = request(env, command::DEVICE_WATCHDOG);
            writer.avps().number(names::ORIGIN_STATE_ID, env.ids.origin_state());
            env.actions.push(Action::Send(writer.finish()));
        }
        self.link = Link::Open(Watch { state, pending: true, due });
    }

    /// The connection that was asked for is there.
    pub fn on_connected(&mut self, env: &mut Env<'_>, local: std::net::IpAddr) {
        let Link::Connecting { until } = self.link else { return };
        let hop_by_hop = env.ids.hop_by_hop();
        env.actions.push(Action::Send(capabilities::request(env.settings, env.ids, hop_by_hop, local)));
        self.link = Link::AwaitCea { until, hop_by_hop };
    }

    /// The connection is gone, or did not come.
    pub fn on_closed(&mut self, now: Instant) {
        let retry = match self.link {
            Link::Closing { retry, .. } => retry,
            Link::Down { .. } => return,
            _ => {
                self.has_failed = true;
                None
            }
        };
        self.go_down(now, retry);
    }

    /// Something was received on an open connection (RFC 3539 §3.4.1, OnReceive).
    pub fn on_received(&mut self, env: &mut Env<'_>, header: &Header) {
        let Link::Open(watch) = &mut self.link else { return };
        let is_dwa = header.command == command::DEVICE_WATCHDOG && !header.is_request();
        if is_dwa {
            watch.pending = false;
        }
        match watch.state {
            WatchState::Okay => watch.due = tw(env),
            WatchState::Suspect => {
                watch.state = WatchState::Okay;
                watch.due = tw(env);
            }
            WatchState::Reopen(answers) if is_dwa => {
                let answers = answers.max(0) + 1;
                let proved = answers >= REOPEN_ANSWERS;
                watch.state = if proved { WatchState::Okay } else { WatchState::Reopen(answers) };
            }
            WatchState::Reopen(_) => {}
        }
    }

    /// The answer to our CER; anything else in its place ends the connection. Returns what the peer calls itself.
    ///
    /// # Errors
    /// Why the peer is of no use; its connection is closed.
    pub fn on_capabilities(&mut self, env: &mut Env<'_>, message: &Message<'_>) -> Result<Arc<str>, Refused> {
        let Link::AwaitCea { hop_by_hop, .. } = self.link else { return Err(Refused::NoCea) };
        match capabilities::check(env.settings, &self.server, hop_by_hop, message) {
            Ok(host) => {
                self.retry = RETRY_MIN;
                let state = if self.has_failed { WatchState::Reopen(0) } else { WatchState::Okay };
                // A reopened connection is asked at once.
                let wait = if self.has_failed { Duration::ZERO } else { env.settings.watchdog };
                self.link = Link::Open(Watch { state, pending: false, due: env.now + wait });
                Ok(host)
            }
            Err(refused) => {
                self.retry = RETRY_MAX;
                self.fail(env);
                Err(refused)
            }
        }
    }

    /// A request about the connection itself. `false` when it is another.
    pub fn on_base_request(&mut self, env: &mut Env<'_>, message: &Message<'_>) -> bool {
        match message.header.command {
            command::DEVICE_WATCHDOG => {
                let mut writer = answer(env, &message.header, result::SUCCESS);
                writer.avps().number(names::ORIGIN_STATE_ID, env.ids.origin_state());
                env.actions.push(Action::Send(writer.finish()));
            }
            command::DISCONNECT_PEER => {
                env.actions.push(Action::Send(answer(env, &message.header, result::SUCCESS).finish()));
                let cause = message.number(names::DISCONNECT_CAUSE);
                let retry = (cause != Some(value::REBOOTING)).then_some(UNWANTED);
                // RFC 6733 §5.4: who asked closes. What is under way may still be answered until then.
                self.link = Link::Closing { until: env.now + DISCONNECT_MAX, retry };
            }
            _ => return false,
        }
        true
    }

    /// The answer to our DPR: the connection can be closed.
    pub fn on_disconnected(&mut self, env: &mut Env<'_>) {
        if let Link::Closing { retry, .. } = self.link {
            self.close(env, retry);
        }
    }

    /// Says goodbye: the gateway ends.
    pub fn leave(&mut self, env: &mut Env<'_>) {
        match self.link {
            Link::Open(_) => {
                let mut writer = request(env, command::DISCONNECT_PEER);
                writer.avps().number(names::DISCONNECT_CAUSE, value::REBOOTING);
                env.actions.push(Action::Send(writer.finish()));
                self.link = Link::Closing { until: env.now + DISCONNECT_MAX, retry: Some(UNWANTED) };
            }
            Link::Closing { .. } => {}
            _ => self.close(env, Some(UNWANTED)),
        }
    }

    /// Whether nothing of it is left after [`Self::leave`].
    pub fn has_left(&self) -> bool {
        matches!(self.link, Link::Down { .. })
    }

    /// Gives the connection up.
    pub fn fail(&mut self, env: &mut Env<'_>) {
        self.has_failed = true;
        self.close(env, None);
    }

    fn close(&mut self, env: &mut Env<'_>, retry: Option<Duration>) {
        env.actions.push(Action::Close);
        self.go_down(env.now, retry);
    }

    fn go_down(&mut self, now: Instant, retry: Option<Duration>) {
        let wait = retry.unwrap_or(self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
        self.link = Link::Down { retry: now + wait };
    }
}

/// When the watchdog is due next: Tw from now, give or take [`JITTER`].
fn tw(env: &mut Env<'_>) -> Instant {
    env.now + env.settings.watchdog.saturating_sub(JITTER) + env.ids.jitter(JITTER)
}

/// A request about the connection itself, with what all of them begin with.
fn request(env: &mut Env<'_>, command: u32) -> MessageWriter {
    let mut header = Header::request(command, application::COMMON, env.ids.end_to_end());
    header.hop_by_hop = env.ids.hop_by_hop();
    let mut writer = MessageWriter::new(header);
    origin(env.settings, &mut writer);
    writer
}

/// The answer to a request about the connection itself.
fn answer(env: &Env<'_>, header: &Header, result: u32) -> MessageWriter {
    let mut writer = MessageWriter::new(header.answer(false));
    writer.avps().number(names::RESULT_CODE, result);
    origin(env.settings, &mut writer);
    writer
}

/// Who we are.
pub fn origin(settings: &Settings, writer: &mut MessageWriter) {
    writer
        .avps()
        .text(names::ORIGIN_HOST, &settings.origin_host)
        .text(names::ORIGIN_REALM, &settings.origin_realm);
}
