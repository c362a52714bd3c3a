//! A gateway process over DPDK's ring devices, which need no hardware, no interface and no right
//! beyond a user's: its stats, its health, its signals, its last words.

mod schema;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

struct Gateway {
    folder: PathBuf,
    child: Child,
}

/// What differs between the gateways of these tests.
struct Site<'a> {
    name: &'a str,
    /// Device arguments.
    lan: &'a str,
    wan: &'a str,
    /// Last bytes of the own address and of the peer's.
    hosts: (u8, u8),
    own_key: &'a str,
    peer_key: &'a str,
    predictor: &'a str,
}

impl Gateway {
    /// A gateway that nobody is joined to.
    fn start(name: &str) -> Self {
        let folder = folder(name);
        Self::start_in(
            folder,
            &Site {
                name,
                lan: "net_ring0",
                wan: "net_ring1",
                hosts: (1, 2),
                own_key: "own.key",
                peer_key: "peer.key",
                predictor: "rack",
            },
        )
    }

    /// Two gateways over shared memory. One's LAN says the same frame for ever, the other's says
    /// whatever it is told.
    fn pair(name: &str) -> [Self; 2] {
        let (first, second) = (folder(&format!("{name}-a")), folder(&format!("{name}-b")));
        let socket = first.join("memif.sock");
        let frames = first.join("frames.pcap");
        fs::write(&frames, capture(&[0x5a; 200])).unwrap();
        let wan = |role| {
            let socket = socket.display();
            format!("net_memif0,role={role},socket={socket},socket-abstract=no")
        };
        let lan = format!("net_pcap0,rx_pcap={},infinite_rx=1", frames.display());
        let keys = ["a.key", "b.key"];
        let a = Site {
            name: "a",
            lan: &lan,
            wan: &wan("server"),
            hosts: (1, 2),
            own_key: keys[0],
            peer_key: keys[1],
            predictor: "rack",
        };
        let b = Site {
            name: "b",
            lan: "net_ring0",
            wan: &wan("client"),
            hosts: (2, 1),
            own_key: keys[1],
            peer_key: keys[0],
            predictor: "model",
        };
        let a = Self::start_in(first, &a);
        for key in keys {
            fs::copy(a.folder.join(key), second.join(key)).unwrap();
        }
        [a, Self::start_in(second, &b)]
    }

