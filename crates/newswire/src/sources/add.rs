//! `newswire sources add`: fetches one feed and adds it to the list.

use std::time::Duration;

use clap::Args;
use daemon::Exit;
use fetch::Visitor;
use news::{Catalogue, FeedUrl, Source, SourceId};
use sources::opml::{self, KnownFeeds};

use super::{CommandContext, file::ListFile, now, orders};
use crate::{
    check,
    discover::discover,
    out::{self, safe},
};

/// Arguments of `newswire sources add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// URL of the feed, or of a page that links to it
    url: String,
    /// Id, used in logs and filters: a-z, 0-9, - and _ [default: made from the title of the feed]
    #[arg(long)]
    id: Option<String>,
    /// Display name [default: the title of the feed]
    #[arg(long)]
    name: Option<String>,
    /// Category, one word [default: general]
    #[arg(long)]
    category: Option<String>,
    /// Country, two capital letters (ISO 3166-1)
    #[arg(long)]
    country: Option<String>,
    /// Language, such as en or pt-BR (BCP 47) [default: that of the feed]
    #[arg(long)]
    language: Option<String>,
    /// Tag, one word; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Fixed interval between visits, such as 15m [default: newswire chooses]
    #[arg(long, value_name = "DURATION", value_parser = orders::duration)]
    every: Option<Duration>,
    /// Allow addresses of private networks
    #[arg(long)]
    allow_private: bool,
}

pub(super) async fn run(context: &CommandContext, arguments: AddArgs) -> anyhow::Result<Exit> {
    let url = FeedUrl::try_new(&arguments.url)?;
    let file = ListFile::open(&context.list)?;
    let mut known = KnownFeeds::new(&file.catalogue);
    if let Some(id) = known.feed(&url) {
        out::stdout_line(&format!("{url} is there already: {id}"))?;
        return Ok(Exit::Ok);
    }
    let id = arguments.id.as_deref().map(SourceId::try_new).transpose()?;
    if let Some(id) = id.as_ref().filter(|id| known.has_id(id)) {
        anyhow::bail!(
            "{} already has a source with the id {id}; choose another one with --id",
            file.path().display()
        );
    }
    fetch::install_tls();
    let visitor = Visitor::try_new(check::policy(&context.config, arguments.allow_private)?)?;
    let found = discover(&visitor, &url, now()).await?;
    if !found.others.is_empty() {
        out::stderr_line(&format!("{url} names {} feeds; the first is taken:", found.others.len() + 1));
        let named = std::iter::once(&found.url).chain(&found.others);
        named.for_each(|feed| out::stderr_line(&format!("  {}", safe(&feed.to_string()))));
    }
    if let Some(id) = known.feed(&found.url) {
        out::stdout_line(&format!("{} is there already: {id}", found.url))?;
        return Ok(Exit::Ok);
    }
    let feed = &found.document.feed;
    let name = arguments.name.or_else(|| found.title.as_deref().and_then(opml::name));
    let id = known.free_id(arguments.id.as_deref(), name.as_deref(), &found.url);
    let mut source = Source::new(id, found.url);
    source.name = name.unwrap_or(source.name);
    source.category = arguments.category.unwrap_or(source.category);
    source.country = arguments.country;
    source.language = arguments.language.or_else(|| feed.language.as_deref().and_then(opml::language));
    (source.tags, source.every) = (arguments.tags, arguments.every);
    if let Some(complaint) = opml::complaint(&source) {
        anyhow::bail!("{complaint}");
    }
    let (id, name, items) = (source.id.clone(), safe(&source.name), found.document.items.len());
    let line = format!("added {id} [{}] {name}: {}, {items} items", source.category, source.url);
    file.replace(&Catalogue::append_to(&file.text, vec![source]))?;
    out::stdout_line(&line)?;
    Ok(orders::reload(context).await?.print(file.path()))
}
