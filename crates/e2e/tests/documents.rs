//! The documents against the tree: links and anchors lead somewhere; tests, paths, configuration keys and metrics that a
//! text names exist; the README is short, and its table of crates is the workspace.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const README_LINES_MAX: usize = 200;
const STEPS: usize = 14;
/// Where the package puts documents.
const SHIPPED: &str = "usr/share/doc/newswire/";
/// A code span of this many words joined by underscores is the name of a test, unless it is one of a metric.
const TEST_NAME_WORDS_MIN: usize = 5;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files of the repository, also new ones, by a pattern of git; relative to the root.
fn files(pattern: &str) -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", pattern])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = listed.lines().filter(|path| root().join(path).exists()).map(str::to_owned).collect();
    assert!(!files.is_empty(), "git lists no {pattern}");
    files
}

/// What a Markdown file consists of, as far as this test compares it.
#[derive(Default)]
struct Document {
    /// What can follow `#` in a link to it.
    anchors: BTreeSet<String>,
    /// Text and target.
    links: Vec<(String, String)>,
    code_spans: Vec<String>,
}

impl Document {
    fn parse(markdown: &str) -> Self {
        let mut document = Self::default();
        let mut fenced = false;
        let mut prose = String::new();
        for line in markdown.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                if let Some(title) = line.strip_prefix('#') {
                    document.add_heading(title.trim_start_matches('#').trim());
                }
                prose += line;
                prose.push('\n');
            }
        }
        assert!(!fenced, "a code block has no end");
        let ids = prose.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        document.anchors.extend(ids.map(str::to_owned));
        for (at, _) in prose.match_indices("](") {
            let text = prose[..at].rsplit('[').next().unwrap().to_owned();
            let target = prose[at + 2..].split(')').next().unwrap().to_owned();
            document.links.push((text, target));
        }
        document.code_spans =
            prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect();
        document
    }

    /// The anchor that GitHub makes of a title: lower case, without punctuation, a hyphen for each space.
    fn add_heading(&mut self, title: &str) {
        let mut text = String::new();
        let mut in_tag = false;
        for c in title.chars() {
            match c {
                '<' => in_tag = true,
                '>' => in_tag = false,
                ' ' if !in_tag => text.push('-'),
                c if !in_tag && (c.is_alphanumeric() || c == '-' || c == '_') => {
                    text.extend(c.to_lowercase())
                }
                _ => {}
            }
        }
        self.anchors.insert(text);
    }
}

fn documents() -> BTreeMap<String, Document> {
    let parse = |path: String| {
        let document = Document::parse(&read(&path));
        (path, document)
    };
    files("*.md").into_iter().map(parse).collect()
}

/// The target of a link in `from`, relative to the root.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let path = root().join(from).parent().unwrap().join(target).canonicalize().ok()?;
    Some(path.strip_prefix(root()).ok()?.display().to_string())
}

