//! The files for several machines: they must fit to each other, to the programs, and be accepted by NATS and HAProxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{log_line, nats_server_program, on_path};
use serde_json::Value;

use super::{HEALTHCHECK, OPENAPI, check_configuration, default, documents, port, root, seconds, words};

const COMPOSE: &str = include_str!("../../../../deploy/container/scaled/compose.yml");
const NATS: &str = include_str!("../../../../deploy/container/scaled/nats.conf");
const CONFIG: &str = include_str!("../../../../deploy/container/scaled/newswire.toml");
const HAPROXY: &str = include_str!("../../../../deploy/container/scaled/haproxy.cfg");
const SHIPPED_HAPROXY: &str = include_str!("../../../../deploy/haproxy/haproxy.cfg");
const SOURCES: &str = include_str!("../../../../deploy/sources.toml");
const MANIFEST: &str = include_str!("../../../../deploy/kubernetes/newswire-scaled.yaml");
const NATS_VALUES: &str = include_str!("../../../../deploy/kubernetes/nats-values.yaml");

const CONFIG_PATH: &str = "/etc/newswire/newswire.toml";

fn compose() -> Value {
    serde_saphyr::from_str(COMPOSE).unwrap()
}

/// The services whose names begin so.
fn services(prefix: &str) -> BTreeMap<String, Value> {
    let compose = compose();
    let all = compose["services"].as_object().unwrap();
    all.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(n, s)| (n.clone(), s.clone())).collect()
}

fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

fn list(table: &toml::Table, section: &str, key: &str) -> Vec<String> {
    table[section][key].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    values.into_iter().map(str::to_owned).collect()
}

/// The port after `listen:` or `http:` in the configuration of NATS; of `listen`, the first one is that for clients.
fn nats_port(key: &str) -> &'static str {
    let line = NATS.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: \"0.0.0.0:"))).unwrap();
    line.trim_end_matches('"')
}

#[test]
fn the_scaled_compose_file_runs_two_daemons_and_three_gateways_on_three_nats_servers() {
    let (nats, daemons, gateways) = (services("nats-"), services("ingestd-"), services("gateway-"));
    assert_eq!([nats.len(), daemons.len(), gateways.len()], [3, 2, 3]);
    let all = compose()["services"].as_object().unwrap().len();
    assert_eq!(all, 9, "and one balancer");
    for (program, services) in [("newswire-ingestd", &daemons), ("newswire-gateway", &gateways)] {
        for (name, service) in services {
            assert_eq!(words(&service["command"]), [program, "--config", CONFIG_PATH], "{name}");
            let check = words(&service["healthcheck"]["test"]);
            assert_eq!(check[1..], [&HEALTHCHECK[..], &["--config", CONFIG_PATH]].concat(), "{name}");
            assert!(words(&service["volumes"])[0].starts_with("./newswire.toml:"), "{name}");
            assert_eq!(service["read_only"], true, "{name}");
            assert!(seconds(service["stop_grace_period"].as_str().unwrap()) > seconds(default("drain")) + 10);
        }
    }
    let stores: BTreeSet<_> = daemons.values().map(|daemon| daemon["volumes"][1].as_str().unwrap()).collect();
    assert_eq!(stores.len(), daemons.len(), "each daemon has a store of its own: {stores:?}");
    let data: BTreeSet<_> = nats.values().map(|server| server["volumes"][1].as_str().unwrap()).collect();
    assert_eq!(data.len(), nats.len(), "{data:?}");
    for (name, server) in &nats {
        assert_eq!(server["environment"]["NATS_SERVER_NAME"], name.as_str());
        assert!(words(&server["healthcheck"]["test"]).last().unwrap().contains(nats_port("http")));
    }
    let build = &compose()["x-newswire"]["build"];
    let folder = root().join("deploy/container/scaled").join(build["context"].as_str().unwrap());
    assert!(folder.join(build["dockerfile"].as_str().unwrap()).exists());
}