    /// Makes the keys that are not there yet, and starts a gateway.
    fn start_in(folder: PathBuf, site: &Site<'_>) -> Self {
        let run = |args: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_shardgate"))
                .args(args)
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        for key in [site.own_key, site.peer_key] {
            if !folder.join(key).exists() {
                run(&["keygen", "--out", key]);
            }
        }
        let public_key = run(&["pubkey", site.peer_key]);
        let config = config(site, public_key.trim(), &folder);
        fs::write(folder.join("gateway.toml"), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_shardgate"))
            .args(["run", "--config", "gateway.toml"])
            .current_dir(&folder)
            .env("XDG_RUNTIME_DIR", &folder)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut gateway = Self { folder, child };
        let deadline = Instant::now() + PATIENCE;
        while !gateway.stats().status.success() {
            let ended = gateway.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                panic!("it does not run: {ended:?}\n{}", gateway.words());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        gateway
    }

    /// `shardgate stats --json` of this gateway.
    fn stats(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_shardgate"))
            .args(["stats", "--json", "--config", "gateway.toml"])
            .current_dir(&self.folder)
            .output()
            .unwrap()
    }

    fn document(&self) -> Value {
        serde_json::from_slice(&self.stats().stdout).unwrap()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end: exit code, stdout, stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        let code = self.child.wait().unwrap().code();
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        (code, stdout, self.words())
    }

    fn words(&mut self) -> String {
        // A process that still runs would keep the pipe open.
        let _ = self.child.kill();
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr).unwrap();
        }
        stderr
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("shardgate-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn config(site: &Site<'_>, public_key: &str, folder: &Path) -> String {
    let Site {
        name,
        lan,
        wan,
        hosts: (own, peer),
        own_key,
        predictor,
        ..
    } = site;
    format!(
        "\
[node]
name = \"{name}\"
private_key_file = \"{own_key}\"
[dpdk]
hugepages = \"off\"
[pipeline]
crypto = \"inline\"
[[port]]
name = \"lan0\"
device = \"{lan}\"
role = \"lan\"
[[port]]
name = \"wan0\"
device = \"{wan}\"
role = \"wan\"
address = \"198.51.100.{own}/24\"
[[peer]]
name = \"peer\"
public_key = \"{public_key}\"
[[peer.path]]
port = \"wan0\"
remote = \"198.51.100.{peer}:4600\"
[tunnel]
predictor = \"{predictor}\"
held_frames_max = 64
reassembly_memory_mb = 1
retention_mb = 1
[stats]
listen = \"unix:{}/stats.sock\"
decisions_file = \"decisions.jsonl\"
",
        folder.display()
    )
}

/// A capture file (pcap) of one Ethernet frame with this payload, of a type for experiments.
fn capture(payload: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const ETHERNET: u32 = 1;
    let mut frame = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5].to_vec();
    frame.extend(payload);
    let length = frame.len() as u32;
    let mut file = [2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat();
    file.splice(0..0, MAGIC.to_ne_bytes());
    for word in [0, 0, 65_535, ETHERNET, 0, 0, length, length] {
        file.extend(word.to_ne_bytes());
    }
    file.extend(frame);
    file
}

impl Gateway {
    /// What `GET /decisions` answers.
    fn decisions(&self) -> Value {
        let mut stream = UnixStream::connect(self.folder.join("stats.sock")).unwrap();
        stream
            .write_all(b"GET /decisions HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        serde_json::from_str(body).unwrap()
    }

    /// `sim plan --replay` of a file in its folder: exit code, stdout, stderr.
    fn replay(&self, file: &str, more: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_shardgate"))
            .args(["sim", "plan", "--replay", file])
            .args(more)
            .current_dir(&self.folder)
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../stats.schema.json")).unwrap()
}

#[test]
fn a_gateway_shows_its_stats_and_ends_in_order() {
    let gateway = Gateway::start("ctl-stats");
    let document = gateway.document();
    assert_eq!(schema::violation(&schema(), &document), None);
    assert_eq!(document["node"]["name"], "ctl-stats");
    assert_eq!(document["sessions"][0]["state"], "handshake");
    assert_eq!(document["ports"][1]["name"], "wan0");
    // It looks for its peer.
    let deadline = Instant::now() + PATIENCE;
    while gateway.document()["network"]["arp_requests"].as_u64() == Some(0) {
        assert!(Instant::now() < deadline, "no ARP request");
        std::thread::sleep(Duration::from_millis(50));
    }
    let socket = gateway.folder.join("stats.sock");
    gateway.signal("HUP");
    // It says so at its next turn, and goes on.
    std::thread::sleep(Duration::from_millis(200));
    assert!(gateway.stats().status.success());
    gateway.signal("TERM");
    let (code, stdout, stderr) = gateway.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("SIGHUP: reading the configuration again is not supported yet"));
    let last: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(schema::violation(&schema(), &last), None);
    let pools = last["pools_at_exit"].as_array().unwrap();
    assert!(pools.len() >= 2);
    assert!(pools.iter().all(|pool| pool["in_use"] == 0), "{pools:?}");
    assert!(!socket.exists(), "its socket stays behind");
}

/// The members of an object, by name.
fn members(object: &Value) -> Vec<&String> {
    let mut members: Vec<_> = object.as_object().unwrap().keys().collect();
    members.sort();
    members
}

#[test]
fn gateways_with_traffic_show_what_the_schema_describes_and_nothing_else() {
    let pair = Gateway::pair("ctl-pair");
    let schema = schema();
    for (gateway, policy) in pair.iter().zip(["rack", "model"]) {
        let deadline = Instant::now() + PATIENCE;
        let document = loop {
            let document = gateway.document();
            let peer = &document["peers"][0];
            let seen = [
                &peer["streams_in"][0]["frames"],
                &peer["streams_out"][0]["feedback_sent"],
                &peer["path"]["rtt_count"],
            ];
            if seen.iter().all(|count| count.as_u64() > Some(0)) {
                break document;
            }
            assert!(
                Instant::now() < deadline,
                "no traffic, or no round trip: {peer}"
            );
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(schema::violation(&schema, &document), None);
        let peer = &document["peers"][0];
        let into = &peer["streams_in"][0];
        let predictor = &into["predictor"];
        assert_eq!(
            (&predictor["policy"], &predictor["deciding"]),
            (&policy.into(), &policy.into())
        );
        let model = &predictor["model"];
        assert_eq!(model.is_object(), policy == "model");
        let of_a_model = [
            ("model", model),
            ("reliability_bin", &model["reliability"][9]),
            ("expected", &model["expected"]),
            ("ratio_bin", &model["expected"]["ratio"][7]),
        ];
        let of_any = [
            ("path", &peer["path"]),
            ("stream_out", &peer["streams_out"][0]),
            ("path", &peer["streams_out"][0]["path"]),
            ("plan", &peer["streams_out"][0]["plan"]),
            ("stream_in", into),
            ("distribution", &into["recovery"]),
            ("predictor", predictor),
        ];
        let described = of_any
            .iter()
            .chain(of_a_model.iter().filter(|_| model.is_object()));
        for (name, object) in described {
            let described = &schema["$defs"][*name]["properties"];
            assert_eq!(members(object), members(described), "{name}");
            let required = schema["$defs"][*name]["required"].as_array().unwrap();
            assert_eq!(required.len(), members(described).len(), "{name}");
            for (member, described) in described.as_object().unwrap() {
                let words = described["description"].as_str().unwrap_or_default();
                assert!(words.ends_with('.'), "{name}.{member} is not described");
            }
        }
        assert!(document["drops"]["queue_control"].is_u64());
    }
    for gateway in pair {
        gateway.signal("TERM");
        let (code, stdout, stderr) = gateway.end();
        assert_eq!(code, Some(0), "{stderr}");
        let last: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(schema::violation(&schema, &last), None);
    }
}

/// One that has more frames than it can seal, and one that has none.
#[test]
fn a_unit_says_how_busy_it_is() {
    let [flooded, other] = Gateway::pair("ctl-load");
    let idle = Gateway::start("ctl-idle");
    let load = |gateway: &Gateway| gateway.document()["units"][0]["load_permille"].as_u64();
    let deadline = Instant::now() + PATIENCE;
    // As much of a CPU as the other tests leave it.
    while load(&flooded) < Some(250) {
        assert!(Instant::now() < deadline, "{:?}", load(&flooded));
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = load(&idle);
    assert!(found.is_some_and(|load| load < 100), "{found:?}");
    drop(other);
}

#[test]
fn each_change_of_a_plan_is_told_and_can_be_made_again() {
    let schema: Value = serde_json::from_str(include_str!("../decisions.schema.json")).unwrap();
    let [gateway, other] = Gateway::pair("ctl-decide");
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        let answer = gateway.decisions();
        assert_eq!(schema::violation(&schema, &answer), None);
        if !answer["decisions"].as_array().unwrap().is_empty() {
            break answer;
        }
        assert!(Instant::now() < deadline, "no plan");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(
        (&answer["node"]["name"], &answer["missed"]),
        (&"a".into(), &0.into())
    );
    let first = &answer["decisions"][0];
    assert_eq!(
        (&first["peer"], &first["stream"]),
        (&"peer".into(), &0.into())
    );
    assert_eq!(
        (&first["number"], &first["from"]["n"]),
        (&0.into(), &0.into())
    );
    // The stats tell of the file five times a second.
    while gateway.document()["decisions"]["written"].as_u64() == Some(0) {
        assert!(Instant::now() < deadline, "nothing is written");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gateway.document()["decisions"]["dropped"], 0);
    let file = gateway.folder.join("decisions.jsonl");
    let lines = fs::read_to_string(&file).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(lines.lines().next().unwrap()).unwrap(),
        *first
    );
    // What was saved by whatever means.
    fs::write(gateway.folder.join("answer.json"), answer.to_string()).unwrap();
    fs::write(gateway.folder.join("pretty.json"), format!("{answer:#}")).unwrap();
    for saved in ["decisions.jsonl", "answer.json", "pretty.json"] {
        let (code, stdout, stderr) = gateway.replay(saved, &[]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(
            stdout.contains("peer/0") && stdout.contains("nothing -> CLEAN"),
            "{stdout}"
        );
        assert!(
            stdout.contains(" of 1 stream: each replays to the same plan\n"),
            "{stdout}"
        );
        let (_, json, _) = gateway.replay(saved, &["--json"]);
        let report: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&report["different"], &report["decisions"][0]["verdict"]),
            (&0.into(), &"same".into())
        );
        assert_eq!(report["decisions"][0]["to"], first["to"]);
    }
    let limit = format!(
        "\"payload_max_bytes\":{}",
        first["inputs"]["limits"]["payload_max_bytes"]
    );
    let changed = lines.replacen(&limit, "\"payload_max_bytes\":1000", 1);
    fs::write(gateway.folder.join("changed.jsonl"), changed).unwrap();
    let (code, stdout, stderr) = gateway.replay("changed.jsonl", &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stdout.contains("DIFFERENT: ") && stdout.contains("shards of 1000 bytes"),
        "{stdout}"
    );
    assert!(
        stderr.starts_with("shardgate: changed.jsonl: 1 of "),
        "{stderr}"
    );
    fs::write(gateway.folder.join("cut.jsonl"), &lines[..lines.len() - 9]).unwrap();
    for (name, says) in [
        ("cut.jsonl", "cut off"),
        ("gateway.toml", "line 1: "),
        ("nowhere.jsonl", "name a gateway's decisions_file"),
        (".", "it is a folder"),
    ] {
        let (code, stdout, stderr) = gateway.replay(name, &["--json"]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(says) && stderr.contains(name), "{stderr}");
    }
    drop(other);
    gateway.signal("TERM");
    let (code, stdout, stderr) = gateway.end();
    assert_eq!(code, Some(0), "{stderr}");
    let last: Value = serde_json::from_str(&stdout).unwrap();
    let changes = last["peers"][0]["streams_out"][0]["plan_changes"].as_u64();
    assert_eq!(
        last["decisions"]["written"].as_u64(),
        changes,
        "none is lost"
    );
}

#[test]
fn sigint_ends_it_as_well() {
    let gateway = Gateway::start("ctl-sigint");
    gateway.signal("INT");
    let (code, stdout, stderr) = gateway.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(serde_json::from_str::<Value>(&stdout).is_ok());
}

#[test]
fn a_gateway_whose_log_nobody_reads_goes_on() {
    let mut gateway = Gateway::start("ctl-log");
    drop(gateway.child.stderr.take());
    gateway.signal("HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert!(gateway.stats().status.success());
    gateway.signal("TERM");
    let (code, stdout, _) = gateway.end();
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&stdout).is_ok());
}

#[test]
fn the_schema_refuses_what_is_not_a_stats_document() {
    let gateway = Gateway::start("ctl-schema");
    let good = gateway.document();
    assert_eq!(schema::violation(&schema(), &good), None);
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut wrong = good.clone();
        change(&mut wrong);
        assert_ne!(wrong, good, "nothing was changed");
        schema::violation(&schema(), &wrong).is_some()
    };
    assert!(refused(&|d| d["schema_version"] = 2.into()));
    assert!(refused(&|d| d["surplus"] = 1.into()));
    assert!(refused(&|d| d["drops"]["forged"] = (-1).into()));
    assert!(refused(&|d| d["drops"]["forged"] = "1".into()));
    assert!(refused(&|d| d["sessions"][0]["state"] = "fine".into()));
    assert!(refused(&|d| d["ports"][0]["link_up"] = 1.into()));
    assert!(refused(&|d| d["handshake"]["rejected"]["mac1"] = 0.5.into()));
    for key in good.as_object().unwrap().keys() {
        assert!(
            refused(&|d| drop(d.as_object_mut().unwrap().remove(key))),
            "{key}"
        );
    }
}
