//! A gateway process over DPDK's ring devices, which need no hardware, no interface and no right
//! beyond a user's: its stats, its health, its signals, its last words.

mod schema;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

struct Gateway {
    folder: PathBuf,
    child: Child,
}

impl Gateway {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("shardgate-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let run = |args: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_shardgate"))
                .args(args)
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["keygen", "--out", "own.key"]);
        run(&["keygen", "--out", "peer.key"]);
        let peer = run(&["pubkey", "peer.key"]);
        let config = format!(
            "\
[node]
name = \"{name}\"
private_key_file = \"own.key\"
[dpdk]
hugepages = \"off\"
[pipeline]
crypto = \"inline\"
[[port]]
name = \"lan0\"
device = \"net_ring0\"
role = \"lan\"
[[port]]
name = \"wan0\"
device = \"net_ring1\"
role = \"wan\"
address = \"192.0.2.1/24\"
[[peer]]
name = \"peer\"
public_key = \"{}\"
[[peer.path]]
port = \"wan0\"
remote = \"192.0.2.2:4600\"
[tunnel]
held_frames_max = 64
reassembly_memory_mb = 1
[stats]
listen = \"unix:{}/stats.sock\"
",
            peer.trim(),
            folder.display()
        );
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
