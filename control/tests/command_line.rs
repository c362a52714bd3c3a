//! The program as people use it: results, exit codes, and what it says when something is wrong.
//! No DPDK device is needed, and no right beyond a user's.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardgate-cli-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardgate"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("RUST_LOG");
    command
}

fn shardgate(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The one line of a failure; nothing may stand on stdout.
fn error(output: &Output, exit_code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(exit_code), "{stderr}");
    assert_eq!(stdout(output), "", "an error has no result");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "more than one line:\n{stderr}");
    assert!(stderr.starts_with("shardgate: "), "{stderr}");
    lines[0].to_owned()
}

fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{line}\nshould say {part}");
    }
}

fn keygen(folder: &Folder, name: &str) -> String {
    let file = folder.path(name);
    assert!(
        shardgate(&["keygen", "--out", text(&file)])
            .status
            .success()
    );
    stdout(&shardgate(&["pubkey", text(&file)]))
        .trim()
        .to_owned()
}

/// A configuration that passes every check on any machine: its devices are its own.
fn good(folder: &Folder) -> String {
    keygen(folder, "gw-a.key");
    let peer = keygen(folder, "gw-b.key");
    format!(
        "\
[node]
name = \"gw-a\"
[dpdk]
hugepages = \"off\"
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
name = \"gw-b\"
public_key = \"{peer}\"
[[peer.path]]
port = \"wan0\"
remote = \"192.0.2.2:4600\"
"
    )
}

#[test]
fn a_wrong_command_line_exits_with_2_and_one_line() {
    for (args, parts) in [
        (&[][..], &["no command", "--help"][..]),
        (&["fly"], &["unrecognized subcommand 'fly'", "--help"]),
        (&["run"], &["--config <FILE>", "--help"]),
        (&["run", "--confg", "x"], &["--confg", "--help"]),
        (
            &["stats", "--json", "--watch"],
            &["cannot be used with", "--help"],
        ),
        (
            &["stats", "--url", "nowhere"],
            &["--url", "\"nowhere\"", "127.0.0.1:9460"],
        ),
        (&["emulate", "--left", "x"], &["--right", "--help"]),
        (
            &["emulate", "--left", "x", "--right", "y", "--loss", "z"],
            &["'z'", "--loss"],
        ),
        (&["hugepages"], &["--help"]),
        (&["hugepages", "reserve", "lots"], &["lots"]),
        (&["hugepages", "reserve", "0"], &["512M"]),
    ] {
        assert_says(&error(&shardgate(args), 2), parts);
    }
}

