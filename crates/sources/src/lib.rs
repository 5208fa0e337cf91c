//! The files that belong to the list of sources, read alike by the daemon and by the operator's tool.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

mod credentials;

pub use credentials::CredentialFiles;
