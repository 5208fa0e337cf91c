//! Collects the secrets of the configuration and of the list of sources, so that they can be removed wherever they occur,
//! and describes the files that contain them without their contents.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use daemon::config::Loaded;
use news::{
    Access, CredentialFile, FeedList, ListOrigin, ProxyChoice, ProxyUrl, Source, SourceId, Timestamp,
};
use serde::Serialize;
use sources::{ListOnDisk, lists::ListCopies};

/// Largest file that is searched for secrets, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Shorter query values are common words, not secrets, in bytes.
const QUERY_BYTES_MIN: usize = 12;

/// The secrets, and the files that contain them.
#[derive(Default)]
pub(super) struct KnownSecrets {
    /// Never printed.
    pub(super) values: Vec<String>,
    /// By path.
    pub(super) files: Vec<FileFacts>,
}

/// A file without its contents.
#[derive(Debug, Serialize)]
pub(super) struct FileFacts {
    path: PathBuf,
    /// The key that names it.
    named_by: String,
    /// Permissions, octal.
    mode: Option<String>,
    bytes: Option<u64>,
    changed: Option<Timestamp>,
    missing: Option<String>,
}

/// Searches the configuration, the list of sources, and the files that they name.
pub(super) fn collect(loaded: &Loaded) -> KnownSecrets {
    let config = &loaded.config;
    let mut files = BTreeMap::new();
    let mut secrets = KnownSecrets::default();
    if let Some(file) = &loaded.file {
        files.insert(file.clone(), "--config".to_owned());
    }
    files.insert(config.ingestd.sources.clone(), "ingestd.sources".to_owned());
    let named = [
        ("gateway.operator_token_file", &config.gateway.operator_token_file),
        ("gateway.read_tokens_file", &config.gateway.read_tokens_file),
        ("gateway.jwks_file", &config.gateway.jwks_file),
        ("wire.nats_credentials_file", &config.wire.nats_credentials_file),
        ("wire.nats_nkey_file", &config.wire.nats_nkey_file),
    ];
    for (key, file) in named {
        let Some(file) = file else { continue };
        files.insert(file.clone(), key.to_owned());
        let text = read(file).unwrap_or_default();
        // The file contains a list of tokens, or one token.
        if let Ok(table) = toml::from_str::<toml::Table>(&text) {
            tokens(&toml::Value::Table(table), &mut secrets.values);
        }
        secrets.values.push(text);
    }
    for url in config.wire.nats_urls.iter().chain(&config.wire.nats_monitor_urls) {
        if let Ok(url) = url.parse::<url::Url>() {
            push_url_secrets(&url, &mut secrets.values);
        }
    }
    if let Some(proxy) = config.fetch.proxy.as_deref().and_then(|proxy| ProxyUrl::try_new(proxy).ok()) {
        push_url_secrets(proxy.secret(), &mut secrets.values);
    }
    for part in ListOnDisk::read(&config.ingestd.sources).map(|list| list.parts).unwrap_or_default() {
        for Source { id, url, access, .. } in &part.catalogue.sources {
            push_url_secrets(url.secret(), &mut secrets.values);
            add_access(id, access, &config.ingestd.sources, &mut files, &mut secrets.values);
        }
        for FeedList { id, origin, access, .. } in &part.catalogue.lists {
            if let ListOrigin::Url(url) = origin {
                push_url_secrets(url.secret(), &mut secrets.values);
            }
            add_access(id, access, &config.ingestd.sources, &mut files, &mut secrets.values);
        }
        files.entry(part.path).or_insert_with(|| "include of ingestd.sources".to_owned());
    }
    // What a list has may be a secret address, too; the copies are there even if the list of sources has a mistake.
    for (path, sources) in ListCopies::new(&config.store.path).all() {
        sources.iter().for_each(|source| push_url_secrets(source.url.secret(), &mut secrets.values));
        files.entry(path).or_insert_with(|| "copy of a list of feeds".to_owned());
    }
    secrets.files = files.into_iter().map(|(path, named_by)| describe(path, named_by)).collect();
    secrets
}

