//! The files with the credentials of sources, read anew at every visit: a changed password is used at the next visit,
//! and none is kept in memory between visits.
//!
//! A bare file name is looked up in `$CREDENTIALS_DIRECTORY` if it is set (systemd's `LoadCredential=`), any other
//! path is relative to the directory of the catalogue. Errors fail the visits of that source, and show neither value
//! nor path.

use std::path::{Path, PathBuf};

use fetch::{Failure, FailureClass, InvalidOptions, RequestOptions};
use news::{Access, CredentialFile};
use tokio::io::AsyncReadExt as _;

/// Largest file with a credential, in bytes.
const SECRET_BYTES_MAX: u64 = 4 * 1024;
/// Largest file with certificate authorities, in bytes: the whole of a machine's fits.
const AUTHORITIES_BYTES_MAX: u64 = 512 * 1024;

/// Where the files are.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    /// `$CREDENTIALS_DIRECTORY`.
    credentials: Option<PathBuf>,
    /// The directory of the catalogue.
    base_dir: PathBuf,
}

impl CredentialFiles {
    /// `credentials` is `$CREDENTIALS_DIRECTORY`.
    #[must_use]
    pub fn new(catalogue: &Path, credentials: Option<PathBuf>) -> Self {
        let base_dir = catalogue.parent().unwrap_or(Path::new("")).to_owned();
        Self { credentials: credentials.filter(|path| !path.as_os_str().is_empty()), base_dir }
    }

    /// The path of a file as the catalogue names it.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let is_bare = path.components().count() == 1 && path.is_relative();
        match &self.credentials {
            Some(directory) if is_bare => directory.join(path),
            _ => self.base_dir.join(path),
        }
    }

    /// What is sent with the requests of a source; `None` if it has no request options.
    ///
    /// # Errors
    /// `bad-url` if a credential, `tls` if the certificate authorities cannot be read.
    pub async fn request_options(&self, access: &Access) -> Result<Option<RequestOptions>, Failure> {
        if *access == Access::default() {
            return Ok(None);
        }
        let mut options = RequestOptions::default();
        for (name, value) in &access.headers {
            options = options.with_header(name, value).map_err(|bad| refused("headers", bad))?;
        }
        match &access.credential {
            Some(CredentialFile::Basic(path)) => {
                let text = self.secret("basic_file", path).await?;
                options = options.with_basic(&text).map_err(|bad| refused("basic_file", bad))?;
            }
            Some(CredentialFile::Bearer(path)) => {
                let text = self.secret("bearer_file", path).await?;
                options = options.with_bearer(&text).map_err(|bad| refused("bearer_file", bad))?;
            }
            None => {}
        }
        if let Some(path) = &access.cookie_file {
            let text = self.secret("cookie_file", path).await?;
            options = options.with_cookie(&text).map_err(|bad| refused("cookie_file", bad))?;
        }
        if let Some(agent) = &access.user_agent {
            options = options.with_agent(agent).map_err(|bad| refused("user_agent", bad))?;
        }
        if let Some(proxy) = &access.proxy {
            options = options.with_proxy(proxy.clone());
        }
        if let Some(path) = &access.tls_ca_file {
            let pem = self.read(path, AUTHORITIES_BYTES_MAX).await;
            let pem = pem.map_err(|why| Failure::new(FailureClass::Tls, format!("tls_ca_file: {why}")))?;
            options = options.with_authorities(pem);
        }
        Ok(Some(options))
    }

    /// The message of such a failure, with the path of its file, for the operator alone.
    #[must_use]
    pub fn explain(&self, access: &Access, failure: &Failure) -> String {
        let key = failure.message.split(':').next().unwrap_or_default();
        let path = match (key, &access.credential) {
            ("basic_file", Some(CredentialFile::Basic(path))) => Some(path),
            ("bearer_file", Some(CredentialFile::Bearer(path))) => Some(path),
            ("cookie_file", _) => access.cookie_file.as_ref(),
            ("tls_ca_file", _) => access.tls_ca_file.as_ref(),
            _ => None,
        };
        match path {
            Some(path) => format!("{} ({})", failure.message, self.resolve(path).display()),
            None => failure.message.clone(),
        }
    }

    async fn secret(&self, key: &str, path: &Path) -> Result<String, Failure> {
        let text = self.read(path, SECRET_BYTES_MAX).await;
        let text = text.map_err(|why| Failure::new(FailureClass::BadUrl, format!("{key}: {why}")))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// A small text file; the error does not contain its path.
    async fn read(&self, path: &Path, bytes_max: u64) -> Result<String, String> {
        let unreadable = |error: std::io::Error| format!("its file cannot be read: {error}");
        let file = tokio::fs::File::open(self.resolve(path)).await.map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
        if bytes.len() as u64 > bytes_max {
            return Err(format!("its file has more than {bytes_max} bytes"));
        }
        String::from_utf8(bytes).map_err(|_| "its file is not in UTF-8".to_owned())
    }
}

