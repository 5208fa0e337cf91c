//! Promises to the operator about the configuration.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::PathBuf;
use std::time::Duration;

use control::ControlSocket;
use daemon::config::{self, Config, FetchSection, Loaded, LogFormat};
use notation::Complaint;

/// A file with the given text in a folder of its own.
fn file(text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newswire.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Vec<Complaint>> {
    let (_folder, path) = file(text);
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load(Some(&path), environment).map_err(|complaints| complaints.list().to_vec())
}

/// The complaints about a file, as `line key: message`.
fn complaints(text: &str) -> Vec<String> {
    let shown = |c: Complaint| format!("{} {}: {}", c.line.unwrap(), c.key, c.message);
    load_with(text, &[]).map(|loaded| loaded.config).unwrap_err().into_iter().map(shown).collect()
}

#[test]
fn the_commented_file_says_the_same_as_no_file() {
    let loaded = load_with(&config::default_file(), &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.show().iter().all(|shown| shown.origin != "default"), "the file names every key");
}

#[test]
fn the_shipped_file_is_the_commented_file() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/newswire.toml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(shipped, config::default_file()).unwrap();
    }
    let bytes = std::fs::read_to_string(shipped).unwrap();
    assert_eq!(
        bytes,
        config::default_file(),
        "run this test with UPDATE=1 to write deploy/newswire.toml anew"
    );
}

#[test]
fn every_mistake_in_a_file_is_reported_at_once_with_its_line() {
    let text = r#"daemon = 5
[fetch]
intervall_min = "5m"
interval_max = 24
host_spacing = "1 second"
host_in_flight = 0
in_flight = "256"
timeout_total = "2h"
body_bytes_max = -1
allow = [
  "10.0.0.0/8",
  "10.0.0.0/33",
  "intranet",
  7,
]
listen = "127.0.0.1:8700"

[gatewai]
listen = "localhost"

[gateway]
listen = "localhost:8700"
cors_origins = ["*", "https://example.org/", "https://*.example.org"]
cors_credentials = "yes"
clients_max = 99999999999999999999999999
hosts = "news.example.org"
public_url = "news.example.org"

[wire]
transport = "redis"

[log]
level = "inof"
format = "jsn"
"#;
    let found = complaints(text);
    let expected = [
        "1 daemon: is a section",
        "3 fetch.intervall_min: unknown key; did you mean `interval_min`?",
        "4 fetch.interval_max: expected a duration such as \"30s\", found the integer 24",
        "5 fetch.host_spacing: `1 second` is not a duration; write it like",
        "6 fetch.host_in_flight: 0 is outside 1 to 1024",
        "7 fetch.in_flight: expected an integer without quotes, found the string \"256\"",
        "8 fetch.timeout_total: 2h is outside 10ms to 1h",
        "9 fetch.body_bytes_max: -1 is outside 1024 to",
        "12 fetch.allow: `10.0.0.0/33`: a prefix has at most 32 bits here",
        "13 fetch.allow: `intranet` is not a network",
        "14 fetch.allow: expected a string in the list, found the integer 7",
        "16 fetch.listen: unknown key; did you mean `gateway.listen`?",
        "18 gatewai: unknown section; did you mean `gateway`?",
        "22 gateway.listen: `localhost:8700` is not an address with a port; write it like `127.0.0.1:8700`",
        "23 gateway.cors_origins: `*` is not an origin",
        "23 gateway.cors_origins: `https://example.org/` is not an origin",
        "23 gateway.cors_origins: `https://*.example.org` is not an origin",
        "24 gateway.cors_credentials: expected true or false without quotes, found the string \"yes\"",
        "25 gateway.clients_max: 99999999999999999999999999 is outside 1 to 1000000",
        "26 gateway.hosts: expected a list of strings, found the string \"news.example.org\"",
        "27 gateway.public_url: `news.example.org` is not a web address",
        "30 wire.transport: `redis` is not one of local, nats",
        "33 log.level: `inof` is not a level",
        "34 log.format: `jsn` is not one of auto, text, json, journald; did you mean `json`?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "\n   found {found}\nexpected {expected}");
    }
}

