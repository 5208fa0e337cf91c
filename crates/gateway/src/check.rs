//! `newswire-gateway --check`: reads the files of tokens and keys as a start does, and reports every complaint at once.

use daemon::{config::Config, findings::Findings};

use crate::{
    auth::{authenticator::Authenticator, operator::OperatorToken},
    settings::rare_heartbeats,
};

/// Checks the files that the configuration names; only reads them.
#[must_use]
pub fn check(config: &Config) -> Findings {
    let gateway = &config.gateway;
    let mut findings = Findings::default();
    if let Err(error) = OperatorToken::load(gateway.operator_token_file.as_deref()) {
        findings.complain(&format!("{error:#}"));
    }
    if let Err(errors) = Authenticator::load(gateway) {
        findings.complain(&errors.to_string());
    }
    findings.warnings.extend(rare_heartbeats(gateway.heartbeat));
    // A JWK set has public keys only.
    for (key, file) in [
        ("gateway.operator_token_file", &gateway.operator_token_file),
        ("gateway.read_tokens_file", &gateway.read_tokens_file),
    ] {
        if let Some(path) = file {
            findings.warn_if_world_readable(key, path);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;

    #[test]
    fn heartbeats_that_are_rarer_than_clients_wait_for_are_a_warning() {
        let warnings = |seconds: u64| {
            let mut config = Config::default();
            config.gateway.heartbeat = Duration::from_secs(seconds);
            let Findings { complaints, warnings } = check(&config);
            assert!(complaints.is_empty(), "{complaints:?}");
            warnings
        };
        assert!(warnings(10).is_empty() && warnings(20).is_empty());
        let [warning] = &warnings(60)[..] else { panic!("one warning") };
        assert!(warning.starts_with("gateway.heartbeat: ") && warning.contains("set it to 20s"), "{warning}");
    }

    #[test]
    fn every_file_is_checked_and_each_complaint_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        assert_eq!(check(&config), Findings::default());
        let [operator, tokens] = ["operator", "tokens.toml"].map(|name| directory.path().join(name));
        fs::write(&operator, "short").unwrap();
        fs::set_permissions(&operator, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&tokens, "[[token]]\nname = 3\n").unwrap();
        fs::set_permissions(&tokens, fs::Permissions::from_mode(0o644)).unwrap();
        config.gateway.operator_token_file = Some(operator);
        config.gateway.read_tokens_file = Some(tokens);
        config.gateway.jwks_file = Some(directory.path().join("missing.json"));
        let Findings { complaints, warnings } = check(&config);
        for what in ["at least 16", "tokens.toml:2: ", "missing.json: "] {
            assert!(complaints.iter().any(|line| line.contains(what)), "{what} in {complaints:?}");
        }
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("gateway.read_tokens_file: "), "{warnings:?}");
    }
}