#[tokio::test]
async fn the_configuration_of_the_scaled_compose_file_names_its_servers_and_is_valid() {
    check_configuration(CONFIG, SOURCES).await;
    let config = table(CONFIG);
    assert!(!config["ingestd"]["share_group"].as_str().unwrap().is_empty(), "the daemons share one list");
    let nats = services("nats-");
    assert_eq!(config["wire"]["nats_replicas"].as_integer(), i64::try_from(nats.len()).ok());
    for (key, scheme, port) in
        [("nats_urls", "nats", nats_port("listen")), ("nats_monitor_urls", "http", nats_port("http"))]
    {
        let expected: BTreeSet<_> = nats.keys().map(|name| format!("{scheme}://{name}:{port}")).collect();
        assert_eq!(list(&config, "wire", key).into_iter().collect::<BTreeSet<_>>(), expected);
    }
    let secret = config["wire"]["nats_nkey_file"].as_str().unwrap().strip_prefix("/run/secrets/").unwrap();
    assert!(compose()["secrets"][secret].is_object(), "{secret}");
    let front = |service: &Value| service["networks"]["front"]["ipv4_address"].as_str().unwrap().to_owned();
    let balancer = services("haproxy");
    assert_eq!(list(&config, "gateway", "trusted_proxies"), [front(&balancer["haproxy"])]);
    let routes = NATS.lines().find(|line| line.trim().starts_with("routes:")).unwrap();
    assert!(nats.keys().all(|name| routes.contains(&format!("nats://{name}:"))), "{routes}");
    let gateways = services("gateway-");
    let expected = gateways.values().map(|gateway| format!("{}:{}", front(gateway), port()));
    assert_eq!(servers(HAPROXY), expected.collect::<BTreeSet<_>>());
}

/// The addresses of the servers of a configuration of HAProxy.
fn servers(config: &str) -> BTreeSet<String> {
    let lines = config.lines().filter_map(|line| line.trim().strip_prefix("server "));
    lines.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
}

/// Its backends: each line of a server as one of the first server, and without what only TLS and pages of other origins need.
fn backends(config: &str) -> BTreeSet<String> {
    let (_, text) = config.split_once("\nbackend ").unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let only_there = ["readers", "Vary", "txn.origin"];
    let lines = lines.filter(|line| !only_there.iter().any(|word| line.contains(word)));
    let first = |line: &str| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        if words[0] == "server" {
            let name = words[1].replacen(['b', 'c'], "a", 1);
            let tracked = words.last().unwrap().replace("/b", "/a").replace("/c", "/a");
            *words.last_mut().unwrap() = if words.len() > 3 { &tracked } else { "-" };
            words[2] = "-";
            words[1] = &name;
            return words.join(" ");
        }
        words.join(" ")
    };
    lines.map(first).collect()
}

#[test]
fn the_scaled_haproxy_has_the_backends_of_the_shipped_one() {
    assert_eq!(backends(HAPROXY), backends(SHIPPED_HAPROXY));
    assert!(backends(HAPROXY).len() > 15, "{:#?}", backends(HAPROXY));
}

fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root().join("deploy/container/scaled"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program:?} {arguments:?}: {said}");
}

#[test]
fn nats_and_haproxy_accept_the_scaled_configuration() {
    if let Some(program) = nats_server_program() {
        let user = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
        let environment = [("NATS_SERVER_NAME", "nats-1"), ("NATS_USER", user)];
        run(&program, &["-t", "-c", "nats.conf"], &environment);
    }
    let place = PathBuf::from("/usr/sbin/haproxy");
    match on_path("haproxy").or_else(|| place.exists().then_some(place)) {
        Some(program) => run(&program, &["-c", "-f", "haproxy.cfg"], &[]),
        None => log_line("SKIPPED: haproxy is not installed; its scaled configuration was not tested"),
    }
}

/// The documents of the manifest with this kind, by their name.
fn of_kind(kind: &str) -> BTreeMap<String, Value> {
    let named = |document: Value| (document["metadata"]["name"].as_str().unwrap().to_owned(), document);
    documents(MANIFEST).into_iter().filter(|document| document["kind"] == kind).map(named).collect()
}