#[test]
fn a_syntax_error_hides_neither_another_one_nor_a_wrong_value() {
    let text = "[fetch]\ninterval_min = 5m\nhost_in_flight = 0\ninterval_max = \"24h\n[gateway\nworkers = 1\n\
                [log]\nlevel = \"info\"\nlevel = \"warn\"\nlevl = \"info\"\nx y = 1\n= 5\nformat =\nc = 1\n";
    let found = complaints(text);
    let lines: Vec<&str> = found.iter().map(|c| c.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["2", "3", "4", "5", "9", "10", "11", "12", "13", "14"], "{found:#?}");
    assert!(found[0].contains("in `interval_min = 5m`"), "{found:#?}");
}

#[test]
fn a_switch_is_true_or_false_and_an_origin_has_no_usual_port() {
    let text = "[gateway]\ncors_origins = [\"https://Reader.example:443\", \"http://a.example:8080\"]\n\
                cors_credentials = true\n";
    let loaded = load_with(text, &[]).unwrap();
    assert!(loaded.config.gateway.cors_credentials);
    assert_eq!(loaded.config.gateway.cors_origins, ["https://reader.example", "http://a.example:8080"]);
    let variable = [("NEWSWIRE_GATEWAY__CORS_CREDENTIALS", "false")];
    assert!(!load_with(text, &variable).unwrap().config.gateway.cors_credentials);
    assert!(load_with(text, &[("NEWSWIRE_GATEWAY__CORS_CREDENTIALS", "1")]).is_err());
    assert!(complaints("[gateway]\ncors_credentials = 1\n")[0].contains("found the integer 1"));
}

#[test]
fn a_duration_may_be_written_in_several_units() {
    let text = "[fetch]\ninterval_min = \"1h30m\"\n";
    let loaded = load_with(text, &[("NEWSWIRE_FETCH__HOST_SPACING", "1m30s")]).unwrap();
    assert_eq!(loaded.config.fetch.interval_min, Duration::from_secs(5_400));
    assert_eq!(loaded.config.fetch.host_spacing, Duration::from_secs(90));
}

#[test]
fn no_content_of_a_file_makes_the_reader_panic() {
    let odd = "[fetch]\nallow = [[\"x\"], {}, 1.5, true, 1979-05-27]";
    for text in
        ["\0", "[", "[[", "=", "\"", "'''", "a.b.c=1", odd, "[[fetch]]", "fetch.allow.x = 1", "\u{1f600} = 1"]
    {
        assert!(load_with(text, &[]).is_err(), "{text}");
    }
    for deep in ["[", "a=[", "a={b=", "[[a]]\n", "a.", "a b\n"] {
        assert!(load_with(&deep.repeat(10_000), &[]).is_err(), "{deep}");
    }
    assert!(load_with("", &[]).is_ok());
}

#[test]
fn a_key_outside_its_section_is_reported_with_the_right_section() {
    assert_eq!(
        complaints("listen = \"127.0.0.1:1\"\n"),
        ["1 listen: unknown key outside a section; did you mean `gateway.listen`?"]
    );
}

#[test]
fn values_that_contradict_each_other_are_reported_where_they_were_written() {
    let found = complaints("[fetch]\ninterval_min = \"48h\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("2 fetch.interval_min: fetch.interval_max (24h) is shorter than"),
        "{found:?}"
    );
    let found = complaints("[fetch]\ninterval_min = \"2h\"\ninterval_max = \"1h\"\n");
    assert!(found[0].starts_with("3 fetch.interval_max: "), "{found:?}");
    let found = complaints("[fetch]\ninterval_min = \"1x\"\ninterval_max = \"1m\"\n");
    assert_eq!(found.len(), 1, "a refused value contradicts nothing: {found:?}");
}

