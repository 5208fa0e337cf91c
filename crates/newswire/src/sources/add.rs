//! `newswire sources add`: fetches one feed, adds it to the list, and hands it over to the daemon.
//!
//! The feed is requested once. The list is locked for the moment of the change only, so that a slow server keeps no other command
//! from changing it.

use std::time::Duration;

use clap::Args;
use daemon::Exit;
use fetch::{FailureClass, VisitRequest, Visitor};
use news::{Catalogue, FeedUrl, Source, SourceId, SourceStatus, Timestamp};
use sources::{CredentialFiles, KnownFeeds, lists::ListedFeed, opml};
use tokio::time::Instant;

use super::{
    CommandContext,
    file::{ListFile, ListInUse},
    handover::{self, Handover},
    lists, now,
    options::SourceOptions,
    orders,
    turns::DaemonTurns,
};
use crate::{
    address, check,
    config_file::UsageError,
    discover::{Discovered, DiscoveryFailure, discover},
    out::{self, safe, whole},
};

/// How long another command may keep the list locked.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(30);
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Arguments of `newswire sources add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Address of the feed, or of a page that links to it; without a scheme, https is tried first
    url: String,
    /// Allow addresses of private networks
    #[arg(long)]
    allow_private: bool,
    #[command(flatten)]
    source: SourceOptions,
}

pub(super) async fn run(context: &CommandContext, arguments: AddArgs) -> anyhow::Result<Exit> {
    let started = now();
    let urls = address::candidates(&arguments.url).map_err(|bad| UsageError(bad.to_string()))?;
    let options = &arguments.source;
    let any_id = SourceId::try_new("feed")?;
    let drafts = urls.iter().map(|url| options.source(&any_id, url)).collect::<anyhow::Result<Vec<_>>>()?;
    let file = open(context).await?;
    if let Some(exit) = refuse_known(&file, &drafts, options)? {
        return Ok(exit);
    }
    file.check_writable()?;
    drop(file);
    let (found, refusal) = fetch(context, &drafts, arguments.allow_private).await?;
    tell_others(&found);

    let file = open(context).await?;
    if let Some(exit) = refuse_known(&file, &[options.source(&any_id, &found.url)?], options)? {
        return Ok(exit);
    }
    tell_of_other_settings(&file, &found.url);
    let listed = lists::listed(context, &file.catalogue);
    let replaced = listed.get(&found.url);
    let source = describe(&file, &found, options, replaced)?;
    if let Some(replaced) = replaced {
        tell_of_list(replaced, &source.id);
    }
    let items = found.document.items.len();
    let (id, name) = (source.id.clone(), safe(&source.name));
    let is_visited = source.enabled;
    let mut line = format!("added {id} [{}] {name}: {}", source.category, source.url);
    if is_visited {
        // What the document has; what is recorded of it, the daemon says.
        line += &format!(", its document has {}", out::count(items, "item"));
    }
    let proxy = check::proxy(&context.config)?;
    let refusal = refusal.filter(|_| is_visited);
    // Before the list has it: the document is there whichever command makes the daemon reload.
    let handover = match refusal {
        // The daemon visits it itself, or says why it does not.
        Some(_) => Handover::NotVisited,
        None => handover::offer(context, &source, proxy.as_ref(), &found.visit, found.arrived).await,
    };
    file.replace(&Catalogue::append_to(&file.text, vec![source]))?;
    let path = file.path().to_owned();
    drop(file);
    out::stdout_line(&line)?;
    let reload = orders::reload(context).await?;
    let exit = reload.print(&path);
    if let (Exit::Ok, Some(why)) = (exit, &refusal) {
        return report_refusal(context, &id, why, reload.is_running(), started).await;
    }
    match (exit, reload.is_running()) {
        (Exit::Ok, true) => report(context, &id, handover, items, started).await,
        (Exit::Ok, false) => {
            let then = if is_visited { "when it starts" } else { "then either, because it is disabled" };
            let visits = if is_visited { "visits" } else { "does not visit" };
            out::stderr_line(&format!("it {visits} {id} {then}"));
            Ok(exit)
        }
        _ => Ok(exit),
    }
}

/// Locks the list, as soon as no other command changes it.
async fn open(context: &CommandContext) -> anyhow::Result<ListFile> {
    let until = Instant::now() + UNLOCKED_WITHIN;
    loop {
        match ListFile::open(&context.list) {
            Err(error) if error.is::<ListInUse>() && Instant::now() < until => {
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            opened => return opened,
        }
    }
}

/// Ends the command if one of the sources is in the list already: with its address and its request settings.
///
/// # Errors
/// If that one has other settings than the options say, or another source has the id.
fn refuse_known(file: &ListFile, drafts: &[Source], options: &SourceOptions) -> anyhow::Result<Option<Exit>> {
    let known = KnownFeeds::new(&file.catalogue);
    for draft in drafts {
        let Some(source) = known.request(&draft.url, &draft.access).and_then(|id| file.source(id)) else {
            continue;
        };
        let differences = options.differences(draft, source);
        let there = format!("{} is there already: {}", source.url, source.id);
        if differences.is_empty() {
            out::stdout_line(&there)?;
            return Ok(Some(Exit::Ok));
        }
        anyhow::bail!(
            "{there}, and the options differ from it: {}; change it in {}, or remove it and add it again",
            safe(&differences.join("; ")),
            file.path_of(&source.id).display()
        );
    }
    let id = options.id.as_deref().map(SourceId::try_new).transpose()?;
    if let Some(id) = id.as_ref().filter(|id| known.has_id(id)) {
        anyhow::bail!(
            "{} already has a source with the id {id}; choose another one with --id",
            file.path_of(id).display()
        );
    }
    Ok(None)
}

/// Tells that another source requests the same address in another way.
fn tell_of_other_settings(file: &ListFile, url: &FeedUrl) {
    let known = KnownFeeds::new(&file.catalogue);
    if let Some(id) = known.feed(url) {
        out::stderr_line(&format!(
            "{id} has this address too, with other request settings: they are two sources, and each is visited"
        ));
    }
}

/// Tells which source of a list becomes the source with this id.
fn tell_of_list(ListedFeed { list, id: old }: &ListedFeed, id: &SourceId) {
    out::stderr_line(&if old == id {
        format!("the list {list} has this feed as {old}: the source keeps this id and its state")
    } else {
        format!(
            "the list {list} has this feed as {old}, which {id} replaces: its items are sent once more; with --id {old}, or \
             without --id, the source would keep its state"
        )
    });
}

/// Fetches the first of the sources that its server serves, with the settings that it will have; and why the daemon would
/// not request it.
async fn fetch(
    context: &CommandContext,
    drafts: &[Source],
    allow_private: bool,
) -> anyhow::Result<(Discovered, Option<String>)> {
    let turns = DaemonTurns::new(context);
    fetch::install_tls();
    let visitor = Visitor::try_new(check::policy(&context.config, allow_private)?)?;
    let files =
        CredentialFiles::new(&context.list, std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into));
    let (mut before, mut last) = (None, None);
    for source in drafts {
        let request_options = files.request_options(&source.access).await.map_err(|failure| {
            anyhow::anyhow!(
                "{}: {}; a path is relative to {}, and a bare name is looked up in $CREDENTIALS_DIRECTORY if that is set",
                failure.class,
                whole(&files.explain(&source.access, &failure)),
                context.list.parent().unwrap_or(&context.list).display()
            )
        })?;
        let request = VisitRequest {
            timeout: source.timeout,
            timeout_first_byte: source.timeout_first_byte,
            body_bytes_max: source.body_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
            options: request_options.as_ref(),
            gate: Some(&turns),
            ..VisitRequest::new(&source.url, now())
        };
        match discover(&visitor, &request).await {
            Ok(found) => {
                let request = VisitRequest { url: &found.url, ..request };
                let refusal = visitor.refusal_without_private(&request, &found.visit);
                return Ok((found, refusal));
            }
            // Nothing was requested: there is no such server. A certificate that is not trusted is no reason to do without.
            Err(failure) if failure.is_without_server => before = last.replace(failure),
            Err(failure) => return Err(explain(failure, last, drafts, source)),
        }
    }
    match (last, drafts.last()) {
        (Some(failure), Some(source)) => Err(explain(failure, before, drafts, source)),
        _ => anyhow::bail!("there is no address to fetch"),
    }
}

/// The failure with its address, and with a remedy if the scheme was a guess.
/// `before` is the failure over https, if this one is over http.
fn explain(
    failure: DiscoveryFailure,
    before: Option<DiscoveryFailure>,
    drafts: &[Source],
    source: &Source,
) -> anyhow::Error {
    let is_guess = drafts.len() > 1 && source.url.secret().scheme() == "https";
    let is_network =
        [FailureClass::Tls, FailureClass::Timeout, FailureClass::BadHttp, FailureClass::Truncated]
            .iter()
            .any(|class| failure.failure.kind == class.as_str());
    let remedy = if is_guess && is_network {
        "; if it is served without TLS, write http:// before the address"
    } else {
        ""
    };
    let before = before.map(|before| format!("; before that, over https: {}", before.failure));
    anyhow::anyhow!("{}: {}{remedy}{}", source.url, failure.failure, before.unwrap_or_default())
}

fn tell_others(found: &Discovered) {
    if found.others.is_empty() {
        return;
    }
    out::stderr_line(&format!("the page names {} feeds; the first is taken:", found.others.len() + 1));
    let named = std::iter::once(&found.url).chain(&found.others);
    named.for_each(|feed| out::stderr_line(&format!("  {}", safe(&feed.to_string()))));
}

/// The source to add: the settings that were given, and what the feed says about itself.
fn describe(
    file: &ListFile,
    found: &Discovered,
    options: &SourceOptions,
    replaced: Option<&ListedFeed>,
) -> anyhow::Result<Source> {
    let name = options.name.clone().or_else(|| found.title.as_deref().and_then(opml::name));
    let mut known = KnownFeeds::new(&file.catalogue);
    let wanted = options.id.as_deref().or(replaced.map(|replaced| replaced.id.as_str()));
    let id = known.free_id(wanted, name.as_deref(), &found.url);
    let language = found.document.feed.language.as_deref().and_then(opml::language);
    let mut options = options.clone();
    (options.name, options.language) = (name, options.language.or(language));
    options.source(&id, &found.url)
}

/// Says that the daemon does not visit a source that was added with `--allow-private`, unless it runs with other settings
/// than its file has.
async fn report_refusal(
    context: &CommandContext,
    id: &SourceId,
    why: &str,
    is_running: bool,
    started: Timestamp,
) -> anyhow::Result<Exit> {
    let until = "--allow-private counts for this command only, and newswire-ingestd reads fetch.allow";
    if !is_running {
        out::stderr_line(&format!("it does not visit {id} when it starts: {}; {until}", whole(why)));
        return Ok(Exit::Failure);
    }
    match handover::recorded(context, id, started).await {
        Ok(SourceStatus { last_error: None, .. }) => {
            out::stderr_line(&format!("newswire-ingestd has visited {id}"));
            Ok(Exit::Ok)
        }
        Ok(SourceStatus { last_error: Some(error), .. }) => {
            out::stderr_line(&format!("newswire-ingestd does not visit {id}: {}; {until}", whole(&error)));
            Ok(Exit::Failure)
        }
        Err(_) => {
            out::stderr_line(&format!("newswire-ingestd does not visit {id}: {}; {until}", whole(why)));
            Ok(Exit::Failure)
        }
    }
}

/// Says what the running daemon, which has the source now, makes of the document.
async fn report(
    context: &CommandContext,
    id: &SourceId,
    handover: Handover,
    items: usize,
    started: Timestamp,
) -> anyhow::Result<Exit> {
    match handover {
        Handover::Kept => match handover::recorded(context, id, started).await {
            Ok(status) => match handover::describe(&status, items, now()) {
                Ok(what) => out::stderr_line(&format!("newswire-ingestd {what}")),
                Err(error) => {
                    out::stderr_line(&format!("newswire-ingestd cannot visit {id}: {error}"));
                    return Ok(Exit::Failure);
                }
            },
            Err(why) => out::stderr_line(&format!(
                "newswire-ingestd has not recorded its items yet ({why}); `newswire sources show {id}` shows its state"
            )),
        },
        Handover::Refused { why } => out::stderr_line(&format!(
            "newswire-ingestd did not take the document and requests it once more ({why})"
        )),
        // It was started meanwhile.
        Handover::NotRunning => out::stderr_line(&format!("newswire-ingestd visits {id} now")),
        Handover::NotVisited => out::stderr_line(&format!(
            "{id} is disabled: it is not visited, and nothing of its document ({}) is recorded",
            out::count(items, "item")
        )),
    }
    Ok(Exit::Ok)
}
