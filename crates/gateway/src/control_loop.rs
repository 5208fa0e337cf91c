//! The main loop after the start: reloads, and a status line for systemd, until the stop signal.

use std::{sync::Arc, time::Duration};

use control::{CredentialChanges, Problem, ReloadAnswer};
use daemon::{admin::ReloadOrder, config::Reloader, logs::Logs, notify, stop::Signals};
use tokio::sync::mpsc;

use crate::{ingest::granted_categories, settings::Settings, state::AppState};

/// How often systemd gets a status line.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until the stop signal.
pub(crate) async fn run(
    state: &Arc<AppState>,
    logs: &Logs,
    mut reloader: Reloader,
    signals: &mut Signals,
    mut reload_orders: mpsc::Receiver<ReloadOrder>,
) {
    let mut status = tokio::time::interval(STATUS_INTERVAL);
    loop {
        tokio::select! {
            () = signals.stop.cancelled() => return,
            Ok(()) = signals.reload.changed() => {
                // The result has been logged.
                reload(state, logs, &mut reloader).ok();
            }
            Some(order) = reload_orders.recv() => {
                let answer = reload(state, logs, &mut reloader).map_err(Problem::bad_configuration);
                // The client may have left.
                order.send(answer).ok();
            }
            _ = status.tick() => notify::status(&status_line(state)),
        }
    }
}

/// For `systemctl status`.
fn status_line(state: &AppState) -> String {
    let (wire, ring) = (state.wire.get(), state.ring.state());
    let head =
        ring.log_bounds.map_or_else(String::new, |bounds| format!(" at {}-{}", bounds.epoch, bounds.head));
    let wire = match (wire.connected, wire.reason.as_str()) {
        (true, _) => format!("the wire is connected{head}"),
        (false, "") => "the wire is not connected yet".to_owned(),
        (false, why) => format!("the wire is not connected: {why}"),
    };
    format!("{} clients; {wire}", state.client_count())
}

/// Reads the configuration and the files of tokens and keys again. A mistake in any of them changes nothing.
///
/// # Errors
/// Each complaint; they have been logged.
fn reload(state: &AppState, logs: &Logs, reloader: &mut Reloader) -> Result<ReloadAnswer, Vec<String>> {
    notify::reloading();
    let answer = try_reload(state, logs, reloader);
    notify::ready();
    answer
}

fn try_reload(state: &AppState, logs: &Logs, reloader: &mut Reloader) -> Result<ReloadAnswer, Vec<String>> {
    let lines = |error: &dyn std::fmt::Display| error.to_string().lines().map(str::to_owned).collect();
    let draft = reloader.read().map_err(|complaints| lines(&complaints))?;
    let settings = Settings::from_config(draft.config(), state.settings().limits).map_err(|error| {
        let complaints: Vec<String> = lines(&error);
        for line in &complaints {
            tracing::error!(error = line, "kept the old configuration");
        }
        complaints
    })?;
    logs.reconfigure(&draft.config().log.level, &draft.changes);
    let credentials = settings.credential_changes(&state.settings());
    state.replace_settings(settings);
    let settings = state.settings();
    settings.warn();
    granted_categories::warn(&granted_categories::without_source(
        &settings.authenticator,
        &state.catalogue_labels,
    ));
    let changes = reloader.take(draft);
    let changed = changes.iter().filter(|change| change.live).count();
    let kept = changes.len() - changed;
    let files: Vec<_> = credentials.iter().map(CredentialChanges::to_string).collect();
    let files = (!files.is_empty()).then(|| files.join("; "));
    tracing::info!(changed, kept, credentials = files, "reloaded");
    Ok(ReloadAnswer { catalogue: None, changes, credentials })
}
