//! How durations, sizes and mistakes in files are written, read and shown, the same everywhere.
//!
//! The configuration, `sources.toml`, query parameters and the command line all read a duration with
//! [`parse_duration`], and report what is wrong with a file as [`Complaints`].
//!
//! Never here: a file, a clock, a type of the program.

mod complaint;
mod duration;
mod escape;
mod size;
mod suggestion;

pub use complaint::{Complaint, Complaints};
pub use duration::{
    BadDuration, DURATION_MAX, approximate, humanize, parse_duration, parse_duration_within, write_duration,
};
pub use escape::{escaped, is_dangerous, push_escaped, shortened};
pub use size::humanize_bytes;
pub use suggestion::{closest, suggestion};