#[test]
fn public_categories_and_jwt_keys_need_a_file_of_tokens_or_keys() {
    let readers = "public_categories = [\"sport\"]\njwt_issuer = \"i\"\njwt_audience = \"a\"\n";
    let found = complaints(&format!("[gateway]\n{readers}"));
    assert_eq!(found.len(), 3, "{found:#?}");
    for (found, expected) in found.iter().zip([
        "2 gateway.public_categories: everything is public without",
        "3 gateway.jwt_issuer: has no effect without gateway.jwks_file",
        "4 gateway.jwt_audience: has no effect without gateway.jwks_file",
    ]) {
        assert!(found.starts_with(expected), "\n   found {found}\nexpected {expected}");
    }
    let loaded = load_with(&format!("[gateway]\njwks_file = \"j\"\n{readers}"), &[]).unwrap();
    let gateway = loaded.config.gateway;
    assert_eq!((gateway.jwt_issuer.as_deref(), gateway.jwt_audience.as_deref()), (Some("i"), Some("a")));
    assert_eq!(gateway.public_categories, ["sport"]);
    let found = complaints(
        "[gateway]\nread_tokens_file = \"t\"\njwt_categories_claim = \"\"\npublic_categories = [\n\"a b\"]\n",
    );
    assert!(found[0].starts_with("3 gateway.jwt_categories_claim: expected a text"), "{found:#?}");
    assert!(found[1].starts_with("5 gateway.public_categories: `a b` is not a category"), "{found:#?}");
}

#[test]
fn an_unreadable_file_is_one_complaint_that_names_it() {
    for (text, place) in
        [(&b"[log]\nlevel = \"\xff\"\n"[..], "newswire.toml:2"), (&[b' '; 1_100_000], "newswire.toml")]
    {
        let (_folder, path) = file(text);
        let found = config::load(Some(&path), []).unwrap_err();
        assert_eq!(found.list().len(), 1);
        assert!(found.list()[0].location().ends_with(place), "{found}");
    }
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent.toml"), folder.path().to_path_buf()] {
        let found = config::load(Some(&path), []).unwrap_err().to_string();
        assert!(found.starts_with(&format!("{}: cannot read the configuration", path.display())), "{found}");
    }
}

#[test]
fn the_file_is_chosen_by_flag_then_by_variable() {
    let (_a, flag) = file("[log]\nlevel = \"warn\"\n");
    let (_b, named) = file("[log]\nlevel = \"error\"\n");
    let environment = || [("NEWSWIRE_CONFIG".to_owned(), named.display().to_string())];
    let loaded = config::load(None, environment()).unwrap();
    assert_eq!((loaded.config.log.level.as_str(), loaded.file.as_ref()), ("error", Some(&named)));
    let loaded = config::load(Some(&flag), environment()).unwrap();
    assert_eq!((loaded.config.log.level.as_str(), loaded.file.as_ref()), ("warn", Some(&flag)));
}

