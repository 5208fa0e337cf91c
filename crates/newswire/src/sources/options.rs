//! The keys of a source as options of the command line.

use std::time::Duration;

use clap::Args;
use news::{Catalogue, FeedUrl, Source, SourceId};
use notation::{Complaint, write_duration};
use sources::opml;
use toml::Value;

use super::orders::duration;
use crate::config_file::UsageError;

/// Every key of a source except its address. What is not given is left to `sources.toml`'s defaults.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings of the source")]
pub(super) struct SourceOptions {
    /// Id, used in logs and filters: a-z, 0-9, - and _ [default: made from the title of the feed]
    #[arg(long)]
    pub(super) id: Option<String>,
    /// Display name [default: the title of the feed]
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Category, one word [default: general]
    #[arg(long)]
    category: Option<String>,
    /// Country, two capital letters (ISO 3166-1)
    #[arg(long)]
    country: Option<String>,
    /// Language, such as en or pt-BR (BCP 47) [default: that of the feed]
    #[arg(long)]
    pub(super) language: Option<String>,
    /// Tag, one word; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Fixed interval between visits, such as 15m [default: newswire chooses]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    every: Option<Duration>,
    /// `ignore`: what the feed and its server say about when to come back does not count [default: it counts]
    #[arg(long, value_name = "ignore")]
    fresh: Option<String>,
    /// Time limit of a visit [default: fetch.timeout_total]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Time limit for the first byte [default: --timeout, else fetch.timeout_first_byte]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout_first_byte: Option<Duration>,
    /// Largest document, in bytes [default: fetch.body_bytes_max]
    #[arg(long, value_name = "BYTES")]
    body_bytes_max: Option<u64>,
    /// Most new items that one visit records, in bytes; the rest waits for the next [default: fetch.new_bytes_max]
    #[arg(long, value_name = "BYTES")]
    new_bytes_max: Option<u64>,
    /// Header to send to the host of the source; may be given several times. Other users of this machine see it while the
    /// command runs
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// File with user:password. This path and the others are relative to the directory of the list, where newswire-ingestd
    /// reads the files at each visit
    #[arg(long, value_name = "FILE")]
    basic_file: Option<String>,
    /// File with a token
    #[arg(long, value_name = "FILE")]
    bearer_file: Option<String>,
    /// File with cookies
    #[arg(long, value_name = "FILE")]
    cookie_file: Option<String>,
    /// Proxy, such as http://proxy.example:3128
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// User agent [default: fetch.user_agent]
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// File with the certificate authorities to trust for this source, in PEM [default: those of the machine]
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<String>,
    /// List the source without visiting it, except this once
    #[arg(long)]
    disabled: bool,
}

