//! What a completion belongs to, packed into the 64 bits the kernel carries for us.

/// What a completion belongs to: kind (8 bits), generation (24), index (32).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Accept,
    Receive,
    Send,
    SendLent,
    Device,
    Wake,
    Install,
    Stop,
    Datagrams,
    Writable,
    Watch,
    Ignored,
}

impl Token {
    pub fn new(kind: Kind, generation: u32, index: u32) -> Self {
        Self((kind as u64) << 56 | u64::from(generation & 0xff_ffff) << 32 | u64::from(index))
    }

    pub fn kind(self) -> Kind {
        const KINDS: [Kind; 12] = [
            Kind::Accept,
            Kind::Receive,
            Kind::Send,
            Kind::SendLent,
            Kind::Device,
            Kind::Wake,
            Kind::Install,
            Kind::Stop,
            Kind::Datagrams,
            Kind::Writable,
            Kind::Watch,
            Kind::Ignored,
        ];
        KINDS.get((self.0 >> 56) as usize).copied().unwrap_or(Kind::Ignored)
    }

    pub fn index(self) -> u32 {
        self.0 as u32
    }
}
