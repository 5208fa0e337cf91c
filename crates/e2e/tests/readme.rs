//! The clients that README.md and STREAM.md print, against the real programs: each shows every item once, whatever
//! happens to the gateway, and resumes from its saved cursor when it is started again.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use e2e::{Binary, Browser, ExternalProgram, Origin, TestStack, on_path, scenario, wait_for};
use tokio::time::sleep;

/// Where clients are printed: a document, and its section.
const SECTIONS: [(&str, &str); 2] = [
    (include_str!("../../../README.md"), "\n## Listen\n"),
    (include_str!("../../gateway/STREAM.md"), "\n## Clients\n"),
];
const EXAMPLE: &str = include_str!("../../wire/examples/listen.rs");
/// The address that the printed clients connect to, as a URL and as Python has it.
const ADDRESS: [&str; 2] = ["127.0.0.1:8700", "\"127.0.0.1\", 8700"];

const FEEDS: usize = 2;
/// How often the gateway is killed.
const ROUNDS: usize = 2;
/// Deadline for a client to show all items, including its reconnection after a kill.
const SHOWN: Duration = Duration::from_secs(90);
/// Duplicates would arrive within this.
const AFTERWARDS: Duration = Duration::from_millis(800);

/// An item as a client showed it: id and title.
type Shown = (String, String);

/// The client in that language, as it is printed.
fn code(language: &str) -> &'static str {
    let sections = SECTIONS.map(|(document, title)| {
        let (_, section) = document.split_once(title).expect("the document has the section");
        section.split("\n## ").next().unwrap_or(section)
    });
    let start = format!("```{language}\n");
    let mut printed = sections.into_iter().filter_map(|section| section.split_once(&start));
    let (_, code) = printed.next().expect("there is a client in each language");
    assert!(printed.next().is_none(), "a client is printed once");
    code.split_once("```\n").expect("code has an end").0
}

/// The same for the gateway of a stack.
fn code_for(language: &str, stack: &TestStack) -> String {
    let e2e::http::Address::Tcp(address) = stack.gateway() else { unreachable!("it listens on TCP") };
    let here = [address.to_string(), format!("\"{}\", {}", address.ip(), address.port())];
    let code = code(language);
    assert!(ADDRESS.iter().any(|written| code.contains(written)), "{code}");
    ADDRESS.iter().zip(here).fold(code.to_owned(), |code, (written, here)| code.replace(written, &here))
}

trait Client {
    /// Starts or restarts the client.
    async fn start(&mut self) -> anyhow::Result<()>;
    /// Kills the client.
    async fn end(&mut self) -> anyhow::Result<()>;
    /// Everything that it has shown since its first start.
    async fn shown(&mut self) -> anyhow::Result<Vec<Shown>>;
}

/// A client that is a program, in its own folder.
struct Script {
    program: PathBuf,
    argument: String,
    folder: PathBuf,
    running: Option<ExternalProgram>,
    /// Parses a line.
    read: fn(&str) -> Option<Shown>,
}

impl Script {
    fn new(
        stack: &TestStack,
        program: PathBuf,
        argument: String,
        read: fn(&str) -> Option<Shown>,
    ) -> anyhow::Result<Self> {
        let folder = stack.path("client");
        fs::create_dir(&folder)?;
        Ok(Self { program, argument, folder, running: None, read })
    }
}

impl Client for Script {
    async fn start(&mut self) -> anyhow::Result<()> {
        self.running = Some(ExternalProgram::start(&self.program, &[&self.argument], &self.folder)?);
        Ok(())
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("it was started")?;
        anyhow::ensure!(running.is_running(), "it had exited by itself: {}", running.stderr());
        Ok(())
    }

    async fn shown(&mut self) -> anyhow::Result<Vec<Shown>> {
        let running = self.running.as_ref().context("it was started")?;
        Ok(running.output_lines().iter().filter_map(|line| (self.read)(line)).collect())
    }
}

/// A client that is a page of another origin.
struct Page {
    browser: Browser,
    url: String,
    shown: Vec<Shown>,
}

impl Client for Page {
    async fn start(&mut self) -> anyhow::Result<()> {
        self.browser.open(&self.url).await
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.browser.open("about:blank").await
    }

    async fn shown(&mut self) -> anyhow::Result<Vec<Shown>> {
        // Chromium logs `ADDRESS LINE:COLUMN "ID" "TITLE"`, and returns each line once.
        for (_, _, text) in self.browser.console().await? {
            let words: Vec<_> = text.split('"').collect();
            if let [_, id, " ", title, ""] = words[..] {
                self.shown.push((id.to_owned(), title.to_owned()));
            }
        }
        Ok(self.shown.clone())
    }
}

/// `ID TITLE`
fn id_and_title(line: &str) -> Option<Shown> {
    let (id, title) = line.split_once(' ')?;
    let (epoch, seq) = id.split_once('-')?;
    let is_id = epoch.bytes().all(|b| b.is_ascii_alphanumeric()) && seq.parse::<u64>().is_ok();
    is_id.then(|| (id.to_owned(), title.to_owned()))
}

