//! What `newswire sources export` writes, `import` reads: nothing of a source is lost, or it is named.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use e2e::{Binary, DocumentFormat, Origin, TestStack, http, wait_for};
use news::{Catalogue, Source};
use serde_json::{Value, json};

/// Deadline of each step.
const SOON: Duration = Duration::from_secs(60);

/// Runs `newswire sources`; returns standard output and the lines of standard error.
async fn sources(stack: &TestStack, arguments: &[&str]) -> (String, Vec<String>) {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.arg("sources").args(arguments).arg("--config").arg(config).env_clear();
    command.current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    (out, err.lines().map(str::to_owned).collect())
}

/// A list with every key, on feeds of this origin and one that is not visited.
fn every_key(origin: &Origin) -> String {
    let feed = |id: &str| origin.add_feed(id, DocumentFormat::Rss);
    let (all, bearer) = (feed("all"), feed("bearer"));
    let with_password =
        feed("user").replace("http://", "http://agency:url-SECRET@") + "?page=2&api_key=key-SECRET";
    let list = format!(
        "[[source]]\nid = \"all\"\nurl = \"{all}\"\nname = \"All, <&> \\\"quoted\\\"\"\ncategory = \"world\"\n\
         country = \"GB\"\nlanguage = \"pt-BR\"\ntags = [\"x\", \"y\"]\nevery = \"1h30m\"\ntimeout = \"20s\"\n\
         timeout_first_byte = \"15s\"\nfresh = \"ignore\"\nbody_bytes_max = 2048\nnew_bytes_max = 4096\n\
         headers = {{ X-Key = \"header-SECRET: <e>, \\\"b\\\"\", x-other = \"c\" }}\nbasic_file = \"./basic\"\n\
         cookie_file = \"./cookies\"\nproxy = \"socks5://u:proxy-SECRET@127.0.0.1:9\"\nuser_agent = \"x/1 (y)\"\n\
         tls_ca_file = \"./ca.pem\"\n\n\
         [[source]]\nid = \"bearer\"\nurl = \"{bearer}\"\nname = \"Bearer\"\nbearer_file = \"./token\"\nproxy = \"direct\"\n\n\
         [[source]]\nid = \"user\"\nurl = \"{with_password}\"\nname = \"User\"\nproxy = \"http://127.0.0.1:9\"\n\n\
         [[source]]\nid = \"off\"\nurl = \"https://example.org/off\"\nname = \"Off\"\ncategory = \"sport\"\nenabled = false\n"
    );
    let missing: Vec<_> = Catalogue::keys().filter(|key| !list.contains(&format!("\n{key} = "))).collect();
    assert!(missing.is_empty(), "this list has no value for {missing:?}");
    list
}

fn read_list(stack: &TestStack) -> BTreeMap<String, Source> {
    let text = fs::read_to_string(stack.path("sources.toml")).unwrap();
    let sources = Catalogue::parse(&text).unwrap().sources;
    sources.into_iter().map(|source| (source.id.to_string(), source)).collect()
}

/// What the daemon says about the settings of its sources, and which are paused and why.
async fn settings(stack: &TestStack) -> BTreeMap<String, Value> {
    let (out, _) = sources(stack, &["list", "--json"]).await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    let of = |source: &Value| {
        let keys = ["name", "url", "category", "country", "language", "tags", "enabled", "access"];
        let mut settings: BTreeMap<&str, Value> = keys.map(|key| (key, source[key].clone())).into();
        settings.insert("paused", json!([source["paused"]["until"], source["paused"]["reason"]]));
        (source["id"].as_str().unwrap().to_owned(), json!(settings))
    };
    listed["sources"].as_array().unwrap().iter().map(of).collect()
}

