//! Reads the catalogue, and sends it to the supervisor together with the stored states of its sources.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use actix::Recipient;
use anyhow::Context as _;
use news::{Catalogue, SourceId, SourceState};
use sources::{CredentialFiles, ListOnDisk};
use store::LogReader;

use crate::{
    error::IngestError,
    messages::{ApplyCatalogue, CatalogueDiff},
    sharing::{OwnPart, SharedCatalogue},
    visit::validators::request_hash,
};

/// Reads and checks the files of the catalogue.
///
/// # Errors
/// [`IngestError::Catalogue`] with every complaint, one per line.
pub(crate) async fn read_catalogue(path: &Path) -> Result<Catalogue, IngestError> {
    let list = read_list(path).await?;
    for warning in &list.warnings {
        tracing::warn!(reason = %warning, "an include of the list of sources names nothing");
    }
    Ok(list.into_catalogue())
}

/// The same, file by file, with the warnings about them.
///
/// # Errors
/// As [`read_catalogue`].
pub(crate) async fn read_list(path: &Path) -> Result<ListOnDisk, IngestError> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || ListOnDisk::read(&path));
    let list = read.await.context("read the list of sources")?;
    list.map_err(|complaints| IngestError::Catalogue(complaints.to_string()))
}

/// What a catalogue is applied with.
#[derive(Clone, Copy)]
pub(crate) struct CatalogueEnds<'a> {
    pub(crate) supervisor: &'a Recipient<ApplyCatalogue>,
    pub(crate) credentials: &'a CredentialFiles,
    pub(crate) reader: &'a LogReader,
}

/// Has the supervisor run the sources of the catalogue; of one that is `shared`, those that this daemon visits.
///
/// # Errors
/// If the stored states cannot be read.
pub(crate) async fn apply_catalogue(
    ends: CatalogueEnds<'_>,
    catalogue: Catalogue,
    shared: Option<&mut SharedCatalogue>,
) -> Result<CatalogueDiff, IngestError> {
    for source in catalogue.sources.iter().filter(|source| source.access.tls_ca_file.is_some()) {
        tracing::warn!(source = %source.id, "source trusts its own certificate authorities (tls_ca_file)");
    }
    let diff = match shared {
        None => run_sources(ends, catalogue, HashSet::new()).await?,
        Some(shared) => {
            let diff = shared.replace(catalogue);
            apply_own_part(ends, shared).await?;
            diff
        }
    };
    let CatalogueDiff { added, changed, removed, unchanged } = diff;
    tracing::info!(added, changed, removed, unchanged, "catalogue applied");
    Ok(diff)
}

/// Has the supervisor run the sources of a shared catalogue that this daemon visits now.
///
/// # Errors
/// If the stored states cannot be read.
pub(crate) async fn apply_own_part(
    ends: CatalogueEnds<'_>,
    shared: &mut SharedCatalogue,
) -> Result<(), IngestError> {
    let OwnPart { catalogue, elsewhere, version } = shared.own_part();
    run_sources(ends, catalogue, elsewhere).await?;
    shared.set_applied(version);
    Ok(())
}

/// Has the supervisor run these sources but for those that other daemons visit.
///
/// # Errors
/// If the stored states cannot be read.
pub(crate) async fn run_sources(
    CatalogueEnds { supervisor, credentials, reader }: CatalogueEnds<'_>,
    catalogue: Catalogue,
    elsewhere: HashSet<SourceId>,
) -> Result<CatalogueDiff, IngestError> {
    let stored_states = read_states(&catalogue, &elsewhere, reader).await?;
    let request_hashes = hash_requests(&catalogue, credentials).await;
    let message = ApplyCatalogue { catalogue, stored_states, request_hashes, elsewhere };
    Ok(supervisor.send(message).await.context("apply the catalogue")?)
}

/// The hashes of what is requested for the sources whose request settings have files, which may have changed.
async fn hash_requests(catalogue: &Catalogue, credentials: &CredentialFiles) -> HashMap<SourceId, u64> {
    let mut hashes = HashMap::new();
    for source in catalogue.sources.iter().filter(|source| source.access.has_files()) {
        // A file that cannot be read fails the visits.
        if let Ok(Some(options)) = credentials.request_options(&source.access).await {
            hashes.insert(source.id.clone(), request_hash(source, options.fingerprint()));
        }
    }
    hashes
}

async fn read_states(
    catalogue: &Catalogue,
    elsewhere: &HashSet<SourceId>,
    reader: &LogReader,
) -> Result<HashMap<SourceId, SourceState>, IngestError> {
    let ids = catalogue.sources.iter().map(|source| &source.id);
    let ids: Vec<_> = ids.filter(|id| !elsewhere.contains(*id)).cloned().collect();
    let reader = reader.clone();
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    let read = move || -> Result<HashMap<SourceId, SourceState>, store::LogReadError> {
        let state = |id: SourceId| Ok(reader.state(&id)?.map(|state| (id, state)));
        ids.into_iter().filter_map(|id| state(id).transpose()).collect()
    };
    let states = tokio::task::spawn_blocking(read).await.context("read the states of the sources")?;
    Ok(states?)
}
