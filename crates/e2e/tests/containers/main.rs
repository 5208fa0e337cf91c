//! Checks the container and Kubernetes files against what they refer to: files, programs, ports, routes, timeouts. No
//! container engine runs here: whether the image builds and a cluster accepts the manifest is not tested.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod scaled;

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use e2e::{Binary, ChildProcess, Origin, StartOptions, TestStack, scenario};
use serde_json::Value;

const DOCKERFILE: &str = include_str!("../../../../deploy/container/Dockerfile");
const COMPOSE: &str = include_str!("../../../../deploy/container/compose.yml");
const MANIFEST: &str = include_str!("../../../../deploy/kubernetes/newswire.yaml");
const IGNORED: &str = include_str!("../../../../.dockerignore");
const DEFAULTS: &str = include_str!("../../../../deploy/newswire.toml");
const OPENAPI: &str = include_str!("../../../gateway/src/openapi.json");

const PROGRAMS: [&str; 3] = ["newswire", "newswire-ingestd", "newswire-gateway"];
const HEALTHCHECK: [&str; 5] = ["newswire", "doctor", "--quick", "--pid", "1"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The instructions of the Dockerfile, each on one line.
fn instructions() -> Vec<String> {
    let joined = DOCKERFILE.replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn documents(manifest: &str) -> Vec<Value> {
    let part = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    manifest.split("\n---\n").map(part).collect()
}

fn document(kind: &str) -> Value {
    documents(MANIFEST)
        .into_iter()
        .find(|document| document["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

/// A default of the configuration: `key = value`.
fn default(key: &str) -> &'static str {
    let line = DEFAULTS.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
    // A comment may follow.
    line.split(" #").next().unwrap().trim_matches('"')
}

fn seconds(text: &str) -> u64 {
    text.strip_suffix('s').unwrap().parse().unwrap()
}

fn port() -> u64 {
    default("listen").rsplit_once(':').unwrap().1.parse().unwrap()
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn the_image_has_what_it_copies_and_runs_as_nonroot() {
    let all = instructions();
    for line in all.iter().filter(|l| l.starts_with("COPY ") && !l.contains("--from=")) {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{source} is copied and is not there");
            let shown = IGNORED.lines().filter_map(|l| l.strip_prefix('!'));
            assert!(shown.into_iter().any(|s| s == *source), "{source} is copied and ignored");
        }
    }
    let built = all.iter().find(|l| l.contains("cargo build")).unwrap();
    let copied = all.iter().find(|l| l.ends_with("/usr/bin/")).unwrap();
    for program in PROGRAMS {
        assert!(built.contains(&format!("-p {program} ")), "{program} is not built");
        assert!(copied.contains(&format!("/out/bin/{program} ")), "{program} is not in the image");
    }
    let version = include_str!("../../../../Cargo.toml")
        .lines()
        .find_map(|l| l.strip_prefix("rust-version = "))
        .unwrap();
    assert!(
        all[0].starts_with(&format!("FROM docker.io/library/rust:{}-bookworm", version.trim_matches('"')))
    );
    let last = all.iter().rposition(|l| l.starts_with("FROM ")).unwrap();
    assert!(all[last].starts_with("FROM gcr.io/distroless/") && all[last].ends_with(":nonroot"));
    assert!(!all[last..].iter().any(|l| l.starts_with("RUN ")), "there is no shell");
    assert!(all.contains(&"USER 65532:65532".to_owned()) && all.contains(&"STOPSIGNAL SIGTERM".to_owned()));
    assert!(all.contains(&format!("EXPOSE {}", port())));
    assert!(all.iter().any(|l| {
        l.ends_with(&format!("CMD {}", serde_json::to_string(&HEALTHCHECK).unwrap().replace(',', ", ")))
    }));
}

#[test]
fn environment_variables_of_the_image_are_configuration_keys() {
    let environment = instructions().into_iter().find(|l| l.starts_with("ENV ")).unwrap();
    let settings = environment.split_whitespace().skip(1).map(|s| s.split_once('=').unwrap());
    for (name, value) in settings {
        let key = name.strip_prefix("NEWSWIRE_").unwrap().split_once("__").unwrap().1.to_lowercase();
        default(&key);
        assert!(key != "listen" || value.ends_with(&format!(":{}", port())), "{value}");
    }
}

#[test]
fn the_compose_services_share_a_socket_and_outlive_the_drain() {
    let compose: Value = serde_saphyr::from_str(COMPOSE).unwrap();
    let services = compose["services"].as_object().unwrap();
    let names: BTreeSet<_> = services.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["gateway", "ingestd"]));
    let common = &compose["x-newswire"];
    assert_eq!(words(&common["healthcheck"]["test"])[1..], HEALTHCHECK);
    assert!(seconds(common["stop_grace_period"].as_str().unwrap()) > seconds(default("drain")));
    assert_eq!(common["read_only"], true);
    assert_eq!(words(&common["cap_drop"]), ["ALL"]);
    assert_eq!(words(&common["security_opt"]), ["no-new-privileges:true"]);
    assert!(
        root()
            .join("deploy/container")
            .join(common["build"]["context"].as_str().unwrap())
            .join("Cargo.toml")
            .exists()
    );
    assert!(root().join(common["build"]["dockerfile"].as_str().unwrap()).exists());
    for (name, service) in services {
        assert_eq!(words(&service["command"]), [format!("newswire-{name}")]);
        assert!(words(&service["volumes"]).contains(&"sockets:/run/newswire"), "{name}");
    }
    assert_ne!(services["ingestd"]["networks"], services["gateway"]["networks"]);
    assert_eq!(words(&services["gateway"]["ports"]), [format!("127.0.0.1:{0}:{0}", port())]);
}

#[test]
fn the_pod_has_both_daemons_and_probes_existing_routes() {
    let set = document("StatefulSet");
    assert_eq!(set["spec"]["replicas"], 1);
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(
        pod["enableServiceLinks"], false,
        "variables of services would be overrides of the configuration"
    );
    let openapi: Value = serde_json::from_str(OPENAPI).unwrap();
    let containers = pod["containers"].as_array().unwrap();
    for (container, name) in containers.iter().zip(["ingestd", "gateway"]) {
        assert_eq!(container["name"], name);
        assert_eq!(
            words(&container["command"]),
            [&*format!("newswire-{name}"), "--config", "/etc/newswire/newswire.toml"]
        );
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
        let mounted: Vec<_> = container["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["name"].as_str().unwrap())
            .collect();
        assert!(mounted.contains(&"sockets") && mounted.contains(&"config"), "{name}: {mounted:?}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]) {
            match probe["httpGet"]["path"].as_str() {
                Some(path) => assert!(openapi["paths"][path].is_object(), "{path} is not served"),
                None if probe.is_null() => {
                    assert_eq!(name, "ingestd", "only the gateway has a readiness probe")
                }
                None => assert_eq!(words(&probe["exec"]["command"]), HEALTHCHECK),
            }
        }
    }
    let gateway = &containers[1];
    assert_eq!(gateway["ports"][0]["containerPort"], port());
    assert_eq!(
        gateway["livenessProbe"]["httpGet"]["path"], "/health",
        "an unavailable daemon must not restart the gateway"
    );
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let before = gateway["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(grace > before + seconds(default("drain")));
    let (service, policy) = (document("Service"), document("NetworkPolicy"));
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels);
}

#[tokio::test]
async fn the_pods_configuration_is_valid_for_both_daemons() {
    let data = &document("ConfigMap")["data"];
    check_configuration(data["newswire.toml"].as_str().unwrap(), data["sources.toml"].as_str().unwrap())
        .await;
}

/// `newswire config check` must accept it.
async fn check_configuration(config: &str, sources: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [config, sources] = [("newswire.toml", config), ("sources.toml", sources)].map(|(name, text)| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    });
    let arguments = ["config", "check", "--config", &config, "--sources", &sources];
    let mut check = ChildProcess::start(Binary::Newswire, &arguments, folder.path()).unwrap();
    let (status, _) = check.wait_exit(Duration::from_secs(60)).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", check.log());
}

/// Runs `newswire doctor --quick` on a process of a stack; its exit code and output.
async fn quick_doctor(stack: &TestStack, pid: &str) -> (Option<i32>, String) {
    let config = stack.path("newswire.toml");
    let arguments = ["doctor", "--quick", "--pid", pid, "--config", config.to_str().unwrap()];
    let mut doctor =
        ChildProcess::start_with(&StartOptions::default(), Binary::Newswire, &arguments, stack.folder())
            .unwrap();
    let (status, _) = doctor.wait_exit(Duration::from_secs(60)).await.unwrap();
    (status.code(), doctor.log())
}

#[tokio::test]
async fn a_health_check_probes_the_process_of_its_own_container() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    origin.publish("feed-0", "Something");
    stack.start_both().await.unwrap();
    let pids = [Binary::Ingestd, Binary::Gateway].map(|p| stack.process(p).unwrap().id().to_string());
    for pid in &pids {
        let (code, output) = quick_doctor(&stack, pid).await;
        assert_eq!(code, Some(0), "with both running: {output}");
    }
    stack.kill(Binary::Gateway).unwrap();
    let (code, output) = quick_doctor(&stack, &pids[0]).await;
    assert_eq!(code, Some(0), "the daemon without a gateway: {output}");
    stack.start(Binary::Gateway).unwrap();
    stack.wait_ready().await.unwrap();
    let gateway = stack.process(Binary::Gateway).unwrap().id().to_string();
    stack.kill(Binary::Ingestd).unwrap();
    let (code, output) = quick_doctor(&stack, &gateway).await;
    assert_eq!(code, Some(0), "the gateway without its daemon: {output}");
    let (code, _) = quick_doctor(&stack, &pids[0]).await;
    assert_ne!(code, Some(0), "a process that is gone");
}
