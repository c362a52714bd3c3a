use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use proptest::prelude::*;

use super::super::client;
use super::*;

/// What the network may add to a bound in time.
const SLACK: Duration = Duration::from_secs(1);

struct Fixed {
    health: Mutex<Result<(), String>>,
    document: String,
}

impl Source for Fixed {
    fn stats(&self) -> Result<String, String> {
        self.health().map(|()| self.document.clone())
    }

    fn decisions(&self) -> Result<String, String> {
        self.health()
            .map(|()| format!("[{}]", self.document.trim()))
    }

    fn health(&self) -> Result<(), String> {
        self.health.lock().unwrap().clone()
    }
}

fn fixed(document: &str) -> Arc<Fixed> {
    Arc::new(Fixed {
        health: Mutex::new(Ok(())),
        document: document.into(),
    })
}

fn server_of(source: Arc<Fixed>) -> (Server, PathBuf) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("shardgate-stats-{}-{number}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let server = Server::start(&Listen::Unix(path.clone()), source).unwrap();
    (server, path)
}

fn server() -> (Server, Arc<Fixed>, PathBuf) {
    let source = fixed("{\"a\":1}\n");
    let (server, path) = server_of(source.clone());
    (server, source, path)
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SLACK * 10)).unwrap();
    stream.set_write_timeout(Some(SLACK * 10)).unwrap();
    stream
}

/// All that comes until the connection ends; panics if it does not end. Who is refused before all
/// is read sees a reset behind the answer.
fn rest(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "it does not end");
    }
    String::from_utf8(answer).unwrap()
}

/// Sends all at once, as much as is taken, and says that no more comes.
fn ask(path: &Path, request: &[u8]) -> String {
    let mut stream = connect(path);
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    rest(&mut stream)
}

fn get(path: &Path, what: &str) -> (u16, String) {
    client::get(&Listen::Unix(path.into()), what).unwrap()
}

fn works(path: &Path) -> bool {
    get(path, "/healthz") == (200, "ok\n".into())
}

#[test]
fn what_is_there_and_what_is_not() {
    let (_server, source, path) = server();
    assert_eq!(get(&path, "/stats"), (200, "{\"a\":1}\n".into()));
    assert_eq!(get(&path, "/stats?pretty"), (200, "{\"a\":1}\n".into()));
    assert_eq!(get(&path, "/decisions"), (200, "[{\"a\":1}]".into()));
    assert!(works(&path));
    let nothing = get(&path, "/decision");
    assert_eq!(nothing.0, 404);
    assert!(nothing.1.contains("/stats, /decisions and /healthz"));
    *source.health.lock().unwrap() = Err("lcore 1 has not looped for 2 s".into());
    assert_eq!(
        get(&path, "/healthz"),
        (503, "lcore 1 has not looped for 2 s\n".into())
    );
    assert_eq!(get(&path, "/stats").0, 503);
    assert_eq!(get(&path, "/decisions").0, 503);
}

#[test]
fn it_is_read_only() {
    let (_server, _, path) = server();
    let post = ask(&path, b"POST /stats HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert!(
        post.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
        "{post}"
    );
    assert!(post.contains("\r\nallow: GET, HEAD\r\n"), "{post}");
    // A body that is announced and does not come is not waited for.
    let mut stream = connect(&path);
    let started = Instant::now();
    let head = b"PUT /stats HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head).unwrap();
    assert!(rest(&mut stream).starts_with("HTTP/1.1 405 "));
    assert!(started.elapsed() < SLACK);
}