#[test]
fn the_environment_overrides_the_file_and_says_so() {
    let loaded = load_with(
        "[fetch]\ninterval_min = \"1m\"\nhost_in_flight = 3\n",
        &[
            ("NEWSWIRE_FETCH__INTERVAL_MIN", "250ms"),
            ("NEWSWIRE_FETCH__ALLOW", "127.0.0.0/8, ::1"),
            ("NEWSWIRE_GATEWAY__LISTEN", "127.0.0.1:0"),
            ("NEWSWIRE_LOG__FORMAT", "json"),
            ("NEWSWIRE_CORPUS", "/some/where"),
            ("NEWSWIRE_TOKEN_FILE", "/some/where"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.config.fetch.interval_min, Duration::from_millis(250));
    assert_eq!(loaded.config.fetch.host_in_flight, 3);
    assert_eq!(loaded.config.fetch.allow, ["127.0.0.0/8", "::1/128"]);
    assert_eq!(loaded.config.gateway.listen.port(), 0);
    assert_eq!(loaded.config.log.format, LogFormat::Json);
    let shown = loaded.show();
    let origin = |key: &str| shown.iter().find(|s| s.key == key).unwrap().origin.clone();
    assert_eq!(origin("fetch.interval_min"), "env:NEWSWIRE_FETCH__INTERVAL_MIN");
    assert!(origin("fetch.host_in_flight").ends_with("newswire.toml:3"));
    assert_eq!(origin("fetch.in_flight"), "default");
}

#[test]
fn ports_are_written_as_integers() {
    let ports = |text: &str, environment: &[(&str, &str)]| {
        let loaded = load_with(text, environment);
        loaded.map(|loaded| {
            let shown = loaded.show();
            let value = shown.iter().find(|shown| shown.key == "fetch.ports").unwrap().value.clone();
            (loaded.config.fetch.ports.clone(), value)
        })
    };
    assert_eq!(ports("", &[]).unwrap(), (vec![80, 443], "[80, 443]".to_owned()));
    let written = "[fetch]\nports = [443, 0x50, 8_443]";
    assert_eq!(ports(written, &[]).unwrap(), (vec![443, 80, 8443], "[443, 80, 8443]".to_owned()));
    let variable = ("NEWSWIRE_FETCH__PORTS", "80, 8080");
    assert_eq!(ports(written, &[variable]).unwrap(), (vec![80, 8080], "[80, 8080]".to_owned()));
    assert_eq!(ports("[fetch]\nports = []", &[]).unwrap(), (Vec::new(), "[]".to_owned()));
    for (wrong, named) in [
        ("[0]", "0"),
        ("[65536]", "65536"),
        ("[-80]", "-80"),
        ("[\"80\"]", "`80`"),
        ("[80.0]", "a float"),
        ("[[80]]", "a list"),
    ] {
        let mistakes = ports(&format!("[fetch]\nports = {wrong}"), &[]).unwrap_err();
        let message =
            format!("fetch.ports: {named} is not a port; write an integer from 1 to 65535 without quotes");
        assert!(mistakes[0].to_string().contains(&message), "{}", mistakes[0]);
    }
    let mistakes = ports("[fetch]\nports = 80", &[]).unwrap_err();
    assert!(mistakes[0].to_string().contains("expected a list of integers, found the integer 80"));
    assert!(ports("", &[("NEWSWIRE_FETCH__PORTS", "http")]).is_err());
}

#[test]
fn mistakes_in_variables_are_reported_together_with_those_of_the_file() {
    let found = load_with(
        "[log]\nlevl = \"info\"\n",
        &[
            ("NEWSWIRE_FETCH__INTERVAL_MN", "1s"),
            ("NEWSWIRE_FETCH__IN_FLIGHT", "many"),
            ("NEWSWIRE_FETCH__ALLOW", "a,b"),
            ("NEWSWIRE_DEBUG", "1"),
        ],
    )
    .unwrap_err();
    let shown: Vec<String> = found.iter().skip(1).map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "env:NEWSWIRE_DEBUG: unknown variable",
            "env:NEWSWIRE_FETCH__ALLOW: fetch.allow: `a` is not a network; write it like `10.1.0.0/16`, `fd00::/8` or \
             `192.0.2.7`",
            "env:NEWSWIRE_FETCH__ALLOW: fetch.allow: `b` is not a network; write it like `10.1.0.0/16`, `fd00::/8` or \
             `192.0.2.7`",
            "env:NEWSWIRE_FETCH__INTERVAL_MN: unknown variable; did you mean `NEWSWIRE_FETCH__INTERVAL_MIN`?",
            "env:NEWSWIRE_FETCH__IN_FLIGHT: fetch.in_flight: `many` is not a whole number",
        ]
    );
}

#[test]
fn the_command_line_overrides_everything_or_changes_nothing() {
    let mut loaded = load_with("[gateway]\nlisten = \"127.0.0.1:1\"\n", &[]).unwrap();
    loaded.set("gateway.listen", "[::1]:80", "--listen").unwrap();
    assert_eq!(loaded.config.gateway.listen, "[::1]:80".parse().unwrap());
    let before = loaded.config.clone();
    for (key, value) in [
        ("gateway.listen", "80"),
        ("gateway.liste", "127.0.0.1:1"),
        ("listen", "127.0.0.1:1"),
        ("fetch.interval_max", "1s"),
    ] {
        let complaint = loaded.set(key, value, "--flag").unwrap_err();
        assert_eq!((complaint.place.as_str(), complaint.key.as_str()), ("--flag", key));
    }
    assert_eq!(loaded.config, before);
    let shown = loaded.show();
    let listen = shown.iter().find(|s| s.key == "gateway.listen").unwrap();
    assert_eq!((listen.value.as_str(), listen.origin.as_str()), ("\"[::1]:80\"", "--listen"));
}

