//! `loadgen profiles`

use crate::error::Failure;
use crate::profile::Profile;
use std::io::Write;

/// Lists the handsets that `--profile` plays.
///
/// # Errors
/// None; the signature is that of all commands.
pub fn run() -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    for profile in Profile::all() {
        let (ike, esp) = (profile.ike.join(", "), profile.esp.join(", "));
        let text = format!(
            "{}\n    {}\n    {}\n    IKE {ike}; ESP {esp}\n",
            profile.name,
            profile.about,
            profile.summary()
        );
        // Nobody reads on.
        if out.write_all(text.as_bytes()).is_err() {
            break;
        }
    }
    Ok(true)
}
