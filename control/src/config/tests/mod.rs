//! Every key, every default, and what is said about everything that is wrong.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering as Atomic};
use std::time::Duration;

use shardgate_core::endpoint::RepairMode;
use shardgate_core::predict::{Fixed, Policy, Rack};
use shardgate_dataplane::config::{CryptoPlacement, Ordering, PollMode, PortRole};

use super::machine::Interface;
use super::*;

/// A folder with keys; gone with the test.
struct Folder {
    path: PathBuf,
    own: [u8; 32],
    peer: [u8; 32],
}

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Atomic::Relaxed);
        let name = format!("shardgate-config-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let mut folder = Self {
            path,
            own: [0; 32],
            peer: [0; 32],
        };
        folder.own = folder.key("gw-a.key");
        folder.peer = folder.key("gw-b.key");
        folder.key("psk.key");
        folder
    }

    /// Writes a private key file; its public key comes back.
    fn key(&self, name: &str) -> [u8; 32] {
        let key = keys::generate().unwrap();
        keys::write_new(&self.path.join(name), &key).unwrap();
        keys::public(&key)
    }

    /// A good configuration, which tests change in one place.
    fn good(&self) -> String {
        format!(
            "\
[node]
name = \"gw-a\"
[[port]]
name = \"lan0\"
device = \"net_af_packet0,iface=lan0\"
role = \"lan\"
[[port]]
name = \"wan0\"
device = \"net_af_packet1,iface=wan0\"
role = \"wan\"
address = \"10.9.0.1/24\"
[[peer]]
name = \"gw-b\"
public_key = \"{}\"
[[peer.path]]
port = \"wan0\"
remote = \"10.9.0.2:4600\"
",
            keys::to_text(&self.peer)
        )
    }

    fn check_on(&self, text: &str, machine: &Machine) -> Result<Settings, ConfigError> {
        let source = Source::new(&self.path.join("gw-a.toml"), text.into());
        let settings = check(&source, machine)?;
        check_site(&source, &settings, machine)?;
        Ok(settings)
    }

    /// What is noted about a good configuration.
    fn notes(&self, text: &str, machine: &Machine) -> Notes {
        let source = Source::new(&self.path.join("gw-a.toml"), text.into());
        let settings = check(&source, machine).unwrap_or_else(|error| panic!("{error}"));
        check_site(&source, &settings, machine).unwrap_or_else(|error| panic!("{error}"))
    }

    fn check(&self, text: &str) -> Result<Settings, ConfigError> {
        self.check_on(text, &machine())
    }

    /// The error, without the folder.
    fn error(&self, text: &str) -> String {
        match self.check(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => self.shown(&error),
        }
    }

    fn shown(&self, error: &ConfigError) -> String {
        let text = error.to_string();
        assert!(!text.contains('\n'), "more than one line: {text}");
        text.replace(&format!("{}/", self.path.display()), "")
    }

    /// The error after one replacement in the good configuration.
    fn replaced(&self, old: &str, new: &str) -> String {
        let good = self.good();
        assert!(good.contains(old), "{old}");
        self.error(&good.replacen(old, new, 1))
    }

    /// The error after adding lines.
    fn added(&self, lines: &str) -> String {
        self.error(&format!("{}{lines}\n", self.good()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn machine() -> Machine {
    let interface = |mtu| Interface {
        mtu,
        is_up: mtu.map(|_| true),
    };
    Machine {
        interfaces: BTreeMap::from([
            ("lan0".into(), interface(Some(1500))),
            ("wan0".into(), interface(Some(1500))),
            ("jumbo0".into(), interface(Some(9000))),
            ("old0".into(), interface(None)),
        ]),
        pci: Some(["0000:01:00.0".into()].into()),
        capabilities: Some(u64::MAX),
        addresses: vec![[127, 0, 0, 1].into(), [10, 9, 0, 77].into()],
        host_name: Some("host".into()),
    }
}

#[test]
fn defaults() {
    let folder = Folder::new();
    let settings = folder
        .check(&folder.good())
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.node, "gw-a");
    assert_eq!(keys::public(&settings.private_key), folder.own);
    assert_eq!(settings.hugepages, Hugepages::Auto);
    assert_eq!(settings.listen, Listen::Tcp(([127, 0, 0, 1], 9460).into()));
    assert_eq!(
        settings.wans,
        [WanSettings {
            port: 1,
            address: [10, 9, 0, 1].into(),
            prefix_len: 24,
            gateway: None
        }]
    );
    assert_eq!(settings.peers[0].remote, Some(([10, 9, 0, 2], 4600).into()));
    assert_eq!(*settings.peers[0].preshared_key, [0; 32]);
    assert_eq!(settings.peers[0].public_key, folder.peer);
    assert_eq!(settings.peers[0].port, 1);
    let engine = &settings.engine;
    assert!(engine.file_prefix.starts_with("shardgate-gw-a-"));
    assert_eq!(engine.ports[0].role, PortRole::Lan);
    assert_eq!(engine.ports[0].mtu, 1500);
    assert_eq!(engine.peers[0].lan, 0);
    assert!(engine.peers[0].mss_clamp);
    let pipeline = &engine.pipeline;
    assert_eq!(pipeline.lcores, None);
    assert_eq!(pipeline.rx_lcores, None);
    assert_eq!(pipeline.crypto_lcores, None);
    assert_eq!(pipeline.crypto, None);
    assert_eq!(pipeline.poll, None);
    assert_eq!(pipeline.memory_mb, None);
    assert!(pipeline.extra_eal_args.is_empty());
    let tunnel = &engine.tunnel;
    assert_eq!(tunnel.listen_port, 4600);
    assert_eq!(tunnel.flows, None);
    assert_eq!(tunnel.shards, (1, 64));
    assert_eq!(tunnel.ordering, Ordering::Lane);
    assert_eq!(tunnel.policy, Policy::Rack(Rack::default()));
    assert_eq!(tunnel.interactive_hold, Duration::from_millis(5));
    assert_eq!(tunnel.bulk_hold, None);
    assert!(tunnel.retransmit && tunnel.queue_control);
    assert_eq!(tunnel.repair, RepairMode::Auto);
    assert_eq!(tunnel.overhead_limit, 0.25);
    assert_eq!(tunnel.retention_bytes, 32 << 20);
    assert_eq!(tunnel.held_frames_max, 16384);
    assert_eq!(tunnel.reassembly_memory_bytes, 64 << 20);
    assert!(tunnel.checksum);
}

#[test]
fn every_key_that_is_built() {
    let folder = Folder::new();
    let text = format!(
        "\
[node]
name = \"gw-a\"
private_key_file = \"gw-a.key\"
[dpdk]
lcores = \"0-3\"
hugepages = \"required\"
memory_mb = 512
poll = \"adaptive\"
extra_eal_args = [\"--log-level=lib.eal:8\"]
[pipeline]
rx_lcores = [1]
crypto = \"lcores\"
crypto_lcores = [2, 3]
units = [\"auto\"]
[[port]]
name = \"lan0\"
device = \"net_af_packet0,iface=jumbo0\"
role = \"lan\"
mtu = 9000
[[port]]
name = \"wan0\"
device = \"0000:01:00.0\"
role = \"wan\"
mtu = 1400
address = \"10.9.0.1/24\"
gateway = \"10.9.0.254\"
[[peer]]
name = \"gw-b\"
public_key = \"{}\"
preshared_key_file = \"psk.key\"
mode = \"l2\"
lan = \"lan0\"
mss_clamp = false
[[peer.path]]
name = \"isp1\"
port = \"wan0\"
remote = \"192.0.2.7:4700\"
roam = false
flows = 4
[tunnel]
listen_port = 4700
ordering = \"none\"
predictor = \"fixed:7ms\"
shards = {{ min = 2, max = 8 }}
repair = \"off\"
retransmit = false
interactive_hold_ms = 1
bulk_hold_ms = 30
held_frames_max = 1000
overhead_limit = 0.5
retention_mb = 16
reassembly_memory_mb = 16
queue_control = false
checksum = false
state_file = \"learned.state\"
[stats]
listen = \"unix:/run/shardgate.sock\"
decisions_file = \"plans.jsonl\"
record_file = \"arrivals.rec\"
",
        keys::to_text(&folder.peer)
    );
    let settings = folder
        .check(&text)
        .unwrap_or_else(|error| panic!("{error}"));
    let recorded = settings.record_file.as_deref();
    assert_eq!(
        recorded.and_then(Path::file_name),
        Some("arrivals.rec".as_ref())
    );
    let decided = settings.decisions_file.as_deref();
    assert_eq!(
        decided.and_then(Path::file_name),
        Some("plans.jsonl".as_ref())
    );
    let learned = settings.state_file.as_deref();
    assert_eq!(
        learned.and_then(Path::file_name),
        Some("learned.state".as_ref())
    );
    let engine = &settings.engine;
    assert_eq!(engine.pipeline.lcores.as_deref(), Some(&[0, 1, 2, 3][..]));
    assert_eq!(engine.pipeline.rx_lcores.as_deref(), Some(&[1][..]));
    assert_eq!(engine.pipeline.crypto_lcores.as_deref(), Some(&[2, 3][..]));
    assert_eq!(engine.pipeline.crypto, Some(CryptoPlacement::Lcores));
    assert_eq!(engine.pipeline.poll, Some(PollMode::Adaptive));
    assert_eq!(engine.pipeline.memory_mb, Some(512));
    assert_eq!(engine.pipeline.extra_eal_args, ["--log-level=lib.eal:8"]);
    assert_eq!(settings.hugepages, Hugepages::Required);
    assert_eq!(engine.ports[0].mtu, 9000);
    assert_eq!(settings.wans[0].gateway, Some([10, 9, 0, 254].into()));
    assert!(!engine.peers[0].mss_clamp);
    assert_ne!(*settings.peers[0].preshared_key, [0; 32]);
    assert_eq!(
        settings.peers[0].remote,
        Some(([192, 0, 2, 7], 4700).into())
    );
    let tunnel = &engine.tunnel;
    assert_eq!(tunnel.flows, Some(4));
    assert_eq!(tunnel.shards, (2, 8));
    assert_eq!(tunnel.ordering, Ordering::None);
    assert_eq!(
        tunnel.policy,
        Policy::Fixed(Fixed(Duration::from_millis(7)))
    );
    assert_eq!(tunnel.interactive_hold, Duration::from_millis(1));
    assert_eq!(tunnel.bulk_hold, Some(Duration::from_millis(30)));
    assert!(!tunnel.retransmit && !tunnel.queue_control);
    assert_eq!(tunnel.repair, RepairMode::Off);
    assert_eq!(tunnel.overhead_limit, 0.5);
    assert_eq!(tunnel.retention_bytes, 16 << 20);
    assert_eq!(tunnel.held_frames_max, 1000);
    assert_eq!(tunnel.reassembly_memory_bytes, 16 << 20);
    assert!(!tunnel.checksum);
    assert_eq!(settings.listen, Listen::Unix("/run/shardgate.sock".into()));
}

/// Every key with the value that it will have by default, less the predictor, whose own is not
/// built.
#[test]
fn the_defaults_of_the_finished_gateway_are_accepted() {
    let folder = Folder::new();
    let text = include_str!("defaults.toml").replace("PUBLIC_KEY", &keys::to_text(&folder.peer));
    let settings = folder
        .check(&text)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.engine.tunnel.bulk_hold, None);
}

#[test]
fn repair_is_a_rate_and_a_window() {
    let folder = Folder::new();
    let repair = |text: &str| {
        let tunnel = format!("[tunnel]\nrepair = \"{text}\"\noverhead_limit = 1\n");
        let settings = folder.check(&(folder.good() + &tunnel));
        settings.map(|settings| settings.engine.tunnel.repair)
    };
    let fixed = |every, window| RepairMode::Fixed { every, window };
    assert_eq!(repair("auto").unwrap(), RepairMode::Auto);
    assert_eq!(repair("1/8@32").unwrap(), fixed(8, 32));
    assert_eq!(repair("1/8").unwrap(), fixed(8, 32));
    assert_eq!(repair("1/64").unwrap(), fixed(64, 192));
    assert_eq!(repair("1/1@16").unwrap(), fixed(1, 16));
    for wrong in [
        "1/0", "1/8@4", "1/1@17", "1/32@193", "2/8", "1/+8", "1/8@", "",
    ] {
        let error = repair(wrong).expect_err(wrong).to_string();
        assert!(error.contains("1/S@W"), "{error}");
    }
}

#[test]
fn a_plan_of_repair_fits_the_limit_or_is_refused() {
    let folder = Folder::new();
    let is_accepted = |every: u32, limit: &str| {
        let tunnel = format!("[tunnel]\nrepair = \"1/{every}\"\noverhead_limit = {limit}\n");
        folder.check(&(folder.good() + &tunnel)).is_ok()
    };
    for (every, limit) in [(4, "0.25"), (1, "1"), (3, "0.33"), (2, "0.5"), (7, "0.14")] {
        assert!(is_accepted(every, limit), "1/{every} of {limit}");
    }
    for (every, limit) in [(3, "0.25"), (1, "0.9"), (2, "0.4"), (192, "0"), (3, "0.3")] {
        assert!(!is_accepted(every, limit), "1/{every} of {limit}");
    }
    // What is advised is accepted.
    for every in 1..=192 {
        let tunnel = format!("[tunnel]\nrepair = \"1/{every}\"\noverhead_limit = 0\n");
        let error = folder.added(&tunnel);
        let limit = error.split("or overhead_limit = ").nth(1).unwrap();
        assert!(is_accepted(every, limit), "{error}");
    }
    // Repair by measured loss takes what it gets.
    folder
        .check(&(folder.good() + "[tunnel]\noverhead_limit = 0\n"))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn files_to_be_written_have_a_place() {
    let folder = Folder::new();
    let at = |key: &str, path: &str| {
        let (section, key) = key.split_once('.').unwrap();
        format!("{}[{section}]\n{key} = \"{path}\"\n", folder.good())
    };
    let record = "stats.record_file";
    std::fs::write(folder.path.join("old.rec"), "old").unwrap();
    for path in ["new.rec", "old.rec"] {
        for key in [record, "stats.decisions_file"] {
            assert!(folder.check(&at(key, path)).is_ok(), "{key} {path}");
        }
        assert!(folder.check(&at("tunnel.state_file", path)).is_ok());
    }
    let old = std::fs::read(folder.path.join("old.rec")).unwrap();
    assert_eq!(old, b"old", "looking at it changes nothing");
    assert!(!folder.path.join("new.rec").exists());
    // Nothing about the state stops a gateway, it is only noted; and what is there is looked at
    // when it is read.
    for (path, notes) in [("no/such.state", 1), ("new.state", 0), ("old.rec", 0)] {
        let notes_ = folder.notes(&at("tunnel.state_file", path), &machine());
        assert_eq!(notes_.warnings.len(), notes, "{path}");
    }
}

#[test]
fn what_is_no_file_is_no_configuration() {
    let folder = Folder::new();
    let pipe = folder.path.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [&pipe, Path::new("/dev/zero")] {
        let Err(error) = read(path) else {
            panic!("{} is read", path.display())
        };
        assert!(error.message.contains("not a regular file: name"));
        let key = format!("private_key_file = \"{}\"", path.display());
        let error = folder.replaced("name = \"gw-a\"", &key);
        assert!(error.contains("not a regular file"), "{error}");
    }
}

#[test]
fn a_peer_without_an_address_is_learned() {
    let folder = Folder::new();
    let text = folder.good().replace("remote = \"10.9.0.2:4600\"", "");
    assert_eq!(
        folder
            .check(&text)
            .map(|s| s.peers[0].remote)
            .ok()
            .flatten(),
        None
    );
    assert!(folder.check(&text).is_ok());
}

#[test]
fn what_the_reader_of_toml_refuses() {
    let folder = Folder::new();
    let unknown = folder.added("[tunnel]\nlisten_prt = 1");
    assert!(
        unknown.starts_with("gw-a.toml:19: tunnel.listen_prt: no key is called `listen_prt`"),
        "{unknown}"
    );
    assert!(unknown.contains("`listen_port`"), "{unknown}");
    let unknown = folder.replaced("role = \"lan\"", "role = \"lan\"\nrolle = 1");
    assert!(
        unknown.starts_with("gw-a.toml:7: port[0].rolle: no key is called `rolle`"),
        "{unknown}"
    );
    let twice = folder.added("[tunnel]\nlisten_port = 1\nlisten_port = 2");
    assert!(twice.starts_with("gw-a.toml:20: "), "{twice}");
    assert!(twice.contains("duplicate key"), "{twice}");
    let wrong = folder.added("[tunnel]\nlisten_port = 70000");
    assert!(
        wrong.starts_with("gw-a.toml:19: tunnel.listen_port: invalid value"),
        "{wrong}"
    );
    let wrong = folder.added("[tunnel]\nlisten_port = \"x\"");
    assert!(
        wrong.starts_with("gw-a.toml:19: tunnel.listen_port: invalid type"),
        "{wrong}"
    );
    assert!(folder.error("[node\n").starts_with("gw-a.toml:1: "));
}

fn assert_names(error: &str, line: u32, key: &str, what: &str, remedy: &str) {
    let start = format!("gw-a.toml:{line}: {key}: ");
    assert!(
        error.starts_with(&start),
        "{error}\nshould start with {start}"
    );
    assert!(error.contains(what), "{error}\nshould say {what}");
    assert!(error.contains(remedy), "{error}\nshould advise {remedy}");
}

#[test]
fn wrong_values_are_named_with_line_key_and_remedy() {
    let folder = Folder::new();
    let lines = include_str!("wrong.txt").lines();
    let mut tried = 0;
    for line in lines.filter(|line| !line.starts_with('#')) {
        let line = line.replace("\\n", "\n");
        let fields: Vec<_> = line.split(" | ").collect();
        let &[old, new, number, key, what, remedy] = fields.as_slice() else {
            panic!("not six fields: {line}");
        };
        let error = if old.is_empty() {
            folder.added(new)
        } else {
            folder.replaced(old, new)
        };
        assert_names(&error, number.parse().unwrap(), key, what, remedy);
        tried += 1;
    }
    assert!(tried > 80, "{tried}");
}

#[test]
fn key_files_must_be_private_and_whole() {
    let folder = Folder::new();
    let file = folder.path.join("gw-a.key");
    let set_mode = |mode| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for mode in [0o640, 0o604, 0o601, 0o777] {
        set_mode(mode);
        let error = folder.error(&folder.good());
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.contains("chmod 600"), "{error}");
        assert!(error.contains("gw-a.key"), "{error}");
    }
    set_mode(0o400);
    assert!(folder.check(&folder.good()).is_ok());
    set_mode(0o600);
    for (content, what) in [
        ("", "0 characters"),
        ("short", "5 characters"),
        (&"A".repeat(43), "43 characters"),
        (&"A".repeat(500), "characters"),
    ] {
        std::fs::write(&file, content).unwrap();
        let error = folder.error(&folder.good());
        assert!(
            error.starts_with("gw-a.toml:1: node.private_key_file: "),
            "{error}"
        );
        assert!(error.contains(what) && error.contains("keygen"), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(folder.error(&folder.good()).contains("not a regular file"));
}

#[test]
fn peers_must_differ_from_us_and_from_each_other() {
    let folder = Folder::new();
    let (own, peer) = (keys::to_text(&folder.own), keys::to_text(&folder.peer));
    let error = folder.replaced(&peer, &own);
    assert_names(&error, 14, "peer[0].public_key", "own public key", "peer's");

    let second = |name: &str, key: &str, lan: &str, remote: &str| {
        folder.added(&format!(
            "[[port]]\nname = \"lan1\"\nrole = \"lan\"\ndevice = \"net_tap0\"\n[[peer]]\nname = \"{name}\"\n\
             public_key = \"{key}\"\nlan = \"{lan}\"\n[[peer.path]]\nport = \"wan0\"\nremote = \"{remote}\""
        ))
    };
    let other = keys::to_text(&folder.key("gw-c.key"));
    // With two LAN ports the first peer has to name its own.
    let error = second("gw-c", &other, "lan1", "10.9.0.3:4600");
    assert!(error.contains("peer[0].lan: missing"), "{error}");

    let good = folder
        .good()
        .replace("name = \"gw-b\"", "name = \"gw-b\"\nlan = \"lan0\"");
    let second = |name: &str, key: &str, lan: &str, remote: &str| {
        let text = format!(
            "{good}[[port]]\nname = \"lan1\"\nrole = \"lan\"\ndevice = \"net_tap0\"\n[[peer]]\nname = \"{name}\"\n\
             public_key = \"{key}\"\nlan = \"{lan}\"\n[[peer.path]]\nport = \"wan0\"\nremote = \"{remote}\"\n"
        );
        folder
            .check(&text)
            .err()
            .map(|error| folder.shown(&error))
            .unwrap_or_default()
    };
    assert_eq!(second("gw-c", &other, "lan1", "10.9.0.3:4600"), "");
    let error = second("gw-b", &other, "lan1", "10.9.0.3:4600");
    assert_names(&error, 24, "peer[1].name", "also peer[0]", "own name");
    let error = second("gw-c", &peer, "lan1", "10.9.0.3:4600");
    assert_names(&error, 25, "peer[1].public_key", "peer[0]", "its own");
    let error = second("gw-c", &other, "lan0", "10.9.0.3:4600");
    assert_names(
        &error,
        26,
        "peer[1].lan",
        "joined to that LAN port",
        "another port",
    );
    let error = second("gw-c", &other, "lan1", "10.9.0.2:4600");
    assert_names(
        &error,
        29,
        "peer[1].path[0].remote",
        "same address",
        "correct",
    );
}

#[test]
fn missing_sections_are_named() {
    let folder = Folder::new();
    let error = folder.error("[node]\nname = \"gw-a\"\n");
    assert_eq!(
        error,
        "gw-a.toml: port: missing: a gateway needs a [[port]] with role = \"lan\" and one with role = \"wan\""
    );
    let good = folder.good();
    let (front, _) = good.split_once("[[peer]]").unwrap();
    assert!(folder.error(front).starts_with("gw-a.toml: peer: missing"));
    let (front, _) = good.split_once("[[peer.path]]").unwrap();
    let error = folder.error(front);
    assert!(
        error.starts_with("gw-a.toml:12: peer[0].path: missing"),
        "{error}"
    );
    let error = folder.added("[[peer.path]]\nport = \"wan0\"");
    assert!(
        error.starts_with("gw-a.toml:18: peer[0].path[1]: more than one path"),
        "{error}"
    );
}

#[test]
fn the_host_gives_the_node_its_name_if_it_has_a_usable_one() {
    let folder = Folder::new();
    folder.key("host.key");
    folder.key("shardgate.key");
    let text = folder.good().replace("name = \"gw-a\"\n", "");
    let name = |host: Option<&str>| {
        let machine = Machine {
            host_name: host.map(Into::into),
            ..machine()
        };
        folder
            .check_on(&text, &machine)
            .unwrap_or_else(|error| panic!("{error}"))
            .node
    };
    assert_eq!(name(Some("host")), "host");
    assert_eq!(name(Some("(none)")), "shardgate");
    assert_eq!(name(None), "shardgate");
}

#[test]
fn what_the_machine_says_comes_last() {
    let folder = Folder::new();
    // Nothing of this machine fits, and the file is wrong in its last section.
    let text = format!("{}[tunnel]\nlisten_port = 0\n", folder.good());
    let elsewhere = Machine::default();
    let error = folder.check_on(&text, &elsewhere).err().unwrap();
    assert!(error.to_string().contains("tunnel.listen_port"), "{error}");
    let error = folder.check_on(&folder.good(), &elsewhere).err().unwrap();
    assert!(error.to_string().contains("does not exist here"), "{error}");
}

#[test]
fn small_mtus_and_interfaces_that_are_down_are_noted() {
    let folder = Folder::new();
    let mut machine = machine();
    assert!(folder.notes(&folder.good(), &machine).warnings.is_empty());
    let down = Interface {
        mtu: Some(1400),
        is_up: Some(false),
    };
    machine.interfaces.insert("wan0".into(), down);
    let notes = folder.notes(&folder.good(), &machine);
    let lines: Vec<_> = notes.warnings.iter().map(|w| folder.shown(w)).collect();
    let [mtu, down] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_names(mtu, 9, "port[1].device", "has MTU 1400", "mtu 1500");
    assert_names(down, 9, "port[1].device", "is down", "ip link set wan0 up");
}

#[test]
fn rights_are_missed_only_where_the_kernel_opens_the_device() {
    let folder = Folder::new();
    let rights = |text: &str, capabilities| {
        let machine = Machine {
            capabilities,
            ..machine()
        };
        let notes = folder.notes(text, &machine);
        notes.rights.map(|error| folder.shown(&error))
    };
    let good = folder.good();
    assert_eq!(rights(&good, Some(0x3000)), None);
    assert_eq!(rights(&good, None), None);
    for one in [0x1000, 0x2000, !0x3000] {
        let error = rights(&good, Some(one)).unwrap();
        assert_names(&error, 5, "port[0].device", "needs rights", "run as root");
    }
    let own = good
        .replace("net_af_packet0,iface=lan0", "net_ring0")
        .replace("net_af_packet1,iface=wan0", "0000:01:00.0");
    assert_eq!(rights(&own, Some(0)), None);
}

#[test]
fn an_interface_whose_mtu_cannot_be_read_is_let_through() {
    let folder = Folder::new();
    assert!(
        folder
            .check(&folder.good().replace("iface=lan0", "iface=old0"))
            .is_ok()
    );
}

#[test]
fn files_that_are_no_configuration_are_named() {
    let folder = Folder::new();
    let file = folder.path.join("x.toml");
    let error = |file: &Path| match read(file) {
        Ok(_) => panic!("accepted"),
        Err(error) => error
            .to_string()
            .replace(&format!("{}/", folder.path.display()), ""),
    };
    assert!(error(&file).starts_with("x.toml: cannot be read (no such file"));
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(error(&file).contains("not UTF-8"));
    std::fs::write(&file, vec![b'#'; 1 << 21]).unwrap();
    assert!(error(&file).contains("longer than 1 MiB"));
    assert!(error(&folder.path).contains("cannot be read (is a directory)"));
}

#[test]
fn one_file_has_one_prefix() {
    let folder = Folder::new();
    let prefix = |text: &str| {
        folder
            .check(text)
            .map(|settings| settings.engine.file_prefix)
            .ok()
    };
    assert!(prefix(&folder.good()).is_some());
    assert_eq!(prefix(&folder.good()), prefix(&folder.good()));
    let other = Folder::new();
    let text = other.good();
    assert_ne!(
        prefix(&folder.good()),
        other.check(&text).map(|s| s.engine.file_prefix).ok()
    );
}