fn refused(key: &str, bad: InvalidOptions) -> Failure {
    Failure::new(FailureClass::BadUrl, format!("{key}: {bad}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(path: &str) -> Access {
        Access { credential: Some(CredentialFile::Basic(path.into())), ..Access::default() }
    }

    #[tokio::test]
    async fn a_bare_name_is_a_systemd_credential_and_a_path_is_relative_to_the_catalogue() {
        let (etc, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(etc.path().join("agency"), "user:catalogue\n").unwrap();
        std::fs::write(credentials.path().join("agency"), "user:systemd\n").unwrap();
        let fingerprint = async |credentials: Option<&Path>, path: &str| {
            let files =
                CredentialFiles::new(&etc.path().join("sources.toml"), credentials.map(Path::to_owned));
            files.request_options(&basic(path)).await.unwrap().unwrap().fingerprint()
        };
        let of = |text: &str| RequestOptions::default().with_basic(text).unwrap().fingerprint();
        assert_eq!(fingerprint(None, "agency").await, of("user:catalogue"));
        assert_eq!(fingerprint(Some(credentials.path()), "agency").await, of("user:systemd"));
        assert_eq!(fingerprint(Some(credentials.path()), "./agency").await, of("user:catalogue"));
        let absolute = etc.path().join("agency");
        assert_eq!(
            fingerprint(Some(credentials.path()), absolute.to_str().unwrap()).await,
            of("user:catalogue")
        );
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_fails_with_its_key_and_shows_nothing_of_it() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("empty"), "").unwrap();
        std::fs::write(etc.path().join("TOPSECRET"), "TOPSECRET without a colon").unwrap();
        std::fs::write(etc.path().join("long"), vec![b':'; 4097]).unwrap();
        std::fs::write(etc.path().join("binary"), [b':', 0xff]).unwrap();
        let files = CredentialFiles::new(&etc.path().join("sources.toml"), None);
        for path in ["missing", "empty", "TOPSECRET", "long", "binary", "."] {
            let failure = files.request_options(&basic(path)).await.unwrap_err();
            assert_eq!(failure.class, FailureClass::BadUrl, "{path}");
            assert!(failure.message.starts_with("basic_file: "), "{failure}");
            let place = format!(" ({})", etc.path().join(path).display());
            assert_eq!(files.explain(&basic(path), &failure), format!("{}{place}", failure.message));
            assert!(!failure.message.contains("TOPSECRET"), "{failure}");
        }
        let pinned = Access { tls_ca_file: Some("missing".into()), ..Access::default() };
        assert_eq!(files.request_options(&pinned).await.unwrap_err().class, FailureClass::Tls);
    }

    #[tokio::test]
    async fn a_source_without_options_of_its_own_reads_no_file() {
        assert!(CredentialFiles::default().request_options(&Access::default()).await.unwrap().is_none());
    }
}
