//! The list of sources on disk, and the files that its sources name: read alike by the daemon and by the operator's tool.

mod credentials;

pub use credentials::CredentialFiles;