/// A daemon with the list that has every key; one of its sources is paused.
async fn start(origin: &Origin) -> TestStack {
    let mut stack = TestStack::new(&[]).unwrap();
    for (file, content) in
        [("basic", "u:file-SECRET"), ("cookies", "a=file-SECRET"), ("token", "file-SECRET")]
    {
        fs::write(stack.path(file), content).unwrap();
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([]).unwrap().self_signed(&key).unwrap();
    fs::write(stack.path("ca.pem"), certificate.pem()).unwrap();
    fs::write(stack.path("sources.toml"), every_key(origin)).unwrap();
    stack.start(Binary::Ingestd).unwrap();
    let wire = stack.wire();
    let is_listed =
        async || matches!(http::fetch(&wire, "/sources/off", SOON).await, Ok((200, _))).then_some(());
    wait_for("the sources", SOON, is_listed).await.unwrap();
    sources(&stack, &["pause", "bearer", "--for", "3d", "--reason", "its \"new\" & old token"]).await;
    stack
}

/// Takes all sources out of the list, and imports them again.
async fn import_into_an_empty_list(stack: &TestStack, file: &str) -> Vec<String> {
    fs::write(stack.path("sources.toml"), "").unwrap();
    let reload = http::send("POST", &stack.wire(), "/reload", &[("Content-Length", "0")], "").await.unwrap();
    assert_eq!(reload.status, 200);
    assert!(settings(stack).await.is_empty());
    sources(stack, &["import", file]).await.1
}

#[tokio::test]
async fn an_export_with_secrets_and_its_import_keep_every_key_and_every_pause() {
    let origin = Origin::start().await.unwrap();
    let stack = start(&origin).await;
    let (list, before) = (read_list(&stack), settings(&stack).await);
    assert_ne!(before["bearer"]["paused"][0], Value::Null, "{before:?}");

    let (_, told) = sources(&stack, &["export", "--with-secrets", "all.opml"]).await;
    // What is in files is not exported, and that is said.
    assert_eq!(
        told,
        [
            "bearer: what is in its files (bearer_file) is not exported; copy them",
            "all: what is in its files (basic_file, cookie_file, tls_ca_file) is not exported; copy them",
        ]
    );
    let text = fs::read_to_string(stack.path("all.opml")).unwrap();
    assert!(text.contains("header-SECRET") && !text.contains("file-SECRET"), "{text}");
    let requests = origin.requests("bearer").len();
    let told = import_into_an_empty_list(&stack, "all.opml").await.join("\n");
    for (id, keys) in [("all", "headers, basic_file, cookie_file, proxy"), ("bearer", "bearer_file, proxy")] {
        assert!(told.contains(&format!("{id}: takes {keys}")), "{told}");
    }
    assert_eq!(read_list(&stack), list);
    assert_eq!(settings(&stack).await, before);
    let is_visited = async || {
        let (out, _) = sources(&stack, &["show", "user", "--json"]).await;
        (!serde_json::from_str::<Value>(&out).unwrap()["last_visit"].is_null()).then_some(())
    };
    wait_for("a visit of a source that is not paused", SOON, is_visited).await.unwrap();
    assert_eq!(
        origin.requests("bearer").len(),
        requests,
        "a paused one is not visited once before its pause"
    );
    // Once more is the same, byte for byte, and nothing new.
    sources(&stack, &["export", "--with-secrets", "again.opml"]).await;
    assert_eq!(fs::read_to_string(stack.path("again.opml")).unwrap(), text);
    let (out, _) = sources(&stack, &["import", "again.opml"]).await;
    assert!(out.ends_with("0 new, 4 known already, 0 refused; nothing was changed\n"), "{out}");
}

#[tokio::test]
async fn an_export_without_secrets_names_what_it_left_out_and_keeps_the_rest() {
    let origin = Origin::start().await.unwrap();
    let stack = start(&origin).await;
    let (mut list, mut before) = (read_list(&stack), settings(&stack).await);
    let (text, told) = sources(&stack, &["export"]).await;
    assert!(!text.contains("SECRET"), "{text}");
    let told = told.join("\n");
    for expected in [
        "all: left out its headers and its proxy, which has a password; --with-secrets keeps secrets",
        "all: what is in its files (basic_file, cookie_file, tls_ca_file) is not exported; copy them",
        "bearer: what is in its files (bearer_file) is not exported; copy them",
        "user: left out the secrets of its url; --with-secrets keeps secrets",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    assert_eq!(told.lines().count(), 4, "and of no other source: {told}");

    let (same, _) = sources(&stack, &["export", "-"]).await;
    assert!(same == text && !stack.path("-").exists(), "- is standard output");
    fs::write(stack.path("public.opml"), &text).unwrap();
    import_into_an_empty_list(&stack, "public.opml").await;
    let all = list.get_mut("all").unwrap();
    (all.access.headers, all.access.proxy) = (Vec::new(), None);
    let user = list.get_mut("user").unwrap();
    user.url = without_secrets(user.url.secret());
    assert_eq!(read_list(&stack), list);
    let after = settings(&stack).await;
    before.get_mut("all").unwrap()["access"] =
        json!(["basic_file", "cookie_file", "user_agent", "tls_ca_file"]);
    before.get_mut("user").unwrap()["url"] = after["user"]["url"].clone();
    assert_eq!(after, before);
}

/// The address of the source `user` without its password and its key.
fn without_secrets(url: &url::Url) -> news::FeedUrl {
    let mut url = url.clone();
    url.set_username("").unwrap();
    url.set_password(None).unwrap();
    url.set_query(Some("page=2"));
    news::FeedUrl::try_new(url.as_str()).unwrap()
}

#[tokio::test]
async fn sources_with_one_address_and_other_keys_survive_an_export_and_an_import() {
    let origin = Origin::start().await.unwrap();
    let url = origin.add_feed("feed", DocumentFormat::Rss);
    let stack = TestStack::new(&[]).unwrap();
    let one = |id: &str, more: &str| format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\n{more}\n");
    let text = one("a", "headers = { X-K = \"1\" }") + &one("b", "headers = { X-K = \"2\" }") + &one("c", "");
    fs::write(stack.path("sources.toml"), &text).unwrap();
    let list = read_list(&stack);

    sources(&stack, &["export", "--with-secrets", "all.opml"]).await;
    let (_, told) = sources(&stack, &["export", "public.opml"]).await;
    let told = told.join("\n");
    for id in ["b", "c"] {
        assert!(
            told.contains(&format!("{id}: in this export it has the address and the request settings of a")),
            "{told}"
        );
    }
    for file in ["all.opml", "public.opml"] {
        let (out, _) = sources(&stack, &["import", file]).await;
        assert!(out.ends_with("0 new, 3 known already, 0 refused; nothing was changed\n"), "{file}: {out}");
    }
    fs::write(stack.path("sources.toml"), "").unwrap();
    sources(&stack, &["import", "all.opml"]).await;
    assert_eq!(read_list(&stack), list);

    fs::write(stack.path("sources.toml"), "").unwrap();
    let (out, _) = sources(&stack, &["import", "public.opml"]).await;
    assert!(out.ends_with("1 new, 2 known already, 0 refused\n"), "{out}");
    assert_eq!(out.matches("known already a: ").count(), 2, "each is named: {out}");
}