#[test]
fn the_scaled_pods_run_the_programs_probe_existing_routes_and_outlive_the_drain() {
    let openapi: Value = serde_json::from_str(OPENAPI).unwrap();
    let config = &of_kind("ConfigMap")["newswire"]["data"]["newswire.toml"];
    let drain = table(config.as_str().unwrap())["gateway"]["drain"].as_str().unwrap().to_owned();
    let (daemons, gateways) = (of_kind("StatefulSet"), of_kind("Deployment"));
    let all = daemons.iter().chain(&gateways);
    for (name, set) in all {
        let (spec, pod) = (&set["spec"], &set["spec"]["template"]["spec"]);
        let labels = &spec["template"]["metadata"]["labels"];
        assert_eq!(&spec["selector"]["matchLabels"], labels, "{name}");
        assert_eq!(
            &of_kind("PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"],
            labels,
            "{name}"
        );
        assert_eq!(&of_kind("NetworkPolicy")[name]["spec"]["podSelector"]["matchLabels"], labels, "{name}");
        let service = if name == "newswire-gateway" { "newswire" } else { name.as_str() };
        assert_eq!(&of_kind("Service")[service]["spec"]["selector"], labels, "{name}");
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        let spread = &pod["topologySpreadConstraints"][0];
        assert_eq!(&spread["labelSelector"]["matchLabels"], labels, "{name}");
        let [container] = &pod["containers"].as_array().unwrap()[..] else { panic!("{name}") };
        assert_eq!(words(&container["command"]), [name.as_str(), "--config", CONFIG_PATH]);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
        let [volumes, mounts] = [&pod["volumes"], &container["volumeMounts"]].map(|list| {
            let names = list.as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap());
            texts(names)
        });
        let claims = spec["volumeClaimTemplates"].as_array().into_iter().flatten();
        let claims = texts(claims.map(|claim| claim["metadata"]["name"].as_str().unwrap()));
        assert_eq!(mounts, volumes.union(&claims).cloned().collect(), "{name}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]) {
            match (probe["httpGet"]["path"].as_str(), probe.is_null()) {
                (Some(path), _) => assert!(openapi["paths"][path].is_object(), "{path} is not served"),
                (None, true) => assert_eq!(name, "newswire-ingestd", "only gateways have a readiness probe"),
                (None, false) => {
                    let check = words(&probe["exec"]["command"]);
                    assert_eq!(check, [&HEALTHCHECK[..], &["--config", CONFIG_PATH]].concat());
                }
            }
        }
    }
    let gateway = &gateways["newswire-gateway"]["spec"]["template"]["spec"];
    let container = &gateway["containers"][0];
    assert_eq!(container["ports"][0]["containerPort"], port());
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/health");
    let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(gateway["terminationGracePeriodSeconds"].as_u64().unwrap() > before + seconds(&drain));
    let daemon = &daemons["newswire-ingestd"]["spec"];
    assert!(
        daemon["replicas"].as_u64() > Some(1)
            && gateways["newswire-gateway"]["spec"]["replicas"].as_u64() > Some(1)
    );
    assert!(daemon["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].is_string());
}

#[tokio::test]
async fn the_scaled_pods_configuration_is_valid_and_names_the_servers_of_the_chart() {
    let data = &of_kind("ConfigMap")["newswire"]["data"];
    let text = data["newswire.toml"].as_str().unwrap();
    check_configuration(text, data["sources.toml"].as_str().unwrap()).await;
    let (config, values) = (table(text), serde_saphyr::from_str::<Value>(NATS_VALUES).unwrap());
    let (cluster, monitor) = (&values["config"]["cluster"], &values["config"]["monitor"]);
    assert_eq!((&cluster["enabled"], &monitor["enabled"]), (&Value::Bool(true), &Value::Bool(true)));
    let count = cluster["replicas"].as_u64().unwrap();
    assert_eq!(config["wire"]["nats_replicas"].as_integer(), i64::try_from(count).ok());
    let monitors: Vec<_> =
        (0..count).map(|n| format!("http://nats-{n}.nats-headless:{}", monitor["port"])).collect();
    assert_eq!(list(&config, "wire", "nats_monitor_urls"), monitors);
    let (folder, file) = config["wire"]["nats_nkey_file"].as_str().unwrap().rsplit_once('/').unwrap();
    assert!(MANIFEST.contains(&format!("--from-file={file}")), "the secret has this file");
    assert!(MANIFEST.contains(&format!("mountPath: {folder}, ")), "it is mounted there");
}
