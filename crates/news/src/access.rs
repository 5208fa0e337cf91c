//! The request settings of a source in the catalogue. Secrets are in files.

use std::{fmt, path::PathBuf};

use crate::ProxyChoice;

/// The request settings of a source. The files are read again for every visit.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// Additional headers, whose values may be secrets.
    pub headers: Vec<(String, String)>,
    /// A file with `user:password` or a token.
    pub credential: Option<CredentialFile>,
    /// A file with the value of `Cookie`.
    pub cookie_file: Option<PathBuf>,
    /// Its proxy; `None`: `fetch.proxy`.
    pub proxy: Option<ProxyChoice>,
    /// `User-Agent`, instead of `fetch.user_agent`.
    pub user_agent: Option<String>,
    /// A file of certificate authorities in PEM: trusted for this source instead of those of the machine.
    pub tls_ca_file: Option<PathBuf>,
}

/// The file and the kind of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CredentialFile {
    /// `user:password` (RFC 7617).
    Basic(PathBuf),
    /// A token (RFC 6750).
    Bearer(PathBuf),
}

impl Access {
    /// The keys that are set, for the status; never their values.
    #[must_use]
    pub fn keys(&self) -> Vec<&'static str> {
        let credential = self.credential.as_ref().map(|credential| match credential {
            CredentialFile::Basic(_) => "basic_file",
            CredentialFile::Bearer(_) => "bearer_file",
        });
        [
            (!self.headers.is_empty()).then_some("headers"),
            credential,
            self.cookie_file.as_ref().map(|_| "cookie_file"),
            self.proxy.as_ref().map(|_| "proxy"),
            self.user_agent.as_ref().map(|_| "user_agent"),
            self.tls_ca_file.as_ref().map(|_| "tls_ca_file"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether a file is a part of it: what is in it can change without a change of the catalogue.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.credential.is_some() || self.cookie_file.is_some() || self.tls_ca_file.is_some()
    }

    /// Appends every setting, in a form that differs for different settings.
    pub(crate) fn write_into(&self, hashed: &mut HashedSettings) {
        // Without `..`, so that no new key is forgotten.
        let Self { headers, credential, cookie_file, proxy, user_agent, tls_ca_file } = self;
        for (name, value) in headers {
            hashed.add("header", name);
            hashed.add("value", value);
        }
        let path = |path: &PathBuf| path.as_os_str().as_encoded_bytes().to_vec();
        match credential {
            Some(CredentialFile::Basic(file)) => hashed.add("basic", path(file)),
            Some(CredentialFile::Bearer(file)) => hashed.add("bearer", path(file)),
            None => {}
        }
        for (key, file) in [("cookie", cookie_file), ("authorities", tls_ca_file)] {
            hashed.add(key, file.as_ref().map(path).unwrap_or_default());
        }
        let proxy = proxy.as_ref().and_then(ProxyChoice::proxy);
        hashed.add("proxy", proxy.map_or("", |proxy| proxy.secret().as_str()));
        hashed.add("agent", user_agent.as_deref().unwrap_or_default());
    }
}

/// Names and values to hash.
#[derive(Default)]
pub(crate) struct HashedSettings(Vec<u8>);

impl HashedSettings {
    /// Appends a name and a value, whose length keeps it apart from the next one.
    pub(crate) fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(&value.len().to_le_bytes());
        self.0.extend_from_slice(value);
    }

    /// Never 0, which stands for "unknown".
    pub(crate) fn hash(&self) -> u64 {
        crate::stable_hash(&self.0).max(1)
    }
}

/// Without the values of the headers.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Access")
            .field("headers", &names)
            .field("credential", &self.credential)
            .field("cookie_file", &self.cookie_file)
            .field("proxy", &self.proxy)
            .field("user_agent", &self.user_agent)
            .field("tls_ca_file", &self.tls_ca_file)
            .finish()
    }
}