#[test]
fn every_link_and_anchor_of_every_document_leads_somewhere() {
    let documents = documents();
    let mut dead = Vec::new();
    let mut count = 0;
    for (path, document) in &documents {
        for (_, target) in &document.links {
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let Some(file) = resolve(path, file) else {
                dead.push(format!("{path}: {target} does not exist"));
                continue;
            };
            let known = documents.get(&file).is_some_and(|document| document.anchors.contains(anchor));
            if !anchor.is_empty() && !known {
                dead.push(format!("{path}: {file} has no anchor #{anchor}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(count > 80, "only {count} links were found");
}

#[test]
fn every_runbook_of_an_alert_is_shipped_and_has_its_anchor() {
    let rules = read("deploy/prometheus/newswire-rules.yml");
    let manifest = read("crates/newswire/Cargo.toml");
    let mut count = 0;
    for url in rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")) {
        let shipped = url.strip_prefix("file:///").and_then(|path| path.split_once('#'));
        let (path, anchor) = shipped.unwrap_or_else(|| panic!("{url} names no shipped file and anchor"));
        let name = path.strip_prefix(SHIPPED).unwrap_or_else(|| panic!("{url} is not in /{SHIPPED}"));
        let asset = manifest
            .lines()
            .filter(|line| line.contains(&format!("/{name}\"")) && line.contains(&format!("\"{SHIPPED}\"")))
            .find_map(|line| line.split('"').nth(1))
            .unwrap_or_else(|| panic!("the package does not ship {name}"));
        let document = Document::parse(&read(&format!("crates/newswire/{asset}")));
        assert!(document.anchors.contains(anchor), "{name} has no anchor #{anchor}");
        count += 1;
    }
    assert_eq!(count, rules.matches("- alert: ").count(), "every alert has a runbook");
}

#[test]
fn every_document_that_the_package_ships_exists() {
    let manifest = read("crates/newswire/Cargo.toml");
    let shipped =
        manifest.lines().filter_map(|line| line.split('"').nth(1)).filter(|file| file.ends_with(".md"));
    let missing: Vec<_> =
        shipped.filter(|file| !root().join("crates/newswire").join(file).is_file()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_test_that_a_document_names_exists() {
    let code: BTreeMap<_, _> = files("*.rs").into_iter().map(|path| (path.clone(), read(&path))).collect();
    let defines = |code: &str, name: &str| code.contains(&format!("fn {name}("));
    let mut wrong = Vec::new();
    for (path, document) in documents() {
        for (text, target) in &document.links {
            let name = text.trim_matches('`');
            if is_test_name(name) && target.ends_with(".rs") {
                let file = resolve(&path, target).unwrap_or_default();
                if !code.get(&file).is_some_and(|code| defines(code, name)) {
                    wrong.push(format!("{path}: {name} is not in {target}"));
                }
            }
        }
        for name in document.code_spans.iter().filter(|span| is_test_name(span)) {
            if !code.values().any(|code| defines(code, name)) {
                wrong.push(format!("{path}: no test has the name {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn is_test_name(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    !text.starts_with("newswire_")
        && text.split('_').count() >= TEST_NAME_WORDS_MIN
        && text.split('_').all(is_word)
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut missing = Vec::new();
    for (path, document) in documents() {
        let named = document.code_spans.iter().filter_map(|span| span.split_whitespace().next());
        let in_tree =
            |name: &&str| ["scripts/", "crates/", "deploy/", ".ci/"].iter().any(|top| name.starts_with(top));
        for name in named.filter(in_tree) {
            let is_pattern = name.contains(['*', '{', '<']) || name.bytes().any(|b| b.is_ascii_uppercase());
            if !is_pattern && !root().join(name).exists() {
                missing.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_configuration_key_that_a_document_names_exists() {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in read("deploy/newswire.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{section}.{key}"));
        }
    }
    assert!(keys.len() > 30, "{keys:?}");
    let sections: BTreeSet<_> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let mut unknown = Vec::new();
    for (path, document) in documents() {
        for span in &document.code_spans {
            let Some((section, key)) = span.split_once('.') else { continue };
            let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let is_file = ["toml", "rs", "md", "yml", "json", "sock", "blackbox"].contains(&key);
            if sections.contains(section) && is_key && !is_file && !keys.contains(span) {
                unknown.push(format!("{path}: {span}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_metric_that_a_document_names_is_in_the_table() {
    let table = read("deploy/prometheus/METRICS.md");
    let mut unknown = Vec::new();
    for (path, document) in documents() {
        let is_metric = |span: &&String| {
            let name =
                span.strip_prefix("newswire_gateway_").or_else(|| span.strip_prefix("newswire_ingestd_"));
            name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        };
        let missing = document
            .code_spans
            .iter()
            .filter(is_metric)
            .filter(|name| !table.contains(&format!("| `{name}` |")));
        unknown.extend(missing.map(|name| format!("{path}: {name}")));
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines, more than {README_LINES_MAX}");
}

#[test]
fn the_table_of_crates_is_the_workspace() {
    let crates: BTreeMap<_, _> = files("crates/*/Cargo.toml")
        .iter()
        .filter_map(|path| path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
        .filter(|name| !name.contains('/'))
        .map(|name| (name.to_owned(), read(&format!("crates/{name}/Cargo.toml"))))
        .collect();
    let uses = |manifest: &str| -> BTreeSet<String> {
        let (_, section) = manifest.split_once("\n[dependencies]\n").unwrap_or_default();
        let names = section.lines().take_while(|line| !line.starts_with('['));
        let names = names.filter_map(|line| line.split(['.', ' ', '=']).next());
        names.filter(|name| crates.contains_key(*name)).map(str::to_owned).collect()
    };
    let expected: BTreeMap<_, _> =
        crates.iter().map(|(name, manifest)| (name.clone(), uses(manifest))).collect();

    let readme = read("README.md");
    let (_, table) = readme.split_once("| crate | its job | uses, of ours |").expect("README has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let listed: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_start_matches('[').split(']').next().unwrap();
            let uses = cells[3].split_whitespace().filter(|name| *name != "nothing").map(str::to_owned);
            (name.to_owned(), uses.collect())
        })
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn each_file_of_the_life_of_an_item_names_its_step() {
    let readme = Document::parse(&read("README.md"));
    let text = read("README.md");
    let (_, life) = text.split_once("**The life of an item**").expect("README has the list");
    let mut wrong = Vec::new();
    for step in 1..=STEPS {
        let line = life
            .lines()
            .find(|line| line.starts_with(&format!("{step}. ")))
            .expect("the list has every step");
        let file = readme
            .links
            .iter()
            .map(|(_, target)| target)
            .find(|target| line.contains(&format!("]({target})")));
        let file = file.expect("a step names its file");
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        let head = source.lines().next().unwrap_or_default().to_lowercase();
        let named = head
            .split("step ")
            .skip(1)
            .any(|rest| rest.split(|c: char| !c.is_ascii_digit()).next() == Some(&step.to_string()));
        if !named {
            wrong.push(format!("{step}. {file}: {head:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
