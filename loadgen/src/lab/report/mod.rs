//! stub
use super::results::Results;
/// # Errors
/// x
pub fn write(_: &Results, _: &std::path::Path) -> Result<Vec<std::path::PathBuf>, crate::error::Failure> {
    Ok(Vec::new())
}
/// x
pub fn print(_: &Results) {}
