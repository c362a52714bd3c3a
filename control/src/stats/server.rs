//! The stats endpoint: `GET /stats` and `GET /healthz`, read only.
//!
//! One thread accepts, one thread serves each connection, at most
//! [`STATS_CONNECTIONS_MAX`](limits::STATS_CONNECTIONS_MAX) at once; who comes above that is told
//! 503 at once. Every connection carries one request, whose head is bounded in length and time.
//! The threads start before EAL does, so that they are not pinned to the control lcore.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::http::{Answer, Stream, linger, read_request};
use crate::config::Listen;
use crate::limits;

/// How long a client may go on sending after its answer.
const LINGER: Duration = Duration::from_millis(500);

/// The same for one that was refused: the thread that accepts waits meanwhile.
const REFUSED_LINGER: Duration = Duration::from_millis(10);

/// Where the answers come from.
pub trait Source: Send + Sync + 'static {
    /// The stats document, or why there is none yet.
    fn stats(&self) -> Result<String, String>;

    /// Whether the gateway works, or the reason why not.
    fn health(&self) -> Result<(), String>;
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An endpoint that listens. A Unix socket's file goes with it.
pub struct Server {
    file: Option<PathBuf>,
}

impl Server {
    /// Listens, and serves from threads of its own.
    pub fn start(listen: &Listen, source: Arc<dyn Source>) -> io::Result<Self> {
        let (listener, file) = match listen {
            Listen::Tcp(address) => (Listener::Tcp(TcpListener::bind(address)?), None),
            Listen::Unix(path) => (Listener::Unix(bind_unix(path)?), Some(path.clone())),
        };
        thread::Builder::new()
            .name("stats".into())
            .spawn(move || accept(&listener, &source))?;
        Ok(Self { file })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Nobody can be told, and the next start replaces a dead socket.
            let _ = fs::remove_file(file);
        }
    }
}

/// Binds a Unix socket; one that a killed process left behind is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let is_dead = || {
        let connected = UnixStream::connect(path);
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    if is_socket && is_dead() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn accept(listener: &Listener, source: &Arc<dyn Source>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        };
        let Ok(mut stream) = accepted else {
            // Out of file descriptors, mostly: others have to close first.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= limits::STATS_CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            let answer = Answer::text(503, "too many connections: try again");
            if answer.send(&mut stream).is_ok() {
                linger(stream, REFUSED_LINGER);
            }
            continue;
        }
        let (source, served) = (source.clone(), open.clone());
        let spawned = thread::Builder::new()
            .name("stats-client".into())
            .spawn(move || {
                // A client that goes away is its own business.
                if serve(&mut stream, source.as_ref()).is_ok() {
                    linger(stream, LINGER);
                }
                served.fetch_sub(1, Ordering::Relaxed);
            });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: &mut Stream, source: &dyn Source) -> io::Result<()> {
    let answer = match read_request(stream) {
        Ok(request) => answer(&request.method, &request.path, source),
        Err(Some(status)) => Answer::text(status, "send GET /stats or GET /healthz"),
        Err(None) => return Ok(()),
    };
    answer.send(stream)
}

fn answer(method: &str, path: &str, source: &dyn Source) -> Answer {
    if path != "/stats" && path != "/healthz" {
        return Answer::text(404, "there is /stats and /healthz");
    }
    if method != "GET" {
        return Answer::text(405, "read only: use GET");
    }
    if path == "/healthz" {
        return match source.health() {
            Ok(()) => Answer::text(200, "ok"),
            Err(reason) => Answer::text(503, &reason),
        };
    }
    match source.stats() {
        Ok(body) => Answer {
            status: 200,
            content_type: "application/json",
            body,
        },
        Err(reason) => Answer::text(503, &reason),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::super::http;
    use super::*;

    struct Fixed(Mutex<Result<(), String>>);

    impl Source for Fixed {
        fn stats(&self) -> Result<String, String> {
            self.health().map(|()| "{\"a\":1}\n".into())
        }

        fn health(&self) -> Result<(), String> {
            self.0.lock().unwrap().clone()
        }
    }

    fn server() -> (Server, Arc<Fixed>, PathBuf) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardgate-stats-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let source = Arc::new(Fixed(Mutex::new(Ok(()))));
        let server = Server::start(&Listen::Unix(path.clone()), source.clone()).unwrap();
        (server, source, path)
    }

    fn ask(path: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn what_is_there_and_what_is_not() {
        let (_server, source, path) = server();
        let get = |what: &str| {
            let stream = UnixStream::connect(&path).unwrap();
            http::get(&mut Stream::Unix(stream), what).unwrap()
        };
        assert_eq!(get("/stats"), (200, "{\"a\":1}\n".into()));
        assert_eq!(get("/stats?pretty"), (200, "{\"a\":1}\n".into()));
        assert_eq!(get("/healthz"), (200, "ok\n".into()));
        assert_eq!(get("/").0, 404);
        *source.0.lock().unwrap() = Err("lcore 1 has not looped for 2 s".into());
        assert_eq!(
            get("/healthz"),
            (503, "lcore 1 has not looped for 2 s\n".into())
        );
        assert_eq!(get("/stats").0, 503);
        let post = ask(&path, "POST /stats HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        assert!(
            post.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
            "{post}"
        );
        assert!(post.contains("\r\nAllow: GET\r\n"), "{post}");
        assert!(ask(&path, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_request_is_bounded_in_length_and_time() {
        let (_server, _, path) = server();
        let long = format!(
            "GET /stats HTTP/1.1\r\nX: {}",
            "x".repeat(limits::STATS_REQUEST_BYTES_MAX)
        );
        assert!(ask(&path, &long).starts_with("HTTP/1.1 431 "));
        let started = Instant::now();
        assert!(ask(&path, "GET /stats").starts_with("HTTP/1.1 408 "));
        assert!(started.elapsed() < limits::STATS_TIMEOUT + Duration::from_secs(1));
    }

    #[test]
    fn connections_are_bounded_and_come_back() {
        let (_server, _, path) = server();
        let idle: Vec<_> = (0..limits::STATS_CONNECTIONS_MAX)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        let answer = ask(&path, "GET /stats HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        drop(idle);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !ask(&path, "GET /stats HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 ") {
            assert!(Instant::now() < deadline, "the places are not free again");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let (first, source, path) = server();
        let listen = Listen::Unix(path.clone());
        assert!(Server::start(&listen, source.clone()).is_err());
        drop(first);
        assert!(!path.exists());
        // A socket file that nobody listens on.
        drop(UnixListener::bind(&path).unwrap());
        let second = Server::start(&listen, source.clone()).unwrap();
        drop(second);
        fs::write(&path, "not a socket").unwrap();
        assert!(Server::start(&listen, source).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn tcp_serves_the_same() {
        let source = Arc::new(Fixed(Mutex::new(Ok(()))));
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let _server = Server::start(&Listen::Tcp(free), source).unwrap();
        let stream = TcpStream::connect(free).unwrap();
        assert_eq!(
            http::get(&mut Stream::Tcp(stream), "/healthz").unwrap().0,
            200
        );
    }
}