#[test]
fn help_and_version_are_results() {
    let help = shardgate(&["--help"]);
    assert!(help.status.success());
    for name in ["run", "keygen", "pubkey", "stats", "emulate", "hugepages"] {
        assert!(stdout(&help).contains(&format!("  {name} ")), "{name}");
    }
    let version = shardgate(&["--version"]);
    assert_eq!(
        stdout(&version),
        format!("shardgate {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn keys_are_made_private_and_never_overwritten() {
    let folder = Folder::new();
    let file = folder.path("gw.key");
    let made = shardgate(&["keygen", "--out", text(&file)]);
    assert!(made.status.success());
    let public = shardgate(&["pubkey", text(&file)]);
    assert_eq!(stdout(&made), stdout(&public));
    assert_eq!(stdout(&made).len(), 45);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let before = fs::read(&file).unwrap();
    assert_eq!(before.len(), 45);

    let line = error(&shardgate(&["keygen", "--out", text(&file)]), 1);
    assert_says(&line, &["gw.key", "file exists", "name another file"]);
    assert_eq!(fs::read(&file).unwrap(), before);

    let nowhere = folder.path("no/such/folder.key");
    let line = error(&shardgate(&["keygen", "--out", text(&nowhere)]), 1);
    assert_says(&line, &["folder.key", "no such file"]);
}

#[test]
fn pubkey_reads_a_file_or_standard_input() {
    let folder = Folder::new();
    let file = folder.path("gw.key");
    let private = stdout(&shardgate(&["keygen"])).to_owned();
    assert_eq!(private.len(), 45);
    fs::write(&file, &private).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let from_file = shardgate(&["pubkey", text(&file)]);
    assert!(from_file.status.success());

    let mut child = command(&["pubkey"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(private.as_bytes())
        .unwrap();
    let from_stdin = child.wait_with_output().unwrap();
    assert_eq!(stdout(&from_stdin), stdout(&from_file));
    assert_eq!(stdout(&from_file).trim().len(), 44);
    assert_ne!(stdout(&from_file), private);

    assert_says(
        &error(&shardgate(&["pubkey"]), 2),
        &["standard input", "44 characters"],
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let line = error(&shardgate(&["pubkey", text(&file)]), 2);
    assert_says(&line, &["gw.key", "mode 0644", "chmod 600"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let line = error(&without_rights(&["pubkey", text(&file)]), 2);
    assert_says(&line, &["gw.key", "permission denied", "owner"]);
    assert!(!line.contains("keygen"), "{line}");
    fs::remove_file(&file).unwrap();
    let line = error(&shardgate(&["pubkey", text(&file)]), 2);
    assert_says(&line, &["gw.key", "no such file", "keygen"]);
}

#[test]
fn what_is_no_text_is_no_key() {
    let folder = Folder::new();
    let file = folder.path("noise");
    for length in [32, 200, 5000] {
        fs::write(&file, vec![0xfe; length]).unwrap();
        let input = fs::File::open(&file).unwrap();
        let output = command(&["pubkey"]).stdin(input).output().unwrap();
        let line = error(&output, 2);
        assert_says(&line, &["standard input", "32 bytes in base64", "keygen"]);
    }
}

#[test]
fn a_private_key_that_nobody_reads_is_a_failure() {
    let parts = ["standard output", "lost", "--out"];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = command(&["keygen"]).stdout(writer).output().unwrap();
    assert_says(&error(&unread, 1), &parts);
    let closed = Command::new("sh")
        .args([
            "-c",
            "exec \"$0\" keygen >&-",
            env!("CARGO_BIN_EXE_shardgate"),
        ])
        .output()
        .unwrap();
    assert_says(&error(&closed, 1), &parts);
}

#[test]
fn check_prints_the_topology_and_touches_nothing() {
    let folder = Folder::new();
    let file = folder.write("gw-a.toml", &good(&folder));
    let output = shardgate(&["run", "--config", text(&file), "--check"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in ["gw-a", "lan0", "wan0", "gw-b", "127.0.0.1:9460", "pools"] {
        assert!(
            stdout(&output).contains(part),
            "{part}:\n{}",
            stdout(&output)
        );
    }
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn check_says_what_becomes_of_a_state_file_and_leaves_it_alone() {
    let folder = Folder::new();
    let good = good(&folder);
    let checked = |predictor: &str| {
        let tunnel =
            format!("[tunnel]\npredictor = \"{predictor}\"\nstate_file = \"learned.state\"\n");
        let file = folder.write("gw-a.toml", &format!("{good}{tunnel}"));
        let output = shardgate(&["run", "--config", text(&file), "--check"]);
        assert!(output.status.success(), "{output:?}");
        stdout(&output).to_owned()
    };
    let line = |report: &str, begins: &str| -> Option<String> {
        let mut lines = report.lines();
        lines
            .find(|line| line.starts_with(begins))
            .map(str::to_owned)
    };
    let fresh = checked("model");
    assert_says(
        &line(&fresh, "state ").unwrap(),
        &["learned.state", "nothing learned yet"],
    );
    assert_eq!(line(&fresh, "note "), None);
    assert!(!folder.path("learned.state").exists());
    let unused = checked("rack");
    assert_eq!(line(&unused, "state "), None);
    assert_says(
        &line(&unused, "note ").unwrap(),
        &["tunnel.state_file", "not used", "\"model\""],
    );
    let damaged = folder.write("learned.state", "shardgate-state\u{1}?");
    assert_says(
        &line(&checked("model"), "note ").unwrap(),
        &["tunnel.state_file", "is damaged", "cold", ".refused"],
    );
    assert!(damaged.exists(), "a check changes nothing");
}

#[test]
fn check_says_where_decisions_go_and_leaves_that_alone() {
    let folder = Folder::new();
    let config = format!(
        "{}[stats]\ndecisions_file = \"plans.jsonl\"\n",
        good(&folder)
    );
    let file = folder.write("gw-a.toml", &config);
    let output = shardgate(&["run", "--config", text(&file), "--check"]);
    let parts = ["\ndecisions ", "/plans.jsonl, at most 60 lines a minute"];
    assert_says(stdout(&output), &parts);
    assert!(
        !folder.path("plans.jsonl").exists(),
        "a check changes nothing"
    );
}

#[test]
fn the_memory_that_check_shows_can_be_followed() {
    let folder = Folder::new();
    let good = good(&folder);
    let report = |tunnel: &str| {
        let file = folder.write("gw-a.toml", &format!("{good}[tunnel]\n{tunnel}\n"));
        stdout(&shardgate(&["run", "--config", text(&file), "--check"])).to_owned()
    };
    let shown = report("retention_mb = 48");
    let pools: Vec<_> = shown.lines().filter(|l| l.contains(" mbufs of ")).collect();
    assert!(!pools.is_empty(), "{shown}");
    for pool in pools {
        // NAME COUNT mbufs of BYTES bytes, COST each in memory, SUM MiB
        let words: Vec<_> = pool.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        let (count, bytes, cost, sum) = (number(1), number(4), number(6), number(10));
        assert!(cost > bytes, "{pool}");
        assert_eq!((count * cost).div_ceil(1 << 20), sum, "{pool}");
    }
    assert_says(&shown, &["\nretained up to 48 MiB for each stream, "]);
    assert!(!report("retransmit = false").contains("retained"));
}

#[test]
fn a_wrong_configuration_exits_with_2_and_names_file_line_key_and_remedy() {
    let folder = Folder::new();
    let good = good(&folder);
    let own = stdout(&shardgate(&["pubkey", text(&folder.path("gw-a.key"))]))
        .trim()
        .to_owned();
    let peer = stdout(&shardgate(&["pubkey", text(&folder.path("gw-b.key"))]))
        .trim()
        .to_owned();
    let own_key = format!("public_key = \"{own}\"");
    let peer_key = format!("public_key = \"{peer}\"");
    for (old, new, parts) in [
        (
            "hugepages = \"off\"",
            "hugepagse = \"off\"",
            &[":4: ", "dpdk.hugepagse", "did you mean `hugepages`?"][..],
        ),
        (
            "192.0.2.1/24",
            "192.0.2/24",
            &[":13: ", "port[1].address", "10.9.0.1/24"],
        ),
        (
            "net_ring1",
            "net_ring0",
            &[":11: ", "port[1].device", "own device"],
        ),
        (
            "name = \"wan0\"",
            "name = \"lan0\"",
            &[":10: ", "port[1].name", "own name"],
        ),
        (
            "net_ring0",
            "net_af_packet0,iface=no-such-if0",
            &[":7: ", "port[0].device", "ip link"],
        ),
        (
            "hugepages = \"off\"",
            "lcores = \"0-200\"",
            &["dpdk.lcores", "lcore", "127"],
        ),
        (
            "hugepages = \"off\"",
            "lcores = \"0\"\n[pipeline]\nrx_lcores = [5]",
            &["pipeline.rx_lcores", "lcore 5"],
        ),
        (
            "hugepages = \"off\"",
            "lcores = \"0-2\"\n[pipeline]\nrx_lcores = [1]\ncrypto_lcores = [1, 2]",
            &["pipeline.crypto_lcores", "lcore 1 is already"],
        ),
        (
            "[node]",
            "[tunnel]\npredictor = \"oracle\"\n[node]",
            &[":2: ", "tunnel.predictor", "\"model\""],
        ),
        (
            &peer_key,
            &own_key,
            &["peer[0].public_key", "own public key"],
        ),
        (
            "gw-a",
            "gw-x",
            &["node.private_key_file", "gw-x.key", "keygen"],
        ),
    ] {
        assert!(good.contains(old), "{old}");
        let file = folder.write("gw-a.toml", &good.replacen(old, new, 1));
        // The same with and without --check: nothing is started.
        for check in [&["--check"][..], &[]] {
            let args = [&["run", "--config", text(&file)], check].concat();
            let line = error(&shardgate(&args), 2);
            assert_says(&line, parts);
            assert_says(&line, &["gw-a.toml"]);
        }
    }
    let line = error(
        &shardgate(&["run", "--config", text(&folder.path("none.toml"))]),
        2,
    );
    assert_says(&line, &["none.toml", "no such file"]);
}

#[test]
fn a_stats_address_in_use_is_a_failure_that_names_the_key() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text_ = format!("{}[stats]\nlisten = \"{address}\"\n", good(&folder));
    let file = folder.write("gw-a.toml", &text_);
    let line = error(&shardgate(&["run", "--config", text(&file)]), 2);
    assert_says(
        &line,
        &[
            "gw-a.toml:21: stats.listen",
            &address.to_string(),
            "in use",
            "another gateway?",
        ],
    );
    assert!(!line.contains("os error"), "{line}");
}

#[test]
fn memory_below_the_sum_of_the_pools_is_refused_with_the_sum() {
    let folder = Folder::new();
    let small = good(&folder).replace("\"off\"", "\"off\"\nmemory_mb = 16");
    let file = folder.write("gw-a.toml", &small);
    let line = error(&shardgate(&["run", "--config", text(&file), "--check"]), 2);
    assert_says(
        &line,
        &["gw-a.toml:5: dpdk.memory_mb", "16 MiB", "\"auto\""],
    );
    let sum = line.split("whose sum is ").nth(1).unwrap();
    let sum = sum.split(' ').next().unwrap();
    let enough = small.replace("memory_mb = 16", &format!("memory_mb = {sum}"));
    folder.write("gw-a.toml", &enough);
    let output = shardgate(&["run", "--config", text(&file), "--check"]);
    assert!(output.status.success(), "{output:?}");
}

/// The program without any capability, whoever runs the test.
fn without_rights(args: &[&str]) -> Output {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        return shardgate(args);
    }
    let program = env!("CARGO_BIN_EXE_shardgate");
    let drop = ["--bounding-set=-all", "--inh-caps=-all", program];
    Command::new("setpriv")
        .args([&drop, args].concat())
        .stdin(Stdio::null())
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

#[test]
fn a_folder_that_takes_no_file_is_told_by_the_check() {
    let folder = Folder::new();
    let closed = folder.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    for (section, status) in [
        ("[stats]\nrecord_file", Some(2)),
        ("[stats]\ndecisions_file", Some(2)),
        ("[tunnel]\npredictor = \"model\"\nstate_file", Some(0)),
    ] {
        let config = format!("{}{section} = \"closed/x\"\n", good(&folder));
        let file = folder.write("gw-a.toml", &config);
        let check = without_rights(&["run", "--config", text(&file), "--check"]);
        assert_eq!(check.status.code(), status, "{check:?}");
        let said = [check.stdout, check.stderr].concat();
        let parts = ["closed/x: permission denied", "in a folder that can be"];
        assert_says(&String::from_utf8(said).unwrap(), &parts);
        for key in ["gw-a.key", "gw-b.key"] {
            fs::remove_file(folder.path(key)).unwrap();
        }
    }
}

#[test]
fn a_device_of_the_kernel_needs_rights() {
    let folder = Folder::new();
    let tap = good(&folder).replace("net_ring1", "net_tap0");
    let file = folder.write("gw-a.toml", &tap);
    let run = ["run", "--config", text(&file)];
    let parts = ["net_tap0", "needs rights", "run as root", "CAP_NET_ADMIN"];
    let line = error(&without_rights(&run), 2);
    assert_says(&line, &parts);
    assert_says(&line, &["gw-a.toml:11: port[1].device"]);
    let check = without_rights(&["run", "--config", text(&file), "--check"]);
    assert!(check.status.success(), "{check:?}");
    let note = stdout(&check).lines().find(|l| l.starts_with("note "));
    assert_says(note.unwrap(), &parts);
    let emulate = ["emulate", "--left", "net_tap0", "--right", "net_null0"];
    assert_says(&error(&without_rights(&emulate), 2), &parts);
}

#[test]
fn a_device_that_another_process_uses_is_refused_before_it_is_touched() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let folder = Folder::new();
    let name = format!("sgt{}", std::process::id());
    let device = format!("net_tap0,iface={name}");
    let tap = good(&folder).replace("net_ring1", &device);
    let file = folder.write("gw-a.toml", &tap);
    let lock = SocketAddr::from_abstract_name(format!("shardgate-device/{name}")).unwrap();
    let _held = UnixListener::bind_addr(&lock).unwrap();
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        // Missing rights are told first.
        return;
    }
    let line = error(&shardgate(&["run", "--config", text(&file)]), 2);
    assert_says(
        &line,
        &["gw-a.toml:11: port[1].device", &name, "in use", "stop that"],
    );
    let emulate = ["emulate", "--left", "net_null0", "--right", &device];
    let line = error(&shardgate(&emulate), 2);
    assert_says(&line, &["--right", &name, "in use"]);
}

#[test]
fn stats_say_where_they_looked() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let line = error(&shardgate(&["stats", "--url", &free]), 1);
    assert_says(
        &line,
        &[&free, "connection refused", "is the gateway running"],
    );

    let folder = Folder::new();
    let socket = folder.path("none.sock");
    let config = format!("[stats]\nlisten = \"unix:{}\"\n", text(&socket));
    let file = folder.write("gw.toml", &config);
    let line = error(&shardgate(&["stats", "--config", text(&file)]), 1);
    assert_says(&line, &["none.sock", "no such file"]);
    let line = error(
        &shardgate(&["stats", "--config", text(&folder.path("none.toml"))]),
        2,
    );
    assert_says(&line, &["none.toml", "no such file"]);
}

/// Serves one answer on a port of its own.
fn serve(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    });
    address
}

#[test]
fn stats_print_one_document_or_a_table() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\
        {\"schema_version\":1,\"node\":{\"name\":\"gw-a\",\"version\":\"1\",\"uptime_s\":3},\"drops\":{\"no_path\":2}}\n";
    let json = shardgate(&["stats", "--json", "--url", &serve(ANSWER)]);
    assert!(json.status.success());
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["node"]["name"], "gw-a");

    let url = format!("http://{}/stats", serve(ANSWER));
    let table = shardgate(&["stats", "--url", &url]);
    assert_eq!(
        stdout(&table),
        "gw-a  shardgate 1  up 3 s\n\ndrops    count  per s\nno_path      2      -\n"
    );

    // By name, whichever of its addresses answers.
    let port = serve(ANSWER).split_once(':').unwrap().1.to_owned();
    let named = shardgate(&["stats", "--url", &format!("http://localhost:{port}")]);
    assert_eq!(stdout(&named), stdout(&table));

    let line = error(&shardgate(&["stats", "--url", &serve("SSH-2.0-x\r\n")]), 1);
    assert_says(&line, &["not a stats endpoint"]);
    let line = error(
        &shardgate(&["stats", "--url", &serve("HTTP/1.1 503 X\r\n\r\nstarting\n")]),
        1,
    );
    assert_says(&line, &["503", "starting", "once more"]);
}

#[test]
fn what_is_no_stats_document_is_not_shown_as_one() {
    for (body, parts) in [
        ("hello", &["no stats document", "stats.listen"][..]),
        ("{}", &["no stats document", "stats.listen"]),
        ("[]", &["no stats document"]),
        ("{\"schema_version\":\"1\"}", &["no stats document"]),
    ] {
        for json in [&["--json"][..], &[]] {
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
            let address = serve(answer.leak());
            let args = [&["stats", "--url", &address][..], json].concat();
            let line = error(&shardgate(&args), 1);
            assert_says(&line, parts);
            assert_says(&line, &[&address]);
        }
    }
    // Of another version the document is good, but not for this table.
    const NEWER: &str = "HTTP/1.1 200 OK\r\n\r\n{\"schema_version\":2}";
    let json = shardgate(&["stats", "--json", "--url", &serve(NEWER)]);
    assert_eq!(stdout(&json), "{\"schema_version\":2}\n");
    let line = error(&shardgate(&["stats", "--url", &serve(NEWER)]), 1);
    assert_says(&line, &["schema_version 2", "--json"]);

    let page = format!("HTTP/1.1 404 X\r\n\r\n<html>\n{}", "x".repeat(1000));
    let line = error(&shardgate(&["stats", "--url", &serve(page.leak())]), 1);
    assert_says(&line, &["404", "<html>", "another program", "stats.listen"]);
    assert!(line.len() < 250, "{line}");
}

#[test]
fn a_name_that_nobody_has_is_not_waited_for() {
    let line = error(
        &shardgate(&["stats", "--url", "no-such-host.invalid:9460"]),
        1,
    );
    assert_says(&line, &["no-such-host.invalid:9460", "127.0.0.1:9460"]);
    for url in [
        "localhost",
        "localhost:0",
        "localhost:x",
        ":9460",
        "a b:9460",
    ] {
        let line = error(&shardgate(&["stats", "--url", url]), 2);
        assert_says(&line, &["--url", url, "127.0.0.1:9460"]);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [&["--help"][..], &["hugepages", "status"]] {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(output.status.success(), "{args:?}: {stderr}");
    }
}

#[test]
fn an_emulator_between_nothing_names_what_is_missing() {
    let left = "net_af_packet0,iface=no-such-if0";
    let right = "net_af_packet1,iface=no-such-if1";
    for (args, parts) in [
        (
            &["--left", left, "--right", right][..],
            &["no-such-if0"][..],
        ),
        (
            &["--left", left, "--right", left],
            &["net_af_packet0", "two devices"],
        ),
        (
            &["--left", left, "--right", right, "--loss", "1.5"],
            &["loss", "1.5"],
        ),
        (
            &["--left", left, "--right", right, "--profile", "x"],
            &["FILE:NAME"],
        ),
        (
            &["--left", left, "--right", right, "--profile", "no.toml:x"],
            &["no.toml"],
        ),
    ] {
        let line = error(&shardgate(&[&["emulate"], args].concat()), 2);
        assert_says(&line, parts);
    }
    let args = [
        "emulate",
        "--left",
        "net_null0",
        "--right",
        "net_null1",
        "--seconds=-1",
    ];
    assert_says(&error(&shardgate(&args), 2), &["--seconds"]);
}