/// The secrets of the request settings of a source or of a list of feeds.
fn add_access(
    id: &SourceId,
    access: &Access,
    list: &Path,
    files: &mut BTreeMap<PathBuf, String>,
    values: &mut Vec<String>,
) {
    if let Some(proxy) = access.proxy.as_ref().and_then(ProxyChoice::proxy) {
        push_url_secrets(proxy.secret(), values);
    }
    values.extend(access.headers.iter().map(|(_, value)| value.clone()));
    let credential = access.credential.as_ref().map(|credential| match credential {
        CredentialFile::Basic(path) => ("basic_file", path),
        CredentialFile::Bearer(path) => ("bearer_file", path),
    });
    let cookies = access.cookie_file.as_ref().map(|path| ("cookie_file", path));
    for (key, path) in [credential, cookies].into_iter().flatten() {
        let path = resolve(list, path);
        if let Some(text) = read(&path) {
            // `user:password`, or cookies: the part behind the sign is a secret by itself.
            values.extend(
                text.split(';').filter_map(|part| part.split_once([':', '='])).map(|(_, v)| v.to_owned()),
            );
            values.push(text);
        }
        files.insert(path, format!("{key} of {id}"));
    }
}

/// Where the daemon reads a file that the list of sources names.
fn resolve(list: &Path, path: &Path) -> PathBuf {
    let bare = path.components().count() == 1 && path.is_relative();
    match std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty()) {
        Some(directory) if bare => Path::new(&directory).join(path),
        _ => list.parent().unwrap_or(Path::new("")).join(path),
    }
}

fn read(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    // Not a pipe: reading it would wait for its writer.
    let readable = metadata.is_file() && metadata.len() <= FILE_BYTES_MAX;
    readable.then(|| fs::read_to_string(path).ok()).flatten()
}

/// Collects every text with the key `token` or `sha256`.
fn tokens(value: &toml::Value, values: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                match value {
                    toml::Value::String(text) if key == "token" || key == "sha256" => {
                        values.push(text.clone())
                    }
                    value => tokens(value, values),
                }
            }
        }
        toml::Value::Array(list) => list.iter().for_each(|value| tokens(value, values)),
        _ => {}
    }
}

fn push_url_secrets(url: &url::Url, values: &mut Vec<String>) {
    values.extend(url.password().map(str::to_owned));
    values.extend(
        url.query_pairs()
            .filter(|(_, value)| value.len() >= QUERY_BYTES_MIN)
            .map(|(_, value)| value.into_owned()),
    );
}

fn describe(path: PathBuf, named_by: String) -> FileFacts {
    let (metadata, missing) = match fs::metadata(&path) {
        Ok(metadata) => (Some(metadata), None),
        Err(error) => (None, Some(error.to_string())),
    };
    FileFacts {
        path,
        named_by,
        mode: metadata.as_ref().map(|m| format!("{:04o}", m.permissions().mode() & 0o7777)),
        bytes: metadata.as_ref().map(std::fs::Metadata::len),
        changed: metadata.map(|m| Timestamp::from_millis(m.mtime().saturating_mul(1000))),
        missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;

    #[test]
    fn the_secrets_of_what_a_list_has_are_known_even_if_the_list_of_sources_has_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (store, list) = (path("store"), path("sources.toml"));
        let address = "https://u:PASSWORD-1@example.org/f?key=QUERY-VALUE-1";
        let source =
            Source::new(SourceId::try_new("planet-a").unwrap(), news::FeedUrl::try_new(address).unwrap());
        ListCopies::new(&store)
            .lock()
            .write_sources(&SourceId::try_new("planet").unwrap(), vec![source])
            .unwrap();
        let config = format!("[store]\npath = {store:?}\n[ingestd]\nsources = {list:?}\n");
        fs::write(path("newswire.toml"), config).unwrap();
        let loaded = daemon::config::load(Some(&path("newswire.toml")), []).unwrap();
        for text in ["[[list]]\nid = \"planet\"\nfile = \"p.opml\"\n", "[[list]"] {
            fs::write(&list, text).unwrap();
            let secrets = collect(&loaded);
            let named: Vec<_> = secrets.files.iter().map(|file| file.named_by.as_str()).collect();
            assert!(named.contains(&"copy of a list of feeds"), "{named:?}");
            let line = Redactor::new(secrets.values).lines("sent QUERY-VALUE-1 and PASSWORD-1 to it\n");
            assert_eq!(line, "sent … and … to it\n");
        }
    }
}
