//! `loadgen profiles`

use crate::error::Failure;
use crate::profile::Profile;

/// Lists the handsets that `--profile` plays.
///
/// # Errors
/// None; the signature is that of all commands.
pub fn run() -> Result<bool, Failure> {
    for profile in Profile::all() {
        println!("{}\n    {}\n    {}", profile.name, profile.about, profile.summary());
        println!("    IKE {}; ESP {}", profile.ike.join(", "), profile.esp.join(", "));
    }
    Ok(true)
}