/// The scenario for each client.
async fn misses_nothing(
    stack: &mut TestStack,
    origin: &Arc<Origin>,
    client: &mut impl Client,
) -> anyhow::Result<()> {
    origin.publish("feed-0", "Before");
    stack.start_both().await?;
    client.start().await?;
    wait_until_shown(client, 1).await?;

    let publisher = scenario::FeedPublisher::start(Arc::clone(origin), FEEDS);
    for round in 0..ROUNDS {
        sleep(Duration::from_millis(700)).await;
        stack.kill(Binary::Gateway)?;
        sleep(Duration::from_millis(700)).await;
        stack.start(Binary::Gateway)?;
        let shown = client.shown().await?.len();
        let back = wait_until_shown(client, shown + 1).await;
        back.with_context(|| format!("after kill {round}"))?;
    }
    publisher.stop().await;
    let published = recorded(stack, origin).await?;
    anyhow::ensure!(published.len() > 30, "only {} items were published", published.len());
    wait_until_shown(client, published.len()).await?;
    sleep(AFTERWARDS).await;
    assert_eq!(client.shown().await?, published, "each item once, in order");

    client.end().await?;
    (0..3).for_each(|number| drop(origin.publish("feed-1", &format!("While it was away, {number}"))));
    let all = recorded(stack, origin).await?;
    client.start().await?;
    wait_until_shown(client, all.len()).await?;
    sleep(AFTERWARDS).await;
    let mut shown = client.shown().await?;
    // STREAM.md: one that is killed shows its last event again, if it had not saved the cursor.
    if shown.get(published.len()) == published.last() {
        shown.remove(published.len());
    }
    assert_eq!(shown, all, "each item once, in order, after a start from the saved cursor");
    Ok(())
}

async fn wait_until_shown(client: &mut impl Client, count: usize) -> anyhow::Result<()> {
    let mut shown = 0;
    let outcome = wait_for(&format!("{count} items"), SHOWN, async || {
        shown = client.shown().await.map_or(shown, |shown| shown.len());
        (shown >= count).then_some(())
    })
    .await;
    outcome.with_context(|| format!("the client showed {shown}"))
}

/// Waits until all published items are recorded; returns them, oldest first.
async fn recorded(stack: &TestStack, origin: &Origin) -> anyhow::Result<Vec<Shown>> {
    let published: usize = origin.published().values().map(Vec::len).sum();
    wait_for("everything to be recorded", SHOWN, async || {
        let page = stack.json("/news?limit=1000").await.ok()?;
        let text = |item: &serde_json::Value, name: &str| item[name].as_str().map(str::to_owned);
        let items = page["items"].as_array()?.iter().rev();
        let items: Vec<_> =
            items.filter_map(|item| Some((text(item, "id")?, text(item, "title")?))).collect();
        (items.len() == published).then_some(items)
    })
    .await
}

async fn set_up() -> anyhow::Result<(Arc<Origin>, TestStack)> {
    let origin = Arc::new(Origin::start().await?);
    let mut stack = TestStack::new(&scenario::feeds(&origin, FEEDS))?;
    // The page of the browser client is served from there.
    stack.set("gateway.cors_origins", &format!("[\"{}\"]", origin.url("")));
    Ok((origin, stack))
}

/// Reports a skipped test and returns `None` if the program is not installed.
fn installed(program: &str) -> Option<PathBuf> {
    let path = on_path(program);
    if path.is_none() {
        e2e::log_line(&format!("SKIPPED: {program} is not on the PATH"));
    }
    path
}

#[tokio::test]
async fn the_shell_client_reconnects_by_itself_and_misses_nothing() {
    let (Some(bash), Some(_)) = (installed("bash"), installed("curl")) else { return };
    let (origin, mut stack) = set_up().await.unwrap();
    let file = stack.path("listen.sh");
    fs::write(&file, code_for("sh", &stack)).unwrap();
    let read = |line: &str| {
        let item: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((item["id"].as_str()?.to_owned(), item["title"].as_str()?.to_owned()))
    };
    let mut client = Script::new(&stack, bash, file.display().to_string(), read).unwrap();
    misses_nothing(&mut stack, &origin, &mut client).await.unwrap();
}

#[tokio::test]
async fn the_python_client_reconnects_by_itself_and_misses_nothing() {
    let Some(python) = installed("python3") else { return };
    let (origin, mut stack) = set_up().await.unwrap();
    let file = stack.path("listen.py");
    fs::write(&file, code_for("python", &stack)).unwrap();
    let read = |line: &str| id_and_title(line.strip_prefix("item ")?);
    let mut client = Script::new(&stack, python, file.display().to_string(), read).unwrap();
    misses_nothing(&mut stack, &origin, &mut client).await.unwrap();
}

#[tokio::test]
async fn the_rust_client_reconnects_by_itself_and_misses_nothing() {
    let (head, code) = EXAMPLE.split_at(EXAMPLE.find("use ").unwrap());
    assert!(head.lines().all(|line| line.is_empty() || line.starts_with("//!") || line.starts_with("#!")));
    assert_eq!(code, self::code("rust"), "STREAM.md prints the example as it is compiled");
    let example = Binary::Gateway.path().unwrap().with_file_name("examples").join("listen");
    assert!(example.is_file(), "build it first with `cargo build --workspace --bins --examples`");
    let (origin, mut stack) = set_up().await.unwrap();
    let address = code_for("rust", &stack);
    let address = address.split('"').find(|text| text.starts_with("http://")).unwrap().to_owned();
    let mut client = Script::new(&stack, example, address, id_and_title).unwrap();
    misses_nothing(&mut stack, &origin, &mut client).await.unwrap();
}

#[tokio::test]
async fn the_browser_client_reconnects_by_itself_and_misses_nothing() {
    let Some(browser) = Browser::start().await.unwrap() else { return };
    let (origin, mut stack) = set_up().await.unwrap();
    let file = stack.path("listen.html");
    let script = code_for("js", &stack);
    fs::write(&file, format!("<!doctype html><title>listen</title><script>\n{script}</script>")).unwrap();
    let url = origin.add_file(&file).unwrap();
    let mut client = Page { browser, url, shown: Vec::new() };
    misses_nothing(&mut stack, &origin, &mut client).await.unwrap();
}