#[test]
fn show_can_be_read_back_and_hides_passwords() {
    let loaded = load_with(
        "[daemon]\nrun_dir = 'C:\\a \"b\"@c'\n[wire]\nnats_urls = [\"nats://u:secret@h:4222\"]\n\
         nats_monitor_urls = [\"https://u:secret@h:8222/nats\"]\n[fetch]\n\
         proxy = \"socks5://u:secret@h:1080\"\n",
        &[("NEWSWIRE_FETCH__USER_AGENT", "wire (+https://example.org/@us)")],
    )
    .unwrap();
    let mut text = String::new();
    for shown in loaded.show() {
        let (section, key) = shown.key.split_once('.').unwrap();
        text.push_str(&format!("{section}.{key} = {}\n", shown.value));
    }
    assert!(!text.contains("secret"), "{text}");
    let again = load_with(&text, &[]).unwrap().config;
    assert_eq!(again.wire.nats_urls, ["nats://***@h:4222"]);
    assert_eq!(again.wire.nats_monitor_urls, ["https://***@h:8222/nats"]);
    assert_eq!(again.fetch.proxy.as_deref(), Some("socks5://***@h:1080"));
    let fetch = FetchSection { proxy: loaded.config.fetch.proxy.clone(), ..again.fetch.clone() };
    assert_eq!(Config { wire: loaded.config.wire.clone(), fetch, ..again }, loaded.config);
}

#[test]
fn no_complaint_repeats_a_password() {
    for value in ["\"nats://u:secret@h\"", "[\"nats://u:secret@h\"", "[\"http://u:secret@h\"]"] {
        let found = complaints(&format!("[wire]\nnats_urls = {value}\n"));
        assert!(!found.is_empty() && found.iter().all(|c| !c.contains("secret")), "{found:?}");
    }
    for value in ["nats://u:secret@h:4222", "http://u:secret@h/?q", "https://u:secret@", "u:secret@h:8222"] {
        let found = complaints(&format!("[wire]\nnats_monitor_urls = [{value:?}]\n"));
        assert!(found.len() == 1 && !found[0].contains("secret"), "{found:?}");
    }
    for value in [
        "\"ftp://u:secret@h\"",
        "\"socks4://u:secret@h\"",
        "\"http://u:secret@h/path\"",
        "\"http://u:secret@h:99999\"",
        "\"u:secret@h:3128\"",
        "[\"http://u:secret@h\"]",
    ] {
        let found = complaints(&format!("[fetch]\nproxy = {value}\n"));
        assert!(found.len() == 1 && !found[0].contains("secret"), "{found:?}");
    }
}

#[test]
fn a_complaint_stays_on_one_line_whatever_the_file_has() {
    let text = "[fetch]\n\"a\\nb\\u001b\" = 1\nhost_spacing = \"1\\n2\\u009b\\u202e\"\n";
    let (_folder, path) = file(text);
    let shown = config::load(Some(&path), []).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{shown:?}");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_no_harm() {
    let loaded = load_with("\u{feff}[log]\r\nlevel = \"warn\"\r\n", &[]).unwrap();
    assert_eq!(loaded.config.log.level, "warn");
}

#[test]
fn a_gateway_with_its_own_admin_directory_still_finds_the_ingestion_daemon() {
    let load = |text: &str| load_with(text, &[]).unwrap().config;
    let paths =
        |config: &Config| ControlSocket::ALL.map(|socket| config.socket(socket).display().to_string());
    let one = load("[daemon]\nrun_dir = \"/run/n\"\n");
    let expected = ["/run/n/ingestd.sock", "/run/n/ingestd-admin.sock", "/run/n/gateway-admin.sock"];
    assert_eq!(paths(&one), expected);
    let second = load("[daemon]\nrun_dir = \"/run/n\"\n[gateway]\nadmin_dir = \"/run/b\"\n");
    assert_eq!(paths(&second), [expected[0], expected[1], "/run/b/gateway-admin.sock"]);
    let long = format!("[gateway]\nadmin_dir = \"/{}\"\n", "x".repeat(88));
    assert!(complaints(&long)[0].contains("too long for sockets"), "{:?}", complaints(&long));
}

#[test]
fn a_word_for_the_proxy_of_one_source_is_refused_with_what_to_write_instead() {
    for word in ["direct", "DIRECT"] {
        let found = complaints(&format!("[fetch]\nproxy = \"{word}\"\n"));
        let message = &found[0];
        assert!(found.len() == 1 && message.contains("write `\"\"` or leave the key out"), "{message}");
    }
    let found = complaints("[fetch]\nproxy = \"ftp://proxy.example\"\n");
    assert!(found[0].contains("is not a proxy"), "{found:?}");
}
