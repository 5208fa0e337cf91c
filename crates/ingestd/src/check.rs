//! `newswire-ingestd --check`: checks the list of sources as a start does, and the files that its sources name (a
//! running daemon reads those at each visit).

use std::path::Path;

use daemon::{config::Config, findings::Findings};
use fetch::Policy;
use news::{Access, CredentialFile, FeedList, ListOrigin};
use sources::CredentialFiles;

use crate::{catalogue::read_list, lists, settings};

/// Checks the files that the configuration names. Reads them and does nothing else.
pub async fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let list = match read_list(&config.ingestd.sources).await {
        Ok(list) => list,
        Err(error) => {
            findings.complain(&error.to_string());
            return findings;
        }
    };
    findings.warnings.extend(list.warnings.iter().map(ToString::to_string));
    let files = settings::credential_files(config);
    for part in &list.parts {
        // The files of a disabled source are never read.
        for source in part.catalogue.sources.iter().filter(|source| source.enabled) {
            let origin = format!("{}: source {}", part.path.display(), source.id);
            check_access(&source.access, &origin, &files, &mut findings).await;
        }
        for list in part.catalogue.lists.iter().filter(|list| list.enabled) {
            let origin = format!("{}: list {}", part.path.display(), list.id);
            check_access(&list.access, &origin, &files, &mut findings).await;
            check_list(list, &config.ingestd.sources, &origin, &mut findings).await;
        }
    }
    findings
}

/// Checks a list in a file. The daemon starts without it, but has no sources of it then, or those of its last read.
async fn check_list(list: &FeedList, main: &Path, origin: &str, findings: &mut Findings) {
    let ListOrigin::File(file) = &list.origin else { return };
    let mistake = match lists::read_file(main.parent().unwrap_or(Path::new("")), file).await {
        Err(error) => error,
        Ok(bytes) => {
            let read = tokio::task::spawn_blocking(move || feed::opml::read_opml(&bytes).map(drop)).await;
            match read {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) => return,
                Err(panic) => panic.to_string(),
            }
        }
    };
    findings.complain(&format!("{origin}: file: {mistake} ({})", file.display()));
}

/// Checks the files of one source or list one by one, so that one complaint does not hide another.
async fn check_access(access: &Access, origin: &str, files: &CredentialFiles, findings: &mut Findings) {
    let Access { credential, cookie_file, tls_ca_file, .. } = access;
    let credential = credential.clone().map(|file| {
        let (CredentialFile::Basic(path) | CredentialFile::Bearer(path)) = file.clone();
        (path, true, Access { credential: Some(file), ..Access::default() })
    });
    let cookie = cookie_file.clone();
    let cookie =
        cookie.map(|path| (path.clone(), true, Access { cookie_file: Some(path), ..Access::default() }));
    let authorities = tls_ca_file.clone();
    let authorities = authorities
        .map(|path| (path.clone(), false, Access { tls_ca_file: Some(path), ..Access::default() }));
    for (path, is_secret, access) in [credential, cookie, authorities].into_iter().flatten() {
        let path = files.resolve(&path);
        let fault = match files.request_options(&access).await {
            Err(failure) => Some(failure.message.to_string()),
            Ok(options) => {
                let tried = options.unwrap_or_default().try_out(&Policy::default());
                tried.err().map(|bad| format!("tls_ca_file: {bad}"))
            }
        };
        if let Some(fault) = fault {
            findings.complain(&format!("{origin}: {fault} ({})", path.display()));
        }
        if is_secret {
            findings.warn_if_world_readable(origin, &path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn config(directory: &Path, sources: &str) -> Config {
        let list = directory.join("sources.toml");
        fs::write(&list, sources).unwrap();
        let mut config = Config::default();
        config.ingestd.sources = list;
        config
    }

    #[tokio::test]
    async fn each_file_of_each_visited_source_is_tried_and_named() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text, mode) in [("no-colon", "TOPSECRET", 0o644), ("ca.pem", "no certificate", 0o644)] {
            fs::write(directory.path().join(name), text).unwrap();
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let sources = "[[source]]\nid = \"one\"\nurl = \"https://example.org/1\"\nbasic_file = \"./no-colon\"\n\
                       cookie_file = \"./missing\"\ntls_ca_file = \"./ca.pem\"\n\
                       [[source]]\nid = \"off\"\nurl = \"https://example.org/2\"\nenabled = false\n\
                       basic_file = \"./missing\"\n";
        let Findings { complaints, warnings } = check(&config(directory.path(), sources)).await;
        assert_eq!(complaints.len(), 3, "{complaints:#?}");
        for (complaint, file) in complaints.iter().zip(["no-colon", "missing", "ca.pem"]) {
            assert!(complaint.contains("source one: ") && complaint.contains(file), "{complaint}");
            assert!(!complaint.contains("TOPSECRET"), "{complaint}");
        }
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
    }

    #[tokio::test]
    async fn a_list_of_feeds_in_a_file_is_read_and_the_files_of_a_request_are_tried() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("good.opml"), "<opml><outline xmlUrl='https://a.example/'/></opml>")
            .unwrap();
        fs::write(directory.path().join("bad.opml"), "<html>").unwrap();
        let list = |id: &str, keys: &str| format!("[[list]]\nid = \"{id}\"\n{keys}\n");
        let text = list("good", "file = \"good.opml\"")
            + &list("bad", "file = \"bad.opml\"")
            + &list("missing", "file = \"x/missing.opml\"")
            + &list("off", "file = \"missing.opml\"\nenabled = false")
            + &list("url", "url = \"https://example.org/\"\ncookie_file = \"./missing\"");
        let Findings { complaints, .. } = check(&config(directory.path(), &text)).await;
        let parts = [
            "sources.toml: list bad: file: this is not OPML",
            "sources.toml: list missing: file: cannot be read: No such file",
            "sources.toml: list url: cookie_file: its file cannot be read",
        ];
        assert_eq!(complaints.len(), parts.len(), "{complaints:#?}");
        for (complaint, part) in complaints.iter().zip(parts) {
            assert!(complaint.contains(part), "{complaint}");
        }
    }

    #[tokio::test]
    async fn a_list_with_mistakes_is_reported_by_line_and_a_good_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let bad =
            check(&config(directory.path(), "[[source]]\nid = \"Not An Id\"\nurl = \"ftp://x/\"\n")).await;
        assert_eq!(bad.complaints.len(), 2, "{bad:?}");
        assert!(bad.complaints[0].contains("sources.toml:2: "), "{bad:?}");
        let good = "[[source]]\nid = \"one\"\nurl = \"https://example.org/1\"\n";
        assert_eq!(check(&config(directory.path(), good)).await, Findings::default());
    }
}