/// `Name: value`. The error does not show the value.
fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected a name, a colon and a value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl SourceOptions {
    /// The keys that were given, with their values as in `sources.toml`.
    fn keys(&self) -> Vec<(&'static str, String)> {
        // Without `..`, so that no new key is forgotten.
        let Self {
            id,
            name,
            category,
            country,
            language,
            tags,
            every,
            fresh,
            timeout,
            timeout_first_byte,
            body_bytes_max,
            new_bytes_max,
            headers,
            basic_file,
            bearer_file,
            cookie_file,
            proxy,
            user_agent,
            tls_ca_file,
            disabled,
        } = self;
        let quoted = |text: &str| Value::String(text.to_owned()).to_string();
        let text = |text: &Option<String>| text.as_deref().map(quoted);
        let time = |time: &Option<Duration>| time.map(|time| quoted(&write_duration(time)));
        let list = |parts: Vec<String>| (!parts.is_empty()).then(|| parts.join(", "));
        let headers = headers.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)));
        [
            ("id", text(id)),
            ("name", text(name)),
            ("category", text(category)),
            ("country", text(country)),
            ("language", text(language)),
            ("tags", list(tags.iter().map(|tag| quoted(tag)).collect()).map(|tags| format!("[{tags}]"))),
            ("every", time(every)),
            ("fresh", text(fresh)),
            ("timeout", time(timeout)),
            ("timeout_first_byte", time(timeout_first_byte)),
            ("body_bytes_max", body_bytes_max.map(|bytes| bytes.to_string())),
            ("new_bytes_max", new_bytes_max.map(|bytes| bytes.to_string())),
            ("headers", list(headers.collect()).map(|headers| format!("{{ {headers} }}"))),
            ("basic_file", text(basic_file)),
            ("bearer_file", text(bearer_file)),
            ("cookie_file", text(cookie_file)),
            ("proxy", text(proxy)),
            ("user_agent", text(user_agent)),
            ("tls_ca_file", text(tls_ca_file)),
            ("enabled", disabled.then(|| "false".to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    /// The source with these settings; without `--id` its id is `id`.
    ///
    /// # Errors
    /// [`UsageError`] with every mistake in them, one per line, each with its option.
    pub(super) fn source(&self, id: &SourceId, url: &FeedUrl) -> anyhow::Result<Source> {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        let twice = names.iter().enumerate().find(|(n, name)| names[..*n].contains(name));
        if let Some((_, name)) = twice {
            return Err(UsageError(format!("--header: `{}` is given twice", news::Escaped(name))).into());
        }
        let mut text = format!("[[source]]\nurl = {}\n", Value::String(url.secret().as_str().to_owned()));
        if self.id.is_none() {
            text += &format!("id = \"{id}\"\n");
        }
        for (key, value) in self.keys() {
            text += &format!("{key} = {value}\n");
        }
        let read = Catalogue::parse(&text).map_err(|complaints| {
            let lines = complaints.into_iter().map(|complaint| {
                let key = option(&complaint.key);
                Complaint { line: None, key, ..complaint }.to_string()
            });
            UsageError(lines.collect::<Vec<_>>().join("\n"))
        })?;
        read.sources.into_iter().next().ok_or_else(|| anyhow::anyhow!("the settings make no source"))
    }
}

impl SourceOptions {
    /// Which of the given keys a listed source has with another value, each with both. `draft` is the source of these
    /// options; its request settings are those of the listed one.
    pub(super) fn differences(&self, draft: &Source, listed: &Source) -> Vec<String> {
        let (given, there) = (opml::keys(draft), opml::keys(listed));
        let about_requests = draft.access.keys();
        let keys = self.keys().into_iter().map(|(key, _)| key);
        let differ = keys.filter(|key| !about_requests.contains(key) && given.get(*key) != there.get(*key));
        let show = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
        differ.map(|key| format!("{key} is {}, not {}", show(there.get(key)), show(given.get(key)))).collect()
    }
}

/// The option for a key such as `source.body_bytes_max` or `source.headers.x-key`.
fn option(key: &str) -> String {
    let Some(key) = key.strip_prefix("source.") else { return key.to_owned() };
    match key.split('.').next().unwrap_or_default() {
        "url" => "URL".to_owned(),
        "headers" => "--header".to_owned(),
        "tags" => "--tag".to_owned(),
        "enabled" => "--disabled".to_owned(),
        key => format!("--{}", key.replace('_', "-")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command, FromArgMatches as _};

    use super::*;

    fn command() -> Command {
        SourceOptions::augment_args(Command::new("add"))
    }

    fn parse(words: &[&str]) -> SourceOptions {
        let matches = command().try_get_matches_from(["add"].iter().chain(words)).unwrap();
        SourceOptions::from_arg_matches(&matches).unwrap()
    }

    fn source(words: &[&str]) -> anyhow::Result<Source> {
        let id = SourceId::try_new("made").unwrap();
        parse(words).source(&id, &FeedUrl::try_new("https://example.org/feed").unwrap())
    }

    #[test]
    fn every_key_of_the_list_has_an_option_and_every_option_a_key() {
        let command = command();
        let options: BTreeSet<_> =
            command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect();
        let keys: BTreeSet<_> = Catalogue::keys()
            .filter(|key| *key != "url")
            .map(|key| option(&format!("source.{key}")).trim_start_matches("--").to_owned())
            .collect();
        assert_eq!(options, keys);
    }

    #[test]
    fn each_option_sets_its_key() {
        let words = [
            "--id=a",
            "--name=A \"name\"",
            "--category=world",
            "--country=GB",
            "--language=pt-BR",
            "--tag=x",
            "--tag=y",
            "--every=15m",
            "--fresh=ignore",
            "--timeout=20s",
            "--timeout-first-byte=15s",
            "--body-bytes-max=2048",
            "--new-bytes-max=4096",
            "--header=X-Key: a: b",
            "--header=x-other:c",
            "--basic-file=agency",
            "--cookie-file=/etc/c",
            "--proxy=http://u:p@proxy.example:3128",
            "--user-agent=x/1",
            "--tls-ca-file=./ca.pem",
            "--disabled",
        ];
        let text = "[[source]]\nid = \"a\"\nurl = \"https://example.org/feed\"\nname = 'A \"name\"'\ncategory = \"world\"\n\
                    country = \"GB\"\nlanguage = \"pt-BR\"\ntags = [\"x\", \"y\"]\nevery = \"15m\"\nfresh = \"ignore\"\ntimeout = \"20s\"\n\
                    timeout_first_byte = \"15s\"\nbody_bytes_max = 2048\nnew_bytes_max = 4096\nheaders = { X-Key = \"a: b\", x-other = \"c\" }\n\
                    basic_file = \"agency\"\ncookie_file = \"/etc/c\"\nproxy = \"http://u:p@proxy.example:3128\"\n\
                    user_agent = \"x/1\"\ntls_ca_file = \"./ca.pem\"\nenabled = false\n";
        let expected = Catalogue::parse(text).unwrap().sources.remove(0);
        let given = source(&words).unwrap();
        assert_eq!(given, expected);
        let bearer = source(&["--bearer-file=token"]).unwrap();
        assert_eq!((bearer.id.as_str(), bearer.access.keys()), ("made", vec!["bearer_file"]));
        let given: BTreeSet<_> = parse(&words).keys().into_iter().map(|(key, _)| key).collect();
        let missing: Vec<_> = Catalogue::keys()
            .filter(|key| !["url", "bearer_file"].contains(key) && !given.contains(key))
            .collect();
        assert!(missing.is_empty(), "this test gives no value for {missing:?}");
    }

    #[test]
    fn a_listed_source_differs_in_the_keys_that_were_given() {
        let listed = |words: &[&str]| source(words).unwrap();
        let there = listed(&["--id=a", "--category=world", "--tag=x", "--every=1h", "--header=X-K: SECRET"]);
        let differences = |words: &[&str]| {
            let options = parse(&[words, &["--header=x-k: SECRET"]].concat());
            let id = SourceId::try_new("made").unwrap();
            options.differences(&options.source(&id, &there.url).unwrap(), &there)
        };
        assert!(differences(&[]).is_empty(), "what is not given does not differ");
        assert!(differences(&["--id=a", "--category=world", "--tag=x", "--every=60m"]).is_empty());
        assert_eq!(
            differences(&["--id=b", "--category=general", "--tag=y", "--timeout=5s", "--disabled"]),
            [
                "id is \"a\", not \"b\"",
                "category is \"world\", not \"general\"",
                "tags is [\"x\"], not [\"y\"]",
                "timeout is not set, not \"5s\"",
                "enabled is not set, not false",
            ]
        );
    }

    #[test]
    fn a_mistake_names_its_option_and_shows_no_secret() {
        for (word, option) in [
            ("--category=two words", "--category: "),
            ("--country=uk", "--country: "),
            ("--every=31d", "--every: "),
            ("--fresh=yes", "--fresh: "),
            ("--timeout=10m", "--timeout: "),
            ("--timeout-first-byte=10m", "--timeout-first-byte: "),
            ("--body-bytes-max=1", "--body-bytes-max: "),
            ("--new-bytes-max=1", "--new-bytes-max: "),
            ("--header=Authorization: TOPSECRET", "--header: "),
            ("--header=X-Key:", "--header: "),
            ("--proxy=ftp://u:TOPSECRET@x", "--proxy: "),
            ("--tag=", "--tag: "),
            ("--id=A b", "--id: "),
        ] {
            let error = source(&[word]).unwrap_err();
            assert!(error.is::<UsageError>(), "{word}");
            let complaint = error.to_string();
            assert!(complaint.starts_with(option) && complaint.lines().count() == 1, "{word}: {complaint}");
            assert!(!complaint.contains("TOPSECRET"), "{complaint}");
        }
        let two = source(&["--country=uk", "--every=31d"]).unwrap_err().to_string();
        assert_eq!(two.lines().count(), 2, "{two}");
        let both = source(&["--basic-file=a", "--bearer-file=b"]).unwrap_err().to_string();
        assert!(both.contains("not both"), "{both}");
        let twice = source(&["--header=X-Key: a", "--header=x-key: b"]).unwrap_err().to_string();
        assert!(twice.contains("`x-key` is given twice"), "{twice}");
    }
}
