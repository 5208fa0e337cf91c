//! Why a daemon did not answer a request, and what to do about it: one sentence, the same for every command.

use control::{ControlError, Problem};

use crate::out::whole;

const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What happened and the remedy. A problem explains itself. `daemon` is `ingestd` or `gateway`.
///
/// The text contains the sources of the error, so it must not be printed together with them.
pub(crate) fn explain(error: &ControlError, daemon: &str) -> String {
    let what = whole(&error.to_string());
    let remedy = match error {
        ControlError::Missing(_) | ControlError::Refused(_) => {
            let key =
                if daemon == "gateway" { "daemon.run_dir and gateway.admin_dir" } else { "daemon.run_dir" };
            format!("is newswire-{daemon} running, with the same {key}?")
        }
        ControlError::Denied(_) => "run this as root or as a member of the socket's group".to_owned(),
        ControlError::Timeout { .. } => "the process is stopped or stuck; run `newswire doctor`".to_owned(),
        ControlError::Shape { .. }
        | ControlError::NotJson { .. }
        | ControlError::Status { status: 404, .. } => {
            format!("if newswire-{daemon} is another version than this tool ({OUR_VERSION}), restart it")
        }
        ControlError::Status { .. } | ControlError::Broken { .. } | ControlError::TooLarge { .. } => {
            "the process is failing, or another program has this socket; run `newswire doctor`".to_owned()
        }
        ControlError::Connect { .. } => "run `newswire doctor`".to_owned(),
        ControlError::Problem(_) | ControlError::BadRequest { .. } => return what,
    };
    format!("{what}; {remedy}")
}

/// The same for `POST /reload`, which older daemons do not know.
pub(crate) fn explain_reload(error: &ControlError, daemon: &str) -> String {
    match error {
        ControlError::Status { status: 404, .. } | ControlError::Problem(Problem { status: 404, .. }) => {
            format!(
                "newswire-{daemon} does not know POST /reload on its admin socket, so it is older than this tool \
                 ({OUR_VERSION}); restart it, run `systemctl reload newswire-{daemon}`, or send it SIGHUP"
            )
        }
        error => explain(error, daemon),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_cause_has_its_remedy_and_only_an_absent_daemon_is_asked_for() {
        let status =
            |status| ControlError::Status { socket: "s.sock".into(), request: "GET /x".into(), status };
        let timeout = ControlError::Timeout {
            socket: "s.sock".into(),
            request: "GET /x".into(),
            deadline: Duration::from_secs(5),
        };
        let source = serde_json::from_str::<news::SourceStatus>("{}").unwrap_err();
        let shape = ControlError::Shape {
            socket: "s.sock".into(),
            request: "GET /sources".into(),
            process: None,
            source,
        };
        let question = "is newswire-ingestd running";
        for (error, remedy) in [
            (ControlError::Missing("s.sock".into()), question),
            (ControlError::Refused("s.sock".into()), question),
            (ControlError::Denied("s.sock".into()), "run this as root or as a member of the socket's group"),
            (timeout, "stopped or stuck; run `newswire doctor`"),
            (shape, "if newswire-ingestd is another version than this tool"),
            (status(404), "if newswire-ingestd is another version than this tool"),
            (status(502), "run `newswire doctor`"),
        ] {
            let text = explain(&error, "ingestd");
            assert!(text.contains(remedy) && text.contains("s.sock"), "{text}");
            assert_eq!(text.contains(question), error.is_absent(), "{text}");
            assert!(text.matches("missing field").count() <= 1, "{text}");
        }
        let old = explain_reload(&status(404), "gateway");
        assert!(
            old.contains("newswire-gateway does not know POST /reload") && old.contains("SIGHUP"),
            "{old}"
        );
        assert_eq!(explain_reload(&status(502), "gateway"), explain(&status(502), "gateway"));
    }
}
