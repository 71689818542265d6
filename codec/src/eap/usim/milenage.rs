//! Milenage (TS 35.206): f1 to f5* on AES-128. Written here because the crate of that name (0.3.1) keeps K and what comes of
//! it in plain arrays, which nothing wipes and `{:?}` shows.

use codec_native::cbc::CbcEncryptKey;
use zeroize::{Zeroize, Zeroizing};

use super::{Outputs, Rand, Sqn, xor};
use crate::crypto::Secret;

/// A subscriber's K with the operator's constant folded in.
#[derive(Clone)]
pub struct Milenage {
    k: Secret,
    opc: Secret,
}

/// Rotations r1 to r5 in octets and the last octets of c1 to c5 (TS 35.206 §4.1).
const ROTATIONS: [usize; 5] = [8, 0, 4, 8, 12];
const CONSTANTS: [u8; 5] = [0, 1, 2, 4, 8];

type Block = [u8; 16];

impl Milenage {
    /// With OPc, as SIM vendors deliver it.
    pub fn with_opc(k: &Block, opc: &Block) -> Self {
        Self { k: Secret::from(&k[..]), opc: Secret::from(&opc[..]) }
    }

    /// With the operator's OP: OPc = E_K(OP) xor OP.
    pub fn with_op(k: &Block, op: &Block) -> Self {
        let mut opc = Kernel::new(k).encrypt(*op);
        opc = xor(opc, *op);
        let milenage = Self::with_opc(k, &opc);
        opc.zeroize();
        milenage
    }

    /// OPc, to be checked against a SIM vendor's.
    pub fn opc(&self) -> &[u8] {
        self.opc.as_bytes()
    }

    /// MAC-A of f1 and MAC-S of f1*, which are halves of one block.
    pub fn f1_both(&self, rand: &Rand, sqn: Sqn, amf: [u8; 2]) -> ([u8; 8], [u8; 8]) {
        let mut input = [0; 16];
        let [sqn_octets, amf_octets] = [&sqn.octets()[..], &amf];
        for half in input.chunks_exact_mut(8) {
            half[..6].copy_from_slice(sqn_octets);
            half[6..].copy_from_slice(amf_octets);
        }
        let kernel = Kernel::new(&self.key());
        let temp = self.temp(&kernel, rand);
        let folded = rotated(xor(input, *self.opc_block()), ROTATIONS[0]);
        let mut block = xor(*temp, folded);
        block[15] ^= CONSTANTS[0];
        let out = Zeroizing::new(xor(kernel.encrypt(block), *self.opc_block()));
        let (mac_a, mac_s) = out.split_at(8);
        let half = |octets: &[u8]| <[u8; 8]>::try_from(octets).expect("half of 16 octets");
        (half(mac_a), half(mac_s))
    }

    pub(super) fn f2345(&self, rand: &Rand) -> Outputs {
        let kernel = Kernel::new(&self.key());
        let temp = self.temp(&kernel, rand);
        let [out2, out3, out4] = [1, 2, 3].map(|n| self.out(&kernel, &temp, n));
        Outputs {
            res: Secret::from(&out2[8..]),
            ck: Secret::from(&out3[..]),
            ik: Secret::from(&out4[..]),
            ak: first_six(&out2),
        }
    }

    /// AK*, which conceals the sequence number of a resynchronisation.
    pub(super) fn f5_star(&self, rand: &Rand) -> [u8; 6] {
        let kernel = Kernel::new(&self.key());
        let temp = self.temp(&kernel, rand);
        first_six(&self.out(&kernel, &temp, 4))
    }

    fn temp(&self, kernel: &Kernel, rand: &Rand) -> Zeroizing<Block> {
        Zeroizing::new(kernel.encrypt(xor(*rand, *self.opc_block())))
    }

    /// OUT2 to OUT5, counted from 1.
    fn out(&self, kernel: &Kernel, temp: &Block, n: usize) -> Zeroizing<Block> {
        let mut block = rotated(xor(*temp, *self.opc_block()), ROTATIONS[n]);
        block[15] ^= CONSTANTS[n];
        Zeroizing::new(xor(kernel.encrypt(block), *self.opc_block()))
    }

    fn key(&self) -> Zeroizing<Block> {
        block_of(&self.k)
    }

    fn opc_block(&self) -> Zeroizing<Block> {
        block_of(&self.opc)
    }
}

/// AES-128 over single blocks.
struct Kernel(CbcEncryptKey);

impl Kernel {
    fn new(k: &Block) -> Self {
        Self(CbcEncryptKey::new(k).expect("AES has keys of 16 octets"))
    }

    /// CBC of one block under a vector of zeros is the block cipher itself.
    fn encrypt(&self, mut block: Block) -> Block {
        self.0.encrypt_in_place(&mut [0; 16], &mut block).expect("one whole block");
        block
    }
}

fn block_of(secret: &Secret) -> Zeroizing<Block> {
    Zeroizing::new(secret.as_bytes().try_into().expect("built from 16 octets"))
}

/// Rotates towards the most significant bit.
fn rotated(mut block: Block, octets: usize) -> Block {
    block.rotate_left(octets);
    block
}

fn first_six(block: &Block) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = *block;
    [a, b, c, d, e, f]
}