#[test]
fn head_is_get_without_the_body() {
    let (_server, _, path) = server();
    let head = ask(&path, b"HEAD /stats HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-length: 8\r\n"), "{head}");
    assert!(
        head.contains("\r\ncontent-type: application/json\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_connection_carries_one_request() {
    let (_server, _, path) = server();
    let mut stream = connect(&path);
    let request = b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(&request.repeat(2)).unwrap();
    let answer = rest(&mut stream);
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[test]
fn a_head_is_bounded_in_length() {
    let (_server, _, path) = server();
    let long = "x".repeat(limits::STATS_REQUEST_BYTES_MAX);
    let header = ask(
        &path,
        format!("GET /stats HTTP/1.1\r\nX: {long}").as_bytes(),
    );
    assert!(header.starts_with("HTTP/1.1 431 "), "{header}");
    let target = ask(&path, format!("GET /{long}").as_bytes());
    assert!(target.starts_with("HTTP/1.1 431 "), "{target}");
    let many = "X: y\r\n".repeat(1000);
    let many = ask(&path, format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
    // One that just fits.
    let fits = "x".repeat(limits::STATS_REQUEST_BYTES_MAX - 100);
    let fits = format!("GET /stats HTTP/1.1\r\nX: {fits}\r\n\r\n");
    assert!(ask(&path, fits.as_bytes()).starts_with("HTTP/1.1 200 "));
    assert!(works(&path));
}

#[test]
fn a_head_is_bounded_in_time() {
    let (_server, _, path) = server();
    let started = Instant::now();
    let mut silent = connect(&path);
    let mut slow = connect(&path);
    slow.write_all(b"GET /stats HTTP/1.1\r\nX: ").unwrap();
    // Each byte comes in time, and the head never does.
    while slow.write_all(b"y").is_ok() {
        assert!(started.elapsed() < limits::STATS_TIMEOUT + SLACK);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(started.elapsed() >= limits::STATS_TIMEOUT);
    assert_eq!(rest(&mut slow), "");
    assert_eq!(rest(&mut silent), "");
    assert!(started.elapsed() < limits::STATS_TIMEOUT + SLACK);
    assert!(works(&path));
}

#[test]
fn the_ninth_connection_waits_for_a_place() {
    let (_server, _, path) = server();
    let started = Instant::now();
    let mut idle: Vec<_> = (0..limits::STATS_CONNECTIONS_MAX)
        .map(|_| connect(&path))
        .collect();
    let mut ninth = connect(&path);
    ninth.write_all(b"GET /stats HTTP/1.1\r\n\r\n").unwrap();
    let soon = Duration::from_millis(300);
    ninth.set_read_timeout(Some(soon)).unwrap();
    let early = ninth.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    // A place is free as soon as somebody goes.
    drop(idle.pop());
    ninth.set_read_timeout(Some(SLACK * 10)).unwrap();
    assert!(rest(&mut ninth).starts_with("HTTP/1.1 200 "));
    assert!(
        started.elapsed() < limits::STATS_TIMEOUT,
        "others timed out"
    );
    // And at the latest when the silent ones are dropped.
    idle.push(connect(&path));
    assert!(ask(&path, b"GET /stats HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
    assert!(started.elapsed() < limits::STATS_TIMEOUT + SLACK);
}

#[test]
fn who_does_not_take_its_answer_is_dropped() {
    let (_server, path) = server_of(fixed(&"x".repeat(16 << 20)));
    let started = Instant::now();
    let stuck: Vec<_> = (0..limits::STATS_CONNECTIONS_MAX)
        .map(|_| {
            let mut stream = connect(&path);
            stream.write_all(b"GET /stats HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    assert!(ask(&path, b"GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
    let waited = started.elapsed();
    assert!(waited >= limits::STATS_CONNECTION_TIME, "{waited:?}");
    assert!(waited < limits::STATS_CONNECTION_TIME + SLACK, "{waited:?}");
    drop(stuck);
}

#[test]
fn what_is_not_http_gets_no_document() {
    let (_server, _, path) = server();
    for wrong in [
        &b""[..],
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /stats\r\n\r\n",
        b"GET  /stats HTTP/1.1\r\n\r\n",
        b"GET stats HTTP/1.1\r\n\r\n",
        b"GET /stats HTTP/2\r\n\r\n",
        b"GET /stats HTTP/1.1 x\r\n\r\n",
        b"GET /stats HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /stats HTTP/1.1\r\nX: \0\r\n\r\n",
        b"POST /stats HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /stats HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"nonsense\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff /\n\n",
        &[0; 4096],
        &[0xff; 100_000],
    ] {
        let answer = ask(&path, wrong);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{wrong:?}: {answer}"
        );
        assert!(works(&path), "after {wrong:?}");
    }
    assert!(ask(&path, b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn random_bytes_do_no_harm() {
    let (_server, _, path) = server();
    let mutated = (0..34_usize, any::<u8>()).prop_map(|(at, byte)| {
        let mut request = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        request[at] = byte;
        request
    });
    let bytes = prop_oneof![prop::collection::vec(any::<u8>(), 0..20_000), mutated];
    proptest!(|(bytes in bytes)| {
        let answer = ask(&path, &bytes);
        prop_assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
        prop_assert!(works(&path));
    });
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let (first, source, path) = server();
    let listen = Listen::Unix(path.clone());
    assert!(Server::start(&listen, source.clone()).is_err());
    assert!(works(&path));
    drop(first);
    assert!(!path.exists());
    // A socket file that nobody listens on.
    drop(UnixListener::bind(&path).unwrap());
    let second = Server::start(&listen, source.clone()).unwrap();
    assert!(works(&path));
    drop(second);
    fs::write(&path, "not a socket").unwrap();
    assert!(Server::start(&listen, source).is_err());
    fs::remove_file(&path).unwrap();
}

#[test]
fn its_end_is_the_end_of_its_connections() {
    let (server, _, path) = server();
    let mut open = connect(&path);
    assert!(works(&path));
    let started = Instant::now();
    drop(server);
    assert_eq!(rest(&mut open), "");
    assert!(started.elapsed() < SLACK);
}

#[test]
fn tcp_serves_the_same() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listen = Listen::Tcp(free);
    let server = Server::start(&listen, fixed("{}\n")).unwrap();
    assert_eq!(client::get(&listen, "/healthz").unwrap().0, 200);
    assert_eq!(
        client::get(&listen, "/stats").unwrap(),
        (200, "{}\n".into())
    );
    let mut garbage = TcpStream::connect(free).unwrap();
    garbage.write_all(&[0xff; 100_000]).unwrap();
    assert_eq!(client::get(&listen, "/healthz").unwrap().0, 200);
    drop(server);
    let gone = client::get(&listen, "/healthz").unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
}
